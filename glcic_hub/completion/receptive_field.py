"""Which part of a picture the completion network needs to see for a hole, layer by layer; integer geometry alone.

An output pixel depends on a bounded part of the picture (sec. 3.2). So a hole is completed exactly by the region
around it, and of each layer's output only what later layers need for the hole has to be computed.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import scipy.ndimage
from numpy.typing import NDArray

from glcic_hub.networks.table_2 import PAPER_WIDTH, STRIDE, TABLE_2, Row

BLOCK = 16
"""Holes are looked for in blocks of so many pixels a side."""

REACH = 150
"""Pixels that an output pixel sees at most to the right and below; to the left and above it may be three more."""

MAX_SIDE = 1024
"""Larger boxes are cut into parts, which bounds the memory that a region takes."""


HOPE = 1.3
"""A cut that makes the cost so many times larger is not followed up by further cuts."""


class Span(NamedTuple):
    """The positions from `begin` up to, not including, `end`, along one axis."""

    begin: int
    end: int

    @property
    def length(self) -> int:
        """How many positions there are."""
        return self.end - self.begin


class Box(NamedTuple):
    """A rectangle of pixels: rows from `top` up to `bottom`, columns from `left` up to `right`, ends not included."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """What cuts the box out of an array (H, W, ...)."""
        return slice(self.top, self.bottom), slice(self.left, self.right)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.bottom - self.top, self.right - self.left

    def grown(self, margin: int, height: int, width: int) -> Box:
        """The box with a margin around it, as far as that lies in a picture."""
        return self._replace(
            top=max(self.top - margin, 0), left=max(self.left - margin, 0),
            bottom=min(self.bottom + margin, height), right=min(self.right + margin, width),
        )  # fmt: skip

    def common(self, other: Box) -> Box:
        """What two boxes have in common; of no height or width if that is nothing."""
        top, left = max(self.top, other.top), max(self.left, other.left)
        return Box(top, left, max(top, min(self.bottom, other.bottom)), max(left, min(self.right, other.right)))

    def shifted(self, down: int, right: int) -> Box:
        """The box so many pixels further down and to the right."""
        return Box(self.top + down, self.left + right, self.bottom + down, self.right + right)

    @property
    def rows(self) -> Span:
        """The rows."""
        return Span(self.top, self.bottom)

    @property
    def columns(self) -> Span:
        """The columns."""
        return Span(self.left, self.right)


class LayerSpan(NamedTuple):
    """What a layer needs along one axis, in positions of its input."""

    needed: Span  # may lie beyond the picture, where the network pads with zeros
    inside: Span  # the part of it in the picture
    output: Span  # what of the layer's output is wanted, in positions of its output


def input_span(row: Row, output: Span) -> Span:
    """What of a layer's input a span of its output depends on; it may lie beyond the picture."""
    if row.type == "deconv":
        # Output o has input i at tap o + 1 - 2 i, of 4 taps.
        return Span((output.begin - 1) // 2, output.end // 2 + 1)
    padding = row.dilation * (row.kernel // 2)
    stride = int(row.stride)
    return Span(output.begin * stride - padding, (output.end - 1) * stride + padding + 1)


def padded(length: int) -> int:
    """The length that the network sees: a multiple of 4."""
    return length + -length % STRIDE


def layer_spans(output: Span, length: int) -> tuple[LayerSpan, ...]:
    """What each layer needs along one axis for a span of the completed picture.

    Args:
        output: The span, within the picture.
        length: The picture's length along the axis, a multiple of 4.

    Returns:
        An entry for each row of table 2.
    """
    lengths = []
    for row in TABLE_2:
        lengths.append(length)
        length = round(length / row.stride)
    spans = []
    for row, available in zip(reversed(TABLE_2), reversed(lengths), strict=True):
        needed = input_span(row, output)
        inside = Span(max(0, needed.begin), min(available, needed.end))
        spans.append(LayerSpan(needed, inside, output))
        output = inside
    return tuple(reversed(spans))


def region(box: Box, height: int, width: int) -> Box:
    """What of a picture the network sees to complete a box; of the picture as padded to multiples of 4.

    Args:
        box: Within the picture.
        height: Of the picture, in pixels.
        width: Of the picture.
    """
    rows = layer_spans(box.rows, padded(height))[0].inside
    columns = layer_spans(box.columns, padded(width))[0].inside
    return Box(rows.begin, columns.begin, rows.end, columns.end)


def multiply_adds(box: Box, height: int, width: int, network_width: int = PAPER_WIDTH) -> int:
    """The multiply-adds that completing a box takes.

    Args:
        box: Within the picture.
        height: Of the picture, in pixels.
        width: Of the picture.
        network_width: Base width of the network.
    """
    rows, columns = _lengths(box.rows, padded(height)), _lengths(box.columns, padded(width))
    return int(np.dot(np.multiply(rows, columns), _weights(network_width)))


@lru_cache(maxsize=100_000)
def _lengths(output: Span, length: int) -> tuple[int, ...]:
    """How many positions each layer works on along one axis: a deconvolution of its input, others of their output."""
    spans = layer_spans(output, length)
    worked_on = [
        span.inside if row.type == "deconv" else span.output for row, span in zip(TABLE_2, spans, strict=True)
    ]
    return tuple(span.length for span in worked_on)


@lru_cache
def _weights(network_width: int) -> tuple[int, ...]:
    """The multiply-adds of each layer for one of those positions."""
    weights, inputs = [], 4
    for row in TABLE_2:
        outputs = row.outputs if row.type == "output" else row.outputs * network_width // PAPER_WIDTH
        weights.append(row.kernel**2 * inputs * outputs)
        inputs = outputs
    return tuple(weights)


def plan(hole: NDArray[np.bool_]) -> list[Box]:
    """Finds boxes that hold all of a hole and that are cheap to complete one after the other.

    Near holes share a box where one region costs less than two, far ones do not, and shapes that fill little of their
    bounding box are cut. No box is larger than 1024 pixels a side.

    Args:
        hole: (H, W) boolean, any number of holes of any shape.

    Returns:
        Boxes that do not overlap and hold every pixel of the hole; none for an empty hole.
    """
    blocks = _blocks(hole)
    if not blocks.any():
        return []
    return _Planner(hole, blocks).boxes(Box(0, 0, *blocks.shape))


def far_apart(hole: NDArray[np.bool_]) -> list[Box]:
    """Finds the smallest boxes that hold all of a hole and are more than 16 pixels apart.

    Args:
        hole: (H, W) boolean.
    """
    blocks = _blocks(hole)
    areas: list[tuple[slice, slice]] = []
    while True:  # boxes of parts that are not within reach of one another may be
        labels, count = scipy.ndimage.label(blocks, structure=np.ones((3, 3)))
        if count == len(areas):
            break
        areas = scipy.ndimage.find_objects(labels)
        for area in areas:
            blocks[area] = True
    corners = [(rows.start * BLOCK, columns.start * BLOCK, rows, columns) for rows, columns in areas]
    return [
        bounds(hole[top : rows.stop * BLOCK, left : columns.stop * BLOCK], top, left)
        for top, left, rows, columns in corners
    ]


def _blocks(hole: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which blocks of 16x16 pixels have pixels of the hole."""
    height, width = hole.shape
    if width % BLOCK:
        hole = np.pad(hole, ((0, 0), (0, -width % BLOCK)))
    words = np.ascontiguousarray(hole).view(np.uint64)  # eight pixels at once
    by_rows = np.bitwise_or.reduceat(words, np.arange(0, height, BLOCK), axis=0)
    return np.asarray(by_rows.reshape(len(by_rows), -1, BLOCK // 8).any(axis=2))


class _Planner:
    """Cuts the hole's bounding box in two, and the parts again, wherever the parts together cost less."""

    def __init__(self, hole: NDArray[np.bool_], blocks: NDArray[np.bool_]) -> None:
        self.hole = hole
        self.blocks = blocks

    def boxes(self, area: Box) -> list[Box]:
        """The boxes for the hole in an area, given in blocks and not empty of it."""
        area = self._shrink(area)
        whole = self._tight(area)
        cost = self._cost(whole)
        too_large = max(whole.size) > MAX_SIDE
        if not too_large and self._part(area).all():
            return [whole]
        pairs = [(self._shrink(one), self._shrink(other)) for one, other in self._cuts(area)]
        if not pairs:
            return [whole]
        costs = [self._cost(self._pixels(one)) + self._cost(self._pixels(other)) for one, other in pairs]
        best = int(np.argmin(costs))
        pair = pairs[best]
        if too_large and costs[best] > cost:
            pair = self._halves(area)
        elif not too_large and costs[best] > HOPE * cost:
            return [whole]
        parts = [box for half in pair for box in self.boxes(half)]
        return parts if too_large or sum(map(self._cost, parts)) < cost else [whole]

    def _halves(self, area: Box) -> tuple[Box, Box]:
        """Cuts the longer side so that what will be cut further comes out in equal parts."""
        rows, columns = area.size
        count = -(-max(rows, columns) * BLOCK // MAX_SIDE)
        if rows > columns:
            cut = area.top + rows * (count // 2) // count
            return self._shrink(area._replace(bottom=cut)), self._shrink(area._replace(top=cut))
        cut = area.left + columns * (count // 2) // count
        return self._shrink(area._replace(right=cut)), self._shrink(area._replace(left=cut))

    def _cost(self, box: Box) -> int:
        return multiply_adds(box, *self.hole.shape)

    def _part(self, area: Box) -> NDArray[np.bool_]:
        return self.blocks[area.top : area.bottom, area.left : area.right]

    def _pixels(self, area: Box) -> Box:
        height, width = self.hole.shape
        bottom, right = min(area.bottom * BLOCK, height), min(area.right * BLOCK, width)
        return Box(area.top * BLOCK, area.left * BLOCK, bottom, right)

    def _shrink(self, area: Box) -> Box:
        """The part of an area, in blocks, outside which there is nothing of the hole."""
        return bounds(self._part(area), area.top, area.left)

    def _tight(self, area: Box) -> Box:
        """The bounding box, in pixels, of the hole in an area."""
        box = self._pixels(area)
        return bounds(self.hole[box.top : box.bottom, box.left : box.right], box.top, box.left)

    def _cuts(self, area: Box) -> Iterator[tuple[Box, Box]]:
        """Ways to cut an area in two: at every gap, and at some places between."""
        part = self._part(area)
        for row in _places(np.asarray(part.any(axis=1))):
            yield area._replace(bottom=area.top + row), area._replace(top=area.top + row)
        for column in _places(np.asarray(part.any(axis=0))):
            yield area._replace(right=area.left + column), area._replace(left=area.left + column)


def _places(occupied: NDArray[np.bool_]) -> list[int]:
    """Where to cut along an axis: where gaps begin, and at the eighths."""
    gaps = np.flatnonzero(occupied[:-1] & ~occupied[1:]) + 1
    length = len(occupied)
    return sorted({*gaps.tolist(), *(length * eighth // 8 for eighth in range(1, 8))} - {0, length})


def bounds(part: NDArray[np.bool_], top: int = 0, left: int = 0) -> Box:
    """The bounding box of what is True in an array, which lies at `top` and `left`, and is not all False."""
    rows, columns = np.flatnonzero(part.any(axis=1)), np.flatnonzero(part.any(axis=0))
    return Box(top + int(rows[0]), left + int(columns[0]), top + int(rows[-1]) + 1, left + int(columns[-1]) + 1)

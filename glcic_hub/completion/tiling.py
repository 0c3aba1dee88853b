"""Divides a hole into boxes that go through the network one after the other, at the least cost."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import scipy.ndimage
from numpy.typing import NDArray

from glcic_hub.completion.receptive_field import multiply_adds
from glcic_hub.images.boxes import Box, bounds

BLOCK = 16
"""Side in pixels of the blocks that boxes are made of."""

MAX_SIDE = 1024
"""Greatest side of a box in pixels, which bounds the memory that a region takes."""

PRUNING_FACTOR = 1.3
"""A cut that multiplies the cost by more than this is given up, whatever further cuts might save."""


def tile(hole: NDArray[np.bool_]) -> list[Box]:
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
    return _Tiler(hole, blocks).boxes(Box(0, 0, *blocks.shape))


def far_apart(hole: NDArray[np.bool_]) -> list[Box]:
    """Finds the smallest boxes that hold all of a hole and are more than 16 pixels apart.

    Args:
        hole: (H, W) boolean.
    """
    blocks = _blocks(hole)
    areas: list[tuple[slice, slice]] = []
    while True:  # boxes of parts may touch where the parts do not: join until none do
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
    """Finds the blocks of 16x16 pixels that have pixels of the hole."""
    height, width = hole.shape
    if width % BLOCK:
        hole = np.pad(hole, ((0, 0), (0, -width % BLOCK)))
    words = np.ascontiguousarray(hole).view(np.uint64)  # eight pixels at once
    by_rows = np.bitwise_or.reduceat(words, np.arange(0, height, BLOCK), axis=0)
    return np.asarray(by_rows.reshape(len(by_rows), -1, BLOCK // 8).any(axis=2))


class _Tiler:
    """Cuts the hole's bounding box in two, and the parts again, wherever the parts together cost less."""

    def __init__(self, hole: NDArray[np.bool_], blocks: NDArray[np.bool_]) -> None:
        self.hole = hole
        self.blocks = blocks

    def boxes(self, area: Box) -> list[Box]:
        """Finds boxes for the hole in an area, which is given in blocks and holds some of it."""
        # Is one box for all of it the best there can be?
        area = self._shrink(area)
        whole = self._tight(area)
        cost = self._cost(whole)
        too_large = max(whole.size) > MAX_SIDE
        if not too_large and self._part(area).all():
            return [whole]
        # Find the cheapest cut, and cut both parts again.
        pairs = [(self._shrink(one), self._shrink(other)) for one, other in self._cuts(area)]
        if not pairs:
            return [whole]
        costs = [self._cost(self._pixels(one)) + self._cost(self._pixels(other)) for one, other in pairs]
        best = int(np.argmin(costs))
        pair = pairs[best]
        if too_large and costs[best] > cost:
            pair = self._halves(area)
        elif not too_large and costs[best] > PRUNING_FACTOR * cost:
            return [whole]
        parts = [box for half in pair for box in self.boxes(half)]
        return parts if too_large or sum(map(self._cost, parts)) < cost else [whole]

    def _halves(self, area: Box) -> tuple[Box, Box]:
        """Cuts the longer side so that what will be cut further is cut into equal parts."""
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
        """Shrinks an area, in blocks, to the part that holds some of the hole."""
        return bounds(self._part(area), area.top, area.left)

    def _tight(self, area: Box) -> Box:
        """Finds the bounding box, in pixels, of the hole in an area."""
        box = self._pixels(area)
        return bounds(self.hole[box.top : box.bottom, box.left : box.right], box.top, box.left)

    def _cuts(self, area: Box) -> Iterator[tuple[Box, Box]]:
        """Lists ways to cut an area in two: at every gap, and at some places between."""
        part = self._part(area)
        for row in _places(np.asarray(part.any(axis=1))):
            yield area._replace(bottom=area.top + row), area._replace(top=area.top + row)
        for column in _places(np.asarray(part.any(axis=0))):
            yield area._replace(right=area.left + column), area._replace(left=area.left + column)


def _places(occupied: NDArray[np.bool_]) -> list[int]:
    """Lists the places to cut along an axis: where gaps begin, and at the eighths."""
    gaps = np.flatnonzero(occupied[:-1] & ~occupied[1:]) + 1
    length = len(occupied)
    return sorted({*gaps.tolist(), *(length * eighth // 8 for eighth in range(1, 8))} - {0, length})

"""Computes which part of an image the completion network needs for a hole, layer by layer, in integers.

An output pixel depends on a bounded part of the image (sec. 3.2). So the region around a hole is enough to complete
it exactly, and each layer need only compute what later layers need for the hole.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from glcic_hub.images.boxes import Box, Span
from glcic_hub.networks.table_2 import PAPER_WIDTH, STRIDE, TABLE_2, Row

REACH = 150
"""Farthest pixel that an output pixel depends on to the right and below; to the left and above up to three more."""


class LayerSpan(NamedTuple):
    """The input positions that a layer needs along one axis."""

    needed: Span  # may lie beyond the image, where the network pads with zeros
    inside: Span  # the part of it in the image
    output: Span  # the needed part of the layer's output, in its own positions


def input_span(row: Row, output: Span) -> Span:
    """Returns the span of a layer's input that a span of its output depends on; it may reach beyond the image."""
    if row.type == "deconv":
        # Output o has input i at tap o + 1 - 2 i, of 4 taps.
        return Span((output.begin - 1) // 2, output.end // 2 + 1)
    padding = row.dilation * (row.kernel // 2)
    stride = int(row.stride)
    return Span(output.begin * stride - padding, (output.end - 1) * stride + padding + 1)


def padded(length: int) -> int:
    """Rounds a length up to the multiple of 4 that the network takes."""
    return length + -length % STRIDE


def layer_spans(output: Span, length: int) -> tuple[LayerSpan, ...]:
    """Computes what each layer needs along one axis for a span of the completed image.

    Args:
        output: The span, within the image.
        length: The image's length along the axis, a multiple of 4.

    Returns:
        An entry for each row of table 2.
    """
    # Follow the image's length forward through the layers, then the span backward.
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
    """Returns the region that a box of the output depends on, in the image padded to multiples of 4.

    Args:
        box: Within the image.
        height: Of the image, in pixels.
        width: Of the image.
    """
    rows = layer_spans(box.rows, padded(height))[0].inside
    columns = layer_spans(box.columns, padded(width))[0].inside
    return Box(rows.begin, columns.begin, rows.end, columns.end)


def multiply_adds(box: Box, height: int, width: int, network_width: int = PAPER_WIDTH) -> int:
    """Counts the multiply-adds it takes to complete a box.

    Args:
        box: Within the image.
        height: Of the image, in pixels.
        width: Of the image.
        network_width: Base width of the network.
    """
    rows, columns = _lengths(box.rows, padded(height)), _lengths(box.columns, padded(width))
    return int(np.dot(np.multiply(rows, columns), _weights(network_width)))


@lru_cache(maxsize=100_000)
def _lengths(output: Span, length: int) -> tuple[int, ...]:
    """Counts each layer's positions along one axis: of the input for a deconvolution, else of the output."""
    spans = layer_spans(output, length)
    worked_on = [
        span.inside if row.type == "deconv" else span.output for row, span in zip(TABLE_2, spans, strict=True)
    ]
    return tuple(span.length for span in worked_on)


@lru_cache
def _weights(network_width: int) -> tuple[int, ...]:
    """Counts each layer's multiply-adds at one of those positions."""
    weights, inputs = [], 4
    for row in TABLE_2:
        outputs = row.outputs if row.type == "output" else row.outputs * network_width // PAPER_WIDTH
        weights.append(row.kernel**2 * inputs * outputs)
        inputs = outputs
    return tuple(weights)

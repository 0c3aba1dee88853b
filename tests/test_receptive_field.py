"""The geometry of what a hole needs, without a network: by enumeration, and by the paper's figures."""

from __future__ import annotations

import pytest

from glcic_hub.completion.receptive_field import input_span, layer_spans, multiply_adds, region
from glcic_hub.images.boxes import Box, Span
from glcic_hub.networks.table_2 import TABLE_2, Row


def positions(row: Row, output: int) -> set[int]:
    """What of its input an output position of a layer is computed from."""
    if row.type == "deconv":  # PyTorch's definition: input i adds to outputs 2 i - 1 + tap
        return {i for i in range(-5, 50) for tap in range(4) if 2 * i - 1 + tap == output}
    padding = row.dilation * (row.kernel // 2)
    return {int(row.stride) * output - padding + row.dilation * tap for tap in range(row.kernel)}


@pytest.mark.parametrize("row", sorted(set(TABLE_2)))
def test_input_spans_by_enumeration(row: Row) -> None:
    for begin in range(8):
        for end in range(begin + 1, 12):
            needed = set.union(*(positions(row, output) for output in range(begin, end)))
            assert input_span(row, Span(begin, end)) == (min(needed), max(needed) + 1)


def test_all_of_a_image_needs_all_of_it() -> None:
    spans = layer_spans(Span(0, 64), 64)
    assert [span.inside for span in spans] == [
        Span(0, 64 // scale) for scale in (1, 1, 2, 2, 4, 4, 4, 4, 4, 4, 4, 4, 4, 2, 2, 1, 1)
    ]
    assert region(Box(0, 0, 61, 62), 61, 62) == Box(0, 0, 64, 64)


def test_the_region_of_a_pixel_is_the_networks_receptive_field() -> None:
    """At most 153 pixels to the left or above, 150 to the right or below, as autograd finds (test_networks.py)."""
    reaches = set()
    for place in range(500, 504):
        top, left, bottom, right = region(Box(place, place, place + 1, place + 1), 1000, 1000)
        assert (top, bottom) == (left, right)
        reaches.add((place - top, bottom - 1 - place))
    assert max(before for before, _ in reaches) == 153 and max(after for _, after in reaches) == 150


def test_costs() -> None:
    """The paper's network takes 32.5 G multiply-adds for 256x256; a 128x128 hole in any large image 44 G."""
    assert multiply_adds(Box(0, 0, 256, 256), 256, 256) == pytest.approx(32.5e9, rel=0.01)
    for side in (1024, 8192, 65536):
        middle = side // 2 - 64
        assert multiply_adds(Box(middle, middle, middle + 128, middle + 128), side, side) <= 44.1e9

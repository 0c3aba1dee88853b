"""The geometry of what a hole needs, without a network: by enumeration, and by the paper's figures."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from glcic_hub.completion.receptive_field import (
    MAX_SIDE,
    Box,
    Span,
    far_apart,
    input_span,
    layer_spans,
    multiply_adds,
    plan,
    region,
)
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


def test_all_of_a_picture_needs_all_of_it() -> None:
    spans = layer_spans(Span(0, 64), 64)
    assert [span.inside for span in spans] == [
        Span(0, 64 // scale) for scale in (1, 1, 2, 2, 4, 4, 4, 4, 4, 4, 4, 4, 4, 2, 2, 1, 1)
    ]
    assert region(Box(0, 0, 61, 62), 61, 62) == Box(0, 0, 64, 64)


def test_the_region_of_a_pixel_is_the_networks_support() -> None:
    """At most 153 pixels to the left or above, 150 to the right or below, as autograd finds (test_networks.py)."""
    reaches = set()
    for place in range(500, 504):
        top, left, bottom, right = region(Box(place, place, place + 1, place + 1), 1000, 1000)
        assert (top, bottom) == (left, right)
        reaches.add((place - top, bottom - 1 - place))
    assert max(before for before, _ in reaches) == 153 and max(after for _, after in reaches) == 150


def test_costs() -> None:
    """The paper's network takes 32.5 G multiply-adds for 256x256; a 128x128 hole in any large picture 44 G."""
    assert multiply_adds(Box(0, 0, 256, 256), 256, 256) == pytest.approx(32.5e9, rel=0.01)
    for side in (1024, 8192, 65536):
        middle = side // 2 - 64
        assert multiply_adds(Box(middle, middle, middle + 128, middle + 128), side, side) <= 44.1e9


def holes(height: int, width: int, *boxes: tuple[int, int, int, int]) -> NDArray[np.bool_]:
    hole = np.zeros((height, width), bool)
    for top, left, bottom, right in boxes:
        hole[top:bottom, left:right] = True
    return hole


def cost(boxes: list[Box], hole: NDArray[np.bool_]) -> int:
    return sum(multiply_adds(box, *hole.shape) for box in boxes)


def test_plans_hold_every_pixel_once() -> None:
    random = np.random.default_rng(0)
    for case in range(200):
        height, width = random.integers(1, 3000 if case < 10 else 300, 2)
        hole = np.zeros((height, width), bool)
        for _ in range(random.integers(0, 12)):
            top, left = random.integers(0, height), random.integers(0, width)
            hole[top : top + random.integers(1, height + 1), left : left + random.integers(1, 50)] = True
        boxes = plan(hole)
        times = np.zeros((height, width), int)
        for box in boxes:
            assert 0 <= box.top < box.bottom <= height and 0 <= box.left < box.right <= width
            assert max(box.bottom - box.top, box.right - box.left) <= MAX_SIDE
            times[box.top : box.bottom, box.left : box.right] += 1
        assert times.max(initial=0) <= 1 and (times[hole] == 1).all()
        if boxes and max(height, width) <= MAX_SIDE:
            rows, columns = np.flatnonzero(hole.any(1)), np.flatnonzero(hole.any(0))
            bounding = Box(int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1)
            assert cost(boxes, hole) <= cost([bounding], hole)


def test_near_holes_share_a_box_and_far_ones_do_not() -> None:
    assert plan(holes(900, 900, (100, 100, 140, 140), (150, 150, 170, 200))) == [Box(100, 100, 170, 200)]
    far = (100, 100, 140, 140), (700, 650, 770, 700)
    assert sorted(plan(holes(900, 900, *far))) == sorted(far)
    assert plan(holes(900, 900)) == []


def test_thin_shapes_are_cut() -> None:
    """A diagonal and a frame cost a fraction of their bounding box."""
    hole = np.eye(4000, dtype=bool)
    assert cost(plan(hole), hole) < multiply_adds(Box(0, 0, 4000, 4000), 4000, 4000) / 5
    frame = ~holes(2000, 2000, (20, 20, 1980, 1980))
    assert cost(plan(frame), frame) < multiply_adds(Box(0, 0, 2000, 2000), 2000, 2000) / 3


def test_boxes_far_apart() -> None:
    """They hold all of the hole, tightly, and are more than 16 pixels from one another; few for what is in between."""
    random = np.random.default_rng(0)
    for _ in range(100):
        height, width = random.integers(1, 400, 2)
        hole = np.zeros((height, width), bool)
        for _ in range(random.integers(0, 8)):
            top, left, rows, columns = random.integers(0, (height, width, 40, 40))
            hole[top : top + rows, left : left + columns] = True
        boxes = far_apart(hole)
        covered = np.zeros_like(hole)
        for box in boxes:
            part = hole[box.slices]
            assert part[0].any() and part[-1].any() and part[:, 0].any() and part[:, -1].any()
            assert not covered[box.grown(16, height, width).slices].any()
            covered[box.slices] = True
        assert not (hole & ~covered).any()
    ring = holes(300, 300, (10, 10, 290, 290)) & ~holes(300, 300, (20, 20, 280, 280))
    assert far_apart(ring | holes(300, 300, (150, 150, 160, 160))) == [Box(10, 10, 290, 290)]
    assert far_apart(holes(300, 300, (0, 0, 9, 9), (100, 40, 120, 50))) == [Box(0, 0, 9, 9), Box(100, 40, 120, 50)]


def test_enormous_holes_are_cut_into_few_equal_parts() -> None:
    hole = holes(3000, 2000, (1, 0, 3000, 2000))
    boxes = plan(hole)
    assert len(boxes) == 6
    assert cost(boxes, hole) < 1.25 * multiply_adds(Box(0, 0, 3000, 2000), 3000, 2000)

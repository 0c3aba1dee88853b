"""Which boxes are completed together: they hold all of the hole, once, and cost little."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from glcic_hub.completion.receptive_field import multiply_adds
from glcic_hub.completion.tiling import MAX_SIDE, far_apart, tile
from glcic_hub.images.boxes import Box


def holes(height: int, width: int, *boxes: tuple[int, int, int, int]) -> NDArray[np.bool_]:
    hole = np.zeros((height, width), bool)
    for top, left, bottom, right in boxes:
        hole[top:bottom, left:right] = True
    return hole


def cost(boxes: list[Box], hole: NDArray[np.bool_]) -> int:
    return sum(multiply_adds(box, *hole.shape) for box in boxes)


def test_tiles_hold_every_pixel_once() -> None:
    random = np.random.default_rng(0)
    for case in range(200):
        height, width = random.integers(1, 3000 if case < 10 else 300, 2)
        hole = np.zeros((height, width), bool)
        for _ in range(random.integers(0, 12)):
            top, left = random.integers(0, height), random.integers(0, width)
            hole[top : top + random.integers(1, height + 1), left : left + random.integers(1, 50)] = True
        boxes = tile(hole)
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
    assert tile(holes(900, 900, (100, 100, 140, 140), (150, 150, 170, 200))) == [Box(100, 100, 170, 200)]
    far = (100, 100, 140, 140), (700, 650, 770, 700)
    assert sorted(tile(holes(900, 900, *far))) == sorted(far)
    assert tile(holes(900, 900)) == []


def test_thin_shapes_are_cut() -> None:
    """A diagonal and a frame cost a fraction of their bounding box."""
    hole = np.eye(4000, dtype=bool)
    assert cost(tile(hole), hole) < multiply_adds(Box(0, 0, 4000, 4000), 4000, 4000) / 5
    frame = ~holes(2000, 2000, (20, 20, 1980, 1980))
    assert cost(tile(frame), frame) < multiply_adds(Box(0, 0, 2000, 2000), 2000, 2000) / 3


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
    boxes = tile(hole)
    assert len(boxes) == 6
    assert cost(boxes, hole) < 1.25 * multiply_adds(Box(0, 0, 3000, 2000), 3000, 2000)

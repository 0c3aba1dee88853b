"""Holes with pixels that no known pixel reaches."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from skimage import data

from glcic_hub import GLCICPipeline
from glcic_hub.completion.blending import blend_patches
from glcic_hub.completion.coarse_to_fine import out_of_reach
from glcic_hub.completion.receptive_field import REACH
from glcic_hub.evaluation.metrics import hole_metrics
from glcic_hub.images.boxes import Box
from glcic_hub.images.processing import Patch
from glcic_hub.pipeline import PIXELS_AT_ONCE


@pytest.fixture(scope="module")
def pretrained() -> GLCICPipeline:
    return GLCICPipeline.from_pretrained(device="cpu")


@pytest.fixture(scope="module")
def network(pretrained: GLCICPipeline) -> Callable[..., Any]:
    """The network alone."""
    return partial(pretrained, detail="none")


def photograph_of(name: str) -> NDArray[np.uint8]:
    return np.asarray(getattr(data, name)())


def square_hole(side: int, size: int) -> NDArray[np.uint8]:
    mask = np.zeros((size, size), np.uint8)
    begin = (size - side) // 2
    mask[begin : begin + side, begin : begin + side] = 1
    return mask


def test_out_of_reach_by_enumeration() -> None:
    """A pixel is out of reach if all that lies at most 150 pixels to each side is hole, or beyond the image."""
    random = np.random.default_rng(0)
    for _ in range(5):
        hole = np.ones((420, 380), bool)
        for _ in range(3):
            top, left = random.integers(0, (420, 380))
            hole[top : top + 3, left : left + 5] = False
        known = np.argwhere(~hole)
        far = out_of_reach(hole)
        for y, x in random.integers(0, (420, 380), (300, 2)):
            reached = (np.abs(known - (y, x)).max(axis=1) <= REACH).any()
            assert far[y, x] == (hole[y, x] and not reached)
    assert not out_of_reach(square_hole(300, 500) > 0).any()
    assert out_of_reach(square_hole(302, 500) > 0).sum() == 4


@pytest.mark.parametrize("turned", [False, True])
def test_a_hole_across_a_narrow_image(network: Callable[..., Any], turned: bool) -> None:
    """Short as it is from one border to the other, there is nothing known beyond these."""
    hole = np.zeros((64, 900), bool)
    hole[:, 200:700] = True
    far = np.zeros_like(hole)
    far[:, 200 + REACH : 700 - REACH] = True
    assert np.array_equal(out_of_reach(hole.T if turned else hole), far.T if turned else far)
    below = hole.copy()
    below[:1] = False
    assert not out_of_reach(below).any()
    black, white = np.zeros((64, 900, 3), np.uint8), np.full((64, 900, 3), 255, np.uint8)
    middles = [np.asarray(network(image, hole))[:, 440:460] for image in (black, white)]
    assert (middles[0] < middles[1]).all()
    with pytest.warns(UserWarning, match="40% of the hole is farther"):
        middles = [np.asarray(network(i, hole, large_holes="direct"))[:, 440:460] for i in (black, white)]
    assert np.array_equal(middles[0], middles[1])


def test_a_large_hole_is_better_coarse_to_fine(pretrained: GLCICPipeline, network: Callable[..., Any]) -> None:
    """Than without, and no blot of the mean colour is left in its middle."""
    photograph = photograph_of("chelsea").repeat(3, axis=0).repeat(3, axis=1)[:900, :900]
    mask = square_hole(480, 900)
    with pytest.warns(UserWarning, match="14% of the hole is farther than 150 pixels from anything known"):
        direct = network(photograph, mask, large_holes="direct")
    coarse = network(photograph, mask)
    figures = [hole_metrics(photograph, completed, mask) for completed in (direct, coarse)]
    assert figures[1]["psnr"] > figures[0]["psnr"] + 0.5 and figures[1]["ssim"] > figures[0]["ssim"]
    mean = np.array(pretrained.config.mean_pixel) * 255
    distances = [np.abs(completed[420:480, 420:480].mean(axis=(0, 1)) - mean).max() for completed in (direct, coarse)]
    assert distances[1] > distances[0]
    assert np.array_equal(coarse[mask == 0], photograph[mask == 0])


def test_small_holes_beside_a_large_one_are_completed_as_always(network: Callable[..., Any]) -> None:
    photograph = photograph_of("astronaut").repeat(3, axis=0).repeat(3, axis=1)[:, :1200]
    large = np.zeros(photograph.shape[:2], np.uint8)
    large[100:500, 100:500] = 1
    small = np.zeros_like(large)
    small[1100:1160, 900:960] = 1
    both, alone = network(photograph, large + small), network(photograph, small)
    assert np.array_equal(both[small > 0], alone[small > 0])


def test_lists_of_all_kinds(network: Callable[..., Any]) -> None:
    """Large holes, ordinary ones and none in one list, of more pixels than are opened at once."""
    photograph = photograph_of("astronaut").repeat(3, axis=0).repeat(3, axis=1)[:1000, :1200]
    images = [photograph, photograph[::-1], photograph[:, ::-1], photograph, photograph_of("coffee")]
    masks = [np.zeros(image.shape[:2], np.uint8) for image in images]
    for mask, side in zip(masks, (30, 400, 0, 50, 30), strict=True):
        mask[200 : 200 + side, 220 : 220 + side] = 1
    with pytest.warns(UserWarning, match="the mask is empty"):
        together = network(images, masks)
    assert sum(image.shape[0] * image.shape[1] for image in images) > PIXELS_AT_ONCE
    for image, mask, completed in zip(images, masks, together, strict=True):
        alone = network(image, mask) if mask.any() else image
        assert np.array_equal(np.asarray(completed), alone)


@pytest.mark.parametrize("blend", ["none", "poisson"])
def test_a_hole_up_to_the_whole_image_but_a_rim(network: Callable[..., Any], blend: str) -> None:
    photograph = photograph_of("coffee")[:, :600]
    mask = np.ones(photograph.shape[:2], np.uint8)
    mask[0] = 0
    completed = network(photograph, mask, blend=blend)
    assert np.array_equal(completed[0], photograph[0])
    assert completed[1:].std() > 1


def test_blending_takes_of_each_patch_what_it_completes() -> None:
    """Where the boxes of two patches overlap, each gives its own part of the hole, in either order."""
    rgb = np.full((40, 40, 3), 90, np.uint8)
    hole = np.zeros((40, 40), bool)
    hole[10:30, 10:30] = True
    box = Box(10, 10, 30, 30)
    left = np.zeros((20, 20), bool)
    left[:, :10] = True
    ramp = np.linspace(0.2, 0.8, 20, dtype=np.float32)[:, None, None] * np.ones((20, 20, 3), np.float32)
    patches = [Patch(box, ramp, left), Patch(box, 1 - ramp, ~left)]
    (first,), (second,) = (blend_patches(rgb, order, hole) for order in (patches, patches[::-1]))
    assert np.array_equal(first.fill, second.fill)


def test_exemplars_know_no_large_holes(pretrained: GLCICPipeline) -> None:
    """The network sees a small copy, so that nothing is out of its reach, and there is nothing to warn of."""
    photograph = np.ascontiguousarray(photograph_of("astronaut")[:400, :400])
    mask = square_hole(304, 400)
    assert out_of_reach(mask > 0).any()
    direct, coarse = (pretrained(photograph, mask, large_holes=way) for way in ("direct", "coarse_to_fine"))
    assert np.array_equal(direct, coarse)
    assert np.array_equal(direct[mask == 0], photograph[mask == 0])


def test_unknown_ways_are_refused(pretrained: GLCICPipeline) -> None:
    with pytest.raises(ValueError, match='large_holes must be "coarse_to_fine" or "direct", not \'fine\''):
        pretrained(np.zeros((8, 8, 3), np.uint8), np.eye(8, dtype=bool), large_holes="fine")  # type: ignore[call-overload]

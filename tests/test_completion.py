"""What is computed region by region is what the network gives for the whole picture."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from glcic_hub.completion import complete, complete_box
from glcic_hub.images import to_unit
from glcic_hub.networks import CompletionNetwork, fold_batch_norm
from glcic_hub.networks.completion import composite
from glcic_hub.support import Box, multiply_adds
from tests.conftest import make_network


@torch.inference_mode()
def complete_full_frame(
    network: CompletionNetwork, rgb: NDArray[np.uint8], hole: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """As the paper does it, on the picture padded to multiples of 4."""
    height, width = hole.shape
    padding = (0, -width % 4, 0, -height % 4)
    image, mask = torch.from_numpy(to_unit(rgb)).permute(2, 0, 1)[None], torch.from_numpy(hole)[None, None].float()
    padded = [functional.pad(tensor, padding, mode="replicate") for tensor in (image, mask)]
    return composite(image, network(*padded)[..., :height, :width], mask)[0].permute(1, 2, 0).numpy()


def random_holes(random: np.random.Generator, height: int, width: int) -> NDArray[np.uint8]:
    """One to twelve rectangles, strokes and single pixels, anywhere, over one another and over the border."""
    mask = np.zeros((height, width), np.uint8)
    for _ in range(random.integers(1, 13)):
        (y, x), (v, u) = random.integers(-20, (height + 20, width + 20), (2, 2))
        kind = random.integers(3)
        if kind == 0:
            cv2.rectangle(
                mask, (int(x), int(y)), (int(x + random.integers(100)), int(y + random.integers(100))), 1, -1
            )
        elif kind == 1:
            cv2.line(mask, (int(x), int(y)), (int(u), int(v)), 1, int(random.integers(1, 12)))
        else:
            mask[y % height, x % width] = 1
    return mask


@pytest.mark.parametrize("part", range(6))
def test_regions_equal_the_full_frame(part: int) -> None:
    """300 random cases, sizes from 4 to 700, odd ones included, by the network as trained and as folded."""
    random = np.random.default_rng(part)
    trained = make_network(seed=part)
    networks = (trained, fold_batch_norm(trained))
    for case in range(50):
        height, width = np.exp(random.uniform(np.log(4), np.log(700), 2)).astype(int)
        if case == 0:
            height, width = 700, 699
        rgb = random.integers(0, 256, (height, width, 3), np.uint8)
        hole = random_holes(random, height, width) > 0
        network = networks[case % 2]
        whole = complete_full_frame(network, rgb, hole)
        regions = to_unit(rgb)
        for box, fill, in_hole in complete(network, rgb, hole):
            assert np.array_equal(in_hole, hole[box.slices])
            regions[box.slices][in_hole] = fill[in_hole]
        assert np.abs(whole - regions).max() <= 2e-5
        assert np.abs(np.rint(whole * 255) - np.rint(regions * 255)).max() <= 1


@pytest.mark.parametrize(
    "box", [Box(100, 90, 228, 218), Box(0, 0, 30, 50), Box(380, 2, 397, 401), Box(0, 0, 397, 401)]
)
def test_the_plan_predicts_the_cost(box: Box) -> None:
    """Against PyTorch's own counter, which counts a multiply-add as two operations."""
    network = fold_batch_norm(make_network())
    with FlopCounterMode(display=False) as counter:
        fill = complete_box(network, np.zeros((397, 401, 3), np.uint8), np.zeros((397, 401), bool), box)
    assert fill.shape == (box.bottom - box.top, box.right - box.left, 3)
    predicted = multiply_adds(box, 397, 401, network_width=4)
    assert counter.get_total_flops() / 2 == pytest.approx(predicted, rel=0.01)

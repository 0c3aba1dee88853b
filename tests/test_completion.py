"""What is computed region by region is what the network gives for the whole picture."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from glcic_hub.completion import complete, complete_box
from glcic_hub.networks import CompletionNetwork, fold_batch_norm
from glcic_hub.networks.completion import composite
from glcic_hub.support import Box, multiply_adds
from tests.conftest import make_network


@torch.inference_mode()
def complete_full_frame(network: CompletionNetwork, image: Tensor, mask: Tensor) -> Tensor:
    """As the paper does it, on the picture padded to multiples of 4."""
    height, width = image.shape[-2:]
    padding = (0, -width % 4, 0, -height % 4)
    padded = [functional.pad(tensor[None], padding, mode="replicate") for tensor in (image, mask)]
    return composite(image[None], network(*padded)[..., :height, :width], mask[None])[0]


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
        image = torch.from_numpy(random.random((3, height, width), np.float32))
        mask = torch.from_numpy(random_holes(random, height, width)).float()[None]
        network = networks[case % 2]
        whole, regions = complete_full_frame(network, image, mask), complete(network, image, mask)
        assert (whole - regions).abs().max() <= 2e-5
        assert torch.equal(regions[mask.expand_as(image) == 0], image[mask.expand_as(image) == 0])
        rounded = [(picture * 255).round() for picture in (whole, regions)]
        assert (rounded[0] - rounded[1]).abs().max() <= 1


@pytest.mark.parametrize(
    "box", [Box(100, 90, 228, 218), Box(0, 0, 30, 50), Box(380, 2, 397, 401), Box(0, 0, 397, 401)]
)
def test_the_plan_predicts_the_cost(box: Box) -> None:
    """Against PyTorch's own counter, which counts a multiply-add as two operations."""
    network = fold_batch_norm(make_network())
    image, mask = torch.rand(3, 397, 401), torch.zeros(1, 397, 401)
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        fill = complete_box(network, image, mask, box)
    assert fill.shape == (3, box.bottom - box.top, box.right - box.left)
    predicted = multiply_adds(box, 397, 401, network_width=4)
    assert counter.get_total_flops() / 2 == pytest.approx(predicted, rel=0.01)

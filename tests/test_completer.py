"""What is computed region by region is what the network gives for the whole image."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import cast

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from glcic_hub.completion.completer import Completer
from glcic_hub.completion.receptive_field import multiply_adds
from glcic_hub.images.boxes import Box
from glcic_hub.images.processing import to_unit
from glcic_hub.networks import CompletionNetwork, fold_batch_norm
from glcic_hub.networks.completion import composite
from glcic_hub.networks.layers import ConvNormAct
from tests.conftest import in_a_fork, make_network


@torch.inference_mode()
def complete_full_frame(
    network: CompletionNetwork, rgb: NDArray[np.uint8], hole: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """As the paper does it, on the image padded to multiples of 4."""
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
        for box, fill, in_hole in Completer(network).complete([(rgb, hole)])[0]:
            assert np.array_equal(in_hole, hole[box.slices])
            regions[box.slices][in_hole] = fill[in_hole]
        assert np.abs(whole - regions).max() <= 2e-5
        assert np.abs(np.rint(whole * 255) - np.rint(regions * 255)).max() <= 1


def test_images_together() -> None:
    """Equal regions of several images go through the network at once, others by themselves."""
    completer = Completer(fold_batch_norm(make_network()))
    random = np.random.default_rng(0)
    sources = []
    for left in (200, 204, 201, 200, 0, 200):
        hole = np.zeros((500, 500), bool)
        hole[200:230, left : left + 40] = True
        hole[20:50, 420:460] = left == 0
        sources.append((random.integers(0, 256, (500, 500, 3), np.uint8), hole))
    batches = []
    first_layer = cast(ConvNormAct, completer.network.layers[0])
    first_layer.act.register_forward_hook(lambda _module, _inputs, output: batches.append(len(output)))
    together = completer.complete(sources)
    assert batches == [4, 1, 1, 1]  # 204 is 200 again, as positions count modulo 4
    for source, patches in zip(sources, together, strict=True):
        (alone,) = completer.complete([source])
        assert [patch.box for patch in patches] == [patch.box for patch in alone]
        for one, other in zip(patches, alone, strict=True):
            assert np.array_equal(one.hole, other.hole)
            np.testing.assert_allclose(one.fill, other.fill, atol=2e-6)


def test_batches_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Regions that go through the network together have no more pixels than the largest that goes alone."""
    monkeypatch.setattr("glcic_hub.completion.completer.MAX_SIDE", 700)
    completer = Completer(fold_batch_norm(make_network()))
    hole = np.zeros((600, 600), bool)
    hole[300:310, 300:310] = True
    batches = []
    first_layer = cast(ConvNormAct, completer.network.layers[0])
    first_layer.act.register_forward_hook(lambda _module, _inputs, output: batches.append(len(output)))
    random = np.random.default_rng(0)
    sources = [(random.integers(0, 256, (600, 600, 3), np.uint8), hole) for _ in range(8)]
    together = completer.complete(sources)
    assert batches == [5, 3]  # at most 490,000 pixels, of regions of 309x309
    for source, (patch,) in zip(sources, together, strict=True):
        ((alone,),) = completer.complete([source])
        np.testing.assert_allclose(patch.fill, alone.fill, atol=2e-6)


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU")
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")  # of torch's own calls of itself
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # Python 3.12 warns of every fork with threads
def test_compiled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The same result, also at the border and in a fork; no compilation for each size."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    network = fold_batch_norm(make_network())
    plain, compiled = Completer(network), Completer(network)
    compiled.compile()
    random = np.random.default_rng(0)
    rgb = random.integers(0, 256, (600, 620, 3), np.uint8)
    torch._dynamo.utils.counters.clear()
    sizes = ((200, 200, 40, 50), (209, 206, 33, 57), (0, 30, 20, 20), (215, 218, 70, 64), (190, 201, 21, 22))
    for top, left, height, width in (*sizes, (222, 202, 29, 31), (203, 199, 18, 90)):
        hole = np.zeros((600, 620), bool)
        hole[top : top + height, left : left + width] = True
        ((expected,),), ((patch,),) = plain.complete([(rgb, hole)]), compiled.complete([(rgb, hole)])
        np.testing.assert_allclose(patch.fill, expected.fill, atol=2e-6)
    assert 1 <= torch._dynamo.utils.counters["stats"]["unique_graphs"] <= 3
    ((patch,),) = in_a_fork(lambda: compiled.complete([(rgb, hole)]))
    np.testing.assert_allclose(patch.fill, expected.fill, atol=2e-6)


@pytest.mark.parametrize(
    "box", [Box(100, 90, 228, 218), Box(0, 0, 30, 50), Box(380, 2, 397, 401), Box(0, 0, 397, 401)]
)
def test_the_plan_predicts_the_cost(box: Box) -> None:
    """Against PyTorch's own counter, which counts a multiply-add as two operations."""
    network = fold_batch_norm(make_network())
    with FlopCounterMode(display=False) as counter:
        source = np.zeros((397, 401, 3), np.uint8), np.zeros((397, 401), bool)
        (fill,) = Completer(network).fill([(source, box)])
    assert fill.shape == (*box.size, 3)
    predicted = multiply_adds(box, 397, 401, network_width=4)
    assert counter.get_total_flops() / 2 == pytest.approx(predicted, rel=0.01)

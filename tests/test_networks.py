"""The networks against tables 2 and 3 of the paper."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from glcic_hub.networks import CompletionNetwork, ContextDiscriminator, fold_batch_norm
from glcic_hub.networks.completion import composite
from glcic_hub.networks.discriminators import Discriminator
from glcic_hub.networks.layers import ConvNormAct
from tests.conftest import MEAN_PIXEL, make_network

# Table 2: kernel, dilation, stride, outputs.
PAPER_TABLE_2 = [
    (5, 1, 1, 64),
    (3, 1, 2, 128),
    (3, 1, 1, 128),
    (3, 1, 2, 256),
    (3, 1, 1, 256),
    (3, 1, 1, 256),
    (3, 2, 1, 256),
    (3, 4, 1, 256),
    (3, 8, 1, 256),
    (3, 16, 1, 256),
    (3, 1, 1, 256),
    (3, 1, 1, 256),
    (4, 1, 1 / 2, 128),
    (3, 1, 1, 128),
    (4, 1, 1 / 2, 64),
    (3, 1, 1, 32),
    (3, 1, 1, 3),
]


def blocks_of(network: nn.Module) -> list[Any]:
    return [module for module in network.modules() if isinstance(module, ConvNormAct)]


def test_completion_network_is_table_2() -> None:
    rows = []
    for block in blocks_of(CompletionNetwork(64, MEAN_PIXEL)):
        stride = block.conv.stride[0]
        rows.append(
            (
                block.conv.kernel_size[0],
                block.conv.dilation[0],
                1 / stride if isinstance(block.conv, nn.ConvTranspose2d) else stride,
                block.conv.out_channels,
            )
        )
    assert rows == PAPER_TABLE_2


def test_completion_network_has_the_papers_parameters() -> None:
    assert sum(parameter.numel() for parameter in CompletionNetwork(64, MEAN_PIXEL).parameters()) == 6_069_155


def test_batch_norm_comes_between_convolution_and_relu() -> None:
    blocks = blocks_of(CompletionNetwork(4, MEAN_PIXEL))
    for block in blocks[:-1]:
        assert block.conv.bias is None
        x = torch.randn(1, block.conv.in_channels, 8, 8)
        block.eval()
        block.norm.running_mean.fill_(-1)
        torch.testing.assert_close(block(x), torch.relu(block.norm(block.conv(x))))
        assert (block(x) >= 0).all()  # false where the normalisation comes last
    last = blocks[-1]
    assert isinstance(last.norm, nn.Identity) and isinstance(last.act, nn.Sigmoid) and last.conv.bias is not None


@pytest.mark.parametrize("size", [(4, 4), (8, 20), (64, 36)])
def test_output_has_the_inputs_size_and_range(size: tuple[int, int]) -> None:
    image, mask = torch.rand(2, 3, *size), torch.ones(2, 1, *size)
    output = make_network()(image, mask)
    assert output.shape == image.shape
    assert output.min() >= 0 and output.max() <= 1


def test_receptive_field() -> None:
    """At most 153 pixels to the left or above and 150 to the right or below; the paper counts 307 in all."""
    assert receptive_field(CompletionNetwork(2, MEAN_PIXEL), side=320) == (153, 150)


def test_without_dilation_the_support_is_a_third() -> None:
    """The paper counts 99 pixels instead of 307: (16 + 8 + 4 + 2 - 4) · 4 fewer to each side."""
    network = CompletionNetwork(2, MEAN_PIXEL)
    for block in blocks_of(network):
        if block.conv.dilation != (1, 1):
            block.conv.padding = (1, 1)
        block.conv.dilation = (1, 1)
    assert receptive_field(network, side=112) == (153 - 104, 150 - 104)


def receptive_field(network: CompletionNetwork, side: int) -> tuple[int, int]:
    """How far before and behind an output pixel the farthest input pixel lies that it depends on, by autograd.

    Asserts that the two axes agree, and takes the largest over the four phases.
    """
    network.eval().double()
    for parameter in network.parameters():
        parameter.data.abs_().add_(0.01)  # all paths add up, no dead unit hides one
    reach = []
    for position in range(side // 2, side // 2 + 4):
        x = torch.ones(1, 4, side, side, dtype=torch.float64, requires_grad=True)
        features = network.layers[:-1](x)
        blocks_of(network)[-1].conv(features)[
            0, :, position, position
        ].sum().backward()  # before the sigmoid saturates
        assert x.grad is not None
        rows, columns = (x.grad[0].sum(0).sum(axis).nonzero().flatten() for axis in (1, 0))
        assert torch.equal(rows, columns)
        reach.append((position - int(rows.min()), int(rows.max()) - position))
    before, behind = zip(*reach, strict=True)
    return max(before), max(behind)


def test_what_is_under_the_hole_has_no_influence() -> None:
    network = make_network()
    image, other = torch.rand(2, 1, 3, 32, 32)
    mask = torch.zeros(1, 1, 32, 32)
    mask[..., 8:20, 5:17] = 1
    assert torch.equal(network(image, mask), network(composite(image, other, mask), mask))


def test_hole_is_the_mean_pixel() -> None:
    """The same as an image in which the hole really has the mean pixel, and the mask is told apart (sec. 3.1)."""
    network = make_network()
    mean = torch.tensor(MEAN_PIXEL).view(1, 3, 1, 1)
    mask = torch.zeros(1, 1, 16, 16)
    mask[..., 4:12, 4:12] = 1
    image = torch.rand(1, 3, 16, 16)
    painted = torch.where(mask > 0, mean, image)
    torch.testing.assert_close(network(image, mask), network.layers(torch.cat([painted - mean, mask], 1)))


@pytest.mark.parametrize("width", [4, 32])
def test_folding_changes_the_output_by_rounding_alone(width: int) -> None:
    network = make_network(width)
    before = copy.deepcopy(network.state_dict())
    folded = fold_batch_norm(network)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    image, mask = torch.rand(1, 3, 64, 64), (torch.rand(1, 1, 64, 64) > 0.5).float()
    expected = network(image, mask)
    assert expected.std() > 1e-3  # a constant output would prove nothing
    assert (folded(image, mask) - expected).abs().max() < 1e-4
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


# Table 3: outputs of the convolutions, for the sizes of the paper's recipes.
@pytest.mark.parametrize(
    ("size", "outputs"),
    [
        (256, [64, 128, 256, 512, 512, 512]),
        (128, [64, 128, 256, 512, 512]),
        (160, [64, 128, 256, 512, 512]),  # CelebA: one layer fewer
        (96, [64, 128, 256, 512, 512]),
        (64, [64, 128, 256, 512]),
    ],
)
def test_discriminator_is_table_3(size: int, outputs: list[int]) -> None:
    network = Discriminator(size, 64)
    convolutions = [block.conv for block in blocks_of(network)]
    assert [convolution.out_channels for convolution in convolutions] == outputs
    assert {(c.kernel_size, c.stride) for c in convolutions} == {((5, 5), (2, 2))}
    assert all(isinstance(block.norm, nn.BatchNorm2d) for block in blocks_of(network))
    assert network.linear.out_features == 1024
    assert convolutions[0].in_channels == 3


def test_fusion_is_table_3() -> None:
    network = ContextDiscriminator(64, 256, 128)
    assert (network.fusion.in_features, network.fusion.out_features) == (2048, 1)


@pytest.mark.parametrize(("image_size", "patch_size"), [(256, 128), (160, 96), (128, 64)])
def test_discriminator_gives_logits(image_size: int, patch_size: int) -> None:
    torch.manual_seed(0)
    network = ContextDiscriminator(4, image_size, patch_size)
    image, patch = torch.rand(3, 3, image_size, image_size), torch.rand(3, 3, patch_size, patch_size)
    torch.nn.init.constant_(network.fusion.bias, -9)
    logits = network(image, patch)
    assert logits.shape == (3, 1)
    assert (logits < 0).all()  # no sigmoid
    logits.sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_discriminator_names_a_wrong_size() -> None:
    with pytest.raises(ValueError, match=r"expected images \(3, 64, 64\), got \(3, 32, 32\)"):
        Discriminator(64, 4)(torch.rand(1, 3, 32, 32))

"""Runs the completion network on the parts of a picture that its holes need, at a cost that follows the holes."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from glcic_hub.networks import CompletionNetwork
from glcic_hub.networks.layers import ConvNormAct
from glcic_hub.networks.table_2 import TABLE_2, Row
from glcic_hub.support import Box, LayerSpan, Span, layer_spans, padded, plan, region


@torch.inference_mode()
def complete(network: CompletionNetwork, image: Tensor, mask: Tensor) -> Tensor:
    """Completes a picture (sec. 3.2); what `image` holds inside the hole has no influence.

    The result is that of the network run on the whole picture, but for rounding; computed is only what the holes need.
    Heights and widths that are no multiple of 4 count as continued by up to three pixels like those at the edge.

    Args:
        network: The completion network in evaluation mode; it decides device and precision.
        image: (3, H, W) float RGB in [0, 1].
        mask: (1, H, W), 1 = pixel to complete, 0 = known pixel.

    Returns:
        (3, H, W) of the dtype and on the device of `image`, and equal to it bit for bit outside the hole.
    """
    completed = image.clone()
    hole = mask[0] > 0
    for box in plan(hole.cpu().numpy()):
        fill = complete_box(network, image, mask, box).to(image)
        area = (slice(None), slice(box.top, box.bottom), slice(box.left, box.right))
        completed[area] = torch.where(hole[area[1:]], fill, image[area])
    return completed


def complete_box(network: CompletionNetwork, image: Tensor, mask: Tensor, box: Box) -> Tensor:
    """Computes what the network would put into a box of the picture.

    Args:
        network: As for `complete`.
        image: As for `complete`.
        mask: As for `complete`.
        box: Within the picture.

    Returns:
        (3, height, width) of the box, RGB in [0, 1], of the network's dtype and on its device.
    """
    weight = next(network.parameters())
    height, width = image.shape[-2:]
    needed = region(box, height, width)
    known, hole = (
        _cut(tensor, needed).to(weight.device, weight.dtype)[None].contiguous(memory_format=torch.channels_last)
        for tensor in (image, mask)
    )
    x = network.encode_input(known, hole)
    rows, columns = layer_spans(box.rows, padded(height)), layer_spans(box.columns, padded(width))
    for row, block, vertical, horizontal in zip(TABLE_2, network.layers, rows, columns, strict=True):
        x = _run_layer(row, cast(ConvNormAct, block), x, vertical, horizontal)
    return x[0]


def _cut(picture: Tensor, box: Box) -> Tensor:
    """A part of a picture that may reach over its lower and right edges, by pixels like those there."""
    height, width = picture.shape[-2:]
    part = picture[:, box.top : min(box.bottom, height), box.left : min(box.right, width)]
    beyond = (0, max(0, box.right - width), 0, max(0, box.bottom - height))
    return functional.pad(part, beyond, mode="replicate") if any(beyond) else part


def _run_layer(row: Row, block: ConvNormAct, x: Tensor, vertical: LayerSpan, horizontal: LayerSpan) -> Tensor:
    """Runs a layer on just what is needed of its input, for just what is wanted of its output."""
    convolution = block.conv
    if isinstance(convolution, nn.ConvTranspose2d):
        y = functional.conv_transpose2d(x, convolution.weight, convolution.bias, stride=convolution.stride)
        # Without padding, the first input is the first tap of output 2 i - 1.
        top, left = (span.output.begin - (2 * span.inside.begin - 1) for span in (vertical, horizontal))
        y = y[..., top : top + _length(vertical.output), left : left + _length(horizontal.output)]
        return cast(Tensor, block.act(block.norm(y)))
    beyond = [
        length
        for span in (horizontal, vertical)
        for length in (span.inside.begin - span.needed.begin, span.needed.end - span.inside.end)
    ]
    if any(beyond):
        x = functional.pad(x, beyond)  # as the network pads at the picture's border
    y = functional.conv2d(
        x, convolution.weight, convolution.bias, stride=convolution.stride, dilation=convolution.dilation
    )
    return cast(Tensor, block.act(block.norm(y)))


def _length(span: Span) -> int:
    return span.end - span.begin

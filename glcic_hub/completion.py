"""Runs the completion network on the parts of a picture that its holes need, at a cost that follows the holes."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from glcic_hub.images import Patch, PilPixels, Pixels, to_unit
from glcic_hub.networks import CompletionNetwork
from glcic_hub.networks.layers import ConvNormAct
from glcic_hub.networks.table_2 import TABLE_2, Row
from glcic_hub.support import Box, LayerSpan, layer_spans, padded, plan, region


def best_dtype(device: torch.device) -> torch.dtype:
    """The precision that a device is fastest in, among those that give the same picture for the eye.

    bfloat16 on a processor that multiplies in it (AVX512-BF16, AMX), float16 on a GPU, float32 elsewhere.
    """
    if device.type == "cuda":
        return torch.float16
    # Not public yet; without them float32 is right, only slower.
    checks = (getattr(torch.cpu, f"_is_{name}_supported", bool) for name in ("avx512_bf16", "amx_tile"))
    return torch.bfloat16 if device.type == "cpu" and any(check() for check in checks) else torch.float32


def complete(network: CompletionNetwork, rgb: Pixels | PilPixels, hole: NDArray[np.bool_]) -> list[Patch]:
    """Completes a picture (sec. 3.2); what `rgb` holds inside the hole has no influence.

    The result is that of the network run on the whole picture, but for rounding; computed is only what the holes need.
    Heights and widths that are no multiple of 4 count as continued by up to three pixels like those at the edge.

    Args:
        network: The completion network in evaluation mode; it decides device and precision.
        rgb: (H, W, 3) uint8, or float32 in [0, 1].
        hole: (H, W) boolean, the pixels to complete.

    Returns:
        Patches whose holes do not overlap and together are the hole.
    """
    return [Patch(box, complete_box(network, rgb, hole, box), hole[box.slices]) for box in plan(hole)]


@torch.inference_mode()
def complete_box(
    network: CompletionNetwork, rgb: Pixels | PilPixels, hole: NDArray[np.bool_], box: Box
) -> NDArray[np.float32]:
    """Computes what the network would put into a box of the picture.

    Args:
        network: As for `complete`.
        rgb: As for `complete`.
        hole: As for `complete`.
        box: Within the picture.

    Returns:
        (height, width, 3) float32 of the box, in [0, 1].
    """
    weight = next(network.parameters())
    height, width = hole.shape
    needed = region(box, height, width)
    known, mask = (
        torch.from_numpy(part).to(weight.device, weight.dtype).permute(2, 0, 1)[None]
        for part in (to_unit(_cut(rgb, needed)), _cut(hole, needed)[..., None].astype(np.float32))
    )
    x = network.encode_input(known, mask).contiguous(memory_format=torch.channels_last)
    rows, columns = layer_spans(box.rows, padded(height)), layer_spans(box.columns, padded(width))
    for row, block, vertical, horizontal in zip(TABLE_2, network.layers, rows, columns, strict=True):
        x = _run_layer(row, cast(ConvNormAct, block), x, vertical, horizontal)
    return x[0].permute(1, 2, 0).float().cpu().numpy()


def _cut(picture: Any, box: Box) -> NDArray[Any]:
    """A part of a picture that may reach over its lower and right edges, by pixels like those there."""
    height, width = picture.shape[:2]
    inside = box._replace(bottom=min(box.bottom, height), right=min(box.right, width))
    part: NDArray[Any] = picture[inside.slices]
    beyond = [(0, box.bottom - inside.bottom), (0, box.right - inside.right), (0, 0)]
    return np.pad(part, beyond[: part.ndim], mode="edge") if inside != box else part


def _run_layer(row: Row, block: ConvNormAct, x: Tensor, vertical: LayerSpan, horizontal: LayerSpan) -> Tensor:
    """Runs a layer on just what is needed of its input, for just what is wanted of its output."""
    convolution = block.conv
    if isinstance(convolution, nn.ConvTranspose2d):
        y = functional.conv_transpose2d(x, convolution.weight, convolution.bias, stride=convolution.stride)
        # Without padding, the first input is the first tap of output 2 i - 1.
        top, left = (span.output.begin - (2 * span.inside.begin - 1) for span in (vertical, horizontal))
        y = y[..., top : top + vertical.output.length, left : left + horizontal.output.length]
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

"""Runs the completion network on a picture of any size."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from glcic_hub.networks import CompletionNetwork
from glcic_hub.networks.completion import STRIDE, composite


@torch.inference_mode()
def complete(network: CompletionNetwork, image: Tensor, mask: Tensor) -> Tensor:
    """Completes pictures (sec. 3.2); what `image` holds inside the hole has no influence.

    Args:
        network: The completion network in evaluation mode; it decides device and precision.
        image: (B, 3, H, W) float RGB in [0, 1].
        mask: (B, 1, H, W), 1 = pixel to complete, 0 = known pixel.

    Returns:
        (B, 3, H, W) of the dtype and on the device of `image`, and equal to it bit for bit outside the hole.
    """
    weight = next(network.parameters())
    height, width = image.shape[-2:]
    # Up to three rows and columns more, like those at the edge, and cut off again: the size stays what it was.
    padding = (0, -width % STRIDE, 0, -height % STRIDE)
    known, hole = (
        functional.pad(tensor.to(weight.device, weight.dtype), padding, mode="replicate").to(
            memory_format=torch.channels_last
        )
        for tensor in (image, mask)
    )
    completed = network(known, hole)[..., :height, :width]
    return composite(image, completed.to(image.device), mask.to(image.device))

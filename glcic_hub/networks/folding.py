"""Batch normalisation folded into the convolution before it (sec. 3.5)."""

from __future__ import annotations

import copy
from typing import TypeVar

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from glcic_hub.networks.layers import ConvActNorm, ConvNormAct

Network = TypeVar("Network", bound=nn.Module)


def fold_batch_norm(network: Network) -> Network:
    """Returns a copy for inference without batch normalisation; its output is the same but for rounding.

    Where the normalisation comes after the activation it stays.
    """
    folded = copy.deepcopy(network).eval()
    for block in folded.modules():
        if isinstance(block, ConvActNorm):
            continue
        if isinstance(block, ConvNormAct) and isinstance(block.norm, nn.BatchNorm2d):
            transposed = isinstance(block.conv, nn.ConvTranspose2d)
            block.conv = fuse_conv_bn_eval(block.conv, block.norm, transpose=transposed)
            block.norm = nn.Identity()
    return folded

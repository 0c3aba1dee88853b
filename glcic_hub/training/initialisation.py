"""A start for the completion network that learns from few photographs."""

from __future__ import annotations

import math

import torch
from torch import nn

from glcic_hub.networks import CompletionNetwork

NOISE = 0.3


def initialise_spreading(network: CompletionNetwork) -> None:
    """Starts the network out spreading what it sees at the hole's edge into the hole.

    Every dilated layer starts as the average of its nine taps, channel by channel, and every other 3×3 layer that
    keeps the number of channels as the identity, both plus 0.3 times the Kaiming initialisation; the other layers
    take the Kaiming initialisation as it is. Not in the paper, whose eight million photographs do without.
    """
    for convolution in network.modules():
        if not isinstance(convolution, (nn.Conv2d, nn.ConvTranspose2d)):
            continue
        weight = convolution.weight
        transposed = isinstance(convolution, nn.ConvTranspose2d)
        # Each output of a transposed convolution sees one tap in stride² only.
        taps = weight[0, 0].numel() / (convolution.stride[0] ** 2 if transposed else 1)
        inputs = weight.shape[0 if transposed else 1]
        nn.init.normal_(weight, std=math.sqrt(2 / (inputs * taps)))
        if transposed or weight.shape[0] != weight.shape[1]:
            continue
        with torch.no_grad():
            weight.mul_(NOISE)
            channels = torch.arange(inputs)
            if convolution.dilation[0] > 1:
                weight[channels, channels] += 1 / 9
            else:
                weight[channels, channels, 1, 1] += 1

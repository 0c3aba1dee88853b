"""The context discriminators D: global, local, and their fusion (sec. 3.3, table 3)."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from glcic_hub.networks.layers import ConvNormAct

FEATURES_PER_WIDTH = 16  # 1024 features at the paper's width of 64


def convolution_count(size: int) -> int:
    """Counts the stride-2 convolutions of a discriminator for inputs (size, size): those that come nearest to 4×4.

    Six for 256 and five for 128 (table 3); five for 160 and for 96 (sec. 4.5, CelebA); four for 64 (sec. 4.1.2).
    """
    return round(math.log2(size)) - 2


class Discriminator(nn.Module):
    """One of the two discriminators: stride-2 convolutions, then a fully-connected layer (table 3 a and b).

    Args:
        size: Side of the square input in pixels.
        width: Outputs of the first convolution (64 in the paper).
    """

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.size = size
        blocks = []
        inputs = 3
        for index in range(convolution_count(size)):
            outputs = width * min(2**index, 8)  # 64, 128, 256, 512, 512, ...
            convolution = nn.Conv2d(inputs, outputs, 5, stride=2, padding=2, bias=False)
            blocks.append(ConvNormAct(convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)))
            inputs = outputs
            size = (size + 1) // 2
        self.layers = nn.Sequential(*blocks)
        self.linear = nn.Linear(inputs * size * size, FEATURES_PER_WIDTH * width)

    def forward(self, image: Tensor) -> Tensor:
        """Maps (B, 3, size, size) RGB in [0, 1] to (B, 16 · width) features."""
        if image.shape[1:] != (3, self.size, self.size):
            raise ValueError(f"expected images (3, {self.size}, {self.size}), got {tuple(image.shape[1:])}")
        features: Tensor = self.linear(self.layers(image).flatten(1))
        return features


class ContextDiscriminator(nn.Module):
    """Global and local discriminator, fused into one judgement (sec. 3.3, table 3 c), in float32.

    Args:
        width: Outputs of each first convolution (64 in the paper).
        image_size: Side of the global discriminator's input.
        patch_size: Side of the local discriminator's input.
        discriminators: `both`, or one of them alone, for the ablation of sec. 4.2.
    """

    def __init__(
        self, width: int, image_size: int, patch_size: int, discriminators: Literal["both", "global", "local"] = "both"
    ) -> None:
        super().__init__()
        self.global_discriminator = Discriminator(image_size, width) if discriminators != "local" else None
        self.local_discriminator = Discriminator(patch_size, width) if discriminators != "global" else None
        self.fusion = nn.Linear((2 if discriminators == "both" else 1) * FEATURES_PER_WIDTH * width, 1)
        self.float()  # whatever PyTorch's default dtype is

    def forward(self, image: Tensor, patch: Tensor) -> Tensor:
        """Judges images by the whole and by a patch.

        Args:
            image: (B, 3, image_size, image_size) RGB in [0, 1].
            patch: (B, 3, patch_size, patch_size), cut from `image` around the completed region, or at random from a
                real image.

        A discriminator that is not there does not see its input.

        Returns:
            (B, 1) logits; their sigmoid is the probability that the image is real.

        Raises:
            ValueError: A size is not the network's.
        """
        features = []
        if self.global_discriminator is not None:
            features.append(self.global_discriminator(image))
        if self.local_discriminator is not None:
            features.append(self.local_discriminator(patch))
        logits: Tensor = self.fusion(torch.cat(features, dim=1))
        return logits

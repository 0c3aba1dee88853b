"""The completion network C (sec. 3.2, table 2)."""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from glcic_hub.networks.layers import ConvActNorm, ConvNormAct
from glcic_hub.networks.table_2 import PAPER_WIDTH, TABLE_2, Row

Order: TypeAlias = Literal["norm-relu", "relu-norm"]


def _block(row: Row, inputs: int, outputs: int, order: Order) -> ConvNormAct:
    if row.type == "output":
        return ConvNormAct(
            nn.Conv2d(inputs, outputs, row.kernel, padding=row.kernel // 2), nn.Identity(), nn.Sigmoid()
        )
    biased = order == "relu-norm"  # before batch normalisation a bias would have no effect
    convolution: nn.Conv2d | nn.ConvTranspose2d
    if row.type == "deconv":
        stride = round(1 / row.stride)
        convolution = nn.ConvTranspose2d(
            inputs, outputs, row.kernel, stride=stride, padding=(row.kernel - stride) // 2, bias=biased
        )
    else:
        convolution = nn.Conv2d(
            inputs,
            outputs,
            row.kernel,
            stride=int(row.stride),
            padding=row.dilation * (row.kernel // 2),
            dilation=row.dilation,
            bias=biased,
        )
    block = ConvActNorm if order == "relu-norm" else ConvNormAct
    return block(convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


class CompletionNetwork(nn.Module):
    """The fully convolutional completion network C (sec. 3.2, table 2), in float32.

    Args:
        width: Outputs of the first layer (64 in the paper); all but the last scale with it.
        mean_pixel: Mean (red, green, blue) of the training photographs, each in [0, 1].
        order: `"norm-relu"`: batch normalisation before the activation, and the mean pixel taken off the input, as the
            paper's. `"relu-norm"`: after it, and an input from which nothing is taken off, as otenim/GLCIC-PyTorch's.
    """

    mean_pixel: Tensor

    def __init__(self, width: int, mean_pixel: tuple[float, float, float], order: Order = "norm-relu") -> None:
        super().__init__()
        self.order = order
        # The config holds the mean pixel, the weights do not: one place to read it from.
        mean = torch.tensor(mean_pixel, dtype=torch.float32).view(1, 3, 1, 1)
        self.register_buffer("mean_pixel", mean, persistent=False)
        blocks = []
        inputs = 4  # red, green, blue, mask
        for row in TABLE_2:
            outputs = row.outputs if row.type == "output" else row.outputs * width // PAPER_WIDTH
            blocks.append(_block(row, inputs, outputs, order))
            inputs = outputs
        self.layers = nn.Sequential(*blocks).float()  # whatever PyTorch's default dtype is

    def forward(self, image: Tensor, mask: Tensor) -> Tensor:
        """Computes C(x, M): what the network would put at every pixel, inside the hole and outside.

        Args:
            image: (B, 3, H, W) RGB in [0, 1]; H and W multiples of 4. What it holds inside the hole does not
                matter, be it NaN.
            mask: (B, 1, H, W), 1 = pixel to complete, 0 = known pixel.

        Returns:
            (B, 3, H, W) RGB in [0, 1]. `composite` puts it into the hole.
        """
        completed: Tensor = self.layers(self.encode_input(image, mask))
        return completed

    def encode_input(self, image: Tensor, mask: Tensor) -> Tensor:
        """Makes the (B, 4, H, W) input of the first layer from what `forward` takes."""
        if self.order == "relu-norm":
            known = torch.where(mask > 0, self.mean_pixel, image)
        else:  # the hole holds the mean pixel; less the mean, that is 0 (sec. 3.1)
            known = torch.where(mask > 0, 0, image - self.mean_pixel)
        return torch.cat([known, mask], dim=1)


def composite(image: Tensor, completed: Tensor, mask: Tensor) -> Tensor:
    """Puts the completed pixels into the hole and leaves all others as they are (sec. 3.2).

    Args:
        image: (B, 3, H, W) the image with the hole.
        completed: (B, 3, H, W) what the completion network gave.
        mask: (B, 1, H, W), 1 = completed pixel.

    Returns:
        (B, 3, H, W), equal to `image` bit for bit where `mask` is 0.
    """
    return torch.where(mask > 0, completed.to(image.dtype), image)

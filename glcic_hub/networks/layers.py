"""The one block that all three networks are made of."""

from __future__ import annotations

from torch import Tensor, nn


class ConvNormAct(nn.Module):
    """Convolution, batch normalisation, activation, in this order (sec. 3.2: BN comes before the ReLU).

    Args:
        convolution: `nn.Conv2d` or `nn.ConvTranspose2d`. It needs no bias where `norm` follows, which has one.
        norm: `nn.BatchNorm2d`, or `nn.Identity` once it is folded or where the paper has none.
        activation: `nn.ReLU`, or `nn.Sigmoid` at the output of the completion network.
    """

    def __init__(self, convolution: nn.Conv2d | nn.ConvTranspose2d, norm: nn.Module, activation: nn.Module) -> None:
        super().__init__()
        self.conv = convolution
        self.norm = norm
        self.act = activation

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, H, W) to (B, C', H', W')."""
        return self.after_conv(self.conv(x))

    def after_conv(self, x: Tensor) -> Tensor:
        """Applies what comes after the convolution."""
        y: Tensor = self.act(self.norm(x))
        return y


class ConvActNorm(ConvNormAct):
    """Convolution, activation, batch normalisation, in this order, as otenim/GLCIC-PyTorch has it.

    The normalisation cannot be folded into the next convolution exactly: that pads with zeros, which come after it.
    """

    def after_conv(self, x: Tensor) -> Tensor:
        """Applies what comes after the convolution."""
        y: Tensor = self.norm(self.act(x))
        return y

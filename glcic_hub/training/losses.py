"""The losses of sec. 3.4, three of ours, and R1."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from glcic_hub.networks.completion import composite


def _hole_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Averages (B, C, H, W) values over each sample's hole and channels, then over the batch."""
    channels = values.shape[1]
    return ((values * mask).sum(dim=(1, 2, 3)) / (channels * mask.sum(dim=(1, 2, 3)))).mean()


def completion_loss(completed: Tensor, image: Tensor, mask: Tensor) -> Tensor:
    """Computes eq. 2: the squared error inside the hole, averaged over its pixels and channels.

    Args:
        completed: (B, 3, H, W) what the completion network gave, in [0, 1].
        image: (B, 3, H, W) the original.
        mask: (B, 1, H, W), 1 = hole; every sample has one.

    Returns:
        A scalar, the mean over the batch. It does not change with the size of the holes.
    """
    return _hole_mean((completed - image).square(), mask)


def tint_loss(completed: Tensor, image: Tensor, mask: Tensor) -> Tensor:
    """Computes the part of eq. 2 that is error of colour, not brightness: each channel's error less their mean.

    Takes and gives what `completion_loss` does. Not in the paper: with few photographs the fill stays grey or beige
    for long, since most of eq. 2 is brightness.
    """
    error = completed - image
    return _hole_mean((error - error.mean(dim=1, keepdim=True)).square(), mask)


def gradient_loss(completed: Tensor, image: Tensor, mask: Tensor) -> Tensor:
    """Computes the error of fine structure: the squared difference of the error between neighbouring pixels.

    Neighbours across the hole's edge count, with no error outside, so that a step at the edge is an error too. Takes
    and gives what `completion_loss` does. Not in the paper: eq. 2 alone leaves the patterns of the dilated and
    transposed convolutions in smooth surfaces for long, since they cost little there.
    """
    error = (completed - image) * mask
    squares = error.diff(dim=2).square().sum(dim=(1, 2, 3)) + error.diff(dim=3).square().sum(dim=(1, 2, 3))
    return (squares / (error.shape[1] * mask.sum(dim=(1, 2, 3)))).mean()


def similarity_loss(completed: Tensor, image: Tensor, mask: Tensor) -> Tensor:
    """Computes 1 less the structural similarity of image and original (Wang et al. 2004), over the hole.

    As `glcic evaluate` measures it: 7×7 windows around each pixel of the hole, which reach outside it, where the
    original is. Takes and gives what `completion_loss` does. Not in the paper: eq. 2 says little of faint structure,
    which the eye sees in smooth surfaces.
    """
    filled = composite(image, completed, mask)

    def mean(values: Tensor) -> Tensor:
        # On a CPU, pooling of three channels takes twice as long with channels last.
        return functional.avg_pool2d(values.contiguous(), 7, stride=1, padding=3, count_include_pad=False)

    mean_filled, mean_image = mean(filled), mean(image)
    of_sample = 7**2 / (7**2 - 1)
    variances = of_sample * (mean(filled.square() + image.square()) - mean_filled.square() - mean_image.square())
    covariance = of_sample * (mean(filled * image) - mean_filled * mean_image)
    brightness = (2 * mean_filled * mean_image + 0.01**2) / (mean_filled.square() + mean_image.square() + 0.01**2)
    structure = (2 * covariance + 0.03**2) / (variances + 0.03**2)
    return _hole_mean(1 - brightness * structure, mask)


def discriminator_loss(logits: Tensor, *, real: bool) -> Tensor:
    """Computes one of the two terms of eq. 4, which D maximises, as binary cross-entropy.

    Args:
        logits: (B, 1) what the discriminator says of images.
        real: They are real: −log D; or completed: −log(1 − D).

    Returns:
        A scalar, the mean over the batch.
    """
    return functional.softplus(-logits if real else logits).mean()


def adversarial_loss(fake_logits: Tensor, kind: str) -> Tensor:
    """Computes the adversarial term that C minimises: the second term of eq. 5, without alpha.

    Args:
        fake_logits: (B, 1) what the discriminator says of completed images.
        kind: `minimax`: log(1 − D), as in eq. 3 to 5; `non-saturating`: −log D, whose gradient does not vanish
            where the discriminator is sure.

    Returns:
        A scalar, the mean over the batch.
    """
    if kind == "minimax":
        return -functional.softplus(fake_logits).mean()
    return functional.softplus(-fake_logits).mean()


def gradient_penalty(logits: Tensor, image: Tensor) -> Tensor:
    """Computes R1: half the squared norm of the discriminator's gradient at real images (Mescheder et al. 2018).

    Not in the paper: it keeps the discriminators from being so sure that they teach nothing.

    Args:
        logits: (B, 1) what the discriminator says of `image`.
        image: (B, 3, H, W) that the logits were computed from, with gradients.

    Returns:
        A scalar, the mean over the batch, that can be differentiated once more.
    """
    (gradient,) = torch.autograd.grad(logits.sum(), image, create_graph=True)
    return gradient.square().sum(dim=(1, 2, 3)).mean() / 2

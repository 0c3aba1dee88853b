"""The three phases of training (algorithm 1), a step of each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import AveragedModel

from glcic_hub.networks.completion import composite
from glcic_hub.training.losses import (
    adversarial_loss,
    completion_loss,
    discriminator_loss,
    gradient_loss,
    gradient_penalty,
    similarity_loss,
    tint_loss,
)
from glcic_hub.training.recipe import Recipe

PENALTY_EVERY = 8
"""Steps from one gradient penalty to the next: it costs as much as a step (Karras et al. 2020, app. B)."""


class Batch(NamedTuple):
    """Photographs x with holes M_c, the places of other holes M_d (algorithm 1), and shifts of colour."""

    image: Tensor  # (B, 3, S, S) RGB in [0, 1]
    mask: Tensor  # (B, 1, S, S), 1 = hole
    hole: Tensor  # (B, 4) int64: top, left, height, width of what local patches are centred on
    other_hole: Tensor  # (B, 4) int64
    colour: Tensor  # (B, 3) float32 in [0, 1], for the completed image: what `shift_colours` takes
    other_colour: Tensor  # (B, 3), for the real image

    @classmethod
    def from_loader(cls, loaded: dict[str, Any], device: torch.device) -> Batch:
        """Brings what `data.collate` made to the device."""
        image, mask, *rest = (loaded[name].to(device, non_blocking=True) for name in cls._fields)
        return cls(image.float() / 255, mask.float(), *rest)

    def split(self, count: int) -> list[Batch]:
        """Parts of equal size."""
        chunks = [tensor.chunk(count) for tensor in self]
        return [Batch(*tensors) for tensors in zip(*chunks, strict=True)]


def patches_around(image: Tensor, hole: Tensor, size: int) -> Tensor:
    """Cuts what the local discriminator sees (sec. 3.3): a patch centred on each sample's hole.

    Near the border the patch is shifted inwards; it contains a rectangular hole, which is not larger.

    Args:
        image: (B, 3, H, W).
        hole: (B, 4) int64: top, left, height, width.
        size: Side of the patch in pixels.

    Returns:
        (B, 3, size, size).
    """
    _, channels, height, width = image.shape
    centred = hole[:, :2] + (hole[:, 2:] - size).div(2, rounding_mode="floor")
    limit = torch.tensor([height - size, width - size], device=hole.device)
    corner = centred.clamp(min=0).minimum(limit)
    rows, columns = (corner[:, :, None] + torch.arange(size, device=hole.device)).unbind(1)  # (B, size) each
    strip = image.gather(2, rows[:, None, :, None].expand(-1, channels, -1, width))
    return strip.gather(3, columns[:, None, None, :].expand(-1, channels, size, -1))


def shift_colours(image: Tensor, colour: Tensor) -> Tensor:
    """Changes each image's brightness, saturation and contrast (DiffAugment's colour policy, Zhao et al. 2020).

    Args:
        image: (B, 3, H, W) RGB in [0, 1].
        colour: (B, 3) in [0, 1]. Of its three numbers the first takes brightness by up to 0.25 down or up, the second
            multiplies the distance from grey by up to 2, the third that from the mean by 0.5 to 1.5.

    Returns:
        (B, 3, H, W), which may leave [0, 1]. Gradients pass through.
    """
    brightness, saturation, contrast = colour[:, :, None, None, None].unbind(1)  # (B, 1, 1, 1) each
    image = image + 0.5 * (brightness - 0.5)
    grey = image.mean(dim=1, keepdim=True)
    image = grey + 2 * saturation * (image - grey)
    mean = image.mean(dim=(1, 2, 3), keepdim=True)
    return mean + (0.5 + contrast) * (image - mean)


@dataclass
class Networks:
    """The networks as Accelerate has prepared them, with their optimizers.

    Without discriminators (`--discriminators none`) these two are None, without `--ema` the average is.
    """

    accelerator: Accelerator
    recipe: Recipe
    completion: nn.Module
    completion_optimizer: Any
    discriminator: Any = None
    discriminator_optimizer: Any = None
    average: AveragedModel | None = None

    def unwrap(self, network: nn.Module) -> Any:
        """Returns the network inside Accelerate's wrapper."""
        return self.accelerator.unwrap_model(network, keep_torch_compile=False)

    def result(self) -> Any:
        """Returns the completion network that is validated and saved as the model: the average, if there is one."""
        return self.unwrap(self.completion) if self.average is None else self.average.module

    def update_average(self) -> None:
        """Takes the completion network's weights and statistics into the average, if there is one."""
        if self.average is not None:
            self.average.update_parameters(self.unwrap(self.completion))

    def sync_at_last(self, network: nn.Module, part: int, parts: int) -> AbstractContextManager[None]:
        """Lets processes exchange gradients of `network` after the last part of a batch only."""
        context: AbstractContextManager[None] = (
            self.accelerator.no_sync(network) if part < parts - 1 else nullcontext()
        )
        return context


def completion_step(networks: Networks, parts: Sequence[Batch]) -> dict[str, Tensor]:
    """Runs a step of phase 1 (algorithm 1, line 5): updates C with eq. 2 and the recipe's other losses.

    Args:
        networks: C in training mode.
        parts: The batch, in parts of equal size whose gradients add up to the whole's.

    Returns:
        `mse`: eq. 2, a scalar.
    """
    sums: dict[str, Tensor] = {}
    for index, batch in enumerate(parts):
        with networks.sync_at_last(networks.completion, index, len(parts)):
            completed = networks.completion(batch.image, batch.mask)
            mse, objective = _reconstruction(completed, batch, networks.recipe)
            networks.accelerator.backward(objective / len(parts))
        _add(sums, len(parts), mse=mse)
    _update(networks.completion_optimizer)
    return sums


def discriminator_step(networks: Networks, parts: Sequence[Batch], *, penalise: bool = False) -> dict[str, Tensor]:
    """Runs a step of phase 2 (algorithm 1, line 8): updates D with eq. 4; C stays as it is, statistics included.

    Args:
        networks: D in training mode.
        parts: As for `completion_step`.
        penalise: Add R1 to eq. 4, `PENALTY_EVERY` times.

    Returns:
        `discriminator`: the loss; `real` and `fake`: the mean probability that D gives to real and to completed
        images. Scalars.
    """
    with torch.no_grad(), _evaluation_mode(networks.completion):
        composites = [composite(b.image, networks.completion(b.image, b.mask), b.mask) for b in parts]
    return update_discriminator(networks, parts, composites, penalise=penalise)


def joint_step(
    networks: Networks, parts: Sequence[Batch], *, balance: bool = False, penalise: bool = False
) -> dict[str, Tensor]:
    """Runs a step of phase 3 (algorithm 1, lines 8 and 10): updates D with eq. 4, then C with eq. 5 and the new D.

    Args:
        networks: Both in training mode.
        parts: As for `completion_step`.
        balance: Choose alpha so that at the completed image both terms of eq. 5 have gradients of the same norm.
        penalise: As for `discriminator_step`.

    Returns:
        What the two other steps return; `adversarial`: the second term of eq. 5, without alpha; `alpha`.
    """
    frozen = _evaluation_mode(networks.completion) if networks.recipe.frozen_statistics else nullcontext()
    with frozen:
        if len(parts) == 1:  # one pass through C serves both updates
            completed = [networks.completion(parts[0].image, parts[0].mask)]
            composites = [composite(parts[0].image, completed[0].detach(), parts[0].mask)]
        else:
            completed = []
            with torch.no_grad(), _statistics_kept(networks.completion):
                composites = [composite(b.image, networks.completion(b.image, b.mask), b.mask) for b in parts]
        values = update_discriminator(networks, parts, composites, penalise=penalise)
        return {**values, **update_completion(networks, parts, completed, balance=balance)}


def update_discriminator(
    networks: Networks, parts: Sequence[Batch], composites: Sequence[Tensor], *, penalise: bool = False
) -> dict[str, Tensor]:
    """Updates D with real images and composites, each normalised by statistics of its own kind (eq. 4)."""
    recipe = networks.recipe
    sums: dict[str, Tensor] = {}
    passes = 0
    for batch, fake in zip(parts, composites, strict=True):
        for real, image, hole, colour in (
            (False, fake, batch.hole, batch.colour),
            (True, batch.image, batch.other_hole, batch.other_colour),
        ):
            # Each pass backward before the next one forward, which changes the statistics in place.
            with networks.sync_at_last(networks.discriminator, passes, 2 * len(parts)):
                seen = shift_colours(image, colour) if recipe.colour_augmentation else image
                if penalise and real:
                    seen = seen.detach().requires_grad_()
                logits = networks.discriminator(seen, patches_around(seen, hole, recipe.patch_size))
                loss = objective = discriminator_loss(logits, real=real)
                if penalise and real:
                    objective = loss + PENALTY_EVERY * recipe.r1_weight * gradient_penalty(logits, seen)
                networks.accelerator.backward(objective / len(parts))
            _add(sums, len(parts), **{"discriminator": loss, "real" if real else "fake": logits.sigmoid().mean()})
            passes += 1
    _update(networks.discriminator_optimizer)
    return sums


def update_completion(
    networks: Networks, parts: Sequence[Batch], completed: Sequence[Tensor], *, balance: bool = False
) -> dict[str, Tensor]:
    """Updates C with eq. 5; D stays as it is, its gradients and statistics included.

    Args:
        networks: Both in training mode.
        parts: As for `completion_step`.
        completed: What C made of each part, if it has been through C already; else empty.
        balance: As for `joint_step`.
    """
    recipe, accelerator = networks.recipe, networks.accelerator
    discriminator = networks.unwrap(networks.discriminator)  # has no gradients for processes to exchange
    sums: dict[str, Tensor] = {}
    with _frozen(discriminator):
        for index, batch in enumerate(parts):
            with networks.sync_at_last(networks.completion, index, len(parts)):
                made = completed[index] if completed else networks.completion(batch.image, batch.mask)
                whole = composite(batch.image, made, batch.mask)
                seen = shift_colours(whole, batch.colour) if recipe.colour_augmentation else whole
                logits = discriminator(seen, patches_around(seen, batch.hole, recipe.patch_size))
                mse, reconstruction = _reconstruction(made, batch, recipe)
                adversarial = adversarial_loss(logits, recipe.adversarial_loss)
                alpha = torch.tensor(recipe.alpha, dtype=torch.float32, device=accelerator.device)
                if balance:
                    balanced = _balanced_alpha(accelerator, reconstruction, adversarial, made)
                    alpha = torch.where(balanced.isfinite(), balanced, alpha)  # half precision may overflow
                accelerator.backward((reconstruction + alpha * adversarial) / len(parts))
            _add(sums, len(parts), mse=mse, adversarial=adversarial, alpha=alpha)
    _update(networks.completion_optimizer)
    return sums


def _reconstruction(completed: Tensor, batch: Batch, recipe: Recipe) -> tuple[Tensor, Tensor]:
    """Computes eq. 2, alone and with the recipe's other losses."""
    loss = completion_loss(completed, batch.image, batch.mask)
    objective = loss
    if recipe.tint_weight:
        objective = objective + recipe.tint_weight * tint_loss(completed, batch.image, batch.mask)
    if recipe.gradient_weight:
        objective = objective + recipe.gradient_weight * gradient_loss(completed, batch.image, batch.mask)
    if recipe.similarity_weight:
        objective = objective + recipe.similarity_weight * similarity_loss(completed, batch.image, batch.mask)
    return loss, objective


def _balanced_alpha(
    accelerator: Accelerator, reconstruction: Tensor, adversarial: Tensor, completed: Tensor
) -> Tensor:
    """Computes the alpha that gives both terms' gradients at the completed image equal norms, over all processes."""
    scale = accelerator.scaler.get_scale() if accelerator.scaler else 1.0  # half precision loses small gradients
    norms = []
    for loss in (reconstruction, adversarial):
        (gradient,) = torch.autograd.grad(loss * scale, completed, retain_graph=True)
        norms.append(gradient.float().norm())
    first, second = accelerator.reduce(torch.stack(norms), reduction="sum")
    alpha: Tensor = first / second.clamp(min=torch.finfo(torch.float32).tiny)
    return alpha


def _add(sums: dict[str, Tensor], parts: int, **values: Tensor) -> None:
    """Adds a part's share of the batch's means."""
    for name, value in values.items():
        sums[name] = sums.get(name, torch.zeros_like(value)) + value.detach() / parts


def _update(optimizer: Any) -> None:
    optimizer.step()
    optimizer.zero_grad()


@contextmanager
def _evaluation_mode(network: nn.Module) -> Iterator[None]:
    training = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(training)


@contextmanager
def _statistics_kept(network: nn.Module) -> Iterator[None]:
    """Has batch normalisation work as in training without recording what it sees."""
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True


@contextmanager
def _frozen(network: nn.Module) -> Iterator[None]:
    """Lets gradients pass through a network, and changes nothing in it."""
    network.requires_grad_(False)
    try:
        with _statistics_kept(network):
            yield
    finally:
        network.requires_grad_(True)

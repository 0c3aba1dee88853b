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
    similarity_loss,
    tint_loss,
)
from glcic_hub.training.recipe import Recipe


class Batch(NamedTuple):
    """Photographs x with holes M_c, and the places of other holes M_d (algorithm 1)."""

    image: Tensor  # (B, 3, S, S) RGB in [0, 1]
    mask: Tensor  # (B, 1, S, S), 1 = hole
    hole: Tensor  # (B, 4) int64: top, left, height, width of what local patches are centred on
    other_hole: Tensor  # (B, 4) int64

    @classmethod
    def from_loader(cls, loaded: dict[str, Any], device: torch.device) -> Batch:
        """Brings what `data.collate` made to the device."""
        image, mask, hole, other_hole = (loaded[name].to(device, non_blocking=True) for name in cls._fields)
        return cls(image.float() / 255, mask.float(), hole, other_hole)

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


def discriminator_step(networks: Networks, parts: Sequence[Batch]) -> dict[str, Tensor]:
    """Runs a step of phase 2 (algorithm 1, line 8): updates D with eq. 4; C stays as it is, statistics included.

    Args:
        networks: D in training mode.
        parts: As for `completion_step`.

    Returns:
        `discriminator`: the loss; `real` and `fake`: the mean probability that D gives to real and to completed
        images. Scalars.
    """
    with torch.no_grad(), _evaluation_mode(networks.completion):
        composites = [composite(b.image, networks.completion(b.image, b.mask), b.mask) for b in parts]
    return update_discriminator(networks, parts, composites)


def joint_step(networks: Networks, parts: Sequence[Batch], *, balance: bool = False) -> dict[str, Tensor]:
    """Runs a step of phase 3 (algorithm 1, lines 8 and 10): updates D with eq. 4, then C with eq. 5 and the new D.

    Args:
        networks: Both in training mode.
        parts: As for `completion_step`.
        balance: Choose alpha so that at the completed image both terms of eq. 5 have gradients of the same norm.

    Returns:
        What the two other steps return; `adversarial`: the second term of eq. 5, without alpha; `alpha`.
    """
    if len(parts) == 1:  # one pass through C serves both updates
        completed = [networks.completion(parts[0].image, parts[0].mask)]
        composites = [composite(parts[0].image, completed[0].detach(), parts[0].mask)]
    else:
        completed = []
        with torch.no_grad(), _statistics_kept(networks.completion):
            composites = [composite(b.image, networks.completion(b.image, b.mask), b.mask) for b in parts]
    values = update_discriminator(networks, parts, composites)
    return {**values, **update_completion(networks, parts, completed, balance=balance)}


def update_discriminator(
    networks: Networks, parts: Sequence[Batch], composites: Sequence[Tensor]
) -> dict[str, Tensor]:
    """Updates D with real images and composites, each normalised by statistics of its own kind (eq. 4)."""
    size = networks.recipe.patch_size
    sums: dict[str, Tensor] = {}
    passes = 0
    for batch, fake in zip(parts, composites, strict=True):
        for kind, image, hole in (("fake", fake, batch.hole), ("real", batch.image, batch.other_hole)):
            # Each pass backward before the next one forward, which changes the statistics in place.
            with networks.sync_at_last(networks.discriminator, passes, 2 * len(parts)):
                logits = networks.discriminator(image, patches_around(image, hole, size))
                loss = discriminator_loss(logits, real=kind == "real")
                networks.accelerator.backward(loss / len(parts))
            _add(sums, len(parts), **{"discriminator": loss, kind: logits.sigmoid().mean()})
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
                logits = discriminator(whole, patches_around(whole, batch.hole, recipe.patch_size))
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

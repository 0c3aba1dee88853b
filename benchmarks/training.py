"""How fast photographs are loaded, how fast the networks train, and what a step takes above a bare loop.

The bare loop is algorithm 1 in plain PyTorch: the same networks, a batch that lies in memory, no Accelerate, of the
recipe's own entries `frozen_statistics` alone.

python benchmarks/training.py --data PHOTOGRAPHS [--recipe compact] [--mixed-precision bf16]
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from glcic_hub.data.photographs import Folder
from glcic_hub.networks import CompletionNetwork, ContextDiscriminator
from glcic_hub.training.data import load_batches
from glcic_hub.training.prepare import prepare_networks
from glcic_hub.training.recipe import DEFAULT_RECIPE, Recipe
from glcic_hub.training.steps import (
    Batch,
    Networks,
    completion_step,
    discriminator_step,
    joint_step,
    patches_around,
)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER", help="photographs")
    parser.add_argument("--recipe", default=DEFAULT_RECIPE, metavar="NAME|FILE")
    parser.add_argument("--batch-size", type=int, help="default: the recipe's")
    parser.add_argument("--mixed-precision", choices=["no", "bf16", "fp16"], default="no")
    parser.add_argument("--compile", action="store_true", help="compile the networks")
    parser.add_argument("--workers", type=int, default=1, metavar="N")
    parser.add_argument("--steps", type=int, default=20, metavar="N", help="measured steps of each kind (default: 20)")
    options = parser.parse_args()
    overrides = {} if options.batch_size is None else {"batch_size": options.batch_size}
    recipe = Recipe.load(options.recipe, **overrides)
    photographs = Folder(options.data)

    print(f"| loading, {recipe.image_size}×{recipe.image_size} | images/s |\n|---|---|")
    for workers in sorted({1, 2, options.workers}):
        batches = load_batches(photographs, recipe, workers=workers)
        count = max(4, 400 // recipe.batch_size)
        list(itertools.islice(batches, count // 2))  # the workers start
        seconds = _seconds(partial(list, itertools.islice(batches, count)))
        print(f"| {workers} worker{'s' if workers > 1 else ''} | {count * recipe.batch_size / seconds:.0f} |")

    accelerator = Accelerator(mixed_precision=options.mixed_precision)
    networks = _make_networks(accelerator, recipe, compiled=options.compile)
    plain = _Plain(accelerator, recipe)
    rate = _matrix_rate(accelerator)
    device = torch.cuda.get_device_name() if accelerator.device.type == "cuda" else "CPU"
    print(f"\n{device}, {options.mixed_precision}, batch {recipe.batch_size}, matrices at {rate / 1e12:.2f} TFLOP/s\n")
    print("| phase | images/s | ms a step | a bare loop takes | share of the matrix rate |\n|---|---|---|---|---|")
    for phase, step in enumerate((completion_step, discriminator_step, joint_step), start=1):
        loader = load_batches(photographs, recipe, workers=options.workers)
        kept = Batch.from_loader(next(loader), accelerator.device)
        with FlopCounterMode(display=False) as counter:
            step(networks, [kept])
        bare, whole = [], []
        for _ in range(options.steps):  # interleaved, so that both see the same machine
            bare.append(_seconds(partial(_bare_step, phase, plain, kept)))
            whole.append(_seconds(partial(_whole_step, step, networks, loader)))
        seconds, inside = median(whole), median(bare)
        print(
            f"| {phase} | {recipe.batch_size / seconds:.1f} | {seconds * 1000:.0f} | {inside / seconds:.0%} "
            f"| {counter.get_total_flops() / seconds / rate:.0%} |"
        )


def _whole_step(step: Callable[..., Any], networks: Networks, loader: Iterator[dict[str, Any]]) -> None:
    step(networks, [Batch.from_loader(next(loader), networks.accelerator.device)])


class _Plain:
    """Networks and optimizers as a bare loop has them."""

    def __init__(self, accelerator: Accelerator, recipe: Recipe) -> None:
        self.recipe = recipe
        dtypes = {"bf16": torch.bfloat16, "fp16": torch.float16}
        precision = dtypes.get(str(accelerator.mixed_precision))
        self.autocast = torch.autocast(accelerator.device.type, precision, enabled=precision is not None)
        self.completion = CompletionNetwork(recipe.width, (0.5, 0.5, 0.5)).to(accelerator.device)
        self.discriminator = ContextDiscriminator(recipe.width, recipe.image_size, recipe.patch_size)
        self.discriminator.to(accelerator.device)
        for network in (self.completion, self.discriminator):
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizers = [torch.optim.AdamW(n.parameters(), 1e-4) for n in (self.completion, self.discriminator)]


def _bare_step(phase: int, plain: _Plain, batch: Batch) -> None:
    """Runs a step of algorithm 1 (lines 5, 8 and 10)."""
    completion, discriminator = plain.completion, plain.discriminator
    of_completion, of_discriminator = plain.optimizers
    completion.train(phase != 2 and not (phase == 3 and plain.recipe.frozen_statistics))

    def judge(image: Tensor, hole: Tensor) -> Tensor:
        with plain.autocast:
            logits: Tensor = discriminator(image, patches_around(image, hole, plain.recipe.patch_size))
        return logits.float()

    with plain.autocast, torch.set_grad_enabled(phase != 2):
        completed = completion(batch.image, batch.mask).float()
    fake = torch.where(batch.mask > 0, completed, batch.image)
    if phase > 1:
        functional.softplus(judge(fake.detach(), batch.hole)).mean().backward()  # type: ignore[no-untyped-call]
        functional.softplus(-judge(batch.image, batch.other_hole)).mean().backward()  # type: ignore[no-untyped-call]
        of_discriminator.step()
        of_discriminator.zero_grad()
    if phase != 2:
        loss = ((completed - batch.image).square() * batch.mask).sum() / batch.mask.sum()
        if phase == 3:
            discriminator.requires_grad_(False)
            loss = loss + plain.recipe.alpha * functional.softplus(-judge(fake, batch.hole)).mean()
        loss.backward()
        discriminator.requires_grad_(True)
        of_completion.step()
        of_completion.zero_grad()


def _make_networks(accelerator: Accelerator, recipe: Recipe, *, compiled: bool) -> Networks:
    completion = CompletionNetwork(recipe.width, (0.5, 0.5, 0.5))
    discriminator = ContextDiscriminator(recipe.width, recipe.image_size, recipe.patch_size)
    return prepare_networks(accelerator, recipe, completion, discriminator, compiled=compiled)


def _matrix_rate(accelerator: Accelerator) -> float:
    """The FLOP/s of a large product of matrices in the precision of the training."""
    on_gpu = accelerator.device.type == "cuda"
    size = 8192 if on_gpu else 2048
    dtypes = {"bf16": torch.bfloat16, "fp16": torch.float16}
    dtype = dtypes.get(str(accelerator.mixed_precision), torch.float32)
    matrix = torch.randn(size, size, device=accelerator.device, dtype=dtype)
    return 2 * size**3 / min(_seconds(lambda: matrix @ matrix) for _ in range(10))


def _seconds(work: Callable[[], Any]) -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    begin = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()

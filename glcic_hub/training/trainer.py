"""The training loop (algorithm 1; phase 1 so far)."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DataLoaderConfiguration, set_seed
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from glcic_hub.config import GLCICConfig
from glcic_hub.files import first_line, write_whole
from glcic_hub.hub import load_model, save_model
from glcic_hub.networks import CompletionNetwork
from glcic_hub.picture_files import find_pictures
from glcic_hub.training.data import TrainingSamples, measure_mean_pixel
from glcic_hub.training.initialisation import initialise_spreading
from glcic_hub.training.losses import completion_loss, gradient_loss, tint_loss
from glcic_hub.training.recipe import Recipe

WARMUP_STEPS = 200
CHECKPOINTS_KEPT = 2
RUN_FILE = "run.json"
LOG_FILE = "log.jsonl"


def learning_rate_at(step: int, recipe: Recipe) -> float:
    """The learning rate of a step, counted from 0."""
    if recipe.schedule == "constant":
        return recipe.learning_rate
    warmup = min(1.0, (step + 1) / WARMUP_STEPS)
    return recipe.learning_rate * warmup * 0.5 * (1 + math.cos(math.pi * step / recipe.completion_steps))


def completion_step(
    network: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    batch: dict[str, Tensor],
    recipe: Recipe,
    accelerator: Accelerator,
) -> Tensor:
    """One step of phase 1, the completion network alone: eq. 2, and what else the recipe weighs.

    Returns:
        The value of eq. 2 alone, a scalar.
    """
    image, mask = batch["image"], batch["mask"]
    completed = network(image, mask)
    loss = completion_loss(completed, image, mask)
    objective = loss
    if recipe.tint_weight:
        objective = objective + recipe.tint_weight * tint_loss(completed, image, mask)
    if recipe.gradient_weight:
        objective = objective + recipe.gradient_weight * gradient_loss(completed, image, mask)
    accelerator.backward(objective)
    optimizer.step()
    optimizer.zero_grad()
    return loss.detach()


def _initial_network(config: GLCICConfig, recipe: Recipe) -> CompletionNetwork:
    network = CompletionNetwork(config.width, config.mean_pixel)
    if recipe.initialisation == "spreading":
        initialise_spreading(network)
    return network


def _make_optimizer(network: torch.nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    if recipe.optimizer == "adadelta":
        return torch.optim.Adadelta(network.parameters(), lr=recipe.learning_rate)
    return torch.optim.AdamW(network.parameters(), lr=recipe.learning_rate)


def _save_checkpoint(accelerator: Accelerator, output: Path, step: int) -> None:
    """Saves the state of the run after `step` steps, whole or not at all, and drops the oldest."""
    name = f"checkpoint-{step:08d}"
    unfinished = output / f".unfinished-{name}"
    if accelerator.is_main_process:
        shutil.rmtree(unfinished, ignore_errors=True)
    accelerator.wait_for_everyone()
    accelerator.save_state(str(unfinished))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        unfinished.replace(output / name)
        for old in _checkpoints(output)[:-CHECKPOINTS_KEPT]:
            shutil.rmtree(old)


def _load_checkpoint(accelerator: Accelerator, checkpoint: Path) -> None:
    try:
        accelerator.load_state(str(checkpoint))
    except Exception as error:  # of safetensors, torch or the file system
        raise ValueError(
            f"cannot resume from {checkpoint}: {first_line(error)}; remove it to resume from an older one"
        ) from None


def _checkpoints(output: Path) -> list[Path]:
    return sorted(output.glob("checkpoint-*"))


def train(
    recipe: Recipe,
    data: str | Path,
    output: str | Path,
    *,
    mixed_precision: str | None = None,
    workers: int = 1,
    save_every: int = 250,
    resume: bool = False,
    start_from: str | Path | None = None,
) -> Path:
    """Trains the completion network (phase 1 of sec. 3.4) and saves it as a model folder.

    Run it under `accelerate launch` to use several devices.

    Args:
        recipe: What to train, and how.
        data: Folder of photographs, searched with its subfolders.
        output: Folder of the run: checkpoints, `log.jsonl`, and the model folder `model`, written anew at each
            checkpoint.
        mixed_precision: `no`, `bf16` or `fp16`; None takes what `accelerate launch` or `accelerate config` says.
        workers: Processes that read photographs, for each training process.
        save_every: Steps from one checkpoint to the next.
        resume: Go on from the last checkpoint in `output`. Otherwise `output` must not hold a run.
        start_from: A model folder to take weights and mean pixel from, instead of the recipe's initialisation.

    Returns:
        The model folder, which `GLCICPipeline.from_pretrained` opens.

    Raises:
        FileNotFoundError: `data` is not a folder, or there is nothing to resume or start from.
        FileExistsError: `output` holds a run, and `resume` is false.
        ValueError: `data` holds no photographs or an unreadable one, a number is out of its range, the batch cannot be
            split over the processes, the recipe or the number of photographs differs from that of the run to resume,
            its last checkpoint is broken, or the model to start from has another width than the recipe.
    """
    if workers < 0 or save_every < 1:
        raise ValueError(f"workers must be at least 0 and save_every at least 1, not {workers} and {save_every}")
    output = Path(output)
    paths = find_pictures(Path(data))
    accelerator = Accelerator(
        mixed_precision=mixed_precision, dataloader_config=DataLoaderConfiguration(split_batches=True)
    )
    if recipe.batch_size % accelerator.num_processes:
        raise ValueError(f"batch_size {recipe.batch_size} cannot be split over {accelerator.num_processes} processes")
    set_seed(recipe.seed)
    start = None if start_from is None else load_model(Path(start_from))
    if start is not None and start[0].width != recipe.width:
        raise ValueError(f"{start_from} has the width {start[0].width}, and the recipe says {recipe.width}")

    origin = {} if start is None else {"start_from": str(start_from), "mean_pixel": start[0].mean_pixel}
    run = _open_run(accelerator, output, recipe, paths, resume=resume, origin=origin)
    config = recipe.config(run["mean_pixel"])
    network = _initial_network(config, recipe) if start is None else start[1]
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    first_step = int(_checkpoints(output)[-1].name.removeprefix("checkpoint-")) if resume else 0
    samples = TrainingSamples(
        paths, recipe, first_step * recipe.batch_size, recipe.completion_steps * recipe.batch_size
    )
    loader = DataLoader(samples, recipe.batch_size, num_workers=workers, pin_memory=torch.cuda.is_available())
    trained, optimizer, loader = accelerator.prepare(network, _make_optimizer(network, recipe), loader)
    if resume:
        _load_checkpoint(accelerator, _checkpoints(output)[-1])

    model = output / "model"
    trained.train()
    progress = tqdm(
        total=recipe.completion_steps, initial=first_step, unit="step", disable=not accelerator.is_main_process
    )
    began = time.perf_counter()
    recent: list[Tensor] = []
    for step, batch in enumerate(loader, start=first_step):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate_at(step, recipe)
        recent.append(completion_step(trained, optimizer, batch, recipe, accelerator))
        done = step + 1
        progress.update()
        if done % 10 == 0 or done == recipe.completion_steps:
            loss = accelerator.reduce(torch.stack(recent).mean(), reduction="mean").item()
            recent.clear()
            rate = (done - first_step) * recipe.batch_size / (time.perf_counter() - began)
            progress.set_postfix(mse=f"{loss:.4f}", images_per_s=f"{rate:.1f}")
            if accelerator.is_main_process:
                with (output / LOG_FILE).open("a", encoding="utf-8") as log:
                    log.write(json.dumps({"step": done, "mse": loss, "images_per_s": round(rate, 2)}) + "\n")
        if done % save_every == 0 or done == recipe.completion_steps:
            if accelerator.is_main_process:
                save_model(model, config, accelerator.unwrap_model(trained), dtype=torch.float16)
            _save_checkpoint(accelerator, output, done)
    progress.close()
    accelerator.end_training()
    return model


def _open_run(
    accelerator: Accelerator,
    output: Path,
    recipe: Recipe,
    paths: Sequence[Path],
    *,
    resume: bool,
    origin: dict[str, Any],
) -> dict[str, Any]:
    """Makes the folder of a new run, or checks that of the run to resume; returns what `run.json` holds."""
    if resume and not _checkpoints(output):
        raise FileNotFoundError(f"no run to resume in {output}: it holds no checkpoint")
    if not resume and _checkpoints(output):
        raise FileExistsError(f"{output} holds a run already; resume it, or give another folder")
    accelerator.wait_for_everyone()  # nobody writes before all have looked
    if not resume and accelerator.is_main_process:
        output.mkdir(parents=True, exist_ok=True)
        (output / LOG_FILE).unlink(missing_ok=True)
        run = origin or {"mean_pixel": measure_mean_pixel(paths)}
        run = {"photographs": len(paths), **run}
        recipe.save(output / "recipe.yaml")
        write_whole(
            output / RUN_FILE, lambda path: path.write_text(json.dumps(run, indent=2) + "\n", encoding="utf-8")
        )
    accelerator.wait_for_everyone()
    saved = Recipe.load(str(output / "recipe.yaml"))
    if saved != recipe:
        raise ValueError(f"{output} was begun with another recipe: see {output / 'recipe.yaml'}")
    loaded: dict[str, Any] = json.loads((output / RUN_FILE).read_text(encoding="utf-8"))
    if loaded["photographs"] != len(paths):
        raise ValueError(f"{output} was begun with {loaded['photographs']} photographs, now there are {len(paths)}")
    return loaded

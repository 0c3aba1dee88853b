"""What a training step comes with: learning rate, log, validation, models, checkpoints."""

from __future__ import annotations

import dataclasses
import math
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object
from torch import Tensor
from tqdm.auto import tqdm

from glcic_hub.config import GLCICConfig
from glcic_hub.hub.card import UNNAMED, write_card
from glcic_hub.hub.model_files import save_model
from glcic_hub.hub.transfer import push_folder
from glcic_hub.networks import CompletionNetwork
from glcic_hub.pipeline import GLCICPipeline, card_image
from glcic_hub.training.recipe import Recipe
from glcic_hub.training.run_folder import Run
from glcic_hub.training.steps import Batch, Networks, completion_step, discriminator_step, joint_step
from glcic_hub.training.validation import Example, validate
from glcic_hub.version import __version__

LOG_EVERY = 10
WARMUP_STEPS = 200


def learning_rate_at(step: int, recipe: Recipe) -> float:
    """The completion network's learning rate in a step, counted from 0."""
    phase = recipe.phase_of(step)
    greatest = recipe.learning_rate if phase == 1 else recipe.joint_learning_rate
    if recipe.schedule == "constant":
        return greatest
    begin, end = (0, *recipe.phase_ends)[phase - 1 : phase + 1]
    warmup = min(1.0, (step - begin + 1) / WARMUP_STEPS)
    return greatest * warmup * 0.5 * (1 + math.cos(math.pi * (step - begin) / (end - begin)))


class Loop:
    """A run between its beginning and its end. Every process has one; the main one writes."""

    def __init__(
        self,
        networks: Networks,
        run: Run,
        config: GLCICConfig,
        examples: Sequence[Example],
        facts: dict[str, Any],
        repository: str | None,
    ) -> None:
        self.networks = networks
        self.accelerator = networks.accelerator
        self.recipe = networks.recipe
        self.run = run
        self.config = config
        self.examples = examples
        self.facts = facts
        self.repository = repository
        self.recent: list[dict[str, Tensor]] = []
        self.unreadable: set[str] = set()

    @contextmanager
    def progress_bar(self, first_step: int) -> Iterator[None]:
        """Shows a bar in the main process; logs and trackers are closed in the end, whatever happens."""
        steps = self.recipe.phase_ends[-1]
        hidden = not self.accelerator.is_main_process
        self.began = time.perf_counter()
        with tqdm(total=steps, initial=first_step, unit="step", disable=hidden) as self.progress:
            try:
                yield
            finally:
                self.accelerator.end_training()

    def step(self, step: int, parts: Sequence[Batch], unreadable: Sequence[str]) -> None:
        """Does one step of the phase that it belongs to (algorithm 1)."""
        phase = self.recipe.phase_of(step)
        for group in self.networks.completion_optimizer.param_groups:
            group["lr"] = learning_rate_at(step, self.recipe)
        if phase == 1:
            values = completion_step(self.networks, parts)
        elif phase == 2:
            values = discriminator_step(self.networks, parts)
        else:
            balance = step - self.recipe.phase_ends[1] < self.recipe.balance_steps
            values = joint_step(self.networks, parts, balance=balance)
        self.recent.append(values)
        self.unreadable.update(unreadable)
        self.progress.update()

    def log(self, done: int) -> None:
        """Logs the mean over the steps since the last log, and over the processes.

        Raises:
            FloatingPointError: It is not finite.
        """
        names = list(self.recent[0])
        means = torch.stack([torch.stack([values[name] for values in self.recent]).mean() for name in names])
        values = dict(zip(names, self.accelerator.reduce(means, reduction="mean").tolist(), strict=True))
        unreadable = gather_object(sorted(self.unreadable))
        steps = len(self.recent)
        rate = steps * self.recipe.batch_size / (time.perf_counter() - self.began)
        self.recent.clear()
        self.unreadable.clear()
        if self.accelerator.is_main_process:
            self.run.log({"step": done, "phase": self.recipe.phase_of(done - 1), **values, "images_per_s": rate})
            self.progress.set_postfix(phase=self.recipe.phase_of(done - 1), **values, images_per_s=rate)
            if unreadable:
                self._report_unreadable(unreadable)
        self.accelerator.log({**values, "images_per_s": rate}, step=done)
        if bad := [f"{name} is {value}" for name, value in values.items() if not math.isfinite(value)]:
            raise FloatingPointError(self._diverged(f"{', '.join(bad)} in the {steps} steps up to {done}"))
        self.began = time.perf_counter()

    def _report_unreadable(self, names: Sequence[str]) -> None:
        count, new = self.run.note_unreadable(names)
        for name in new:
            warnings.warn(
                f"cannot read {name}, skipped; {count} so far are listed in {self.run.unreadable_file}", stacklevel=2
            )

    def _diverged(self, what: str) -> str:
        return f"training diverged: {what}; {self.run.last_good()}; try a lower learning rate"

    def check_weights(self, done: int) -> None:
        """Makes sure that the networks are worth validating and saving.

        Raises:
            FloatingPointError: A weight is not finite.
        """
        for network in self._networks():
            for name, tensor in network.state_dict().items():
                if tensor.is_floating_point() and not tensor.isfinite().all():
                    raise FloatingPointError(self._diverged(f"{name} holds NaN or infinity after step {done}"))

    def validate(self, done: int) -> None:
        """Measures the completion network, draws the grid, and keeps the model if it is the best of its phase."""
        if not self.accelerator.is_main_process or not self.examples:
            return
        try:
            figures, picture = validate(self._pipeline(self.config), self.examples)
        except FloatingPointError as error:
            raise FloatingPointError(self._diverged(f"{error}, after step {done}")) from None
        phase = self.recipe.phase_of(done - 1)
        best_before = max(
            ((entry["phase"], entry["ssim"]) for entry in self.run.read_log() if "ssim" in entry), default=(0, 0.0)
        )
        self.run.log({"step": done, "phase": phase, **figures})
        self.run.save_grid(picture, done)
        self.accelerator.log(figures, step=done)
        for tracker in self.accelerator.trackers:
            if hasattr(tracker, "log_images"):
                options = {"dataformats": "NHWC"} if tracker.name == "tensorboard" else {}
                tracker.log_images({"validation": np.asarray(picture)[None]}, step=done, **options)
        if (phase, figures["ssim"]) > best_before:
            self.run.replace_model(self.run.best, lambda folder: self._write_model(folder, done))
        self.progress.write(f"step {done}, phase {phase}: " + ", ".join(f"{k} {v:.3f}" for k, v in figures.items()))
        self.began = time.perf_counter()

    def save(self, done: int) -> None:
        """Saves the model, then the checkpoint: whoever resumes has both, or makes both again.

        Raises:
            OSError: The disk is full.
        """
        if self.accelerator.is_main_process:
            self.run.replace_model(self.run.model, lambda folder: self._write_model(folder, done))
        self.run.save_checkpoint(self.accelerator, done)
        self.began = time.perf_counter()

    def push(self, done: int) -> None:
        """Uploads the model; if that fails, training goes on."""
        if self.accelerator.is_main_process and self.repository is not None:
            try:
                push_folder(self.run.model, self.repository, f"Step {done}")
            except OSError as error:
                warnings.warn(f"{error}; the run goes on", stacklevel=2)
            self.began = time.perf_counter()

    def finish(self) -> None:
        """Plots the run and uploads its model.

        Raises:
            OSError: The Hub cannot be reached.
        """
        if self.accelerator.is_main_process:
            self.run.plot(self.recipe)
            if self.repository is not None:
                push_folder(self.run.model, self.repository, "Trained model")
        self.accelerator.wait_for_everyone()

    def _networks(self) -> list[Any]:
        prepared = (self.networks.completion, self.networks.discriminator)
        return [self.networks.unwrap(network) for network in prepared if network is not None]

    def _write_model(self, folder: Path, done: int) -> None:
        completion, *discriminators = self._networks()
        config = dataclasses.replace(self.config, training=self._record(done))
        save_model(folder, config, completion, *discriminators, dtype=torch.float16)
        self.recipe.save(folder / "recipe.yaml")
        try:
            write_card(folder, config, card_image(self._pipeline(config)), self.repository or UNNAMED)
        except FloatingPointError as error:
            raise FloatingPointError(self._diverged(f"{error}, after step {done}")) from None

    def _pipeline(self, config: GLCICConfig) -> GLCICPipeline:
        completion = CompletionNetwork(config.width, config.mean_pixel)
        completion.load_state_dict(self.networks.unwrap(self.networks.completion).state_dict())
        # Half precision may overflow where training in single precision goes well.
        return GLCICPipeline(config, completion.eval(), device=self.accelerator.device, dtype=torch.float32)

    def _record(self, done: int) -> dict[str, Any]:
        """What the model's config says of its training."""
        measured = {entry["phase"]: entry for entry in self.run.read_log() if "ssim" in entry}  # the last of each
        count = self.facts["photographs"]
        held_out = f", of which {len(self.examples)} were held out" if self.facts["validation"] is None else ""
        return {
            "data": self.facts["data"] + (", streamed" if count is None else f", {count} photographs{held_out}"),
            "steps": f"{done} of {self.recipe.phase_ends[-1]}; the phases end at {self.recipe.phase_ends}",
            "start": self.facts["start"] or "scratch",
            # A folder goes by its last part.
            **({"datasets": [self.facts["data"].partition(":")[0]]} if "/" in self.facts["data"] else {}),
            "software": f"glcic-hub {__version__}, torch {torch.__version__}",
            "recipe": self.recipe.entries(),
            "validation": f"{len(self.examples)} photographs that were not trained on",
            "figures": [
                {"phase": phase, **{name: row[name] for name in ("step", "psnr", "ssim", "texture")}}
                for phase, row in measured.items()
            ],
        }

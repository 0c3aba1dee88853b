"""Training from recipe and photographs to a model (algorithm 1), on Hugging Face Accelerate."""

from __future__ import annotations

import dataclasses
import math
import os
import signal
import threading
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor
from tqdm.auto import tqdm

from glcic_hub.completion.completer import is_out_of_memory
from glcic_hub.config import GLCICConfig
from glcic_hub.files import first_line
from glcic_hub.hub.card import UNNAMED, card_text, write_card
from glcic_hub.hub.model_files import save_model
from glcic_hub.hub.transfer import check_card, make_repository, push_folder
from glcic_hub.networks import CompletionNetwork
from glcic_hub.pipeline import GLCICPipeline, card_image
from glcic_hub.training.data import load_batches
from glcic_hub.training.options import TrainingOptions
from glcic_hub.training.prepare import (
    begin_run,
    build_networks,
    open_accelerator,
    open_sources,
    parts_of_batch,
)
from glcic_hub.training.recipe import Recipe
from glcic_hub.training.run_folder import Run, RunFacts, step_of
from glcic_hub.training.steps import (
    PENALTY_EVERY,
    Batch,
    Networks,
    completion_step,
    discriminator_step,
    joint_step,
)
from glcic_hub.training.validation import Example, validate
from glcic_hub.version import __version__

LOG_EVERY = 10
DEFAULT_OPTIONS = TrainingOptions()


class PreemptedError(Exception):
    """The process was asked to stop (SIGTERM); the run is saved and can be resumed."""


def train(recipe: Recipe, data: str | Path, output: str | Path, options: TrainingOptions = DEFAULT_OPTIONS) -> Path:
    """Trains the three networks in three phases (algorithm 1) and saves them as a model folder.

    Run it under `accelerate launch` to use several devices or nodes.

    Args:
        recipe: What to train, and how.
        data: A folder of photographs, searched with its subfolders; or a dataset that the `datasets` library opens,
            `user/name` on the Hub or a folder of Parquet files or tar shards; `name:split` for another split than
            `train`.
        output: Folder of the run: checkpoints, `log.jsonl`, `losses.png`, grids of validation images, and the model
            folders `model`, written anew at each checkpoint, and `best`, the one of the greatest SSIM in the last
            phase reached.
        options: What may change from one machine to the next: see `TrainingOptions`.

    Returns:
        The model folder, which `GLCICPipeline.from_pretrained` opens.

    Raises:
        FileNotFoundError: `data` or `options.start_from` does not exist, or the checkpoint to resume from.
        FileExistsError: `output` holds a run, and `options.resume` is false.
        ValueError: `data` holds no photographs or none that can be read, a number is out of its range, the batch
            cannot be split, the recipe or the photographs differ from those of the run to resume by more than numbers
            of steps that may grow, the checkpoint is broken, or the model to start from is missing or does not fit the
            recipe.
        FloatingPointError: A loss or a weight is no longer finite; the newest checkpoint is from before that.
        OSError: The disk is full, or the Hub cannot be reached.
        PreemptedError: SIGTERM came; the run is saved.
    """
    # 1. Prepare: check what can be checked, and open what is read.
    run = Run(Path(output), options.keep)
    checkpoint = run.checkpoint(options.resume) if options.resume else None
    first_step = 0 if checkpoint is None else step_of(checkpoint)
    accelerator = open_accelerator(recipe, run, options)
    sources = open_sources(accelerator, recipe, data, options)

    # 2. Begin the run, or resume the one that is there.
    if checkpoint is None:
        begin_run(accelerator, run, recipe, sources)
    else:
        run.check_same(recipe, sources.known, first_step)
    facts = run.facts()

    # 3. Build the networks with their optimizers, and bring them to where the run is.
    networks = build_networks(accelerator, recipe, facts, sources, compiled=options.compile)
    trainer = Trainer(networks, run, facts, sources.examples, options)
    trainer.open_repository()
    if checkpoint is not None:
        run.load_checkpoint(accelerator, checkpoint)
        if accelerator.is_main_process:
            run.go_back(first_step)
            recipe.save(run.recipe_file)  # which may have more steps than before
    if options.trackers:
        accelerator.init_trackers("glcic", config={name: str(value) for name, value in recipe.entries().items()})

    # 4. Fit.
    batches = load_batches(
        sources.photographs,
        recipe,
        first_step=first_step,
        process=accelerator.process_index,
        processes=accelerator.num_processes,
        workers=_default_workers(accelerator) if options.workers is None else options.workers,
    )
    trainer.fit(batches, first_step)
    return run.model


class Trainer:
    """Trains networks, and keeps the run's log, models and checkpoints. Each process has one; the main one writes."""

    def __init__(
        self,
        networks: Networks,
        run: Run,
        facts: RunFacts,
        examples: Sequence[Example],
        options: TrainingOptions,
    ) -> None:
        self.networks = networks
        self.accelerator = networks.accelerator
        self.recipe = networks.recipe
        self.run = run
        self.facts = facts
        self.config = self.recipe.config(facts.mean_pixel)
        self.examples = examples
        self.options = options
        self.parts = parts_of_batch(options)
        self.repository = options.push_to_hub
        self.recent: list[dict[str, Tensor]] = []
        self.unreadable: set[str] = set()

    def open_repository(self) -> None:
        """Makes the repository on the Hub, if there is to be one: better to fail now than in a month.

        Raises:
            ValueError: The Hub does not take the model card, or the name is not a name.
            OSError: The Hub cannot be reached, or refuses.
        """
        if self.repository is not None and self.accelerator.is_main_process:
            check_card(card_text(dataclasses.replace(self.config, training=self._record(0))), self.repository)
            self.repository = make_repository(self.repository, private=self.options.private or None)

    def fit(self, batches: Iterable[dict[str, Any]], first_step: int) -> None:
        """Trains from a step to the last (algorithm 1), then plots the run and uploads its model.

        Args:
            batches: One for each step, as `data.collate` makes them.
            first_step: Counted from 0.

        Raises:
            FloatingPointError: A loss or a weight is no longer finite.
            OSError: The disk is full, or the Hub cannot be reached at the end.
            MemoryError: A batch does not fit.
            PreemptedError: SIGTERM came; the run is saved.
        """
        with _sigterm_noted() as stop_asked, self._progress_bar(first_step), _failures_explained(self.run):
            for step, loaded in enumerate(batches, start=first_step):
                parts = Batch.from_loader(loaded, self.accelerator.device).split(self.parts)
                phase = self.recipe.phase_of(step)
                penalise = self.recipe.r1_weight > 0 and step % PENALTY_EVERY == 0
                for group in self.networks.completion_optimizer.param_groups:
                    group["lr"] = self.recipe.learning_rate_at(step)
                if phase == 1:
                    values = completion_step(self.networks, parts)
                elif phase == 2:
                    values = discriminator_step(self.networks, parts, penalise=penalise)
                else:
                    balance = step - self.recipe.phase_ends[1] < self.recipe.balance_steps
                    values = joint_step(self.networks, parts, balance=balance, penalise=penalise)
                if phase != 2:  # in which the completion network stays as it is
                    self.networks.update_average()
                self.recent.append(values)
                self.unreadable.update(loaded["unreadable"])
                self.progress.update()
                self._record_step(step + 1, stop=_stop_agreed(self.accelerator, stop_asked))
            self._finish()

    def _record_step(self, done: int, *, stop: bool) -> None:
        """Logs, validates, saves and uploads after a step, as far as it is time to; stops if that was asked for."""
        phase_over = done in self.recipe.phase_ends
        push = self.options.push_every is not None and done % self.options.push_every == 0
        measure = (phase_over or done % self.options.validate_every == 0) and self.recipe.phase_of(done - 1) != 2
        save = phase_over or push or stop or done % self.options.save_every == 0
        if save or done % LOG_EVERY == 0:
            self._log(done)
        if measure or save:
            self._check_weights(done)
        if measure:
            self._validate(done)
        if save:
            self._save(done)
        if push:
            self._push(done)
        if stop and done < self.recipe.phase_ends[-1]:
            raise PreemptedError(f"stopped after step {done} of {self.recipe.phase_ends[-1]} and saved; resume it")

    @contextmanager
    def _progress_bar(self, first_step: int) -> Iterator[None]:
        """Shows a bar in the main process; logs and trackers are closed in the end, whatever happens."""
        steps = self.recipe.phase_ends[-1]
        hidden = not self.accelerator.is_main_process
        self.began = time.perf_counter()
        with tqdm(total=steps, initial=first_step, unit="step", disable=hidden) as self.progress:
            try:
                yield
            finally:
                self.accelerator.end_training()

    def _log(self, done: int) -> None:
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

    def _check_weights(self, done: int) -> None:
        """Makes sure that the networks are worth validating and saving.

        Raises:
            FloatingPointError: A weight is not finite.
        """
        for network in self._networks():
            for name, tensor in network.state_dict().items():
                if tensor.is_floating_point() and not tensor.isfinite().all():
                    raise FloatingPointError(self._diverged(f"{name} holds NaN or infinity after step {done}"))

    def _validate(self, done: int) -> None:
        """Measures the completion network, draws the grid, and keeps the model if it is the best of its phase."""
        if not self.accelerator.is_main_process or not self.examples:
            return
        try:
            figures, image = validate(self._pipeline(self.config), self.examples)
        except FloatingPointError as error:
            raise FloatingPointError(self._diverged(f"{error}, after step {done}")) from None
        phase = self.recipe.phase_of(done - 1)
        best_before = max(
            ((entry["phase"], entry["ssim"]) for entry in self.run.read_log() if "ssim" in entry), default=(0, 0.0)
        )
        self.run.log({"step": done, "phase": phase, **figures})
        self.run.save_grid(image, done)
        self.accelerator.log(figures, step=done)
        for tracker in self.accelerator.trackers:
            if hasattr(tracker, "log_images"):
                options = {"dataformats": "NHWC"} if tracker.name == "tensorboard" else {}
                tracker.log_images({"validation": np.asarray(image)[None]}, step=done, **options)
        if (phase, figures["ssim"]) > best_before:
            self.run.replace_model(self.run.best, lambda folder: self._write_model(folder, done))
        self.progress.write(f"step {done}, phase {phase}: " + ", ".join(f"{k} {v:.3f}" for k, v in figures.items()))
        self.began = time.perf_counter()

    def _save(self, done: int) -> None:
        """Saves the model, then the checkpoint: whoever resumes has both, or makes both again.

        Raises:
            OSError: The disk is full.
        """
        if self.accelerator.is_main_process:
            self.run.replace_model(self.run.model, lambda folder: self._write_model(folder, done))
            if done in self.recipe.phase_ends and done < self.recipe.phase_ends[-1]:
                self.run.keep_model(self.recipe.phase_of(done - 1))
        self.run.save_checkpoint(self.accelerator, done)
        self.began = time.perf_counter()

    def _push(self, done: int) -> None:
        """Uploads the model; a failure is a warning, and training continues."""
        if self.accelerator.is_main_process and self.repository is not None:
            try:
                push_folder(self.run.model, self.repository, f"Step {done}")
            except OSError as error:
                warnings.warn(f"{error}; the run continues", stacklevel=2)
            self.began = time.perf_counter()

    def _finish(self) -> None:
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
        _, *discriminators = self._networks()
        config = dataclasses.replace(self.config, training=self._record(done))
        save_model(folder, config, self.networks.result(), *discriminators, dtype=torch.float16)
        self.recipe.save(folder / "recipe.yaml")
        self.run.copy_license(folder)
        try:
            write_card(folder, config, card_image(self._pipeline(config)), self.repository or UNNAMED)
        except FloatingPointError as error:
            raise FloatingPointError(self._diverged(f"{error}, after step {done}")) from None

    def _pipeline(self, config: GLCICConfig) -> GLCICPipeline:
        completion = CompletionNetwork(config.width, config.mean_pixel)
        completion.load_state_dict(self.networks.result().state_dict())
        # Half precision may overflow where training in single precision goes well.
        return GLCICPipeline(config, completion.eval(), device=self.accelerator.device, dtype=torch.float32)

    def _record(self, done: int) -> dict[str, Any]:
        """Makes the record of the training for the model's config."""
        measured = {entry["phase"]: entry for entry in self.run.read_log() if "ssim" in entry}  # the last of each
        count = self.facts.photographs
        inherited = self.facts.inherited
        # A folder goes by its last part.
        own = [self.facts.data.partition(":")[0]] if "/" in self.facts.data else []
        datasets = list(dict.fromkeys([*own, *inherited.get("datasets", [])]))
        held_out = f", of which {len(self.examples)} were held out" if self.facts.validation is None else ""
        return {
            "start": self.facts.start or "scratch",
            **inherited,
            "data": self.facts.data + (", streamed" if count is None else f", {count} photographs{held_out}"),
            "steps": f"{done} of {self.recipe.phase_ends[-1]}; the phases end at {self.recipe.phase_ends}",
            **({"datasets": datasets} if datasets else {}),
            "software": f"glcic-hub {__version__}, torch {torch.__version__}",
            "recipe": self.recipe.entries(),
            "validation": f"{len(self.examples)} photographs that were not trained on",
            "figures": [
                {"phase": phase, **{name: row[name] for name in ("step", "psnr", "ssim", "texture")}}
                for phase, row in measured.items()
            ],
        }


def _default_workers(accelerator: Accelerator) -> int:
    if accelerator.device.type == "cpu":
        return 1
    processes: int = accelerator.num_processes
    return max(1, min(8, (os.cpu_count() or 1) // processes))


@contextmanager
def _sigterm_noted() -> Iterator[threading.Event]:
    """Notes SIGTERM, by which clusters announce that they take a machine back, instead of dying of it."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # which alone may handle signals
        yield asked
        return
    previous = signal.signal(signal.SIGTERM, lambda *_: asked.set())
    try:
        yield asked
    finally:
        signal.signal(signal.SIGTERM, previous)


def _stop_agreed(accelerator: Accelerator, asked: threading.Event) -> bool:
    """Tells whether any process was asked to stop; processes agree, so that all stop after the same step."""
    if accelerator.num_processes == 1:
        return asked.is_set()
    if asked.is_set():
        accelerator.set_trigger()
    return bool(accelerator.check_trigger())


@contextmanager
def _failures_explained(run: Run) -> Iterator[None]:
    """Says what is left and what can be done when the machine gives out."""
    try:
        yield
    except OSError as error:
        raise OSError(f"{first_line(error)}; {run.last_good()}") from None
    except RuntimeError as error:
        if is_out_of_memory(error):
            hint = "cut batches into parts (accumulation) or make them smaller (batch_size)"
            raise MemoryError(f"not enough memory: {first_line(error)}; {hint}; {run.last_good()}") from None
        if "DataLoader worker" in str(error):
            raise OSError(f"a process that reads photographs died: {first_line(error)}; {run.last_good()}") from None
        raise

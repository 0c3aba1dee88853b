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
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors.torch
import torch
from accelerate import Accelerator, InitProcessGroupKwargs
from accelerate.tracking import get_available_trackers
from accelerate.utils import ProjectConfiguration, gather_object, set_seed
from torch import Tensor, nn
from tqdm.auto import tqdm

from glcic_hub.completion.completer import is_out_of_memory
from glcic_hub.config import GLCICConfig
from glcic_hub.data.photographs import Folder, Photograph, Stream, hold_out, measure_mean_pixel, open_photographs
from glcic_hub.files import first_line, printable
from glcic_hub.hub.card import UNNAMED, write_card
from glcic_hub.hub.model_files import load_discriminator, load_model, save_model
from glcic_hub.hub.transfer import fetch_model, make_repository, push_folder
from glcic_hub.networks import CompletionNetwork, ContextDiscriminator
from glcic_hub.pipeline import GLCICPipeline, card_image
from glcic_hub.training.data import load_batches
from glcic_hub.training.initialisation import initialise_spreading
from glcic_hub.training.options import TrainingOptions
from glcic_hub.training.recipe import Recipe
from glcic_hub.training.run_folder import Run, RunFacts
from glcic_hub.training.steps import Batch, Networks, completion_step, discriminator_step, joint_step
from glcic_hub.training.validation import VALIDATION_COUNT, Example, make_examples, validate
from glcic_hub.version import __version__

CHECKPOINT_FILES = ("completion.safetensors", "discriminator.safetensors")
DISCRIMINATOR_BETAS = (0.5, 0.999)
"""AdamW's for the discriminators, after Radford et al. 2016: with more momentum adversarial training swings."""

LOG_EVERY = 10
WARMUP_STEPS = 200
DEFAULT_OPTIONS = TrainingOptions()


class PreemptedError(Exception):
    """The process was asked to stop (SIGTERM); the run is saved and can be resumed."""


class Sources(NamedTuple):
    """Photographs and weights that a run is made from."""

    photographs: Sequence[Photograph] | Stream
    examples: list[Example]
    known: dict[str, Any]  # of the run's facts
    start: Path | None
    pretrained: tuple[GLCICConfig, CompletionNetwork] | None


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
        FileNotFoundError: `data` or `options.start_from` does not exist, or there is nothing to resume.
        FileExistsError: `output` holds a run, and `options.resume` is false.
        ValueError: `data` holds no photographs or none that can be read, a number is out of its range, the batch
            cannot be split, the recipe or the number of photographs differs from that of the run to resume, the
            newest checkpoint is broken, or the model to start from is missing or does not fit the recipe.
        FloatingPointError: A loss or a weight is no longer finite; the newest checkpoint is from before that.
        OSError: The disk is full, or the Hub cannot be reached.
        PreemptedError: SIGTERM came; the run is saved.
    """
    # 1. Prepare: check what can be checked, and open what is read.
    run = Run(Path(output), options.keep)
    accelerator = _prepare(recipe, run, options)
    sources = _open_sources(accelerator, recipe, data, options)

    # 2. Begin the run, or resume the one that is there.
    facts = _resume(run, recipe, sources) if options.resume else _begin(accelerator, run, recipe, sources)
    repository = options.push_to_hub
    if repository is not None and accelerator.is_main_process:
        repository = make_repository(repository)  # better to fail now than in a month

    # 3. Build the networks with their optimizers, and bring them to where the run is.
    networks = _build(accelerator, recipe, facts, sources, compiled=options.compile)
    first_step = run.newest_step()
    if options.resume:
        run.load_checkpoint(accelerator)
        if accelerator.is_main_process:
            run.cut_log(first_step)
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
    Trainer(networks, run, facts, sources.examples, options, repository).fit(batches, first_step)
    return run.model


def learning_rate_at(step: int, recipe: Recipe) -> float:
    """The completion network's learning rate in a step, counted from 0."""
    phase = recipe.phase_of(step)
    greatest = recipe.learning_rate if phase == 1 else recipe.joint_learning_rate
    if recipe.schedule == "constant":
        return greatest
    begin, end = (0, *recipe.phase_ends)[phase - 1 : phase + 1]
    warmup = min(1.0, (step - begin + 1) / WARMUP_STEPS)
    return greatest * warmup * 0.5 * (1 + math.cos(math.pi * (step - begin) / (end - begin)))


class Trainer:
    """Trains networks, and keeps the run's log, models and checkpoints. Each process has one; the main one writes."""

    def __init__(
        self,
        networks: Networks,
        run: Run,
        facts: RunFacts,
        examples: Sequence[Example],
        options: TrainingOptions,
        repository: str | None,
    ) -> None:
        self.networks = networks
        self.accelerator = networks.accelerator
        self.recipe = networks.recipe
        self.run = run
        self.facts = facts
        self.config = self.recipe.config(facts.mean_pixel)
        self.examples = examples
        self.options = options
        self.repository = repository
        self.recent: list[dict[str, Tensor]] = []
        self.unreadable: set[str] = set()

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
                parts = Batch.from_loader(loaded, self.accelerator.device).split(self.options.accumulation)
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
        self.run.save_checkpoint(self.accelerator, done)
        self.began = time.perf_counter()

    def _push(self, done: int) -> None:
        """Uploads the model; a failure is a warning, and training continues."""
        if self.accelerator.is_main_process and self.repository is not None:
            try:
                push_folder(self.run.model, self.repository, f"Step {done}")
            except OSError as error:
                warnings.warn(f"{error}; the run goes on", stacklevel=2)
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
        """Makes the record of the training for the model's config."""
        measured = {entry["phase"]: entry for entry in self.run.read_log() if "ssim" in entry}  # the last of each
        count = self.facts.photographs
        held_out = f", of which {len(self.examples)} were held out" if self.facts.validation is None else ""
        return {
            "data": self.facts.data + (", streamed" if count is None else f", {count} photographs{held_out}"),
            "steps": f"{done} of {self.recipe.phase_ends[-1]}; the phases end at {self.recipe.phase_ends}",
            "start": self.facts.start or "scratch",
            # A folder goes by its last part.
            **({"datasets": [self.facts.data.partition(":")[0]]} if "/" in self.facts.data else {}),
            "software": f"glcic-hub {__version__}, torch {torch.__version__}",
            "recipe": self.recipe.entries(),
            "validation": f"{len(self.examples)} photographs that were not trained on",
            "figures": [
                {"phase": phase, **{name: row[name] for name in ("step", "psnr", "ssim", "texture")}}
                for phase, row in measured.items()
            ],
        }


def _prepare(recipe: Recipe, run: Run, options: TrainingOptions) -> Accelerator:
    """Makes the accelerator, and refuses what cannot be trained with it."""
    accelerator = _make_accelerator(run, options.mixed_precision, options.trackers)
    processes = accelerator.num_processes
    if recipe.batch_size % (processes * options.accumulation):
        raise ValueError(
            f"batch_size {recipe.batch_size} cannot be split over {processes} processes and "
            f"{options.accumulation} parts"
        )
    if options.resume and not run.checkpoints():
        raise FileNotFoundError(f"no run to resume in {run.folder}: it holds no checkpoint")
    if not options.resume and (run.checkpoints() or run.model.exists()):
        raise FileExistsError(f"{run.folder} holds a run already; resume it, or give another folder")
    return accelerator


def _open_sources(accelerator: Accelerator, recipe: Recipe, data: str | Path, options: TrainingOptions) -> Sources:
    """Opens the photographs and the model to start from, and says what of the run's facts is known by them."""
    with accelerator.local_main_process_first():  # one download for all
        photographs = open_photographs(data, stream=options.stream)
        others = None if options.validation is None else open_photographs(options.validation, stream=options.stream)
        start = None
        if options.start_from is not None and not options.resume:
            start = fetch_model(options.start_from, discriminators=True)
    known: dict[str, Any] = {
        "data": _name(data),
        "photographs": None if isinstance(photographs, Stream) else len(photographs),
        "digest": photographs.digest() if isinstance(photographs, Folder) else None,
        "validation": _name(options.validation),
    }
    # A run that is resumed has these already; if they are given again they have to be the same.
    if options.mean_pixel is not None:
        known["mean_pixel"] = tuple(options.mean_pixel)
    if not options.resume or options.start_from is not None:
        known["start"] = _name(options.start_from)
    kept, examples = _split_off_examples(photographs, others, recipe)
    return Sources(kept, examples, known, start, None if start is None else load_model(start))


def _begin(accelerator: Accelerator, run: Run, recipe: Recipe, sources: Sources) -> RunFacts:
    """Begins a run: the main process finds out the mean pixel and writes down what the run is."""
    _check_start(recipe, sources.start, None if sources.pretrained is None else sources.pretrained[0])
    if accelerator.is_main_process:
        run.folder.mkdir(parents=True, exist_ok=True)
        mean_pixel = sources.known.get("mean_pixel")
        if mean_pixel is None and sources.pretrained is not None:
            mean_pixel = sources.pretrained[0].mean_pixel
        if mean_pixel is None:
            mean_pixel = measure_mean_pixel(sources.photographs)
        recipe.config(mean_pixel)  # refuses one out of its range
        run.begin(recipe, RunFacts(**{**sources.known, "mean_pixel": mean_pixel}))
    accelerator.wait_for_everyone()
    return run.facts()


def _resume(run: Run, recipe: Recipe, sources: Sources) -> RunFacts:
    """Reads the facts of the run, and checks that recipe and data are still the same."""
    run.check_same(recipe, sources.known)
    return run.facts()


def _build(accelerator: Accelerator, recipe: Recipe, facts: RunFacts, sources: Sources, *, compiled: bool) -> Networks:
    """Makes the networks, from scratch or from the model to start from, and prepares them."""
    set_seed(recipe.seed)
    completion = CompletionNetwork(recipe.width, facts.mean_pixel)
    if sources.pretrained is not None:
        completion.load_state_dict(sources.pretrained[1].state_dict())
    elif recipe.initialisation == "spreading":
        initialise_spreading(completion)
    discriminator = _initial_discriminator(recipe, sources.start)
    return prepare_networks(accelerator, recipe, completion, discriminator, compiled=compiled)


def _make_accelerator(run: Run, mixed_precision: str | None, trackers: Sequence[str]) -> Accelerator:
    if missing := set(trackers) - set(map(str, get_available_trackers())):
        raise ValueError(
            f"no tracker {', '.join(sorted(missing))}: it is not installed, or Accelerate does not know it"
        )
    accelerator = Accelerator(
        mixed_precision=mixed_precision,
        log_with=list(trackers) or None,
        project_config=ProjectConfiguration(project_dir=str(run.folder), logging_dir=str(run.folder / "trackers")),
        # The others wait while the main process measures the mean pixel of thousands of photographs, or uploads.
        kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(hours=2))],
    )
    if accelerator.mixed_precision == "fp16" and accelerator.device.type == "cpu":
        raise ValueError("fp16 needs a GPU; use bf16 on a processor")
    _warn_of_lone_process(accelerator)
    return accelerator


def _name(where: str | Path | None) -> str | None:
    """Shortens a location for the model card: the last part of a folder's path, or a name on the Hub."""
    if where is None:
        return None
    folder, colon, split = str(where).partition(":")
    if Path(where).exists():
        return printable(Path(where).resolve().name)
    return printable(Path(folder).resolve().name + colon + split if Path(folder).exists() else str(where))


def _split_off_examples(
    photographs: Sequence[Photograph] | Stream,
    validation: Sequence[Photograph] | Stream | None,
    recipe: Recipe,
) -> tuple[Sequence[Photograph] | Stream, list[Example]]:
    """Returns the photographs to train on and the examples to validate on."""
    if validation is not None:
        examples = make_examples(validation, recipe)
        if not examples:
            raise ValueError("none of the photographs to validate on can be read")
        return photographs, examples
    if isinstance(photographs, Stream):
        return photographs, []
    kept, held_out = hold_out(photographs, min(VALIDATION_COUNT, len(photographs) // 10), recipe.seed)
    return kept, make_examples(held_out, recipe)


def _check_start(recipe: Recipe, start: Path | None, config: GLCICConfig | None) -> None:
    first, second, last = recipe.phase_ends
    missing = "phase 1 (completion_steps is 0)" if first == 0 else "phase 2 (discriminator_steps is 0)"
    if config is None and (first == 0 or first == second < last):
        raise ValueError(f"the recipe has no {missing}, so it needs a trained model to start from")
    if config is not None and config.order != "norm-relu":
        raise ValueError(f"{start} has the order {config.order}, which completes and is not trained further")
    if config is not None and config.width != recipe.width:
        raise ValueError(f"{start} has the width {config.width}, and the recipe says {recipe.width}")


def _initial_discriminator(recipe: Recipe, start: Path | None) -> ContextDiscriminator | None:
    """Discriminators from scratch, or from the model to start from if the recipe has no phase 2."""
    if recipe.discriminators == "none" or not recipe.is_adversarial:
        return None
    discriminator = ContextDiscriminator(recipe.width, recipe.image_size, recipe.patch_size, recipe.discriminators)
    if start is not None and recipe.discriminator_steps == 0:
        found = load_discriminator(start, recipe.config((0, 0, 0)))
        if found is None or found.state_dict().keys() != discriminator.state_dict().keys():
            raise ValueError(
                f"the recipe has no phase 2 (discriminator_steps is 0), and {start} has not the discriminators "
                f"to start from: {recipe.discriminators}"
            )
        discriminator.load_state_dict(found.state_dict())
    return discriminator


def prepare_networks(
    accelerator: Accelerator,
    recipe: Recipe,
    completion: CompletionNetwork,
    discriminator: ContextDiscriminator | None,
    *,
    compiled: bool,
) -> Networks:
    """Brings networks with their optimizers to the device, in the memory format that convolutions are fastest in."""
    prepared: list[Any] = []
    for network, rate in ((completion, recipe.learning_rate), (discriminator, recipe.discriminator_learning_rate)):
        if network is None:
            continue
        module: nn.Module = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if accelerator.num_processes > 1 and accelerator.device.type == "cuda":
            module = nn.SyncBatchNorm.convert_sync_batchnorm(module)  # type: ignore[no-untyped-call]
        if compiled:
            module.compile()
        module.train()
        optimizer: torch.optim.Optimizer
        if recipe.optimizer == "adadelta":
            optimizer = torch.optim.Adadelta(module.parameters(), lr=rate)
        else:
            betas = (0.9, 0.999) if network is completion else DISCRIMINATOR_BETAS
            optimizer = torch.optim.AdamW(module.parameters(), lr=rate, betas=betas)
        prepared += accelerator.prepare(module, optimizer)
    networks = Networks(accelerator, recipe, *prepared)
    _save_unwrapped(networks)
    return networks


def _warn_of_lone_process(accelerator: Accelerator) -> None:
    """Says what Accelerate does not: on the CPU its launcher leaves it to MPI to start several processes."""
    distributed = {"LOCAL_RANK", "WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE"}
    asked = "ACCELERATE_USE_CPU" in os.environ and "MASTER_ADDR" in os.environ
    if asked and accelerator.num_processes == 1 and not distributed & os.environ.keys():
        warnings.warn(
            "several processes were asked for and this is the only one: accelerate launch --cpu starts several only "
            "with MPI; use ACCELERATE_USE_CPU=true torchrun --nproc-per-node N",
            stacklevel=3,
        )


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


def _save_unwrapped(networks: Networks) -> None:
    """Has checkpoints hold the networks as they are and not as they are wrapped: for any number of processes."""

    def save(models: list[nn.Module], weights: list[Any], folder: str) -> None:
        if networks.accelerator.is_main_process:
            for index, model in enumerate(models):
                tensors = networks.unwrap(model).state_dict()
                contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
                safetensors.torch.save_file(contiguous, Path(folder) / CHECKPOINT_FILES[index])
        weights.clear()  # so Accelerate saves none

    def load(models: list[nn.Module], folder: str) -> None:
        for index, model in enumerate(models):
            tensors = safetensors.torch.load_file(Path(folder) / CHECKPOINT_FILES[index])
            networks.unwrap(model).load_state_dict(tensors)
        models.clear()  # so Accelerate loads none

    networks.accelerator.register_save_state_pre_hook(save)
    networks.accelerator.register_load_state_pre_hook(load)

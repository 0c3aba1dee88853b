"""Training from recipe and photographs to a model (algorithm 1), on Hugging Face Accelerate."""

from __future__ import annotations

import os
import signal
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from accelerate import Accelerator, InitProcessGroupKwargs
from accelerate.tracking import get_available_trackers
from accelerate.utils import ProjectConfiguration, set_seed
from torch import nn

from glcic_hub.completion.completer import is_out_of_memory
from glcic_hub.config import GLCICConfig
from glcic_hub.data.photographs import Folder, Photograph, Stream, hold_out, measure_mean_pixel, open_photographs
from glcic_hub.files import first_line, printable
from glcic_hub.hub.model_files import load_discriminator, load_model
from glcic_hub.hub.transfer import fetch_model, make_repository
from glcic_hub.networks import CompletionNetwork, ContextDiscriminator
from glcic_hub.training.data import load_batches
from glcic_hub.training.initialisation import initialise_spreading
from glcic_hub.training.loop import LOG_EVERY, Loop
from glcic_hub.training.recipe import Recipe
from glcic_hub.training.run_folder import Run
from glcic_hub.training.steps import Batch, Networks
from glcic_hub.training.validation import VALIDATION_COUNT, Example, make_examples

CHECKPOINT_FILES = ("completion.safetensors", "discriminator.safetensors")
DISCRIMINATOR_BETAS = (0.5, 0.999)
"""AdamW's for the discriminators, after Radford et al. 2016: with more momentum adversarial training swings."""


class PreemptedError(Exception):
    """The process was asked to stop (SIGTERM); the run is saved and can be resumed."""


def train(
    recipe: Recipe,
    data: str | Path,
    output: str | Path,
    *,
    stream: bool = False,
    validation: str | Path | None = None,
    mean_pixel: tuple[float, float, float] | None = None,
    start_from: str | Path | None = None,
    resume: bool = False,
    mixed_precision: str | None = None,
    accumulation: int = 1,
    compile: bool = False,
    workers: int | None = None,
    save_every: int = 250,
    keep: int = 2,
    validate_every: int = 1000,
    trackers: Sequence[str] = ("tensorboard",),
    push_to_hub: str | None = None,
    push_every: int | None = None,
) -> Path:
    """Trains the three networks in three phases (algorithm 1) and saves them as a model folder.

    Run it under `accelerate launch` to use several devices or nodes.

    Args:
        recipe: What to train, and how.
        data: A folder of photographs, searched with its subfolders; or a dataset that the `datasets` library opens,
            `user/name` on the Hub or a folder of Parquet files or tar shards; `name:split` for another split than
            `train`.
        output: Folder of the run: checkpoints, `log.jsonl`, `losses.png`, grids of validation pictures, and the model
            folders `model`, written anew at each checkpoint, and `best`, the one of the greatest SSIM in the last
            phase reached.
        stream: Read the dataset as it comes, instead of downloading and indexing it first.
        validation: Photographs to validate on, given as `data` is; at most 64 are used. None keeps a tenth of `data`
            back, again at most 64, but none of a stream.
        mean_pixel: Mean (red, green, blue) of the training photographs in [0, 1]; None measures it, or takes that of
            `start_from`.
        start_from: A model to take weights from, a folder or a repository on the Hub: those of the completion network,
            and those of the discriminators if the recipe has no phase 2.
        resume: Go on from the newest checkpoint in `output`. Otherwise `output` must not hold a run.
        mixed_precision: `no`, `bf16` or `fp16`; None takes what `accelerate launch` or `accelerate config` says.
        accumulation: Parts that each process cuts its share of a batch into when it does not fit the memory; the
            gradients are those of the whole batch but for batch normalisation, which sees a part at a time.
        compile: Compile the networks with `torch.compile`.
        workers: Processes that read photographs, for each training process; None takes one, with a GPU up to eight.
        save_every: Steps from one checkpoint to the next; there is one at the end of each phase, too.
        keep: Checkpoints that are kept.
        validate_every: Steps from one validation to the next; there is one at the end of phases 1 and 3, too.
        trackers: Names of trackers that Accelerate knows.
        push_to_hub: A repository on the Hub to upload the model to, at the end.
        push_every: Steps from one upload to the next before that.

    Returns:
        The model folder, which `GLCICPipeline.from_pretrained` opens.

    Raises:
        FileNotFoundError: `data` or `start_from` does not exist, or there is nothing to resume.
        FileExistsError: `output` holds a run, and `resume` is false.
        ValueError: `data` holds no photographs or none that can be read, a number is out of its range, the batch
            cannot be split, the recipe or the number of photographs differs from that of the run to resume, the
            newest checkpoint is broken, or the model to start from is missing or does not fit the recipe.
        FloatingPointError: A loss or a weight is no longer finite; the newest checkpoint is from before that.
        OSError: The disk is full, or the Hub cannot be reached.
        PreemptedError: SIGTERM came; the run is saved.
    """
    _check_options(
        accumulation=accumulation,
        save_every=save_every,
        keep=keep,
        validate_every=validate_every,
        push_every=push_every,
    )
    if workers is not None and workers < 0:
        raise ValueError(f"workers must be at least 0, not {workers}")
    if push_every is not None and push_to_hub is None:
        raise ValueError("push_every says when to upload, and push_to_hub must say where")
    run = Run(Path(output), keep)
    accelerator = _make_accelerator(run, mixed_precision, trackers)
    processes = accelerator.num_processes
    if recipe.batch_size % (processes * accumulation):
        raise ValueError(
            f"batch_size {recipe.batch_size} cannot be split over {processes} processes and {accumulation} parts"
        )
    if resume and not run.checkpoints():
        raise FileNotFoundError(f"no run to resume in {output}: it holds no checkpoint")
    if not resume and (run.checkpoints() or run.model.exists()):
        raise FileExistsError(f"{output} holds a run already; resume it, or give another folder")

    with accelerator.local_main_process_first():  # one download for all
        photographs = open_photographs(data, stream=stream)
        validation_photographs = None if validation is None else open_photographs(validation, stream=stream)
        start = None if start_from is None or resume else fetch_model(start_from, discriminators=True)
    facts: dict[str, Any] = {
        "data": _name(data),
        "photographs": None if isinstance(photographs, Stream) else len(photographs),
        "digest": photographs.digest() if isinstance(photographs, Folder) else None,
        "validation": _name(validation),
    }
    if not resume or mean_pixel is not None:
        facts["mean_pixel"] = None if mean_pixel is None else list(mean_pixel)
    if not resume or start_from is not None:
        facts["start"] = _name(start_from)
    photographs, examples = _split_off_examples(photographs, validation_photographs, recipe)

    pretrained = None if start is None else load_model(start)
    if resume:
        run.check_same(recipe, facts)
    else:
        _check_start(recipe, start, None if pretrained is None else pretrained[0])
    if push_to_hub is not None and accelerator.is_main_process:
        push_to_hub = make_repository(push_to_hub)  # better to fail now than in a month
    if not resume and accelerator.is_main_process:
        run.folder.mkdir(parents=True, exist_ok=True)
        if mean_pixel is None:
            facts["mean_pixel"] = pretrained[0].mean_pixel if pretrained else measure_mean_pixel(photographs)
        recipe.config(facts["mean_pixel"])  # refuses one out of its range
        run.begin(recipe, facts)
    accelerator.wait_for_everyone()
    facts = run.facts()
    config = recipe.config(tuple(facts["mean_pixel"]))

    set_seed(recipe.seed)
    completion = CompletionNetwork(config.width, config.mean_pixel)
    if pretrained is not None:
        completion.load_state_dict(pretrained[1].state_dict())
    elif recipe.initialisation == "spreading":
        initialise_spreading(completion)
    discriminator = _initial_discriminator(recipe, start)
    networks = prepare_networks(accelerator, recipe, completion, discriminator, compiled=compile)
    first_step = run.newest_step()
    if resume:
        run.load_checkpoint(accelerator)
    if resume and accelerator.is_main_process:
        run.cut_log(first_step)
    if trackers:
        accelerator.init_trackers("glcic", config={name: str(value) for name, value in recipe.entries().items()})

    loop = Loop(networks, run, config, examples, facts, push_to_hub)
    batches = load_batches(
        photographs,
        recipe,
        first_step=first_step,
        process=accelerator.process_index,
        processes=processes,
        workers=_default_workers(accelerator) if workers is None else workers,
    )
    with _sigterm_noted() as stop_asked, loop.progress_bar(first_step), _failures_explained(run):
        for step, loaded in enumerate(batches, start=first_step):
            loop.step(step, Batch.from_loader(loaded, accelerator.device).split(accumulation), loaded["unreadable"])
            done = step + 1
            phase_over = done in recipe.phase_ends
            push = push_every is not None and done % push_every == 0
            stop = _stop_agreed(accelerator, stop_asked)
            validate = (phase_over or done % validate_every == 0) and recipe.phase_of(step) != 2
            save = phase_over or push or stop or done % save_every == 0
            if save or done % LOG_EVERY == 0:
                loop.log(done)
            if validate or save:
                loop.check_weights(done)
            if validate:
                loop.validate(done)
            if save:
                loop.save(done)
            if push:
                loop.push(done)
            if stop and done < recipe.phase_ends[-1]:
                raise PreemptedError(f"stopped after step {done} of {recipe.phase_ends[-1]} and saved; resume it")
        loop.finish()
    return run.model


def _check_options(**options: int | None) -> None:
    for name, value in options.items():
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1, not {value}")


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
    """What a model card may say of a place: the last part of a folder's path, or a name on the Hub."""
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
    """Whether any process was asked to stop; several agree on it, so that all stop after the same step."""
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

"""What a run needs before its first step: options checked, data and start opened, networks on the device."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
import torch
from accelerate import Accelerator, InitProcessGroupKwargs
from accelerate.tracking import get_available_trackers
from accelerate.utils import (
    GradientAccumulationPlugin,
    ProjectConfiguration,
    get_int_from_env,
    parse_flag_from_env,
    set_seed,
)
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from glcic_hub.config import GLCICConfig
from glcic_hub.data.photographs import (
    Folder,
    Photograph,
    Stream,
    contents_digest,
    hold_out,
    measure_mean_pixel,
    open_photographs,
)
from glcic_hub.files import printable
from glcic_hub.hub.card import inherited
from glcic_hub.hub.model_files import load_discriminator, load_model
from glcic_hub.hub.transfer import fetch_model
from glcic_hub.networks import CompletionNetwork, ContextDiscriminator
from glcic_hub.training.initialisation import initialise_spreading
from glcic_hub.training.options import TrainingOptions
from glcic_hub.training.recipe import Recipe
from glcic_hub.training.run_folder import Run, RunFacts
from glcic_hub.training.steps import Networks
from glcic_hub.training.validation import VALIDATION_COUNT, Example, make_examples

CHECKPOINT_FILES = ("completion.safetensors", "discriminator.safetensors")
DISCRIMINATOR_BETAS = (0.5, 0.999)
"""AdamW's for the discriminators, after Radford et al. 2016: with more momentum adversarial training swings."""

EMA_DECAY = 0.9999
"""Greatest decay of the average; before that it is that of about the last tenth of the steps, as in diffusers."""

AVERAGE_FILE = "average.safetensors"

PROCESS_COUNTS = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
ACCUMULATION_SETTING = "ACCELERATE_GRADIENT_ACCUMULATION_STEPS"
SHARDING_SETTINGS = {
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_FSDP": "FSDP",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
}


class Sources(NamedTuple):
    """Photographs and weights that a run is made from."""

    photographs: Sequence[Photograph] | Stream
    examples: list[Example]
    known: dict[str, Any]  # of the run's facts
    start: Path | None
    pretrained: tuple[GLCICConfig, CompletionNetwork] | None


def parts_of_batch(options: TrainingOptions) -> int:
    """Returns how many parts a batch is cut into: by the options, else by Accelerate's setting in the environment.

    Raises:
        ValueError: The setting is not a number from 1 on.
    """
    if options.accumulation is not None:
        return options.accumulation
    parts = os.environ.get(ACCUMULATION_SETTING, "1")
    if not parts.isdecimal() or int(parts) < 1:
        raise ValueError(f"{ACCUMULATION_SETTING} must be a number from 1 on, not {parts!r}; or give --accumulation")
    return int(parts)


def process_count() -> int:
    """Returns how many processes train, as the launcher says, before there is an accelerator."""
    count: int = get_int_from_env(PROCESS_COUNTS, 1)
    return count


def open_accelerator(recipe: Recipe, run: Run, options: TrainingOptions) -> Accelerator:
    """Makes the accelerator, and refuses what cannot be trained with it."""
    parts = parts_of_batch(options)
    accelerator = _make_accelerator(run, options.mixed_precision, options.trackers)
    processes = accelerator.num_processes
    if recipe.batch_size % (processes * parts):
        raise ValueError(
            f"batch_size {recipe.batch_size} cannot be split over {processes} processes and {parts} parts"
        )
    if options.compile and recipe.r1_weight and recipe.is_adversarial:
        raise ValueError("r1_weight takes second derivatives, which compiled networks have not; leave out --compile")
    if not options.resume and (run.checkpoints() or run.model.exists()):
        raise FileExistsError(f"{run.folder} holds a run already; resume it, or give another folder")
    return accelerator


def open_sources(accelerator: Accelerator, recipe: Recipe, data: str | Path, options: TrainingOptions) -> Sources:
    """Opens the photographs and the model to start from, and says what of the run's facts is known by them."""
    with accelerator.local_main_process_first():  # one download for all
        photographs = open_photographs(data, stream=options.stream)
        others = None if options.validation is None else open_photographs(options.validation, stream=options.stream)
        start = None
        if options.start_from is not None and not options.resume:
            start = fetch_model(options.start_from, to_train=True)
    known: dict[str, Any] = {
        "data": _name(data),
        "photographs": None if isinstance(photographs, Stream) else len(photographs),
        "digest": photographs.digest() if isinstance(photographs, Folder) else None,
        "contents": contents_digest(data, photographs),
        "validation": _name(options.validation),
        "validation_contents": None if others is None else contents_digest(options.validation or "", others),
    }
    # A run that is resumed has these already; if they are given again they have to be the same.
    if options.mean_pixel is not None:
        known["mean_pixel"] = tuple(options.mean_pixel)
    if not options.resume or options.start_from is not None:
        known["start"] = _name(options.start_from)
    pretrained = None
    if start is not None:
        pretrained = load_model(start)
        known["inherited"] = inherited(start, pretrained[0], known["start"])
    kept, examples = _split_off_examples(photographs, others, recipe)
    return Sources(kept, examples, known, start, pretrained)


def begin_run(accelerator: Accelerator, run: Run, recipe: Recipe, sources: Sources) -> None:
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
        if sources.start is not None:
            run.keep_license(sources.start)
    accelerator.wait_for_everyone()


def build_networks(
    accelerator: Accelerator, recipe: Recipe, facts: RunFacts, sources: Sources, *, compiled: bool
) -> Networks:
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
    if missing := set(trackers) - {*map(str, get_available_trackers()), "all"}:
        raise ValueError(
            f"no tracker {', '.join(sorted(missing))}: it is not installed, or Accelerate does not know it"
        )
    if sharding := [name for setting, name in SHARDING_SETTINGS.items() if parse_flag_from_env(setting)]:
        raise ValueError(
            f"{sharding[0]} splits networks over devices, and these fit on one: launch without it, --multi_gpu instead"
        )
    accelerator = Accelerator(
        mixed_precision=mixed_precision,
        # The steps cut batches themselves; by the environment's setting Accelerate would divide losses once more.
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
        log_with=list(trackers) or None,
        project_config=ProjectConfiguration(project_dir=str(run.folder), logging_dir=str(run.folder / "trackers")),
        # The others wait while the main process measures the mean pixel of thousands of photographs, or uploads.
        kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(hours=2))],
    )
    if accelerator.mixed_precision == "fp16" and accelerator.device.type == "cpu":
        raise ValueError("fp16 needs a GPU; use bf16 on a CPU")
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
    average = None
    for network, rate in ((completion, recipe.learning_rate), (discriminator, recipe.discriminator_learning_rate)):
        if network is None:
            continue
        module: nn.Module = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if accelerator.num_processes > 1 and accelerator.device.type == "cuda":
            module = nn.SyncBatchNorm.convert_sync_batchnorm(module)  # type: ignore[no-untyped-call]
        if network is completion and recipe.ema:
            average = AveragedModel(module, accelerator.device, averaged, use_buffers=True)
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
    networks.average = average
    _save_unwrapped(networks)
    return networks


def averaged(average: Tensor, current: Tensor, count: Tensor | int) -> Tensor:
    """Takes a tensor into its moving average of `count` others."""
    decay = min(EMA_DECAY, (1 + int(count)) / (10 + int(count)))
    return average * decay + current * (1 - decay)


def _warn_of_lone_process(accelerator: Accelerator) -> None:
    """Says what Accelerate does not: on the CPU its launcher leaves it to MPI to start several processes."""
    distributed = {"LOCAL_RANK", *PROCESS_COUNTS}
    asked = "ACCELERATE_USE_CPU" in os.environ and "MASTER_ADDR" in os.environ
    if asked and accelerator.num_processes == 1 and not distributed & os.environ.keys():
        warnings.warn(
            "several processes were asked for and this is the only one: accelerate launch --cpu starts several only "
            "with MPI; use ACCELERATE_USE_CPU=true torchrun --nproc-per-node N",
            stacklevel=3,
        )


def _save_unwrapped(networks: Networks) -> None:
    """Has checkpoints hold the networks as they are and not as they are wrapped: for any number of processes."""

    def save(models: list[nn.Module], weights: list[Any], folder: str) -> None:
        if networks.accelerator.is_main_process:
            for index, model in enumerate(models):
                tensors = networks.unwrap(model).state_dict()
                contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
                safetensors.torch.save_file(contiguous, Path(folder) / CHECKPOINT_FILES[index])
            if networks.average is not None:
                contiguous = {name: tensor.contiguous() for name, tensor in networks.average.state_dict().items()}
                safetensors.torch.save_file(contiguous, Path(folder) / AVERAGE_FILE)
        weights.clear()  # so Accelerate saves none

    def load(models: list[nn.Module], folder: str) -> None:
        for index, model in enumerate(models):
            tensors = safetensors.torch.load_file(Path(folder) / CHECKPOINT_FILES[index])
            networks.unwrap(model).load_state_dict(tensors)
        if networks.average is not None:
            networks.average.load_state_dict(safetensors.torch.load_file(Path(folder) / AVERAGE_FILE))
        models.clear()  # so Accelerate loads none

    networks.accelerator.register_save_state_pre_hook(save)
    networks.accelerator.register_load_state_pre_hook(load)

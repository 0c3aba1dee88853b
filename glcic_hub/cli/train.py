"""`glcic train`: the networks, on a folder of photographs."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from glcic_hub.cli.common import OK, PREEMPTED, add_examples, needs, say
from glcic_hub.training.options import TrainingOptions
from glcic_hub.training.recipe import DEFAULT_RECIPE, Recipe, recipe_names

ALIASES = {
    "data": ("--dataset-name", "--train-data-dir"),
    "output": ("--output-dir",),
    "start_from": ("--pretrained-model-name-or-path",),
    "resume": ("--resume-from-checkpoint",),
    "workers": ("--dataloader-num-workers",),
    "accumulation": ("--gradient-accumulation-steps",),
    "save_every": ("--checkpointing-steps",),
    "keep": ("--checkpoints-total-limit",),
    "validate_every": ("--validation-steps",),
    "trackers": ("--report-to",),
    "private": ("--hub-private-repo",),
    "image_size": ("--resolution",),
    "flip": ("--random-flip",),
    "schedule": ("--lr-scheduler",),
    "ema": ("--use-ema",),
}
"""What diffusers' example scripts call some options and recipe entries; docs/training.md has the table."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `glcic train`."""
    parser.set_defaults(run=_run)
    add_examples(
        parser,
        "glcic train --data photographs/ --output runs/first --recipe small",
        "glcic train --data photographs/ --output runs/first --resume",
        "glcic train --data user/photographs --output runs/tuned --from user/model --total-steps 20000",
        "accelerate launch -m glcic_hub train --data photographs/ --output runs/first --recipe compact",
    )
    data = parser.add_argument_group("data")
    _add(
        data.add_mutually_exclusive_group(required=True),
        "data",
        metavar="WHERE",
        help="a folder of photographs; or user/name, a dataset on the Hub; or a folder of Parquet files or tar "
        "shards; name:split takes another split than train",
    )
    run = parser.add_argument_group("run")
    _add(
        run.add_mutually_exclusive_group(required=True),
        "output",
        type=Path,
        metavar="FOLDER",
        help="checkpoints, log, images, model",
    )
    types = get_type_hints(TrainingOptions)
    for option in dataclasses.fields(TrainingOptions):
        _add(
            data if option.metadata.get("group") == "data" else run,
            option.name,
            option.metadata.get("flag"),
            default=option.default,
            help=_with_default(option.metadata["help"], option.default),
            **option.metadata.get("argparse")
            or _flag(types[option.name], option.metadata.get("metavar", "N"), on_alone=True),
        )
    _add(run, "hub_model_id", metavar="USER/NAME", help="where to upload it to, if --push-to-hub does not say")
    recipe = parser.add_argument_group("recipe", "entries decide the result, and are saved with the run")
    recipe.add_argument(
        "--recipe",
        metavar="NAME|FILE",
        help=f"{', '.join(recipe_names())}, or a YAML file (default: {DEFAULT_RECIPE})",
    )
    types = get_type_hints(Recipe)
    for entry in dataclasses.fields(Recipe):
        _add(recipe, entry.name, help=entry.metadata["help"], **_flag(types[entry.name]))
    _add(
        recipe,
        "train_batch_size",
        type=int,
        metavar="N",
        help="batch_size as diffusers' scripts count it: of one process and one part of the accumulation",
    )
    _add(
        recipe,
        "max_train_steps",
        type=int,
        metavar="N",
        help="total_steps; of a new run the other phases are shortened or lengthened in proportion",
    )


def _add(group: Any, name: str, flag: str | None = None, **settings: Any) -> None:
    """Adds an option; it may be spelled with - or _, and called as in diffusers, which the help does not list."""
    flag = flag or "--" + name.replace("_", "-")
    group.add_argument(flag, dest=name, **settings)
    dashed = (flag, *ALIASES.get(name, ()))
    others = {*dashed, *("--" + alias[2:].replace("-", "_") for alias in dashed)} - {flag}
    if others:
        unlisted = {"help": argparse.SUPPRESS, "default": argparse.SUPPRESS}
        group.add_argument(*sorted(others), dest=name, **{**settings, **unlisted})


def _with_default(help_text: str, default: Any) -> str:
    """Adds to a help text the number or the names that hold if nothing is given."""
    if isinstance(default, bool) or default is None:
        return help_text
    return f"{help_text} (default: {' '.join(default) if isinstance(default, tuple) else default})"


def _flag(kind: Any, metavar: Any = "N", *, on_alone: bool = False) -> dict[str, Any]:
    """Says how an option or a recipe entry of a type is given on the command line.

    Args:
        kind: Its type.
        metavar: What stands for its value in the help.
        on_alone: Of a `bool`: it can be turned on, and not also off.
    """
    if get_origin(kind) in (Union, UnionType):
        kind = next(each for each in get_args(kind) if each is not NoneType)
    if get_origin(kind) is Literal:
        return {"choices": get_args(kind)}
    if kind == tuple[str, ...]:
        return {"type": str, "nargs": "*", "metavar": metavar}
    if kind == tuple[float, float, float]:
        return {"type": float, "nargs": 3, "metavar": metavar}
    if get_origin(kind) is tuple:
        return {"type": int, "nargs": 2, "metavar": ("MIN", "MAX")}
    if kind is bool:
        return {"action": "store_true" if on_alone else argparse.BooleanOptionalAction}
    return {"type": kind, "metavar": metavar}


def _run(options: argparse.Namespace) -> int:
    with needs("train", "training"):
        from glcic_hub.training.prepare import parts_of_batch, process_count
        from glcic_hub.training.trainer import PreemptedError, train

    options.push_to_hub = _repository(options)
    settings = TrainingOptions(**{o.name: getattr(options, o.name) for o in dataclasses.fields(TrainingOptions)})
    saved = options.output / "recipe.yaml"
    source = options.recipe or (str(saved) if options.resume and saved.exists() else DEFAULT_RECIPE)
    entries = {entry.name: getattr(options, entry.name) for entry in dataclasses.fields(Recipe)}
    overrides = {name: value for name, value in entries.items() if value is not None}
    for ours, theirs in (("batch_size", "train_batch_size"), ("total_steps", "max_train_steps")):
        if ours in overrides and getattr(options, theirs) is not None:
            raise ValueError(f"give {ours} or {theirs}, and not both")
    if options.train_batch_size is not None:
        overrides["batch_size"] = options.train_batch_size * process_count() * parts_of_batch(settings)
    if options.max_train_steps is not None:
        # A run that is resumed keeps the phases that it has.
        begun = options.resume and saved.exists()
        recipe = Recipe.load(str(saved) if begun else source)
        counts = recipe.in_proportion(recipe.total_steps if begun else options.max_train_steps)
        overrides = {**counts, "total_steps": options.max_train_steps, **overrides}
    try:
        model = train(Recipe.load(source, **overrides), options.data, options.output, settings)
    except PreemptedError as stopped:
        say(str(stopped))
        return PREEMPTED
    print(f"wrote {model}")
    return OK


def _repository(options: argparse.Namespace) -> str | None:
    """Says where to upload; as in diffusers `--push-to-hub` may have no name, and `--hub-model-id` give it."""
    name: str | None = options.push_to_hub
    if options.hub_model_id is not None:
        if name != "":
            raise ValueError(f"--hub-model-id {options.hub_model_id} goes with --push-to-hub without a name")
        name = options.hub_model_id
    return options.output.resolve().name if name == "" else name

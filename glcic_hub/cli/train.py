"""`glcic train`: the networks, on a folder of photographs."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from glcic_hub.cli.common import OK, PREEMPTED, needs, say
from glcic_hub.training.options import TrainingOptions
from glcic_hub.training.recipe import DEFAULT_RECIPE, Recipe, recipe_names


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `glcic train`."""
    parser.set_defaults(run=_run)
    data = parser.add_argument_group("data")
    data.add_argument(
        "--data",
        required=True,
        metavar="WHERE",
        help="a folder of photographs; or user/name, a dataset on the Hub; or a folder of Parquet files or tar "
        "shards; name:split takes another split than train",
    )
    run = parser.add_argument_group("run")
    run.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="checkpoints, log, images, model")
    types = get_type_hints(TrainingOptions)
    for option in dataclasses.fields(TrainingOptions):
        group = data if option.metadata.get("group") == "data" else run
        flag = option.metadata.get("argparse") or _flag(
            types[option.name], option.metadata.get("metavar", "N"), on_alone=True
        )
        group.add_argument(
            *option.metadata.get("flags", [_name(option.name)]),
            dest=option.name,
            default=option.default,
            help=_with_default(option.metadata["help"], option.default),
            **flag,
        )
    recipe = parser.add_argument_group("recipe", "what comes out depends on this, and is saved with the run")
    recipe.add_argument(
        "--recipe",
        metavar="NAME|FILE",
        help=f"{', '.join(recipe_names())}, or a YAML file (default: {DEFAULT_RECIPE})",
    )
    types = get_type_hints(Recipe)
    for entry in dataclasses.fields(Recipe):
        recipe.add_argument(_name(entry.name), help=entry.metadata["help"], **_flag(types[entry.name]))


def _name(entry: str) -> str:
    """Names the flag of an option or a recipe entry."""
    return "--" + entry.replace("_", "-")


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
        from glcic_hub.training.trainer import PreemptedError, train

    entries = {entry.name: getattr(options, entry.name) for entry in dataclasses.fields(Recipe)}
    overrides = {name: value for name, value in entries.items() if value is not None}
    settings = TrainingOptions(**{o.name: getattr(options, o.name) for o in dataclasses.fields(TrainingOptions)})
    saved = options.output / "recipe.yaml"
    source = options.recipe or (str(saved) if options.resume and saved.exists() else DEFAULT_RECIPE)
    try:
        model = train(Recipe.load(source, **overrides), options.data, options.output, settings)
    except PreemptedError as stopped:
        say(str(stopped))
        return PREEMPTED
    print(f"wrote {model}")
    return OK

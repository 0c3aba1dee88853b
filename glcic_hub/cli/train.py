"""`glcic train`: the networks, on a folder of photographs."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from glcic_hub.cli.common import OK, PREEMPTED, needs, say
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
    data.add_argument("--stream", action="store_true", help="read a dataset as it comes")
    data.add_argument("--validation", metavar="WHERE", help="other photographs (default: a tenth is kept back)")
    data.add_argument(
        "--mean-pixel", type=float, nargs=3, metavar=("R", "G", "B"), help="default: measured, or that of --from"
    )
    data.add_argument("--workers", type=int, metavar="N", help="processes that read photographs (default: 1; GPU: 8)")
    run = parser.add_argument_group("run")
    run.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="checkpoints, log, pictures, model")
    run.add_argument("--resume", action="store_true", help="go on from the newest checkpoint in the output folder")
    run.add_argument("--from", dest="start_from", metavar="MODEL", help="a trained model, folder or user/name")
    run.add_argument(
        "--mixed-precision", choices=["no", "bf16", "fp16"], help="default: what accelerate launch or its config says"
    )
    run.add_argument(
        "--accumulation", type=int, default=1, metavar="N", help="parts that a batch is cut into to fit the memory"
    )
    run.add_argument("--compile", action="store_true", help="compile the networks")
    run.add_argument("--save-every", type=int, default=250, metavar="STEPS", help="default: 250")
    run.add_argument("--keep", type=int, default=2, metavar="N", help="checkpoints that are kept (default: 2)")
    run.add_argument("--validate-every", type=int, default=1000, metavar="STEPS", help="default: 1000")
    run.add_argument(
        "--trackers",
        nargs="*",
        default=["tensorboard"],
        metavar="NAME",
        help="default: tensorboard; no NAME, no tracker",
    )
    run.add_argument("--push-to-hub", "--push_to_hub", metavar="USER/NAME", help="upload the model at the end")
    run.add_argument("--push-every", type=int, metavar="STEPS", help="upload it before that, too")
    recipe = parser.add_argument_group("recipe", "what comes out depends on this, and is saved with the run")
    recipe.add_argument(
        "--recipe",
        metavar="NAME|FILE",
        help=f"{', '.join(recipe_names())}, or a YAML file (default: {DEFAULT_RECIPE})",
    )
    types = get_type_hints(Recipe)
    for entry in dataclasses.fields(Recipe):
        recipe.add_argument(
            f"--{entry.name.replace('_', '-')}", help=entry.metadata["help"], **_flag(types[entry.name])
        )


def _flag(kind: Any) -> dict[str, Any]:
    """How a recipe entry of a type is given on the command line."""
    if get_origin(kind) is Literal:
        return {"choices": get_args(kind)}
    if get_origin(kind) is tuple:
        return {"type": int, "nargs": 2, "metavar": ("MIN", "MAX")}
    return {"action": argparse.BooleanOptionalAction} if kind is bool else {"type": kind, "metavar": "N"}


def _run(options: argparse.Namespace) -> int:
    with needs("train", "training"):
        from glcic_hub.training.trainer import PreemptedError, train

    entries = {entry.name: getattr(options, entry.name) for entry in dataclasses.fields(Recipe)}
    overrides = {name: value for name, value in entries.items() if value is not None}
    saved = options.output / "recipe.yaml"
    source = options.recipe or (str(saved) if options.resume and saved.exists() else DEFAULT_RECIPE)
    try:
        model = train(
            Recipe.load(source, **overrides),
            options.data,
            options.output,
            stream=options.stream,
            validation=options.validation,
            mean_pixel=options.mean_pixel,
            start_from=options.start_from,
            resume=options.resume,
            mixed_precision=options.mixed_precision,
            accumulation=options.accumulation,
            compile=options.compile,
            workers=options.workers,
            save_every=options.save_every,
            keep=options.keep,
            validate_every=options.validate_every,
            trackers=options.trackers,
            push_to_hub=options.push_to_hub,
            push_every=options.push_every,
        )
    except PreemptedError as stopped:
        say(str(stopped))
        return PREEMPTED
    print(f"wrote {model}")
    return OK

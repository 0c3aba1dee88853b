"""Options, models and messages that several commands share."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from glcic_hub.data.photographs import Photograph
    from glcic_hub.evaluation.protocol import Protocol
    from glcic_hub.pipeline import GLCICPipeline

OK, FAILED, PREEMPTED, INTERRUPTED = 0, 1, 75, 130

PHOTOGRAPHS_HELP = (
    "photographs that no model was trained on: a folder, or a dataset as of glcic train --data; it may hold masks"
)


def say(line: str) -> None:
    """Prints a line on standard error."""
    print(f"glcic: {line}", file=sys.stderr)


def add_examples(parser: argparse.ArgumentParser, *commands: str) -> None:
    """Ends a command's help with examples, one a line."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = "\n  ".join(["examples:", *commands])


@contextmanager
def needs(extra: str, what: str) -> Iterator[None]:
    """Says which extra of the package has what is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise ValueError(
            f'{what} needs {error.name}, of the extra "{extra}": pip install "glcic-hub[{extra}]"'
        ) from None


def add_model(parser: argparse.ArgumentParser) -> None:
    """Adds which model completes, and where it runs."""
    parser.add_argument(
        "--model",
        metavar="NAME|FOLDER|USER/NAME",
        help="compact or faces, which are packaged; or a trained model, here or on the Hub (default: compact)",
    )
    parser.add_argument("--revision", help="branch, tag or commit of a model on the Hub")
    add_device(parser)


def add_device(parser: argparse.ArgumentParser) -> None:
    """Adds where models run, and in which precision."""
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps, ... (default: a CUDA GPU if there is one)")
    dtypes = ["auto", "float32", "bfloat16", "float16"]
    parser.add_argument("--dtype", choices=dtypes, default="auto", help="precision (default: what suits the device)")


def load_pipeline(options: argparse.Namespace) -> GLCICPipeline:
    """Loads the model that the options name."""
    from glcic_hub.pipeline import GLCICPipeline

    settings = {"revision": options.revision, "device": options.device, "dtype": options.dtype}
    return GLCICPipeline.from_pretrained(options.model, **settings)


def add_methods(parser: argparse.ArgumentParser, baselines: Sequence[str]) -> None:
    """Adds what is measured, and on which holes."""
    from glcic_hub.evaluation.methods import ALL_BASELINES
    from glcic_hub.evaluation.protocol import HOLES

    parser.add_argument(
        "--model",
        action="append",
        metavar="NAME|FOLDER|USER/NAME",
        help="compact, faces, or a trained model, here or on the Hub; repeat for more (default: compact)",
    )
    parser.add_argument(
        "--baselines",
        nargs="*",
        default=baselines,
        metavar="NAME",
        help=f"of {', '.join(ALL_BASELINES)}; or all (default: {', '.join(baselines) or 'none'})",
    )
    parser.add_argument(
        "--completed",
        action="append",
        type=_named_folder,
        default=[],
        metavar="NAME=FOLDER",
        help="what another tool has completed, in images of the same names and sizes; repeat for more",
    )
    parser.add_argument(
        "--holes",
        metavar="KIND|FOLDER",
        help=f"{', '.join(HOLES)}, or a folder of masks of the same names (default: given if there are masks)",
    )
    parser.add_argument("--size", type=int, default=256, metavar="N", help="side of the centre squares (default: 256)")
    parser.add_argument("--fit", action="store_true", help="scale photographs to that size instead of cropping them")
    parser.add_argument(
        "--hole-size", type=int, nargs=2, default=(96, 128), metavar=("MIN", "MAX"), help="default: 96 128"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="decides the holes (default: 0)")
    add_device(parser)


def make_protocol(options: argparse.Namespace, photographs: Sequence[Photograph]) -> Protocol:
    """Says which holes are measured, and in which part of photographs."""
    from glcic_hub.evaluation.protocol import Protocol, default_holes

    holes = options.holes or default_holes(photographs)
    return Protocol(holes, options.size, tuple(options.hole_size), options.seed, options.fit)


def completed_by_others(options: argparse.Namespace) -> dict[str, Path]:
    """Lists the folders of what other tools have completed, by name."""
    folders = dict(options.completed)
    if len(folders) < len(options.completed):
        raise ValueError("two folders of --completed have the same name; give each its own")
    return folders


def _named_folder(text: str) -> tuple[str, Path]:
    """Reads a name and a folder."""
    name, _, folder = text.partition("=")
    if not name or not folder:
        raise argparse.ArgumentTypeError(f"give a name and a folder, such as LaMa=results/lama, not {text!r}")
    return name, Path(folder)


def load_models(options: argparse.Namespace) -> dict[str, GLCICPipeline]:
    """Loads the models that are compared, by name."""
    from glcic_hub.evaluation.methods import model_names
    from glcic_hub.pipeline import GLCICPipeline

    models = options.model or [None]
    settings = {"device": options.device, "dtype": options.dtype}
    pipes = [GLCICPipeline.from_pretrained(model, **settings) for model in models]
    return dict(zip(model_names(models), pipes, strict=True))


def baselines(options: argparse.Namespace) -> Sequence[str]:
    """Lists the baselines that the options name."""
    from glcic_hub.evaluation.methods import ALL_BASELINES

    return ALL_BASELINES if list(options.baselines) == ["all"] else list(options.baselines)


def port(text: str) -> int:
    """Reads a port's number.

    Raises:
        argparse.ArgumentTypeError: It is none.
    """
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"a port is a number from 1 to 65535, not {text!r}")
    return int(text)

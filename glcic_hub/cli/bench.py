"""`glcic bench`: what completion costs on this machine."""

from __future__ import annotations

import argparse
from pathlib import Path

from glcic_hub.cli.common import OK, add_examples, needs


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `glcic bench`."""
    parser.set_defaults(run=_run)
    add_examples(
        parser,
        "glcic bench -o figures/",
        "glcic bench -o figures/ --device cuda --sizes 512 1024 --runs 3",
    )
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="FOLDER", help="existing; tables and a plot"
    )
    parser.add_argument("--device", help="cpu, cuda, cuda:1, ... (default: a CUDA GPU if there is one)")
    parser.add_argument("--width", type=int, metavar="N", help="base width (default: the paper's)")
    parser.add_argument("--sizes", type=int, nargs="+", metavar="N", help="sides of images")
    parser.add_argument("--hole-sizes", type=int, nargs="+", metavar="N", help="sides of holes")
    parser.add_argument(
        "--full-frame-up-to", type=int, metavar="N", help="larger whole images take minutes (default: 1024)"
    )
    parser.add_argument("--runs", type=int, metavar="N", help="of each kind, interleaved (default: 5)")
    parser.add_argument("--compile", action="store_true", help="measure the compiled network, too")


def _run(options: argparse.Namespace) -> int:
    names = ("width", "device", "sizes", "hole_sizes", "full_frame_up_to", "runs")
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    with needs("bench", "the benchmark"):
        from glcic_hub.evaluation.speed import benchmark

        tables = benchmark(options.output, compile=options.compile, **given)
    print(tables, end="")
    return OK

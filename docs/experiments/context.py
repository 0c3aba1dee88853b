"""How far around the hole a method looks (table 1: semantics): what is farther away becomes another photograph's.

python docs/experiments/context.py PHOTOGRAPHS [--model FOLDER] [--every 4]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from glcic_hub import GLCICPipeline
from glcic_hub.evaluation.methods import Method, make_methods
from glcic_hub.evaluation.protocol import Protocol, centre_square
from glcic_hub.evaluation.report import means
from glcic_hub.evaluation.run import evaluate
from glcic_hub.training.photographs import Photograph, open_photographs

KNOWN = (4, 16, 32, 64)
"""Pixels around the hole that stay; the last is all there is."""


def main() -> None:
    """Measures and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", metavar="FOLDER")
    parser.add_argument("--model", metavar="FOLDER", help="default: the package's")
    parser.add_argument("--every", type=int, default=4, metavar="N", help="take every Nth photograph (default: 4)")
    options = parser.parse_args()
    methods = make_methods({"glcic": GLCICPipeline.from_pretrained(options.model)}, ["Telea", "PatchMatch"])
    photographs: list[Photograph] = list(open_photographs(options.photographs))[:: options.every]
    protocol = Protocol("centre", size=256)
    stranger = centre_square(photographs[0], protocol.size)
    variants: dict[str, Callable[[Method], Method]] = {
        **{f"{known} pixels": partial(among_strangers, stranger, known) for known in KNOWN[:-1]},
        f"all ({KNOWN[-1]} pixels)": lambda method: method,
    }
    print(f"{len(photographs) - 1} photographs; PSNR in the hole, dB.\n")
    print("| what stays around the hole | " + " | ".join(methods) + " |")
    print("|---" * (1 + len(methods)) + "|")
    for name, variant in variants.items():
        tested = {label: variant(method) for label, method in methods.items()}
        figures = means(evaluate(photographs[1:], tested, protocol))
        print("| " + " | ".join([name, *(f"{row['psnr'].mean:.2f}" for row in figures.values())]) + " |", flush=True)


def among_strangers(stranger: NDArray[np.uint8], known: int, method: Method) -> Method:
    """The method, given a picture of which only so many pixels around the hole are left."""

    def complete(image: NDArray[np.uint8], mask: NDArray[np.uint8]) -> NDArray[Any]:
        near = cv2.dilate(mask, np.ones((2 * known + 1, 2 * known + 1), np.uint8))
        return method(np.where(near[..., None] > 0, image, stranger), mask)

    return complete


if __name__ == "__main__":
    main()

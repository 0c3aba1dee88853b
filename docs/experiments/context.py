"""How far around the hole a method looks (table 1): what is farther away becomes another photograph's.

python docs/experiments/context.py PHOTOGRAPHS [--model FOLDER] [--every 4]
"""

from __future__ import annotations

import argparse

import cv2
import numpy as np

from glcic_hub import GLCICPipeline
from glcic_hub.data.photographs import Photograph, open_photographs
from glcic_hub.evaluation.methods import make_methods, network_methods
from glcic_hub.evaluation.metrics import hole_metrics
from glcic_hub.evaluation.protocol import Protocol, case_opener
from glcic_hub.images.processing import to_uint8

KEPT = (4, 16, 32, 48)
"""Pixels around the hole that stay."""


def main() -> None:
    """Measures and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", metavar="FOLDER")
    parser.add_argument("--model", metavar="FOLDER", help="default: the package's")
    parser.add_argument("--every", type=int, default=4, metavar="N", help="take every Nth photograph (default: 4)")
    options = parser.parse_args()
    pipe = GLCICPipeline.from_pretrained(options.model)
    methods = make_methods({"glcic": pipe}, ["Telea", "PatchMatch"], network_methods)
    photographs: list[Photograph] = list(open_photographs(options.photographs))[:: options.every]
    open_case = case_opener(Protocol("centre"), photographs)
    cases = [open_case(index) for index in range(len(photographs))]
    changes: dict[tuple[str, int], list[float]] = {}
    for index, (image, mask) in enumerate(cases):
        stranger = cases[index - 1].image
        for name, method in methods.items():
            fill = to_uint8(method(image, mask))
            for kept in KEPT:
                near = cv2.dilate(mask, np.ones((2 * kept + 1, 2 * kept + 1), np.uint8))
                among_strangers = np.where(near[..., None] > 0, image, stranger)
                other = to_uint8(method(among_strangers, mask))
                changes.setdefault((name, kept), []).append(hole_metrics(fill, other, mask)["l1"])
    print(
        f"{len(cases)} photographs of 256×256 pixels, hole of 128×128 in the middle; mean change of the fill in %.\n"
    )
    print("| what stays around the hole | " + " | ".join(methods) + " |")
    print("|---" * (1 + len(methods)) + "|")
    for kept in KEPT:
        cells = [f"{np.mean(changes[name, kept]):.2f}" for name in methods]
        print("| " + " | ".join([f"{kept} pixels", *cells]) + " |")


if __name__ == "__main__":
    main()

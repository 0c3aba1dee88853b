"""Measures how well, and how fast, specks of dust are filled: the pipeline, its network alone, and OpenCV's methods.

python benchmarks/specks.py PHOTOGRAPHS [--count 30] [--largest 4000]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from glcic_hub import GLCICPipeline
from glcic_hub.data.photographs import Photograph, open_photographs, open_rgb
from glcic_hub.evaluation.methods import BASELINES, Method, model_methods
from glcic_hub.evaluation.metrics import hole_metrics
from glcic_hub.evaluation.protocol import centre_square

RADII = (1, 2, 3, 4, 5, 8)
SPECKS_EACH = 12
SIZES = ((3000, 2000), (6000, 4000))
NUMBERS = (100, 1000, 4000)


def main() -> None:
    """Measures and prints two tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", metavar="PHOTOGRAPHS", help="a folder")
    parser.add_argument("--count", type=int, default=30, metavar="N", help="photographs for the quality (default: 30)")
    parser.add_argument("--largest", type=int, default=4000, metavar="N", help="specks for the time, at most")
    options = parser.parse_args()
    photographs = open_photographs(options.photographs)
    every = max(1, len(photographs) // options.count)
    chosen = [photographs[index] for index in range(0, len(photographs), every)][: options.count]
    methods = {
        **model_methods(GLCICPipeline.from_pretrained()),
        **{k: BASELINES[k] for k in ("Telea", "Navier-Stokes")},
    }
    _measure_quality(chosen, methods)
    print()
    _measure_time(chosen[0], methods, [number for number in NUMBERS if number <= options.largest])


def _measure_quality(photographs: Sequence[Photograph], methods: dict[str, Method]) -> None:
    """Prints PSNR, SSIM and texture ratio in the holes, by the specks' radius."""
    print(f"{len(photographs)} photographs, {SPECKS_EACH} specks in each: PSNR in dB, SSIM, texture ratio\n")
    print(f"| radius | {' | '.join(methods)} |\n|{'---|' * (1 + len(methods))}")
    for radius in RADII:
        cells = []
        masks = [
            _specks(np.random.default_rng([radius, i]), 256, 256, SPECKS_EACH, (radius, radius))
            for i in range(len(photographs))
        ]
        for method in methods.values():
            rows = []
            for photograph, mask in zip(photographs, masks, strict=True):
                image = centre_square(photograph, 256)
                figures = hole_metrics(image, np.asarray(method(image, mask)), mask)
                rows.append([figures[name] for name in ("psnr", "ssim", "texture")])
            psnr, ssim, texture = np.nanmean(rows, axis=0)
            cells.append(f"{psnr:.1f}, {ssim:.3f}, {texture:.2f}")
        print(f"| {radius} | {' | '.join(cells)} |", flush=True)


def _measure_time(photograph: Photograph, methods: dict[str, Method], numbers: Sequence[int]) -> None:
    """Prints the seconds of each method, one run each, for many specks of radius 1 to 3."""
    print(f"| image, specks | {' | '.join(methods)} |\n|{'---|' * (1 + len(methods))}")
    for width, height in SIZES:
        image = np.asarray(open_rgb(photograph, 256).resize((width, height), Image.Resampling.BICUBIC))
        for number in numbers:
            mask = _specks(np.random.default_rng(0), height, width, number, (1, 3))
            cells = []
            for method in methods.values():
                begin = time.perf_counter()
                method(image, mask)
                cells.append(f"{time.perf_counter() - begin:.1f}")
            print(f"| {width}x{height}, {number} | {' | '.join(cells)} |", flush=True)


def _specks(
    random: np.random.Generator, height: int, width: int, count: int, radii: tuple[int, int]
) -> NDArray[np.uint8]:
    """Draws discs anywhere, of radii from the least to the greatest: (height, width) of 0 and 1."""
    mask = np.zeros((height, width), np.uint8)
    for _ in range(count):
        centre = (int(random.integers(width)), int(random.integers(height)))
        cv2.circle(mask, centre, int(random.integers(radii[0], radii[1] + 1)), 1, -1)
    return mask


if __name__ == "__main__":
    main()

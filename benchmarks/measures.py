"""How measures order fills of which one knows how they look: noise, blur and grids beside methods.

python benchmarks/measures.py PHOTOGRAPHS [--model FOLDER] [--every 3]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from glcic_hub import GLCICPipeline
from glcic_hub.data.photographs import open_photographs
from glcic_hub.evaluation.evaluate import evaluate
from glcic_hub.evaluation.methods import Method, make_methods
from glcic_hub.evaluation.protocol import Protocol
from glcic_hub.evaluation.report import frechet, means

GRID_STEP, GRID_LINE = 8, 2
WAVE = 12.6
"""The plaid's wave length in pixels, and of the grid that is laid over the network's fill."""

COLUMNS = ("psnr", "ssim", "texture", "efficientnet")


def main() -> None:
    """Measures and prints a table, the nearest to the originals first."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", metavar="FOLDER")
    parser.add_argument("--model", metavar="FOLDER", help="default: the package's")
    parser.add_argument("--every", type=int, default=3, metavar="N", help="take every Nth photograph (default: 3)")
    options = parser.parse_args()
    pipe = GLCICPipeline.from_pretrained(options.model)
    photographs = open_photographs(options.photographs)
    some = [photographs[index] for index in range(0, len(photographs), options.every)]
    evaluation = evaluate(
        some, fills(make_methods({"glcic": pipe}, ["Telea", "PatchMatch", "mean colour"])), Protocol()
    )
    distances, figures = frechet(evaluation), means(evaluation)
    network = evaluation.values("glcic, blended", "efficientnet")
    print(f"{len(network)} photographs, {distances['original'].vectors} vectors; {evaluation.protocol.describe()}.\n")
    heads = ["fill", *(evaluation.metrics[name].label for name in COLUMNS), "nearer than glcic, blended, %", "Fréchet"]
    print("| " + " | ".join(heads) + " |\n" + "|---" * len(heads) + "|")
    for name in sorted(figures, key=lambda name: figures[name]["efficientnet"].mean):
        cells = [f"{figures[name][column].mean:.{evaluation.metrics[column].digits}f}" for column in COLUMNS]
        nearer = [value < network[index] for index, value in evaluation.values(name, "efficientnet").items()]
        cells += [f"{100 * np.mean(nearer):.0f}", f"{distances[name].distance:.0f}"]
        print("| " + " | ".join([name, *cells]) + " |")


def fills(methods: dict[str, Method]) -> dict[str, Method]:
    """The original, made worse; the methods; and the blended network's fill, made worse."""
    network = methods["glcic, blended"]
    return {
        "original": inside(lambda image, mask: image),
        **{f"original with noise of {sigma} levels": inside(noise(sigma)) for sigma in (4, 16)},
        **{f"original blurred by {sigma} pixels": inside(blur(sigma)) for sigma in (2, 4, 8)},
        **{name: method for name, method in methods.items() if name != "glcic"},
        "glcic, blended, with noise of 12 levels": inside(noise(12), network),
        "glcic, blended, with a faint grid": inside(lambda image, mask: image + 0.15 * plaid(mask), network),
        "plaid": inside(lambda image, mask: image[mask > 0].mean(axis=0) + plaid(mask), network),
        "grid": inside(lambda image, mask: image[mask > 0].mean(axis=0) + grid(mask), network),
    }


def inside(change: Callable[[NDArray[Any], NDArray[np.uint8]], NDArray[Any]], method: Method | None = None) -> Method:
    """A method that changes what is in the hole: the original, or another method's fill."""

    def fill(image: NDArray[np.uint8], mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
        changed = change((method(image, mask) if method else image).astype(np.float32), mask)
        return np.where(mask[..., None] > 0, changed.clip(0, 255), image).astype(np.uint8)

    return fill


def noise(sigma: float) -> Callable[[NDArray[Any], NDArray[np.uint8]], NDArray[Any]]:
    """Adds white noise, the same each time."""
    return lambda image, mask: image + np.random.default_rng(0).normal(0, sigma, image.shape)


def blur(sigma: float) -> Callable[[NDArray[Any], NDArray[np.uint8]], NDArray[Any]]:
    """Blurs the original, so that what is beside the hole goes over into it, and there is no seam."""
    return lambda image, mask: np.asarray(cv2.GaussianBlur(image, (0, 0), sigma))


def plaid(mask: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Two crossing waves of 45 levels, (H, W, 1)."""
    rows, columns = np.ogrid[: mask.shape[0], : mask.shape[1]]
    waves = np.sin(2 * np.pi / WAVE * rows) + np.sin(2 * np.pi / WAVE * columns)
    return np.asarray(45 * waves[..., None])


def grid(mask: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Dark lines, 160 levels below the rest, of mean 0, (H, W, 1)."""
    rows, columns = np.ogrid[: mask.shape[0], : mask.shape[1]]
    lines = (rows % GRID_STEP < GRID_LINE) | (columns % GRID_STEP < GRID_LINE)
    return np.asarray(160 * (lines.mean() - lines[..., None]))


if __name__ == "__main__":
    main()

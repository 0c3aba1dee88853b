"""Measures completion inside the hole, next to baselines, on holes drawn as in the paper's training."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from skimage.metrics import structural_similarity
from tqdm.auto import tqdm

from glcic_hub.blending import TELEA_RADIUS
from glcic_hub.images import open_picture, to_uint8
from glcic_hub.masks import random_rectangle
from glcic_hub.picture_files import find_pictures
from glcic_hub.pipeline import GLCICPipeline

Method = Callable[[NDArray[np.uint8], NDArray[np.uint8]], NDArray[Any]]
"""Takes a (H, W, 3) uint8 picture and a (H, W) mask of 0 and 1; gives the completed picture."""

METRICS = ("psnr", "ssim", "texture")

SSIM_WINDOW = 7
"""Side in pixels of the windows that structural similarity looks at, scikit-image's default."""


def methods(pipe: GLCICPipeline) -> dict[str, Method]:
    """The pipeline without and with blending, and the baselines: `cv2.inpaint`'s two methods and the mean colour."""
    mean = to_uint8(np.array(pipe.config.mean_pixel, np.float32))
    return {
        "glcic": lambda image, mask: pipe(image, mask),
        "glcic, blended": lambda image, mask: pipe(image, mask, blend="poisson"),
        "Telea": lambda image, mask: cv2.inpaint(_blank(image, mask), mask, TELEA_RADIUS, cv2.INPAINT_TELEA),
        "Navier-Stokes": lambda image, mask: cv2.inpaint(_blank(image, mask), mask, TELEA_RADIUS, cv2.INPAINT_NS),
        "mean colour": lambda image, mask: np.where(mask[..., None] > 0, mean, image),
    }


def _blank(image: NDArray[np.uint8], mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return image * (1 - mask[..., None])


def hole_metrics(
    original: NDArray[np.uint8], completed: NDArray[np.uint8], mask: NDArray[np.uint8]
) -> dict[str, float]:
    """Compares a completed picture with the original inside the hole.

    Args:
        original: (H, W, 3) uint8.
        completed: (H, W, 3) uint8.
        mask: (H, W) of 0 and 1; 1 = hole.

    Returns:
        `psnr`: in dB, over the hole's pixels and channels (infinite where they are equal).
        `ssim`: mean over the hole of scikit-image's structural similarity map (7×7 windows).
        `texture`: mean magnitude of the brightness gradient in the hole, completed over original.
    """
    hole = mask > 0
    # Windows and gradients at the hole's edge reach outside it, where only the original counts.
    completed = np.where(hole[..., None], completed, original)
    a, b = (picture.astype(np.float64) / 255 for picture in (original, completed))
    error = np.square(a - b)[hole].mean()
    _, similarity = structural_similarity(  # type: ignore[no-untyped-call]
        a, b, win_size=SSIM_WINDOW, channel_axis=2, data_range=1, full=True
    )
    gradients = [np.hypot(*np.gradient(picture.mean(axis=2)))[hole].mean() for picture in (a, b)]
    return {
        "psnr": float("inf") if error == 0 else -10 * float(np.log10(error)),
        "ssim": float(similarity[hole].mean()),
        "texture": float(gradients[1] / gradients[0]) if gradients[0] else float("nan"),
    }


def centre_crop(path: Path, size: int) -> NDArray[np.uint8]:
    """The centre (size, size, 3) of a photograph at its own resolution; smaller ones are enlarged to it."""
    image = Image.fromarray(to_uint8(open_picture(path).whole()))
    if min(image.size) < size:
        return np.asarray(ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC))
    left, top = ((side - size) // 2 for side in image.size)
    return np.asarray(image.crop((left, top, left + size, top + size)))


def evaluate(
    photographs: str | Path,
    pipe: GLCICPipeline,
    *,
    size: int = 256,
    hole_size: tuple[int, int] = (96, 128),
    seed: int = 0,
) -> dict[str, dict[str, float]]:
    """Completes the centre of each photograph with one random hole (sec. 3.4) by each method.

    Args:
        photographs: A folder of photographs.
        pipe: What to measure.
        size: Side of the centre crops in pixels.
        hole_size: Range of the hole's height and width in pixels.
        seed: Decides the holes; each photograph's depends on its place in the folder alone.

    Returns:
        For each method (`methods`) the mean of each metric (`hole_metrics`) over the photographs.

    Raises:
        FileNotFoundError: No such folder.
        ValueError: It holds no pictures, or one that cannot be read; or the hole does not fit.
    """
    if size < SSIM_WINDOW or seed < 0:
        raise ValueError(f"size must be at least {SSIM_WINDOW} and seed at least 0, not {size} and {seed}")
    paths = find_pictures(Path(photographs))
    named = methods(pipe)
    results: dict[str, list[list[float]]] = {name: [] for name in named}
    for index, path in enumerate(tqdm(paths, unit="photograph")):
        original = centre_crop(path, size)
        mask = random_rectangle(np.random.default_rng([seed, index]), size, size, hole_size).mask(size, size)
        for name, method in named.items():
            metrics = hole_metrics(original, method(original, mask), mask)
            results[name].append([metrics[metric] for metric in METRICS])
    return {
        name: {
            metric: mean_of_defined(values) for metric, values in zip(METRICS, zip(*rows, strict=True), strict=True)
        }
        for name, rows in results.items()
    }


def mean_of_defined(values: Iterable[float]) -> float:
    """The mean of the values that are defined; a flat photograph has no texture to compare with."""
    defined = [value for value in values if not np.isnan(value)]
    return float(np.mean(defined)) if defined else float("nan")


def as_table(results: dict[str, dict[str, float]]) -> str:
    """The results of `evaluate` as a Markdown table."""
    lines: Iterable[str] = (
        f"| {name} | {row['psnr']:.2f} | {row['ssim']:.3f} | {row['texture']:.2f} |" for name, row in results.items()
    )
    return "\n".join(["| method | PSNR, dB | SSIM | texture ratio |", "|---|---|---|---|", *lines])

"""Metrics of a completed image against the original, in the hole and over the image."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

SSIM_WINDOW = 7
"""Side in pixels of the windows that structural similarity looks at, scikit-image's default."""


MAX_PSNR = 100.0
"""PSNR in dB of equal images, whose error has no logarithm; with infinity no mean could be taken."""


class Metric(NamedTuple):
    """How to show a metric, and its best value."""

    label: str
    digits: int
    best: float
    """The value of a perfect completion; nearer is better."""


METRICS = {
    "psnr": Metric("PSNR, dB", 2, MAX_PSNR),
    "ssim": Metric("SSIM", 3, 1),
    "texture": Metric("texture ratio", 2, 1),
    "l1": Metric("L1, %", 2, 0),
    "seam": Metric("seam", 2, 0),
    "lightness": Metric("ΔL*", 2, 0),
    "a": Metric("Δa*", 2, 0),
    "b": Metric("Δb*", 2, 0),
    "psnr_whole": Metric("PSNR of the image, dB", 2, MAX_PSNR),
    "ssim_whole": Metric("SSIM of the image", 4, 1),
    "l1_whole": Metric("L1 of the image, %", 3, 0),
}
"""Names of the metrics of `hole_metrics`."""


def hole_metrics(
    original: NDArray[np.uint8], completed: NDArray[np.uint8], mask: NDArray[np.uint8]
) -> dict[str, float]:
    """Compares a completed image with the original.

    Args:
        original: (H, W, 3) uint8, at least 7 pixels high and wide.
        completed: (H, W, 3) uint8.
        mask: (H, W) of 0 and 1; 1 = hole.

    Returns:
        In the hole, whatever is outside it:
            `psnr`: in dB, over the hole's pixels and channels (100 where they are equal).
            `ssim`: mean over the hole of scikit-image's structural similarity map (7×7 windows).
            `texture`: mean magnitude of the brightness gradient in the hole, completed over original (NaN if the
                original has none).
            `l1`: mean absolute error, in per cent of the range.
            `seam`: mean absolute step of colour across the hole's edge (between neighbours of which one is in the
                hole), less the original's, in levels of 255: above 0 an edge is seen, below 0 one is lost. 0 if the
                hole has no edge.
            `lightness`, `a`, `b`: absolute difference of the hole's mean colour in CIE L*, a*, b*.
        Over the image, outside included: `psnr_whole`, `ssim_whole`, `l1_whole`.

    Raises:
        ModuleNotFoundError: scikit-image is not installed.
    """
    from skimage.color import rgb2lab

    hole = mask > 0
    # Windows and gradients at the hole's edge reach outside it, where only the original counts.
    filled = np.where(hole[..., None], completed, original)
    a, b, whole = (image.astype(np.float64) / 255 for image in (original, filled, completed))
    similarity, similarity_whole = (_similarity(a, image) for image in (b, whole))
    gradients = [np.hypot(*np.gradient(image.mean(axis=2)))[hole].mean() for image in (a, b)]
    means = [rgb2lab(image[hole][None])[0].mean(axis=0) for image in (a, b)]
    lightness, green_red, blue_yellow = np.abs(means[0] - means[1])
    return {
        "psnr": _psnr(np.square(a - b)[hole].mean()),
        "ssim": float(similarity[hole].mean()),
        "texture": float(gradients[1] / gradients[0]) if gradients[0] else float("nan"),
        "l1": 100 * float(np.abs(a - b)[hole].mean()),
        "seam": 255 * (_step(b, hole) - _step(a, hole)),
        "lightness": float(lightness),
        "a": float(green_red),
        "b": float(blue_yellow),
        "psnr_whole": _psnr(np.square(a - whole).mean()),
        "ssim_whole": float(_inner(similarity_whole).mean()),
        "l1_whole": 100 * float(np.abs(a - whole).mean()),
    }


def mean_of_defined(values: Iterable[float]) -> float:
    """Averages the values that are defined; a flat photograph has no texture to compare with."""
    defined = [value for value in values if not np.isnan(value)]
    return float(np.mean(defined)) if defined else float("nan")


def _psnr(error: float) -> float:
    return MAX_PSNR if error == 0 else min(MAX_PSNR, -10 * float(np.log10(error)))


def _similarity(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    from skimage.metrics import structural_similarity

    _, similarity = structural_similarity(  # type: ignore[no-untyped-call]
        a, b, win_size=SSIM_WINDOW, channel_axis=2, data_range=1, full=True
    )
    return np.asarray(similarity)


def _inner(similarity: NDArray[np.float64]) -> NDArray[np.float64]:
    """Drops the border where windows reach outside the image, as scikit-image's mean does."""
    border = SSIM_WINDOW // 2
    return similarity[border:-border, border:-border]


def _step(image: NDArray[np.float64], hole: NDArray[np.bool_]) -> float:
    """Averages the absolute differences of neighbours of which one is in the hole."""
    steps = [
        np.abs(np.diff(image, axis=axis))[np.diff(hole.astype(np.int8), axis=axis) != 0].ravel() for axis in (0, 1)
    ]
    found = np.concatenate(steps)
    return float(found.mean()) if found.size else 0.0

"""Holes with pixels that no known pixel reaches (sec. 4.8): completed from a smaller copy of the image."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from glcic_hub.completion.completer import Completer
from glcic_hub.completion.receptive_field import REACH
from glcic_hub.completion.tiling import far_apart, tile
from glcic_hub.images.boxes import Box, bounds
from glcic_hub.images.processing import MIN_IMAGE_SIDE, Patch, PilPixels, Pixels, to_unit

COARSE_THICKNESS = 128
"""Greatest thickness of a hole in the smaller copy, in pixels: that of the paper's training holes."""

RIM = 32
"""Width in pixels of the rim in which the full-size fill fades into that of the smaller copy."""


def out_of_reach(hole: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Finds the pixels of a hole with nothing known within 150 pixels on any side: (H, W) boolean."""
    far = np.zeros_like(hole)
    for box in far_apart(hole) if _may_be_out_of_reach(bounds(hole), hole.shape) else []:
        if not _may_be_out_of_reach(box, hole.shape):
            continue
        window = box.grown(1, *hole.shape).slices
        # Beyond the image there is nothing known, which is how OpenCV erodes at the border.
        kernel = np.ones((2 * REACH + 1, 2 * REACH + 1), np.uint8)
        far[window] = cv2.erode(hole[window].astype(np.uint8), kernel) > 0
    return far


def _may_be_out_of_reach(box: Box, shape: tuple[int, ...]) -> bool:
    """Tells whether a hole with this bounding box is too long in both directions, or reaches across the image."""
    return all(side > REACH or side == whole for side, whole in zip(box.size, shape, strict=True))


def complete_coarse_to_fine(
    completer: Completer, rgb: Pixels | PilPixels, hole: NDArray[np.bool_], far: NDArray[np.bool_]
) -> list[Patch]:
    """Completes an image with holes too large for the network.

    They are completed in a copy so small that they are at most 128 pixels thick. Along their rim the full-size fill
    fades into the enlarged one. Other holes are completed at full size.

    Args:
        completer: Runs the network.
        rgb: (H, W, 3) uint8, or float32 in [0, 1].
        hole: (H, W) boolean.
        far: `out_of_reach(hole)`, not empty.

    Returns:
        Patches whose holes do not overlap and together are the hole.
    """
    # Choose the copy's scale by the thickest of the holes that are too large.
    _, labels = cv2.connectedComponents(hole.astype(np.uint8))
    large = np.isin(labels, np.unique(labels[far]))
    box = bounds(large)
    depth = cv2.distanceTransform(np.ascontiguousarray(hole).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5)
    inner = large & (depth >= RIM)
    scale = 2 ** math.ceil(math.log2(2 * float(depth[large].max()) / COARSE_THICKNESS))
    window = box.grown(REACH * scale, *hole.shape)
    coarse = _complete_smaller(completer, to_unit(rgb[window.slices]), hole[window.slices], scale)

    # Take the inside from the copy, and complete rims and other holes at full size, all together.
    patches = [Patch(window, coarse, inner[window.slices])]
    rim = large & ~inner
    others = hole & ~large
    parts = [(part, rim) for part in tile(rim)] + [(part, others) for part in tile(others)]
    fills = completer.fill([((rgb, hole), part) for part, _ in parts])
    for (part, inside), fill in zip(parts, fills, strict=True):
        if inside is rim:
            share = (depth[part.slices] / RIM).clip(0, 1).astype(np.float32)[..., None]
            fill = (1 - share) * fill + share * coarse[part.shifted(-window.top, -window.left).slices]
        patches.append(Patch(part, fill, inside[part.slices]))
    return patches


def _complete_smaller(
    completer: Completer, image: NDArray[np.float32], hole: NDArray[np.bool_], scale: int
) -> NDArray[np.float32]:
    """Completes an image in a copy `scale` times smaller, and enlarges the result to the image's size."""
    height, width = hole.shape
    smaller = (max(MIN_IMAGE_SIDE, -(-width // scale)), max(MIN_IMAGE_SIDE, -(-height // scale)))
    known = (~hole).astype(np.float32)
    weight = cv2.resize(known, smaller, interpolation=cv2.INTER_AREA)
    total = cv2.resize(image * known[..., None], smaller, interpolation=cv2.INTER_AREA)
    # A pixel of the copy is known if there is anything known in it, however thin the rim.
    gap = weight < 1e-6
    copy = np.where(gap[..., None], 0, total / np.maximum(weight, 1e-6)[..., None]).astype(np.float32)
    for box, fill, inside in completer.complete([(copy, gap)])[0]:
        copy[box.slices][inside] = fill[inside]
    return cv2.resize(copy, (width, height), interpolation=cv2.INTER_CUBIC).clip(0, 1)

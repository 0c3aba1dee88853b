"""Detail from the picture itself, led by the network: the hole is copied from where the picture looks as it should.

The network says what belongs where, on a copy so small that the hole is shallow. Then each pixel of the hole is given an
offset to a known pixel that it is copied from, such that neighbours that are copied from different places fit each other,
the rim fits what is known, and the whole is near the network's fill (shift maps: Pritch, Kav-Venaki and Peleg 2009; offsets
between similar patches as candidates: He and Sun 2012; chosen by alpha expansion: Boykov, Veksler and Zabih 2001). This is done
coarse to fine. What steps of colour are left at the seams are levelled.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import NamedTuple, TypeAlias

import cv2
import numpy as np
import scipy.ndimage
import scipy.signal
from numpy.typing import NDArray

from glcic_hub import _exemplars
from glcic_hub.blending import blend_patches
from glcic_hub.completion import Completer
from glcic_hub.images import LEAST_SIDE, Patch, PilPixels, Pixels, to_uint8, to_unit
from glcic_hub.support import Box, bounds, far_apart

Bytes: TypeAlias = NDArray[np.uint8]
Labels: TypeAlias = NDArray[np.int32]

NONE = -1

WINDOW = 1.0
"""Sources are looked for so far around a hole, in parts of its box's longer side."""

LEAST_WINDOW = 48
"""And at least so far, in pixels."""

COARSE_AREA = 1600
"""The hole has at most so many pixels in the coarsest copy, where all offsets on a lattice are tried."""

TOGETHER = 9
"""Side in pixels of the square by which holes grow to find those that are completed together."""

LATTICE = 2
"""Distance in pixels of the offsets that are tried there."""

REACHES = 0.1
"""Of these, the ones that lead from at least this part of the hole to known pixels."""

OFFSETS = 60
"""Offsets between similar patches that are tried besides, at the two coarsest scales (He and Sun 2012)."""

MULTIPLES = 3
"""With them their multiples up to this one, for holes larger than what repeats; of the more frequent half."""

PATCH_RADIUS = 3
PATCHES_APART = 15
"""Patches closer than this part of the picture's longer side are alike because they overlap (He and Sun 2012)."""

REFINE = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
"""How an offset may change from a scale to the next, in pixels."""

NEAR = 2
"""So far from where it was chosen, in pixels, an offset may spread at the next scale."""

SWEEPS = 4
FINE_SWEEPS = 1

COLOUR, GRADIENT, SEAM, GUIDE, CONTEXT = 2, 1, 40, 1, 60
"""Weights: the colours' and gradients' difference across a seam, a seam as such, distance from the guide, and the
difference of what surrounds the hole."""

TEXTURE = 3
"""Weight of the mean gradients beside the colours, so that what is alike in a small copy is so at full size, too (Newson et
al. 2014)."""

TEXTURE_SIGMA = 3.0
GUIDE_SIGMA = 2.0
RIM = 1
"""Known pixels so near a hole are no sources: the rim of what is removed is often left standing."""

GUIDE_DEPTH = 24
"""In the copy that the network completes the hole is at most so deep, in pixels."""

SCREEN = 0.01
"""How strongly colours are held when seams are levelled: steps fade within about ten pixels."""

LEVELLING_SWEEPS = 60


class Scale(NamedTuple):
    """A window of a picture at one scale."""

    features: Bytes  # (H, W, 5): RGB, mean gradients along the rows and the columns
    known: NDArray[np.bool_]  # (H, W)
    hole: NDArray[np.bool_]  # (H, W), what is to be completed; neither known nor hole are other holes


def complete_from_exemplars(completer: Completer, rgb: Pixels | PilPixels, hole: NDArray[np.bool_]) -> list[Patch]:
    """Completes a picture's holes with detail from around them, led by the network.

    Each hole is completed by itself, in a window around it, so that the cost follows the holes.

    Args:
        completer: Runs the network, which leads.
        rgb: (H, W, 3) uint8, or float32 in [0, 1].
        hole: (H, W) boolean.

    Returns:
        Patches whose holes do not overlap and together are the hole. Where nothing known is near enough to be copied the fill
        is the network's, with a `UserWarning`.
    """
    patches = []
    for part, box in _parts(hole):
        window = box.grown(max(LEAST_WINDOW, round(WINDOW * max(box.size))), *hole.shape)
        image, unknown = to_unit(rgb[window.slices]), hole[window.slices]
        target = np.zeros_like(unknown)
        target[box.shifted(-window.top, -window.left).slices] = part
        guide = guide_fill(completer, image, unknown)
        fill = fill_from_exemplars(image, ~unknown, target, guide)
        if fill is None:
            warnings.warn(
                f"nothing around the hole at row {box.top}, column {box.left} can be copied; it is completed by the "
                "network alone",
                stacklevel=4,
            )
            fill = guide
        patches.append(Patch(window, fill, target))
    return patches


def _parts(hole: NDArray[np.bool_]) -> Iterator[tuple[NDArray[np.bool_], Box]]:
    """The parts of a hole that are completed together, those within 8 pixels of each other, each in its box."""
    for area in far_apart(hole):
        within = hole[area.slices]
        near = cv2.dilate(within.astype(np.uint8), np.ones((TOGETHER, TOGETHER), np.uint8))
        _, labels = cv2.connectedComponents(near)
        labels[~within] = 0
        for number, slices in enumerate(scipy.ndimage.find_objects(labels), start=1):
            part = labels[slices] == number
            yield (
                part,
                Box(slices[0].start, slices[1].start, slices[0].stop, slices[1].stop).shifted(area.top, area.left),
            )


def guide_fill(completer: Completer, image: NDArray[np.float32], hole: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Completes a small copy by the network, blended, and brings it back to size: (H, W, 3) float32 in [0, 1]."""
    height, width = hole.shape
    depth = float(cv2.distanceTransform(np.pad(hole, 1).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5).max())
    scale = 1
    while depth / scale > GUIDE_DEPTH:
        scale *= 2
    size = (max(LEAST_SIDE, -(-width // scale)), max(LEAST_SIDE, -(-height // scale)))
    known = (~hole).astype(np.float32)
    share = cv2.resize(known, size, interpolation=cv2.INTER_AREA)
    total = cv2.resize(image * known[..., None], size, interpolation=cv2.INTER_AREA)
    gap = share < 0.5
    copy = np.where(gap[..., None], 0, total / np.maximum(share, 1e-6)[..., None]).astype(np.float32)
    if gap.any() and not gap.all():
        for box, fill, inside in blend_patches(copy, completer.complete([(copy, gap)])[0], gap):
            copy[box.slices][inside] = fill[inside]
    return cv2.resize(copy, (width, height), interpolation=cv2.INTER_LINEAR).clip(0, 1)


def fill_from_exemplars(
    image: NDArray[np.float32], known: NDArray[np.bool_], hole: NDArray[np.bool_], guide: NDArray[np.float32]
) -> NDArray[np.float32] | None:
    """Completes a hole with what the picture shows elsewhere.

    Args:
        image: (H, W, 3) float32 in [0, 1].
        known: (H, W) boolean: which pixels may be copied.
        hole: (H, W) boolean: which are to be completed; none of them known.
        guide: (H, W, 3) float32 in [0, 1]: near what the fill should be, its detail apart.

    Returns:
        (H, W, 3) float32 in [0, 1], equal to `image` outside the hole; None if nothing known can be copied.
    """
    scales = _pyramid(image, known, hole)
    guide8 = to_uint8(guide)
    chosen, labels = None, np.zeros((0, 3), np.int32)
    for number, scale in enumerate(reversed(scales)):
        height, width = scale.hole.shape
        found = similar_offsets(scale) if number < 2 else np.zeros((0, 3), np.int32)
        start = np.full(scale.hole.shape, NONE, np.int32)
        if chosen is None:
            labels = np.concatenate([lattice(scale), found])
            groups = np.full(len(labels), NONE, np.int32)
        else:
            # A pixel starts with what was chosen for it in the smaller copy, or for its nearest neighbour there.
            near = scipy.ndimage.distance_transform_edt(chosen == NONE, return_distances=False, return_indices=True)
            everywhere = chosen[tuple(near)].repeat(2, 0).repeat(2, 1)[:height, :width]
            used, group = np.unique(everywhere[scale.hole], return_inverse=True)
            start[scale.hole] = group
            refined = [labels[used] * (1, 2, 2) + (0, *change) for change in REFINE]
            groups = np.concatenate([np.tile(np.arange(len(used)), len(REFINE)), np.full(len(found), NONE)])
            labels = np.concatenate([*refined, found]).astype(np.int32)
        if not len(labels):
            continue
        usable = scipy.ndimage.binary_erosion(scale.known, np.ones((2 * RIM + 1,) * 2), border_value=1)
        small_guide = cv2.resize(guide8, (width, height), interpolation=cv2.INTER_AREA)
        chosen = _exemplars.choose_labels(
            scale.features[None],
            usable[None].astype(np.uint8),
            scale.hole.astype(np.uint8),
            scale.known.astype(np.uint8),
            cv2.GaussianBlur(small_guide, (0, 0), 1.0),
            cv2.GaussianBlur(np.ascontiguousarray(scale.features[..., :3]), (0, 0), GUIDE_SIGMA)[None],
            labels,
            groups.astype(np.int32),
            start,
            NEAR,
            SWEEPS if number < 2 else FINE_SWEEPS,
            COLOUR,
            GRADIENT,
            SEAM,
            GUIDE,
            CONTEXT,
            PATCH_RADIUS if number < 2 else 1,
        )
        if (chosen[scale.hole] == NONE).all():
            chosen = None
    if chosen is None:
        return None
    return _copy_and_level(image, scales[0], chosen, labels)


def _pyramid(image: NDArray[np.float32], known: NDArray[np.bool_], hole: NDArray[np.bool_]) -> list[Scale]:
    """The window at its own and at smaller scales, each half of the one before; in integers, the same everywhere."""
    scales = [Scale(_features(to_uint8(image), known), known, hole)]
    while scales[-1].hole.sum() > COARSE_AREA:
        features, known, hole = scales[-1]
        odd = [(0, side % 2) for side in known.shape]
        known_parts = _quarters(np.pad(known, odd))
        count = sum(part.astype(np.int32) for part in known_parts)
        parts = zip(_quarters(np.pad(features, [*odd, (0, 0)])), known_parts, strict=True)
        total = sum(part.astype(np.int32) * seen[..., None] for part, seen in parts)
        half = ((total + count[..., None] // 2) // np.maximum(count, 1)[..., None]).astype(np.uint8)
        hole_parts = _quarters(np.pad(hole, odd))
        less = count < 2
        scales.append(Scale(half, ~less, less & np.logical_or.reduce(hole_parts)))
    return scales


def _quarters(array: NDArray[np.generic]) -> list[NDArray[np.generic]]:
    return [array[top::2, left::2] for top in (0, 1) for left in (0, 1)]


def _features(rgb: Bytes, known: NDArray[np.bool_]) -> Bytes:
    """Colours, and the mean absolute gradients of what is known around each pixel."""
    grey = rgb.astype(np.float32).mean(axis=2)
    gradients = []
    for axis in (0, 1):
        ahead, behind = (np.take(known, range(first, known.shape[axis] - 1 + first), axis) for first in (1, 0))
        both = ahead & behind
        step = np.abs(np.diff(grey, axis=axis)) * both
        pad = [(1, 0) if a == axis else (0, 0) for a in (0, 1)]
        total, weight = (
            cv2.GaussianBlur(np.pad(x.astype(np.float32), pad), (0, 0), TEXTURE_SIGMA) for x in (step, both)
        )
        gradients.append(np.rint((TEXTURE * total / np.maximum(weight, 1e-3)).clip(0, 255)))
    return np.dstack([rgb, *gradients]).astype(np.uint8)


def lattice(scale: Scale) -> Labels:
    """Offsets on a lattice that lead from a fair part of the hole to known pixels: (n, 3), source 0, dy, dx."""
    hole, known = (part.astype(np.float64) for part in (scale.hole, scale.known))
    height, width = hole.shape
    reached = np.rint(scipy.signal.fftconvolve(known, hole[::-1, ::-1]))  # at [dy + H - 1, dx + W - 1]
    dy, dx = np.mgrid[1 - height : height, 1 - width : width]
    wanted = (reached >= max(1, REACHES * hole.sum())) & (dy % LATTICE == 0) & (dx % LATTICE == 0)
    wanted &= np.abs(dy) + np.abs(dx) > LATTICE
    return np.stack([np.zeros(wanted.sum()), dy[wanted], dx[wanted]], axis=1).astype(np.int32)


def similar_offsets(scale: Scale) -> Labels:
    """The most frequent offsets between similar patches, with multiples: (n, 3), source 0, dy, dx."""
    height, width = scale.hole.shape
    side = 2 * (PATCH_RADIUS + RIM) + 1
    whole = scipy.ndimage.binary_erosion(scale.known, np.ones((side, side)))
    found = _exemplars.similar_offsets(
        np.ascontiguousarray(scale.features[..., :3]),
        whole.astype(np.uint8),
        PATCH_RADIUS,
        max(4, max(height, width) // PATCHES_APART),
        6,
    )
    counts = np.zeros((2 * height + 1, 2 * width + 1), np.int64)
    for sign in (1, -1):
        np.add.at(counts, (height + sign * found[:, 0], width + sign * found[:, 1]), 1)
    smooth = counts
    for axis in (0, 1):
        smooth = scipy.ndimage.convolve1d(smooth, [1, 4, 6, 4, 1], axis=axis, mode="constant")
    peaks = (scipy.ndimage.maximum_filter(smooth, 7) == smooth) & (smooth > 0)
    y, x = np.nonzero(peaks)
    best = np.argsort(-smooth[y, x], kind="stable")[:OFFSETS]
    offsets = [(int(dy), int(dx)) for dy, dx in zip(y[best] - height, x[best] - width, strict=True)]
    offsets += [(dy * k, dx * k) for k in range(2, MULTIPLES + 1) for dy, dx in offsets[: OFFSETS // 2]]
    within = [(0, dy, dx) for dy, dx in dict.fromkeys(offsets) if abs(dy) < height and abs(dx) < width]
    return np.array(within, np.int32).reshape(-1, 3)


def _copy_and_level(image: NDArray[np.float32], scale: Scale, chosen: Labels, labels: Labels) -> NDArray[np.float32]:
    """Copies the pixels and levels the seams."""
    height, width = chosen.shape
    part = bounds(scale.hole).grown(1, height, width)
    y, x = np.mgrid[part.slices]
    hole, chosen = scale.hole[part.slices], chosen[part.slices]
    # What no label reaches takes that of its nearest neighbour, as far as that leads into the picture.
    near = scipy.ndimage.distance_transform_edt(chosen == NONE, return_distances=False, return_indices=True)
    offsets = np.where(hole[..., None], labels[chosen[tuple(near)]][..., 1:], 0)

    def look(
        dy: NDArray[np.int32], dx: NDArray[np.int32], down: int, right: int
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        sy, sx = y + down + dy, x + right + dx
        inside = (sy >= 0) & (sx >= 0) & (sy < height) & (sx < width)
        sy, sx = sy.clip(0, height - 1), sx.clip(0, width - 1)
        return image[sy, sx], inside & scale.known[sy, sx]

    copied, _ = look(offsets[..., 0], offsets[..., 1], 0, 0)
    gradients = []
    for down, right in ((0, 1), (1, 0)):
        other = np.roll(offsets, (-down, -right), (0, 1))
        other_hole = np.roll(hole, (-down, -right), (0, 1))
        total, count = np.zeros_like(copied), np.zeros(hole.shape, np.float32)
        for place, counts in ((offsets, hole), (other, other_hole)):
            here, here_known = look(place[..., 0], place[..., 1], 0, 0)
            there, there_known = look(place[..., 0], place[..., 1], down, right)
            good = counts & here_known & there_known
            total += np.where(good[..., None], here - there, 0)
            count += good
        gradients.append(np.ascontiguousarray(total / np.maximum(count, 1)[..., None], np.float32))
    result = np.ascontiguousarray(copied, np.float32)
    _exemplars.level_seams(result, hole.astype(np.uint8), result.copy(), *gradients, SCREEN, LEVELLING_SWEEPS)
    completed = image.copy()
    completed[part.slices][hole] = result[hole].clip(0, 1)
    return completed

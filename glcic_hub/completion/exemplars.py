"""Detail from the picture itself, led by the network: each pixel of a hole is copied from where it looks right.

The network says what belongs where, on a copy so small that the hole is shallow. Then each pixel of the hole is given
an offset to a known pixel that it is copied from (a shift map: Pritch, Kav-Venaki and Peleg 2009), such that pieces
copied from different places fit each other at their seams, fit what is known around the hole, and look like the
network's fill from afar. Offsets between similar patches are among the candidates, which is what continues windows and
tiles (He and Sun 2012). The choice is made by alpha expansion (Boykov, Veksler and Zabih 2001), coarse to fine. Then
colours are drawn to the network's, and what is left of the seams is levelled.

All choices are made in integers, so that the same picture, hole and guide give the same fill on every machine.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple, TypeAlias

import cv2
import numpy as np
import scipy.fft
import scipy.ndimage
import torch
from numpy.typing import NDArray

from glcic_hub.completion import _exemplars
from glcic_hub.completion.blending import blend_patches, fast_marching
from glcic_hub.completion.completer import Completer
from glcic_hub.completion.tiling import far_apart
from glcic_hub.images.boxes import Box, bounds
from glcic_hub.images.processing import MIN_IMAGE_SIDE, Patch, PilPixels, Pixels, to_uint8, to_unit

Bytes: TypeAlias = NDArray[np.uint8]
Hole: TypeAlias = NDArray[np.bool_]
Labels: TypeAlias = NDArray[np.int32]
"""Offsets dy, dx by label, (n, 2); groups by label, (n,); or a label or group for each pixel, (H, W)."""

NONE, PROMISING = -1, -2
"""Groups of labels, as in `_exemplars.cpp`: tried everywhere; tried if they are among the cheapest at some pixel."""

MARGIN = 32, 384
"""Sources are looked for as far around a hole as it is long, but at least and at most so far, in pixels."""

TOGETHER = 8
"""Holes at most so far apart, in pixels, are completed together."""

GUIDE_DEPTH = 32
"""The network completes a copy in which the hole is at most so deep, in pixels: what it knows best."""

SHALLOW = 4
"""Holes at most so deep, in pixels, are led by fast marching (Telea 2004), which costs next to nothing."""

COARSE_AREA = 1600
"""The coarsest scale is the first at which the hole has at most so many pixels."""

LATTICE_STEP, LATTICE_SIZE = 2, 2000
"""There offsets on a lattice are tried: the least distance between them in pixels, and about how many at most."""

REACHES = 0.1
"""Of these, the ones that lead to known pixels from at least such a part of the hole."""

BEST = 2
"""Of these, the ones that are among the so many cheapest at some pixel."""

FREQUENT, MULTIPLES = 60, 3
"""At the two coarsest scales the most frequent offsets between similar patches are tried, too, as many as He and Sun
take; the first half of them also times 2, up to this factor, for holes that are larger than what repeats."""

PATCH_RADIUS, PATCHES_APART = 3, 15
"""Radius of patches in pixels. Similar ones have to be apart by at least 1/15 of the longer side (He and Sun 2012)."""

CHANGES = ((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1))
"""What an offset may change by from one scale to the next finer one, in pixels."""

SPREAD = 2
"""So far from where it was chosen, in pixels, an offset may spread at the next finer scale."""

SWEEPS = 1
"""How often each label may expand."""

COLOUR, SEAM, GUIDE, CONTEXT = 4, 100, 3, 120
"""Weights of what a choice costs: the difference at a seam, a seam as such, the difference from the guide, and the
mean difference of what surrounds the hole within a patch."""

GUIDE_LIMIT = 120
"""The sum over the channels beyond which a difference from the guide counts no more: where the network cannot decide
between two things its fill lies between them, and either is better than something that looks like neither."""

TEXTURE, TEXTURE_RADIUS = 3, 6
"""Mean gradients count so many times as much as colours, over a square of this radius in pixels. In small copies they
tell knit from felt (Newson et al. 2014)."""

RIM = 1
"""Pixels that are so near a hole, at any scale, are not copied: there is often something left of what is removed."""

RARE = 2
"""The guide's colours and tints are kept within the window's, but for so many per cent of these on either end."""

TINT_RADIUS, SHAPE_RADIUS = 8, 1
"""Radii in pixels of the squares, run three times over the fill, whose mean colours are drawn to the guide's."""

SHAPED = 0.35
"""How far shapes are drawn, tints being drawn all the way: a copy is one of many possible, the guide is their mean."""

DRAWN = 2
"""But by no more than so many times the mean error around the hole: what fits without a seam stays as it is."""

PRECISION = 16
"""Parts of a level of 255 in which means are taken."""

SCREEN, LEVELLING_SWEEPS = 0.003, 100
"""How strongly colours are held when seams are levelled: steps fade within about twenty pixels."""


class Scale(NamedTuple):
    """A window of a picture at one scale."""

    features: Bytes  # (H, W, 5): red, green, blue, and the mean gradients along columns and rows
    guide: Bytes  # (H, W, 3)
    known: Hole  # (H, W)
    hole: Hole  # (H, W): what is to be completed; neither known nor hole are other holes


def complete_from_exemplars(completer: Completer, rgb: Pixels | PilPixels, hole: Hole) -> list[Patch]:
    """Completes a picture's holes with detail from around them, led by the network.

    Each hole is completed by itself, in a window around it, so that the cost follows the holes.

    Args:
        completer: Runs the network that leads.
        rgb: (H, W, 3) uint8, or float32 in [0, 1].
        hole: (H, W) boolean.

    Returns:
        Patches whose holes do not overlap and together are the hole. A hole with nothing around it that could be
        copied gets the network's fill, with a `UserWarning`.

    Raises:
        FloatingPointError: The network gives NaN or infinity.
    """
    parts = []
    for part, box in _parts(hole):
        window = box.grown(min(max(MARGIN[0], *box.size), MARGIN[1]), *hole.shape)
        target = np.zeros(window.size, bool)
        target[box.shifted(-window.top, -window.left).slices] = part
        parts.append((box, window, target, _depth(part) <= SHALLOW))
    # The network runs on all small copies together.
    copies = [
        small_copy(to_unit(rgb[window.slices]), hole[window.slices]) for _, window, _, shallow in parts if not shallow
    ]
    fills = iter(zip(copies, completer.complete(copies), strict=True))
    patches = []
    for hole_box, window, target, shallow in parts:
        image, unknown = to_unit(rgb[window.slices]), hole[window.slices]
        if shallow:
            guide = fast_marching(image, unknown)
        else:
            (copy, gap), completed = next(fills)
            for box, fill, inside in blend_patches(copy, completed, gap):
                copy[box.slices][inside] = fill[inside]
            guide = cv2.resize(copy, unknown.shape[::-1], interpolation=cv2.INTER_LINEAR).clip(0, 1)
        copied = fill_from_exemplars(image, ~unknown, target, guide)
        if copied is None:
            warnings.warn(
                f"nothing around the hole at row {hole_box.top}, column {hole_box.left} can be copied; "
                "it has the network's fill",
                stacklevel=4,
            )
        patches.append(Patch(window, guide if copied is None else copied, target))
    return patches


def _parts(hole: Hole) -> Iterator[tuple[Hole, Box]]:
    """The parts of a hole that are completed together, each in its box."""
    for area in far_apart(hole):
        within = hole[area.slices]
        near = cv2.dilate(within.astype(np.uint8), np.ones((TOGETHER + 1, TOGETHER + 1), np.uint8))
        _, labels = cv2.connectedComponents(near)
        labels[~within] = 0
        for number, (rows, columns) in enumerate(scipy.ndimage.find_objects(labels), start=1):
            box = Box(rows.start, columns.start, rows.stop, columns.stop)
            yield labels[box.slices] == number, box.shifted(area.top, area.left)


def small_copy(image: NDArray[np.float32], hole: Hole) -> tuple[NDArray[np.float32], Hole]:
    """Shrinks a picture until its hole is at most 32 pixels deep, by a power of two.

    Args:
        image: (H, W, 3) float32 in [0, 1]. What it holds inside the hole has no influence.
        hole: (H, W) boolean.

    Returns:
        The copy (h, w, 3) and its hole (h, w). A pixel of the copy is known if half of what it stands for is, or,
        around holes with a thinner rim, as much as is known anywhere.
    """
    height, width = hole.shape
    scale = 2 ** max(0, math.ceil(math.log2(_depth(hole) / GUIDE_DEPTH)))
    size = (max(MIN_IMAGE_SIDE, -(-width // scale)), max(MIN_IMAGE_SIDE, -(-height // scale)))
    share = cv2.resize((~hole).astype(np.float32), size, interpolation=cv2.INTER_AREA)
    total = cv2.resize(np.where(hole[..., None], 0, image), size, interpolation=cv2.INTER_AREA)
    gap = share < min(0.5, share.max())
    copy = np.where(gap[..., None], 0, total / np.maximum(share, 1e-6)[..., None])
    return copy.astype(np.float32), gap


def _depth(hole: Hole) -> float:
    """How far the hole's innermost pixel is from its edge, the picture's counted as one, in pixels."""
    padded = np.pad(hole, 1).astype(np.uint8)
    return float(cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_5).max())


def fill_from_exemplars(
    image: NDArray[np.float32], known: Hole, hole: Hole, guide: NDArray[np.float32]
) -> NDArray[np.float32] | None:
    """Completes a hole with what the picture shows elsewhere.

    Args:
        image: (H, W, 3) float32 in [0, 1].
        known: (H, W) boolean: which pixels may be looked at and copied.
        hole: (H, W) boolean: which are to be completed, at least one; none of them known.
        guide: (H, W, 3) float32 in [0, 1]: what the fill should look like from afar.

    Returns:
        (H, W, 3) float32 in [0, 1], equal to `image` outside the hole; None if nothing can be copied.
    """
    scales = _scales(image, known, hole, guide)
    chosen = None
    labels = np.zeros((0, 2), np.int32)
    for number, scale in enumerate(reversed(scales)):
        coarse = number < 2
        candidates = frequent_offsets(scale) if coarse else np.zeros((0, 2), np.int32)
        groups = np.full(len(candidates), NONE, np.int32)
        start = np.full(scale.hole.shape, NONE, np.int32)
        if chosen is None:
            lattice = lattice_offsets(scale)
            labels = np.concatenate([lattice, candidates])
            groups = np.concatenate([np.full(len(lattice), PROMISING), groups])
        else:
            # A pixel starts from what was chosen at the coarser scale for it, or for the nearest that had a choice.
            height, width = scale.hole.shape
            box = bounds(scale.hole)
            halved = Box(box.top // 2, box.left // 2, -(-box.bottom // 2), -(-box.right // 2))
            before = _nearest_choice(chosen, halved).repeat(2, 0).repeat(2, 1)[:height, :width]
            used, group = np.unique(before[scale.hole], return_inverse=True)
            start[scale.hole] = group
            refined = [2 * labels[used] + change for change in CHANGES]
            labels = np.concatenate([*refined, candidates])
            groups = np.concatenate([np.tile(np.arange(len(used)), len(CHANGES)), groups])
        if len(labels):
            chosen = _choose(scale, labels, groups, start, coarse)
            chosen = None if (chosen == NONE).all() else chosen
    if chosen is None:
        return None
    around = bounds(hole).grown(1, *hole.shape)
    return _copy(image, scales[0], guide, labels[_nearest_choice(chosen, around)])


def _choose(scale: Scale, labels: Labels, groups: Labels, start: Labels, coarse: bool) -> Labels:
    """Chooses a label for each pixel of the hole, (H, W); see `choose_labels` in `_exemplars.cpp`."""
    colours = np.ascontiguousarray(scale.features[..., :3])
    square = np.ones((2 * RIM + 1, 2 * RIM + 1))
    return _exemplars.choose_labels(
        scale.features,
        scipy.ndimage.binary_erosion(scale.known, square, border_value=1).astype(np.uint8),
        scale.hole.astype(np.uint8),
        scale.known.astype(np.uint8),
        np.asarray(cv2.GaussianBlur(scale.guide, (0, 0), 1), np.uint8),  # which OpenCV blurs alike everywhere
        np.asarray(cv2.GaussianBlur(colours, (0, 0), 2), np.uint8),
        labels.astype(np.int32),
        groups.astype(np.int32),
        start,
        SPREAD,
        SWEEPS,
        BEST,
        COLOUR,
        SEAM,
        GUIDE,
        GUIDE_LIMIT,
        CONTEXT,
        PATCH_RADIUS if coarse else 1,
        torch.get_num_threads(),
    )


def _nearest_choice(chosen: Labels, box: Box) -> Labels:
    """What was chosen for each pixel; in a box that holds all choices, for the nearest pixel that has one."""
    within = chosen[box.slices]
    near = scipy.ndimage.distance_transform_edt(within == NONE, return_distances=False, return_indices=True)
    nearest = chosen.copy()
    nearest[box.slices] = within[tuple(near)]
    return nearest


def _scales(image: NDArray[np.float32], known: Hole, hole: Hole, guide: NDArray[np.float32]) -> list[Scale]:
    """A window at its own scale and at smaller ones, each half of the one before."""
    rgb, guide8 = to_uint8(image), to_uint8(guide)
    # Colours and tints that the picture hardly has, such as green in a grey street, are not what the fill is led by.
    some = rgb[:: 1 + len(known) // 256][known[:: 1 + len(known) // 256]]  # some 256 rows tell
    if len(some):
        least, greatest = _range(some)
        guide8 = guide8.clip(least, greatest)
        low, high = _range(_tints(some))
        guide8 = (guide8[..., 1:2] + _tints(guide8).clip(low, high)).clip(0, 255).astype(np.uint8)
    features = _features(np.where(known[..., None], rgb, guide8), known)
    scales = [Scale(features, guide8, known, hole)]
    while scales[-1].hole.sum() > COARSE_AREA:
        features, guide8, known, hole = scales[-1]
        count = _sum_of_fours(known.astype(np.int32)[..., None])
        few = count[..., 0] < 2
        scales.append(
            Scale(
                _mean(_sum_of_fours(np.where(known[..., None], features, 0)), count),
                _mean(_sum_of_fours(guide8), _sum_of_fours(np.ones((*hole.shape, 1), np.uint8))),
                ~few,
                few & (_sum_of_fours(hole[..., None])[..., 0] > 0),
            )
        )
    return scales


def _tints(rgb: Bytes) -> NDArray[np.int16]:
    """Red, green and blue less green."""
    return rgb.astype(np.int16) - rgb[..., 1:2]


def _range(colours: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Between what most of the colours (n, 3) are."""
    low, high = np.percentile(colours, (RARE, 100 - RARE), axis=0, method="nearest")
    return low, high


def _sum_of_fours(values: NDArray[Any]) -> NDArray[np.int32]:
    """Sums of 2x2 pixels: (H, W, C) to (H / 2, W / 2, C), rounded up; beyond the edge there is nothing."""
    height, width, channels = values.shape
    padded = np.pad(values.astype(np.int32), [(0, height % 2), (0, width % 2), (0, 0)])
    return np.asarray(padded.reshape(-(-height // 2), 2, -(-width // 2), 2, channels).sum(axis=(1, 3), dtype=np.int32))


def _mean(total: NDArray[np.int32], count: NDArray[np.int32]) -> Bytes:
    return ((total + count // 2) // np.maximum(count, 1)).astype(np.uint8)


def _features(rgb: Bytes, known: Hole) -> Bytes:
    """Colours, and the mean absolute gradients of what is known around each pixel."""
    grey = rgb.sum(axis=2, dtype=np.int16)
    gradients = []
    for axis in (0, 1):
        ahead, behind = (np.take(known, range(first, known.shape[axis] - 1 + first), axis) for first in (1, 0))
        both = (ahead & behind).astype(np.int16)
        step = np.abs(np.diff(grey, axis=axis)) * both
        before = [(1, 0) if each == axis else (0, 0) for each in (0, 1)]
        total, count = (_box_sums(np.pad(values, before), TEXTURE_RADIUS) for values in (step, both))
        gradients.append(np.minimum(TEXTURE * total // np.maximum(3 * count, 1), 255))
    return np.dstack([rgb, *gradients]).astype(np.uint8)


def _box_sums(values: NDArray[Any], radius: int) -> NDArray[np.int32]:
    """Sums over squares around each pixel, of (H, W) or (H, W, 3) in 16 bits; beyond the edge there is nothing."""
    side = (2 * radius + 1, 2 * radius + 1)
    sums = cv2.boxFilter(values, cv2.CV_32S, side, normalize=False, borderType=cv2.BORDER_CONSTANT)
    return np.asarray(sums, np.int32)


def lattice_offsets(scale: Scale) -> Labels:
    """Offsets on a lattice that lead from a fair part of the hole to known pixels: (n, 2), dy and dx."""
    height, width = scale.hole.shape
    # How many pixels of the hole reach a known one: their correlation, with dy, dx at [dy + H - 1, dx + W - 1].
    size = [scipy.fft.next_fast_len(2 * side - 1, real=True) for side in scale.hole.shape]
    known, hole = (scipy.fft.rfft2(part, size) for part in (scale.known, scale.hole[::-1, ::-1]))
    reached = np.rint(scipy.fft.irfft2(known * hole, size)[: 2 * height - 1, : 2 * width - 1])
    dy, dx = np.mgrid[1 - height : height, 1 - width : width]
    fair = reached >= max(1, REACHES * scale.hole.sum())
    step = max(LATTICE_STEP, math.ceil(math.sqrt(fair.sum() / LATTICE_SIZE)))
    wanted = fair & (dy % step == 0) & (dx % step == 0)
    return np.stack([dy[wanted], dx[wanted]], axis=1).astype(np.int32)


def frequent_offsets(scale: Scale) -> Labels:
    """The most frequent offsets between similar patches, and multiples of them: (n, 2), dy and dx."""
    height, width = scale.hole.shape
    side = 2 * (PATCH_RADIUS + RIM) + 1
    whole = scipy.ndimage.binary_erosion(scale.known, np.ones((side, side)))
    apart = max(PATCH_RADIUS + 1, max(height, width) // PATCHES_APART)
    colours = np.ascontiguousarray(scale.features[..., :3])
    found = _exemplars.similar_offsets(colours, whole.astype(np.uint8), PATCH_RADIUS, apart, 6)
    counts = np.zeros((2 * height + 1, 2 * width + 1), np.int64)
    for sign in (1, -1):  # what repeats in one direction repeats in the other
        np.add.at(counts, (height + sign * found[:, 0], width + sign * found[:, 1]), 1)
    smooth = counts
    for axis in (0, 1):
        smooth = scipy.ndimage.convolve1d(smooth, [1, 4, 6, 4, 1], axis=axis, mode="constant")
    y, x = np.nonzero((scipy.ndimage.maximum_filter(smooth, 7) == smooth) & (smooth > 0))
    best = np.argsort(-smooth[y, x], kind="stable")[:FREQUENT]
    offsets = np.stack([y[best] - height, x[best] - width], axis=1)
    multiples = [factor * offsets[: FREQUENT // 2] for factor in range(2, MULTIPLES + 1)]
    offsets = np.concatenate([offsets, *multiples])
    within = (np.abs(offsets) < (height, width)).all(axis=1)
    return np.asarray(offsets[within], np.int32)


def _copy(
    image: NDArray[np.float32], scale: Scale, guide: NDArray[np.float32], offsets: Labels
) -> NDArray[np.float32]:
    """Copies the hole by offsets (H, W, 2), draws its colours to the guide's, and levels the seams."""
    height, width = scale.hole.shape
    part = bounds(scale.hole).grown(1, height, width)
    y, x = np.mgrid[part.slices]
    hole, offsets = scale.hole[part.slices], offsets[part.slices]

    def look(places: Labels, down: int, right: int) -> tuple[NDArray[np.float32], Hole]:
        """The pixels so far below and to the right of others' sources, and which of them are known."""
        sy, sx = y + down + places[..., 0], x + right + places[..., 1]
        inside = (sy >= 0) & (sx >= 0) & (sy < height) & (sx < width)
        sy, sx = sy.clip(0, height - 1), sx.clip(0, width - 1)
        return image[sy, sx], inside & scale.known[sy, sx]

    copied, usable = look(offsets, 0, 0)
    original, known = image[part.slices], scale.known[part.slices]
    # Tints are drawn to the guide's, as far as the copy errs where it goes on into what is known.
    rim = (cv2.dilate(hole.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0) & known & usable
    error = np.abs(to_uint8(copied[rim]).astype(np.int16) - to_uint8(original[rim]))
    limit = int(DRAWN * error.sum() // max(error.size, 1))
    copied[~(usable & hole)] = np.where(hole[..., None], guide[part.slices], original)[~(usable & hole)]
    held = copied + _missing(copied, scale.guide[part.slices], hole, TINT_RADIUS, limit)

    # Between neighbours with sources of their own the step is the mean of what it is at either source.
    steps = []
    for down, right in ((0, 1), (1, 0)):
        beside, beside_hole = np.roll(offsets, (-down, -right), (0, 1)), np.roll(hole, (-down, -right), (0, 1))
        total, count = np.zeros_like(copied), np.zeros((*hole.shape, 1), np.float32)
        for places, completed in ((offsets, hole), (beside, beside_hole)):
            (here, here_known), (there, there_known) = look(places, 0, 0), look(places, down, right)
            both = (completed & here_known & there_known)[..., None]
            total += np.where(both, here - there, 0)
            count += both
        steps.append((total / np.maximum(count, 1)).astype(np.float32))
    result = copied.copy()
    _exemplars.level_seams(result, hole.astype(np.uint8), held, steps[0], steps[1], SCREEN, LEVELLING_SWEEPS)
    # Shapes come last, so that levelling does not smear them.
    result += np.float32(SHAPED) * _missing(result, scale.guide[part.slices], hole, SHAPE_RADIUS, limit)
    completed_image = image.copy()
    completed_image[part.slices][hole] = result[hole].clip(0, 1)
    return completed_image


def _missing(copied: NDArray[np.float32], guide: Bytes, hole: Hole, radius: int, limit: int) -> NDArray[np.float32]:
    """What the mean colours of a hole (H, W, 3) lack to be the guide's, at most `limit` levels of 255."""
    amiss = np.where(hole[..., None], PRECISION * (guide - to_uint8(copied).astype(np.int16)), np.int16(0))
    for _ in range(3):
        amiss = (_box_sums(amiss, radius) // (2 * radius + 1) ** 2).astype(np.int16)
    return np.float32(1 / 255 / PRECISION) * amiss.clip(-limit * PRECISION, limit * PRECISION).astype(np.float32)

"""Fills holes with detail copied from the same image, guided by the network.

The network decides what belongs where, on a copy of the image so small that the hole is shallow. Every pixel of the
hole then gets an offset to the known pixel it is copied from (a shift map: Pritch, Kav-Venaki and Peleg 2009). The
offsets are chosen so that pieces from different places fit each other at their seams, fit the known pixels around the
hole, and look like the network's fill from afar. Frequent offsets between similar patches are among the candidates;
they continue windows and tiles (He and Sun 2012). What resembles nothing else, such as a face, costs more to copy.
Alpha expansion makes the choice (Boykov, Veksler and Zabih 2001), coarse to fine. Finally colours are pulled towards
the network's, and the remaining seams are levelled.

All choices are made in integers: the same image, hole and guide give the same fill on every machine.
"""

from __future__ import annotations

import itertools
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

from glcic_hub.completion.blending import blend_patches, navier_stokes
from glcic_hub.completion.completer import Completer
from glcic_hub.completion.tiling import far_apart
from glcic_hub.images.boxes import Box, bounds
from glcic_hub.images.processing import MIN_IMAGE_SIDE, Patch, PilPixels, Pixels, to_uint8, to_unit

try:
    from glcic_hub.completion import _exemplars
except ImportError as error:
    raise ImportError(
        "glcic_hub is imported from a checkout whose C++ part is not compiled; "
        "run `pip install -e .` there, or run Python in another folder"
    ) from error

Bytes: TypeAlias = NDArray[np.uint8]
Hole: TypeAlias = NDArray[np.bool_]
Labels: TypeAlias = NDArray[np.int32]
"""Offsets dy, dx by label, (n, 2); groups by label, (n,); or a label or group for each pixel, (H, W)."""

Matches: TypeAlias = NDArray[np.int32]
"""Patches and the most similar to each, (n, 5): place y, x, offset dy, dx, sum of squared differences."""

NONE, PROMISING = -1, -2
"""Groups of labels, as in `_exemplars.cpp`: tried everywhere; tried near pixels where they are among the cheapest."""

MARGIN = 32, 384
"""Least and greatest distance around a hole, in pixels, to look for sources. In between it is the hole's length."""

TINY = 5
"""Longest side, in pixels, of a hole that Navier-Stokes inpainting fills as well as anything that is copied."""

SPECK, SPECK_MARGIN = 12, 16
"""Longest side, in pixels, of a hole such as a speck of dust; and the distance around it to look for sources. Nothing
repeats within it, and it needs no network: Navier-Stokes inpainting makes the guide."""

TOGETHER = 8
"""Distance in pixels up to which neighbouring holes are completed together, specks apart."""

GUIDE_DEPTH = 32
"""Greatest depth of the hole, in pixels, in the copy that the network completes."""

SHALLOW = 4
"""Depth in pixels up to which Navier-Stokes inpainting, which costs next to nothing, makes the guide."""

COARSE_AREA = 1600
"""Area of the hole, in pixels, at the coarsest scale, at most."""

LATTICE_STEP, LATTICE_SIZE = 2, 2000
"""Lattice of offsets tried at the coarsest scale: least spacing in pixels, and greatest size, roughly."""

REACHES = 0.1
"""Least share of the hole from which an offset of the lattice has to lead to known pixels."""

BEST, NEAR = 2, 6
"""An offset of the lattice is tried where it is among this many cheapest, and up to this distance in pixels around."""

FREQUENT, MULTIPLES = 60, 3
"""Number of the most frequent offsets between similar patches, tried at the two coarsest scales; as many as He and Sun
take. The first half is also tried times 2, up to this factor, for holes larger than the period of what repeats."""

PATCH_RADIUS, PATCHES_APART = 3, 15
"""Radius of patches in pixels. Similar patches are at least 1/15 of the longer side apart (He and Sun 2012)."""

SINGULAR, SINGULAR_LIMIT, FAINT = 180, 288, 10
"""Cost of copying what resembles nothing else in the image: for a patch as far from the most similar one as its own
contrast is great; greatest cost; and levels of 255 that are added to the contrast, so that noise does not count."""

CHANGES = ((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1))
"""Changes of an offset, in pixels, from one scale to the next finer one."""

BETWEEN = sorted(itertools.product(range(-2, 3), repeat=2), key=lambda change: abs(change[0]) + abs(change[1]))
"""Changes of an offset, in pixels, tried at the coarsest scale once those of the lattice are chosen."""

SPREAD = 2
"""Distance in pixels by which the region of an offset may grow at the next finer scale."""

COLOUR, SEAM, GUIDE, CONTEXT = 4, 100, 3, 120
"""Weights of the costs: the difference at a seam, the seam itself, the difference from the guide, and the mean
difference of the known pixels around the hole within a patch."""

GUIDE_LIMIT = 120
"""Cap on the difference from the guide, summed over the channels. Where the network cannot decide between two things,
its fill lies between them, and either is better than something that looks like neither."""

TEXTURE, TEXTURE_RADIUS = 3, 6
"""Weight of mean gradients relative to colours, and the radius in pixels of the square they are averaged over. In
small copies they tell knit from felt (Newson et al. 2014)."""

RIM = 1
"""Distance in pixels from a hole, at any scale, within which nothing is copied, as traces of the object remain."""

RARE = 2
"""Percentage of the window's colours and tints, at either end, that the guide's are clipped to."""

TINT_RADIUS, SHAPE_RADIUS = 8, 1
"""Radii in pixels of the box filters, applied three times, under which tints and shapes are pulled to the guide's."""

SHAPED = 0.35
"""Strength of the pull on shapes; on tints it is 1. The copy is one of many possible fills, the guide their mean."""

DRAWN = 2
"""Greatest pull, in multiples of the mean error around the hole: a copy that fits without a seam stays as it is."""

PRECISION = 16
"""Fractions of a level of 255 in which means are computed."""

SCREEN, LEVELLING_SWEEPS = 0.003, 100
"""Screening of the Poisson equation that levels seams (steps fade within about 20 pixels), and its sweeps."""


class Scale(NamedTuple):
    """A window of an image at one scale."""

    features: Bytes  # (H, W, 5): red, green, blue, and the mean gradients along columns and rows
    guide: Bytes  # (H, W, 3)
    known: Hole  # (H, W)
    hole: Hole  # (H, W): to be completed; pixels of other holes are neither known nor hole


def complete_from_exemplars(completer: Completer, rgb: Pixels | PilPixels, hole: Hole) -> list[Patch]:
    """Completes the holes of an image with detail from around them, guided by the network.

    Each hole is completed on its own, in a window around it, so that the cost follows the holes.

    Args:
        completer: Runs the network that makes the guide.
        rgb: (H, W, 3) uint8, or float32 in [0, 1].
        hole: (H, W) boolean.

    Returns:
        Patches whose holes do not overlap and together cover the hole. A hole without anything to copy around it gets
        the network's fill, or a shallow one that of Navier-Stokes inpainting, with a `UserWarning`.

    Raises:
        FloatingPointError: The network gives NaN or infinity.
    """
    # Cut a window around each part of the hole.
    parts = []
    for part, box in _parts(hole):
        speck = max(box.size) <= SPECK
        window = box.grown(SPECK_MARGIN if speck else min(max(MARGIN[0], *box.size), MARGIN[1]), *hole.shape)
        target = np.zeros(window.size, bool)
        target[box.shifted(-window.top, -window.left).slices] = part
        parts.append((box, window, target, speck or _depth(part) <= SHALLOW))
    # Run the network on all small copies together.
    copies = [
        small_copy(to_unit(rgb[window.slices]), hole[window.slices]) for _, window, _, shallow in parts if not shallow
    ]
    fills = iter(zip(copies, completer.complete(copies), strict=True))
    # Make each part's guide, and copy detail under it.
    patches = []
    for hole_box, window, target, shallow in parts:
        image, unknown = to_unit(rgb[window.slices]), hole[window.slices]
        if max(hole_box.size) <= TINY:
            patches.append(Patch(window, np.where(target[..., None], navier_stokes(image, unknown), image), target))
            continue
        if shallow:
            guide = navier_stokes(image, unknown)
        else:
            (copy, gap), completed = next(fills)
            for box, fill, inside in blend_patches(copy, completed, gap):
                copy[box.slices][inside] = fill[inside]
            guide = cv2.resize(copy, unknown.shape[::-1], interpolation=cv2.INTER_LINEAR).clip(0, 1)
        copied = fill_from_exemplars(image, ~unknown, target, guide)
        if copied is None:
            warnings.warn(
                f"nothing around the hole at row {hole_box.top}, column {hole_box.left} can be copied; "
                f"it has {'Navier-Stokes inpainting' if shallow else 'the network'}'s fill",
                stacklevel=4,
            )
        patches.append(Patch(window, guide if copied is None else copied, target))
    return patches


def _parts(hole: Hole) -> Iterator[tuple[Hole, Box]]:
    """Splits a hole into the parts that are completed together, each with its box; specks are by themselves."""
    for area in far_apart(hole):
        within = hole[area.slices].astype(np.uint8)
        larger = np.zeros_like(within)
        for part, box in _components(within):
            if max(box.size) <= SPECK:
                yield part, box.shifted(area.top, area.left)
            else:
                larger[box.slices][part] = 1
        near = np.asarray(cv2.dilate(larger, np.ones((TOGETHER + 1, TOGETHER + 1), np.uint8)), np.uint8)
        for part, box in _components(near, larger > 0):
            yield part, box.shifted(area.top, area.left)


def _components(connected: Bytes, among: Hole | None = None) -> Iterator[tuple[Hole, Box]]:
    """Lists connected parts, each with its box; of them the pixels that are among others."""
    _, labels = cv2.connectedComponents(connected)
    if among is not None:
        labels[~among] = 0
    for number, (rows, columns) in enumerate(scipy.ndimage.find_objects(labels), start=1):
        box = Box(rows.start, columns.start, rows.stop, columns.stop)
        yield labels[box.slices] == number, box


def small_copy(image: NDArray[np.float32], hole: Hole) -> tuple[NDArray[np.float32], Hole]:
    """Shrinks an image by a power of two until its hole is at most 32 pixels deep.

    Args:
        image: (H, W, 3) float32 in [0, 1]. Its content inside the hole does not matter.
        hole: (H, W) boolean.

    Returns:
        The copy (h, w, 3) and its hole (h, w). A pixel of the copy is known if at least half of the pixels it covers
        are, or, where less is known everywhere, as many as the best pixel has.
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
    """Measures the depth of a hole: the distance of its innermost pixel to its edge or the image's, in pixels."""
    padded = np.pad(hole, 1).astype(np.uint8)
    return float(cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_5).max())


def fill_from_exemplars(
    image: NDArray[np.float32], known: Hole, hole: Hole, guide: NDArray[np.float32]
) -> NDArray[np.float32] | None:
    """Completes a hole with pixels from elsewhere in the image.

    Args:
        image: (H, W, 3) float32 in [0, 1].
        known: (H, W) boolean: the pixels that may be compared and copied.
        hole: (H, W) boolean: the pixels to complete, at least one, none of them known.
        guide: (H, W, 3) float32 in [0, 1]: the fill as it should look from afar.

    Returns:
        (H, W, 3) float32 in [0, 1], equal to `image` outside the hole; None if nothing can be copied.
    """
    # Choose offsets from coarse to fine.
    scales = _scales(image, known, hole, guide)
    speck = max(bounds(hole).size) <= SPECK
    chosen = None
    labels = np.zeros((0, 2), np.int32)
    for number, scale in enumerate(reversed(scales)):
        coarse = number < 2
        candidates, singular = np.zeros((0, 2), np.int32), np.zeros(scale.hole.shape, np.int32)
        if coarse and not speck:
            matches = similar_patches(scale)
            candidates, singular = frequent_offsets(matches, *scale.hole.shape), singularity(matches, scale)
        if chosen is None:
            lattice = lattice_offsets(scale)
            labels = np.concatenate([lattice, candidates])
            groups = np.repeat(np.array([PROMISING, NONE], np.int32), [len(lattice), len(candidates)])
            start = np.full(scale.hole.shape, NONE, np.int32)
        else:
            # A pixel starts from the choice of its parent at the coarser scale, or of the nearest parent that has one.
            height, width = scale.hole.shape
            box = bounds(scale.hole)
            halved = Box(box.top // 2, box.left // 2, -(-box.bottom // 2), -(-box.right // 2))
            before = _nearest_choice(chosen, halved).repeat(2, 0).repeat(2, 1)[:height, :width]
            used, start = _in_use(before, scale.hole)
            labels = np.concatenate([*(2 * labels[used] + change for change in CHANGES), candidates])
            groups = np.tile(np.arange(len(used), dtype=np.int32), len(CHANGES))
            groups = np.concatenate([groups, np.full(len(candidates), PROMISING, np.int32)])
        if len(labels):
            chosen = _choose(scale, singular, labels, groups, start, coarse)
            if number == 0:
                # Fit pieces to each other by the offsets between those of the lattice.
                used, start = _in_use(chosen, chosen != NONE)
                labels = np.concatenate([labels[used] + change for change in BETWEEN])
                groups = np.tile(np.arange(len(used), dtype=np.int32), len(BETWEEN))
                chosen = _choose(scale, singular, labels, groups, start, coarse)
            chosen = None if (chosen == NONE).all() else chosen
    if chosen is None:
        return None
    around = bounds(hole).grown(1, *hole.shape)
    return _copy(image, scales[0], guide, labels[_nearest_choice(chosen, around)])


def _in_use(chosen: Labels, where: Hole) -> tuple[Labels, Labels]:
    """Lists the labels chosen somewhere, and gives each pixel's place among them, (H, W), NONE elsewhere."""
    places = np.full(chosen.shape, NONE, np.int32)
    used, places[where] = np.unique(chosen[where], return_inverse=True)
    return used, places


def _choose(
    scale: Scale, singular: NDArray[np.int32], labels: Labels, groups: Labels, start: Labels, coarse: bool
) -> Labels:
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
        singular,
        labels.astype(np.int32),
        groups.astype(np.int32),
        start,
        SPREAD,
        NEAR,
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
    """Extends the choice, inside a box that holds all of it, to the pixels without one: the nearest pixel's."""
    within = chosen[box.slices]
    near = scipy.ndimage.distance_transform_edt(within == NONE, return_distances=False, return_indices=True)
    nearest = chosen.copy()
    nearest[box.slices] = within[tuple(near)]
    return nearest


def _scales(image: NDArray[np.float32], known: Hole, hole: Hole, guide: NDArray[np.float32]) -> list[Scale]:
    """Makes the window's scales, each half of the one before, finest first."""
    rgb, guide8 = to_uint8(image), to_uint8(guide)
    # The guide must not ask for colours and tints that the image hardly has, such as green in a grey street.
    some = rgb[:: 1 + len(known) // 256][known[:: 1 + len(known) // 256]]  # some 256 rows tell
    if len(some):
        colours = [plane.clip(*ends) for plane, ends in zip(cv2.split(guide8), _ranges(some), strict=True)]
        green = colours[1].astype(np.int16)
        tints = [(plane - green).clip(*ends) for plane, ends in zip(colours, _ranges(_tints(some)), strict=True)]
        guide8 = np.asarray(cv2.merge([(green + tint).clip(0, 255).astype(np.uint8) for tint in tints]), np.uint8)
    features = _features(np.asarray(cv2.copyTo(rgb, known.astype(np.uint8), guide8.copy())), known)
    scales = [Scale(features, guide8, known, hole)]
    while scales[-1].hole.sum() > COARSE_AREA:
        features, guide8, known, hole = scales[-1]
        count = _sum_of_fours(known[..., None])
        few = count[..., 0] < 2
        scales.append(
            Scale(
                _mean(_sum_of_fours(np.asarray(cv2.copyTo(features, known.astype(np.uint8)))), count),
                _mean(_sum_of_fours(guide8), _sum_of_fours(np.ones((*hole.shape, 1), bool))),
                ~few,
                few & (_sum_of_fours(hole[..., None])[..., 0] > 0),
            )
        )
    return scales


def _tints(rgb: Bytes) -> NDArray[np.int16]:
    """Subtracts green from red, green and blue."""
    return rgb.astype(np.int16) - rgb[..., 1:2]


def _ranges(colours: NDArray[Any]) -> NDArray[Any]:
    """Finds the range of most of the colours (n, 3): (3, 2), least and greatest of each channel."""
    return np.asarray(np.percentile(colours, (RARE, 100 - RARE), axis=0, method="nearest")).T


def _sum_of_fours(values: NDArray[Any]) -> NDArray[np.int32]:
    """Sums blocks of 2x2 pixels, (H, W, C) to (H / 2, W / 2, C), rounded up; zero beyond the edge."""
    height, width, _ = values.shape
    padded = np.pad(values, [(0, height % 2), (0, width % 2), (0, 0)])
    rows = np.add(padded[::2], padded[1::2], dtype=np.int32)
    return np.asarray(rows[:, ::2] + rows[:, 1::2])


def _mean(total: NDArray[np.int32], count: NDArray[np.int32]) -> Bytes:
    return ((total + count // 2) // np.maximum(count, 1)).astype(np.uint8)


def _features(rgb: Bytes, known: Hole) -> Bytes:
    """Stacks colours and the mean absolute gradients of the known pixels around each pixel."""
    red, green, blue = cv2.split(rgb.astype(np.int16))
    grey = red + green + blue
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
    """Sums squares around each pixel, of (H, W) or (H, W, 3) in 16 bits; zero beyond the edge."""
    side = (2 * radius + 1, 2 * radius + 1)
    sums = cv2.boxFilter(values, cv2.CV_32S, side, normalize=False, borderType=cv2.BORDER_CONSTANT)
    return np.asarray(sums, np.int32)


def lattice_offsets(scale: Scale) -> Labels:
    """Lists the offsets on a lattice that lead from a fair share of the hole to known pixels: (n, 2), dy and dx."""
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


def similar_patches(scale: Scale) -> Matches:
    """Finds for every other known patch, down and across, the most similar one that is not close by."""
    side = 2 * (PATCH_RADIUS + RIM) + 1
    whole = scipy.ndimage.binary_erosion(scale.known, np.ones((side, side)))
    apart = max(PATCH_RADIUS + 1, max(scale.hole.shape) // PATCHES_APART)
    colours = np.ascontiguousarray(scale.features[..., :3])
    return _exemplars.similar_patches(colours, whole.astype(np.uint8), PATCH_RADIUS, apart, 6)


def singularity(matches: Matches, scale: Scale) -> NDArray[np.int32]:
    """Computes what it costs to copy a pixel for being unlike all else, (H, W); 0 for the more ordinary half.

    What one recognises must not stand twice. It has no match as near as its own contrast would have it.
    """
    y, x, _, _, distance = matches.T
    colours, side = scale.features[..., :3].astype(np.float64), 2 * PATCH_RADIUS + 1
    # Sums of whole numbers, exact in double precision.
    total, squares = (cv2.boxFilter(part, -1, (side, side), normalize=False) for part in (colours, colours**2))
    deviation = (squares - total**2 / side**2).sum(axis=2)[y, x]
    alone = np.sqrt(distance) / (np.sqrt(deviation) + FAINT * math.sqrt(3) * side)
    costs, counts = np.zeros((2, *scale.hole.shape), np.int16)
    costs[y, x], counts[y, x] = np.minimum(SINGULAR * alone, SINGULAR_LIMIT), 1
    around = _box_sums(costs, PATCH_RADIUS) // np.maximum(_box_sums(counts, PATCH_RADIUS), 1)
    ordinary = int(np.median(around[scale.known])) if scale.known.any() else 0
    return np.maximum(around - ordinary, 0)


def frequent_offsets(matches: Matches, height: int, width: int) -> Labels:
    """Finds the most frequent offsets between similar patches of an image, and their multiples: (n, 2), dy and dx."""
    found = matches[:, 2:4]
    counts = np.zeros((2 * height + 1, 2 * width + 1), np.int64)
    for sign in (1, -1):  # a period repeats in both directions
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
    """Copies the hole by offsets (H, W, 2), pulls its colours towards the guide's, and levels the seams."""
    height, width = scale.hole.shape
    part = bounds(scale.hole).grown(1, height, width)
    y, x = np.mgrid[part.slices]
    hole, offsets = scale.hole[part.slices], offsets[part.slices]

    def look(places: Labels, down: int, right: int) -> tuple[NDArray[np.float32], Hole]:
        """Looks up the pixels below and to the right of sources, and which of them are known."""
        sy, sx = y + down + places[..., 0], x + right + places[..., 1]
        inside = (sy >= 0) & (sx >= 0) & (sy < height) & (sx < width)
        sy, sx = sy.clip(0, height - 1), sx.clip(0, width - 1)
        return image[sy, sx], inside & scale.known[sy, sx]

    copied, usable = look(offsets, 0, 0)
    original, known = image[part.slices], scale.known[part.slices]
    # Pull tints towards the guide's, limited by the error of the copies around the hole, where the truth is known.
    rim = (cv2.dilate(hole.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0) & known & usable
    error = np.abs(to_uint8(copied[rim]).astype(np.int16) - to_uint8(original[rim]))
    limit = int(DRAWN * error.sum() // max(error.size, 1))
    copied[~(usable & hole)] = np.where(hole[..., None], guide[part.slices], original)[~(usable & hole)]
    held = copied + _missing(copied, scale.guide[part.slices], hole, TINT_RADIUS, limit)

    # The step between two neighbours is the mean of the steps at their sources.
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
    # Pull shapes last, so that levelling does not smear them.
    result += np.float32(SHAPED) * _missing(result, scale.guide[part.slices], hole, SHAPE_RADIUS, limit)
    completed_image = image.copy()
    completed_image[part.slices][hole] = result[hole].clip(0, 1)
    return completed_image


def _missing(copied: NDArray[np.float32], guide: Bytes, hole: Hole, radius: int, limit: int) -> NDArray[np.float32]:
    """Computes what smoothed colours in a hole lack to be the guide's: (H, W, 3), at most `limit` levels of 255."""
    amiss = np.where(hole[..., None], PRECISION * (guide - to_uint8(copied).astype(np.int16)), np.int16(0))
    for _ in range(3):
        amiss = (_box_sums(amiss, radius) // (2 * radius + 1) ** 2).astype(np.int16)
    return np.float32(1 / 255 / PRECISION) * amiss.clip(-limit * PRECISION, limit * PRECISION).astype(np.float32)

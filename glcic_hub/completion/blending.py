"""Post-processing of the fill by Poisson blending (sec. 3.5, fig. 7), and the inpainting of OpenCV that it takes."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import scipy.sparse
import scipy.sparse.linalg
from numpy.typing import NDArray

from glcic_hub.completion.tiling import far_apart
from glcic_hub.images.processing import Patch, PilPixels, Pixels, to_unit

INPAINT_RADIUS = 3
"""Radius in pixels of the neighbourhood that OpenCV's methods look at; its examples' value."""

BLEND_MARGIN = INPAINT_RADIUS + 2
"""Pixels around the hole that take part; an image cut so far around its hole gives the same."""

DIRECT = 20_000
"""Greatest number of unknowns for which a sparse direct solver is faster than multigrid."""

TOLERANCE = 1e-5
"""Relative residual at which the solver stops: far below one of 255 levels."""


def blend_patches(rgb: Pixels | PilPixels, patches: Sequence[Patch], hole: NDArray[np.bool_]) -> list[Patch]:
    """Blends patches into their surroundings (`blend_poisson`), hole by hole.

    Args:
        rgb: (H, W, 3) uint8, or float32 in [0, 1].
        patches: What was completed; their holes do not overlap and together are the hole.
        hole: (H, W) boolean.

    Returns:
        A patch for each part of the hole that is too far from the others for blending to mix them.
    """
    blended = []
    for box in far_apart(hole):
        window = box.grown(BLEND_MARGIN, *hole.shape)
        within = hole[window.slices]
        known = to_unit(rgb[window.slices])
        completed = known.copy()
        for place, fill, inside in patches:
            common = place.common(window)
            if not all(common.size):
                continue
            in_window, in_patch = (common.shifted(-of.top, -of.left).slices for of in (window, place))
            completed[in_window][inside[in_patch]] = fill[in_patch][inside[in_patch]]
        blended.append(Patch(window, blend_poisson(known, completed, within), within))
    return blended


def blend_poisson(
    image: NDArray[np.float32], completed: NDArray[np.float32], hole: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Blends the network's fill into its surroundings, so that no step of colour is left at the hole's edge.

    The hole is filled by the fast marching method (Telea 2004). That image is the target into which the network's
    fill is blended by Poisson image editing (Pérez 2003, normal cloning): inside the hole the result has the gradients
    of the fill, across the hole's edge those of the target, and outside it equals the target. Where the hole reaches
    the image's border there is no edge and nothing is imposed.

    `cv2.seamlessClone` is not used: it solves on the hole's bounding box, so it moves known pixels inside that,
    recentres the fill, and fails at the image's border.

    Args:
        image: (H, W, 3) float32 in [0, 1]. What it holds inside the hole has no influence.
        completed: (H, W, 3) float32 in [0, 1], the network's fill inside the hole.
        hole: (H, W) boolean, with at least one pixel True and one False.

    Returns:
        (H, W, 3) float32 in [0, 1], equal to `image` outside the hole.
    """
    target = fast_marching(image, hole)
    number = np.full(hole.shape, -1)
    number[hole] = np.arange(hole.sum())

    # Each pair of neighbours p, q wants f(p) - f(q) = guidance. Gathered per pixel these are the normal equations
    # sum over q of (f(p) - f(q)) = sum over q of guidance, with f known outside the hole.
    degree = np.zeros(hole.sum())
    right = np.zeros((len(degree), 3))
    links = []
    for axis in (0, 1):
        ahead = (slice(1, None), slice(None)) if axis == 0 else (slice(None), slice(1, None))
        behind = (slice(None, -1), slice(None)) if axis == 0 else (slice(None), slice(None, -1))
        for here, there in ((ahead, behind), (behind, ahead)):
            inside = hole[here] & hole[there]
            p, q = number[here][inside], number[there][inside]
            degree[p] += 1  # no pixel stands twice in p
            right[p] += completed[here][inside] - completed[there][inside]
            links.append((p, q))
            edge = hole[here] & ~hole[there]
            p = number[here][edge]
            degree[p] += 1
            right[p] += target[here][edge]  # the target's gradient plus the known neighbour, which is the target's
    p, q = (np.concatenate(ends) for ends in zip(*links, strict=True))
    laplacian = scipy.sparse.diags_array(degree).tocsr() - scipy.sparse.csr_array(
        (np.ones(len(p)), (p, q)), shape=(len(degree), len(degree))
    )
    result = image.copy()
    result[hole] = _solve(laplacian, right, completed[hole].astype(np.float64)).clip(0, 1)
    return result


def _solve(
    laplacian: scipy.sparse.csr_array, right: NDArray[np.float64], guess: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Solves for the columns of `right`, (n, 3), directly if there are few unknowns, else by multigrid."""
    if len(right) <= DIRECT:
        options = {"SymmetricMode": True}  # as SuperLU's authors advise for symmetric positive definite matrices
        factors = scipy.sparse.linalg.splu(laplacian.tocsc(), "MMD_AT_PLUS_A", diag_pivot_thresh=0, options=options)
        return np.asarray(factors.solve(right))
    import pyamg  # takes 0.3 s

    solver = pyamg.ruge_stuben_solver(scipy.sparse.csr_matrix(laplacian), coarse_solver="splu")
    columns = zip(right.T, guess.T, strict=True)
    return np.stack([solver.solve(b, x0=start, tol=TOLERANCE, accel="cg") for b, start in columns], axis=1)


def fast_marching(image: NDArray[np.float32], hole: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Fills the hole by the fast marching method (Telea 2004), at the 8 bits that OpenCV has it for.

    Args:
        image: (H, W, 3) float32 in [0, 1]. What it holds inside the hole has no influence.
        hole: (H, W) boolean.

    Returns:
        (H, W, 3) float32 in [0, 1], equal to `image` outside the hole.
    """
    return _inpaint(image, hole, cv2.INPAINT_TELEA)


def navier_stokes(image: NDArray[np.float32], hole: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Fills the hole by Navier-Stokes inpainting (Bertalmio et al. 2001); arguments as for `fast_marching`."""
    return _inpaint(image, hole, cv2.INPAINT_NS)


def _inpaint(image: NDArray[np.float32], hole: NDArray[np.bool_], method: int) -> NDArray[np.float32]:
    levels = np.rint(np.where(hole[..., None], 0, image) * 255).astype(np.uint8)
    filled = cv2.inpaint(levels, hole.astype(np.uint8), INPAINT_RADIUS, method)
    return np.where(hole[..., None], filled.astype(np.float32) / 255, image)

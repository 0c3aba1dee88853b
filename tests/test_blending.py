"""Poisson blending against a dense solver, and where other implementations break."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from glcic_hub.completion import blending
from glcic_hub.completion.blending import blend_patches, blend_poisson, fast_marching
from glcic_hub.completion.tiling import far_apart, tile
from glcic_hub.images.processing import Patch
from tests.conftest import make_photo

HEIGHT, WIDTH = 24, 31


def holes() -> dict[str, NDArray[np.bool_]]:
    found = {name: np.zeros((HEIGHT, WIDTH), bool) for name in ("inside", "corner", "border", "line", "pixel")}
    found["inside"][6:15, 8:20] = True
    found["corner"][-9:, -7:] = True
    found["border"][:, :10] = True
    found["line"][4:20, 12] = True
    found["pixel"][3, 5] = True
    found["across"] = np.zeros((HEIGHT, WIDTH), bool)
    found["across"][:, 9:18] = True
    found["several"] = (
        found["corner"] | found["line"] | found["pixel"] | (np.add.outer(range(HEIGHT), range(WIDTH)) == 9)
    )
    found["ring"] = found["inside"].copy()
    found["ring"][9:12, 11:16] = False
    found["specks"] = np.indices((HEIGHT, WIDTH)).sum(axis=0) % 2 == 0
    found["one known pixel"] = np.ones((HEIGHT, WIDTH), bool)
    found["one known pixel"][7, 2] = False
    return found


HOLES = holes()


def noise(seed: int) -> NDArray[np.float32]:
    return make_photo(HEIGHT, WIDTH, seed).astype(np.float32) / np.float32(255)


def dense_reference(
    target: NDArray[np.float32], fill: NDArray[np.float32], hole: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Least squares over all pairs of neighbours, in the words of Pérez et al. 2003, eq. 7."""
    index = {tuple(pixel): number for number, pixel in enumerate(np.argwhere(hole))}
    rows, right = [], []
    for (y, x), number in index.items():
        row, value = np.zeros(len(index)), np.zeros(3)
        for neighbour in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
            if not (0 <= neighbour[0] < HEIGHT and 0 <= neighbour[1] < WIDTH):
                continue
            row[number] += 1
            if neighbour in index:
                row[index[neighbour]] -= 1
                value += fill[y, x].astype(float) - fill[neighbour]
            else:
                value += target[neighbour] + (target[y, x].astype(float) - target[neighbour])
        rows.append(row)
        right.append(value)
    result = target.astype(np.float64)
    result[hole] = np.linalg.solve(np.array(rows), np.array(right)).clip(0, 1)
    return result


@pytest.mark.parametrize("name", HOLES)
def test_equals_a_dense_solution(name: str) -> None:
    hole, image, fill = HOLES[name], noise(0), noise(1)
    expected = dense_reference(fast_marching(image, hole), fill, hole)
    result = blend_poisson(image, fill, hole)
    assert np.abs(result - expected).max() < 1 / 255 / 4
    assert np.array_equal(result[~hole], image[~hole])


def test_multigrid_agrees_with_the_direct_solver(monkeypatch: pytest.MonkeyPatch) -> None:
    image, fill = (make_photo(160, 180, seed).astype(np.float32) / np.float32(255) for seed in (1, 2))
    hole = np.zeros((160, 180), bool)
    hole[20:150, :140] = True
    hole[60:80, 60:90] = False
    direct = blend_poisson(image, fill, hole)
    monkeypatch.setattr(blending, "DIRECT", 0)
    assert np.abs(blend_poisson(image, fill, hole) - direct).max() < 1 / 255 / 4


@pytest.mark.parametrize("name", HOLES)
def test_what_is_under_the_hole_has_no_influence(name: str) -> None:
    hole, image, fill = HOLES[name], noise(0), noise(1)
    other = np.where(hole[..., None], noise(2), image)
    noise_outside = np.where(hole[..., None], fill, noise(3))
    expected = blend_poisson(image, fill, hole)
    assert np.array_equal(blend_poisson(other, fill, hole)[hole], expected[hole])
    assert np.array_equal(blend_poisson(image, noise_outside, hole)[hole], expected[hole])


def test_a_shift_of_colour_is_taken_out() -> None:
    """The reason for blending (fig. 7): the right texture in a wrong tint loses the tint."""
    y, x = np.mgrid[:60, :60].astype(np.float32)
    image = np.repeat((0.4 + 0.1 * np.sin(x / 5) * np.cos(y / 7))[..., None], 3, axis=2)
    hole = np.zeros((60, 60), bool)
    hole[20:45, 15:40] = True
    shifted = image + np.array([0.2, -0.1, 0.05], np.float32)
    assert np.abs(blend_poisson(image, shifted, hole) - image)[hole].max() < 0.03


def test_holes_far_apart_are_blended_by_themselves() -> None:
    """In windows of their own; the result is that of all at once."""
    random = np.random.default_rng(0)
    rgb, fill = (make_photo(160, 230, seed).astype(np.float32) / np.float32(255) for seed in (1, 2))
    hole = np.zeros((160, 230), bool)
    hole[3:150, 5:140] = True
    hole[12:140, 14:130] = False  # a ring, in which there is a hole
    hole[60:80, 60:90] = True
    hole[70:74, 89:98] = True
    hole[100:160, 200:230] = True
    hole[random.integers(0, 40, 20), random.integers(180, 230, 20)] = True
    patches = [Patch(box, fill[box.slices], hole[box.slices]) for box in tile(hole)]
    blended = blend_patches(rgb, patches, hole)
    assert len(blended) == len(far_apart(hole)) > 1
    result, times = rgb.copy(), np.zeros((160, 230), int)
    for box, values, inside in blended:
        result[box.slices][inside] = values[inside]
        times[box.slices] += inside
    assert np.array_equal(times, hole)
    assert np.abs(result - blend_poisson(rgb, np.where(hole[..., None], fill, rgb), hole)).max() < 1 / 255 / 4


def test_arguments_are_not_touched() -> None:
    image, fill, hole = noise(0), noise(1), HOLES["inside"].copy()
    blend_poisson(image, fill, hole)
    assert np.array_equal(image, noise(0)) and np.array_equal(fill, noise(1))
    assert np.array_equal(hole, HOLES["inside"])

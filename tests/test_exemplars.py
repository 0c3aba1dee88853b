"""Copying from the image itself: patterns go on, labels are the best there are, and the outside stays as it is."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from glcic_hub.completion import _exemplars, exemplars
from glcic_hub.completion.blending import blend_patches
from glcic_hub.completion.completer import Completer
from glcic_hub.completion.exemplars import (
    NONE,
    Scale,
    complete_from_exemplars,
    fill_from_exemplars,
    frequent_offsets,
    similar_patches,
    singularity,
)
from glcic_hub.images.processing import Patch, to_uint8, to_unit
from tests.conftest import make_network, make_photo

Mask = NDArray[np.bool_]
Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]


@pytest.fixture(scope="module")
def completer() -> Completer:
    return Completer(make_network())


def rectangle(height: int, width: int, top: int, left: int, bottom: int, right: int) -> Mask:
    hole = np.zeros((height, width), bool)
    hole[top:bottom, left:right] = True
    return hole


def put(rgb: Bytes, patches: list[Patch], hole: Mask) -> Floats:
    """The completed image; the patches' holes must be the hole, each pixel once."""
    result, times = to_unit(rgb), np.zeros(hole.shape, int)
    for box, fill, inside in patches:
        assert fill.shape == (*inside.shape, 3) and fill.dtype == np.float32
        result[box.slices][inside] = fill[inside]
        times[box.slices] += inside
    assert np.array_equal(times, hole)
    assert np.isfinite(result).all() and result.min() >= 0 and result.max() <= 1
    return result


# What people see


def coloured(chosen: Mask) -> Bytes:
    return np.where(chosen[..., None], (200, 120, 40), (30, 60, 90)).astype(np.uint8)


def pattern(name: str, period: int, side: int) -> Bytes:
    y, x = np.mgrid[:side, :side]
    half = period // 2
    return coloured(
        {
            "vertical": x % period < half,
            "diagonal": (x + y) % period < half,
            "checkerboard": (x // half + y // half) % 2 == 0,
        }[name]
    )


def blurred(image: Floats) -> Floats:
    return np.asarray(cv2.GaussianBlur(image, (0, 0), 8.0), np.float32)


@pytest.mark.parametrize("guided_by", ["blur", "mean"])
@pytest.mark.parametrize("period", [8, 12])
@pytest.mark.parametrize("name", ["vertical", "diagonal", "checkerboard"])
def test_a_pattern_goes_on(name: str, period: int, guided_by: str) -> None:
    """To the pixel, although the guide knows at most its colour."""
    image = to_unit(pattern(name, period, 90))
    hole = rectangle(90, 90, 31, 28, 57, 58)
    guide = blurred(image)
    if guided_by == "mean":
        guide[:] = image.mean(axis=(0, 1))
    blank = np.where(hole[..., None], np.float32(0), image)
    result = fill_from_exemplars(blank, ~hole, hole, guide)
    assert result is not None
    assert np.array_equal(to_uint8(result), to_uint8(image))


def test_a_pattern_goes_on_through_a_hole_of_several_scales() -> None:
    image = to_unit(pattern("checkerboard", 12, 200))
    hole = rectangle(200, 200, 55, 63, 140, 151)
    result = fill_from_exemplars(image, ~hole, hole, blurred(image))
    assert result is not None
    assert np.array_equal(to_uint8(result), to_uint8(image))


def test_shapes_are_drawn_to_the_guides_by_no_more_than_the_error_around_the_hole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    image, hole = to_unit(make_photo(96, 96)), rectangle(96, 96, 30, 30, 66, 66)
    guide = blurred(image)
    drawn = fill_from_exemplars(image, ~hole, hole, guide)
    monkeypatch.setattr(exemplars, "SHAPED", 0)
    copied = fill_from_exemplars(image, ~hole, hole, guide)
    assert drawn is not None and copied is not None
    nearer, farther = (float(np.abs(fill - guide)[hole].mean()) for fill in (drawn, copied))
    assert nearer < 0.97 * farther
    assert np.abs(drawn - copied).max() < 0.4  # of what is missing at most four tenths


HOLES = {
    "inside": rectangle(64, 64, 20, 22, 40, 44),
    "border": rectangle(64, 64, 20, 0, 45, 18),
    "corner": rectangle(64, 64, 40, 44, 64, 64),
    "all but a rim": rectangle(64, 64, 5, 5, 59, 59),
    "half": rectangle(64, 64, 0, 0, 64, 32),
    "across": rectangle(64, 64, 25, 0, 35, 64),
    "pixel": rectangle(64, 64, 30, 30, 31, 31),
    "pixel in the corner": rectangle(64, 64, 0, 63, 1, 64),
    "near each other": rectangle(64, 64, 20, 20, 30, 30) | rectangle(64, 64, 20, 33, 30, 43),
    "far apart": rectangle(64, 64, 2, 2, 10, 12) | rectangle(64, 64, 50, 50, 58, 61),
    "specks": np.random.default_rng(0).random((64, 64)) < 0.01,
    "none": np.zeros((64, 64), bool),
    "6x6": rectangle(6, 6, 2, 2, 3, 3),
    "8x8": rectangle(8, 8, 3, 3, 5, 5),
    "8x8, corner": rectangle(8, 8, 0, 0, 2, 2),
    "4x9": rectangle(4, 9, 1, 1, 2, 2),
}


@pytest.mark.parametrize("name", HOLES)
def test_amid_one_colour_the_fill_is_that_colour(completer: Completer, name: str) -> None:
    """Wherever the hole is, and although the network, whose weights are random, says something else."""
    hole = HOLES[name]
    rgb = np.full((*hole.shape, 3), (200, 30, 120), np.uint8)
    rgb[hole] = 255
    result = put(rgb, complete_from_exemplars(completer, rgb, hole), hole)
    assert (to_uint8(result) == (200, 30, 120)).all()


@pytest.mark.parametrize("name", HOLES)
def test_outside_the_hole_the_image_stays_bit_for_bit(completer: Completer, name: str) -> None:
    hole = HOLES[name]
    rgb = make_photo(*hole.shape)
    before = rgb.copy()
    patches = complete_from_exemplars(completer, rgb, hole)
    put(rgb, patches, hole)
    for box, fill, inside in patches:
        assert np.array_equal(fill[~inside], to_unit(rgb)[box.slices][~inside])
        assert not np.array_equal(fill[inside], to_unit(rgb)[box.slices][inside])
    assert np.array_equal(rgb, before)


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(count)
    cv2.setNumThreads(count)
    yield
    torch.set_num_threads(before[0])
    cv2.setNumThreads(before[1])


def test_the_same_twice_and_with_any_number_of_threads(completer: Completer) -> None:
    rgb, hole = make_photo(140, 150), rectangle(140, 150, 20, 25, 115, 120)
    results = []
    for count in (1, 1, 2, 3):
        with threads(count):
            results.append(put(rgb, complete_from_exemplars(completer, rgb, hole), hole))
    assert all(np.array_equal(result, results[0]) for result in results[1:])


@pytest.mark.parametrize("side", [3, 12])
def test_specks_need_no_network(side: int) -> None:
    """One that gives NaN completes them, near each other, too; a larger hole it does not."""
    network = make_network()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(torch.nan)
    rgb = make_photo(80, 90)
    hole = rectangle(80, 90, 30, 20, 30 + side, 20 + side) | rectangle(80, 90, 32, 40, 32 + side, 40 + side)
    result = put(rgb, complete_from_exemplars(Completer(network), rgb, hole), hole)
    assert np.isfinite(result).all()
    with pytest.raises(FloatingPointError):
        complete_from_exemplars(Completer(network), rgb, rectangle(80, 90, 30, 20, 43, 33))


@pytest.mark.parametrize(("side", "whose"), [(8, "Navier-Stokes inpainting"), (16, "the network")])
def test_where_nothing_can_be_copied_the_guide_is_the_fill_and_it_is_said(
    completer: Completer, side: int, whose: str
) -> None:
    rgb, hole = make_photo(side, side), rectangle(side, side, 1, 1, side - 1, side - 1)
    with pytest.warns(UserWarning, match=f"row 1, column 1 can be copied; it has {whose}'s fill"):
        ((_, fill, inside),) = complete_from_exemplars(completer, rgb, hole)
    assert fill_from_exemplars(to_unit(rgb), ~hole, hole, fill) is None
    if whose == "the network":
        blended = blend_patches(rgb, completer.complete([(rgb, hole)])[0], hole)
        assert np.allclose(fill[inside], put(rgb, blended, hole)[hole], atol=1e-3)


def test_two_pixels_of_an_image_too_small_for_a_patch(completer: Completer) -> None:
    """With a warning or without: what comes back is a colour of this image's range."""
    for height, width in ((4, 4), (4, 7), (5, 5), (6, 4), (7, 7), (8, 8)):
        rgb, hole = make_photo(height, width) // 4 + 150, rectangle(height, width, 1, 2, 2, 4)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            result = put(rgb, complete_from_exemplars(completer, rgb, hole), hole)
        assert np.array_equal(to_uint8(result)[~hole], rgb[~hole])
        assert result[hole].min() > 0.3


def test_a_scratch_that_the_small_copies_lose_spoils_nothing() -> None:
    """A line of one pixel beside a hole so large that the coarsest copy is an eighth."""
    image = to_unit(pattern("vertical", 12, 360))
    hole = rectangle(360, 360, 40, 120, 260, 330) | rectangle(360, 360, 150, 8, 151, 120)
    result = fill_from_exemplars(np.where(hole[..., None], np.float32(0), image), ~hole, hole, blurred(image))
    assert result is not None
    differ = (to_uint8(result) != to_uint8(image)).any(axis=2)
    assert differ.sum() < 0.05 * hole.sum()  # at an eighth stripes of six pixels are hardly seen


class Recorder:
    """An image that knows which of its parts were asked for."""

    def __init__(self, rgb: Bytes) -> None:
        self.rgb, self.shape, self.read = rgb, rgb.shape, np.zeros(rgb.shape[:2], bool)

    def __getitem__(self, slices: tuple[slice, slice]) -> Bytes:
        self.read[slices] = True
        return self.rgb[slices]


def test_of_a_large_image_only_the_surroundings_of_holes_are_read(completer: Completer) -> None:
    rgb = np.tile(make_photo(100, 100), (12, 16, 1))
    hole = rectangle(1200, 1600, 700, 900, 720, 930) | rectangle(1200, 1600, 1190, 10, 1194, 20)
    image = Recorder(rgb)
    patches = complete_from_exemplars(completer, image, hole)  # type: ignore[arg-type]
    assert image.read[hole].all() and image.read.mean() < 0.02
    assert sum(patch.hole.size for patch in patches) < 0.02 * hole.size
    others = np.where(image.read[..., None], rgb, 255 - rgb)
    for patch, other in zip(patches, complete_from_exemplars(completer, others, hole), strict=True):
        assert patch.box == other.box and np.array_equal(patch.fill, other.fill)


# The parts in C++


class Problem:
    """A small labelling at random, and its energy in the words of _exemplars.cpp, all labellings at once."""

    UNKNOWN = 64

    def __init__(self, seed: int, height: int, width: int, labels: int, known: float) -> None:
        random = np.random.default_rng(seed)
        high, wide = height + 5, 3 * width + 8
        self.shape = high, wide
        self.hole = rectangle(high, wide, 2, width + 3, 2 + height, 2 * width + 3)
        self.image = random.integers(0, 50, (high, wide, 5), np.uint8)
        self.usable = ~self.hole & (random.random(self.shape) < known)
        self.visible = ~self.hole & (random.random(self.shape) < 0.9)
        self.guide, self.blurred = (random.integers(0, 256, (high, wide, 3), np.uint8) for _ in range(2))
        sideways = [(dy, dx) for dy in (-1, 0, 1, 2) for dx in (-width - 2, width + 2)]
        self.labels = [sideways[i] for i in random.permutation(len(sideways))[:labels]]
        self.colour, self.seam = int(random.integers(1, 3)), int(random.integers(100))
        self.guide_weight, self.context, self.radius = (int(random.integers(*b)) for b in ((1, 6), (0, 6), (1, 3)))
        self.guide_limit = int(random.integers(200, 700))
        self.singular = random.integers(0, 300, self.shape, np.int32)
        self.pixels = [(int(y), int(x)) for y, x in np.argwhere(self.hole)]

    def solve(self, sweeps: int, group: int = NONE) -> NDArray[np.int32]:
        """The labels that are chosen, in the order of `pixels`, if labels and pixels are of one group."""
        chosen = _exemplars.choose_labels(
            self.image,
            self.usable.astype(np.uint8),
            self.hole.astype(np.uint8),
            self.visible.astype(np.uint8),
            self.guide,
            self.blurred,
            self.singular,
            np.array(self.labels, np.int32),
            np.full(len(self.labels), group, np.int32),
            np.where(self.hole, np.int32(group), np.int32(NONE)),
            2,
            sweeps,
            2,
            self.colour,
            self.seam,
            self.guide_weight,
            self.guide_limit,
            self.context,
            self.radius,
            1,
        )
        assert (chosen[~self.hole] == NONE).all()
        return chosen[self.hole]

    def source(self, label: int, y: int, x: int) -> tuple[int, int] | None:
        sy, sx = y + self.labels[label][0], x + self.labels[label][1]
        inside = 0 <= sy < self.shape[0] and 0 <= sx < self.shape[1]
        return (sy, sx) if inside and self.usable[sy, sx] else None

    def cost(self, label: int, y: int, x: int) -> float:
        """Distance from the guide; the source's own; the seam to what is visible beside it; the surroundings'."""
        source = self.source(label, y, x)
        if source is None:
            return np.inf
        apart = int(np.abs(self.guide[y, x].astype(int) - self.blurred[source]).sum())
        total = self.guide_weight * min(apart, self.guide_limit) + int(self.singular[source])
        around = 0
        reach = range(-self.radius, self.radius + 1)
        for dy, dx in itertools.product(reach, reach):
            there = y + dy, x + dx
            if not (0 <= there[0] < self.shape[0] and 0 <= there[1] < self.shape[1] and self.visible[there]):
                continue
            other = self.source(label, *there)
            if other is None:
                difference = 5 * self.UNKNOWN
            else:
                difference = int(np.abs(self.image[there].astype(int) - self.image[other]).sum())
            around += difference
            total += 2 * self.colour * difference if abs(dy) + abs(dx) == 1 else 0
        return total + around * self.context // len(reach) ** 2

    def between(self, a: int, b: int, p: tuple[int, int], q: tuple[int, int]) -> float:
        """The difference on both sides of a seam."""
        if a == b:
            return 0
        steps = []
        for place in (p, q):
            first, second = self.source(a, *place), self.source(b, *place)
            if first is not None and second is not None:
                steps.append(self.image[first].astype(int) - self.image[second])
        if not steps:
            return self.seam + 2 * self.UNKNOWN * 5 * self.colour
        return float(self.seam + self.colour * (np.abs(steps[0]) + np.abs(steps[-1])).sum())

    def energies(self, labellings: NDArray[np.int64]) -> NDArray[np.float64]:
        """Of labellings (n, pixels)."""
        count = range(len(self.labels))
        total = np.zeros(len(labellings))
        for number, (y, x) in enumerate(self.pixels):
            total += np.array([self.cost(label, y, x) for label in count])[labellings[:, number]]
            for neighbour in ((y, x + 1), (y + 1, x)):
                if neighbour in self.pixels:
                    table = np.array([[self.between(a, b, (y, x), neighbour) for b in count] for a in count])
                    total += table[labellings[:, number], labellings[:, self.pixels.index(neighbour)]]
        return total


@pytest.mark.parametrize(("height", "width"), [(1, 5), (2, 3), (3, 4)])
def test_of_two_labels_the_best_labelling_is_found(height: int, width: int) -> None:
    """One expansion of each is exact (Kolmogorov and Zabih 2004): as good as the best of all labellings."""
    labellings = np.array(list(itertools.product((0, 1), repeat=height * width)))
    mixed = 0
    for seed in range(24):
        problem = Problem(seed, height, width, labels=2, known=1.0)
        energies, chosen = problem.energies(labellings), problem.solve(sweeps=1)
        assert problem.energies(chosen[None].astype(np.int64)) == energies.min()
        mixed += len(set(chosen)) == 2
    assert mixed >= 3  # or the problems were too easy


def test_of_two_labels_the_best_is_found_where_some_sources_are_not_known() -> None:
    labellings = np.array(list(itertools.product((0, 1), repeat=9)))
    solved = 0
    for seed in range(40):
        problem = Problem(seed, 3, 3, labels=2, known=0.85)
        chosen = problem.solve(sweeps=1)
        for number, pixel in enumerate(problem.pixels):
            usable = [label for label in (0, 1) if problem.source(label, *pixel)]
            assert chosen[number] in (usable or [NONE])
        if (chosen != NONE).all():
            assert problem.energies(chosen[None].astype(np.int64)) == problem.energies(labellings).min()
            solved += 1
    assert solved >= 10


def test_of_many_labels_no_expansion_is_left_that_would_be_better() -> None:
    moves = np.array(list(itertools.product((False, True), repeat=6)))
    for seed in range(12):
        problem = Problem(seed, 2, 3, labels=5, known=1.0)
        chosen = problem.solve(sweeps=50).astype(np.int64)
        (least,) = problem.energies(chosen[None])
        for label in set(chosen.tolist()):
            assert problem.energies(np.where(moves, label, chosen)).min() >= least


def test_deep_inside_a_group_pixels_choose_as_one() -> None:
    mixed = 0
    for seed in range(6):
        problem = Problem(seed, 15, 15, labels=2, known=1.0)
        chosen = problem.solve(sweeps=1, group=0)
        inner = chosen.reshape(15, 15)[4:-4, 4:-4]
        assert (inner == inner[0, 0]).all()
        least, *others = problem.energies(np.stack([chosen, 0 * chosen, 0 * chosen + 1]).astype(np.int64))
        assert least <= min(others)
        mixed += len(set(chosen)) == 2
        # A pixel whose source is not known stays by itself.
        y, x = problem.pixels[7 * 15 + 7]
        problem.usable[y + problem.labels[0][0], x + problem.labels[0][1]] = False
        inner = problem.solve(sweeps=1, group=0).reshape(15, 15)[4:-4, 4:-4].copy()
        assert inner[3, 3] == 1
        inner[3, 3] = inner[0, 0]
        assert (inner == inner[0, 0]).all()
    assert mixed  # or the problems were too easy


def test_the_offsets_between_similar_patches_are_the_periods() -> None:
    tile = np.random.default_rng(0).integers(0, 256, (14, 18, 5), np.uint8)
    features = np.tile(tile, (5, 4, 1))
    hole = rectangle(70, 72, 20, 20, 30, 28)
    offsets = frequent_offsets(similar_patches(Scale(features, features[..., :3], ~hole, hole)), 70, 72)
    assert not (offsets[:10] % (14, 18)).any()  # the most frequent ones come first
    assert {(14, 0), (0, 18), (-14, 0), (0, -18)} <= {(int(dy), int(dx)) for dy, dx in offsets}


def test_what_stands_once_costs_more_to_copy_than_what_repeats() -> None:
    random = np.random.default_rng(0)
    image = np.tile(random.integers(60, 200, (14, 18, 3), np.uint8), (5, 4, 1))
    image[44:56, 6:18] = random.integers(60, 200, (12, 12, 3), np.uint8)
    features = np.concatenate([image, np.zeros_like(image[..., :2])], axis=2)
    hole = rectangle(70, 72, 20, 40, 30, 48)
    scale = Scale(features, image, ~hole, hole)
    costs = singularity(similar_patches(scale), scale)
    assert costs[48:52, 10:14].min() > 50
    costs[40:60, 2:22] = 0
    assert costs.mean() < 10  # the search misses some of those that repeat


@pytest.mark.parametrize("screen", [0.0, 0.05, 2.0])
@pytest.mark.parametrize("place", [(2, 2, 6, 7), (0, 0, 5, 4), (3, 5, 8, 9)])
def test_levelled_seams_equal_a_dense_solution(place: tuple[int, int, int, int], screen: float) -> None:
    random = np.random.default_rng(0)
    image, right, down = (random.random((8, 9, 3), np.float32) for _ in range(3))
    hole = rectangle(8, 9, *place)
    index = {(int(y), int(x)): number for number, (y, x) in enumerate(np.argwhere(hole))}
    rows, values = np.eye(len(index)) * screen, np.float64(screen) * image[hole]
    for (y, x), number in index.items():
        for neighbour, step in (
            ((y, x - 1), -right[y, x - 1]),
            ((y - 1, x), -down[y - 1, x]),
            ((y, x + 1), right[y, x]),
            ((y + 1, x), down[y, x]),
        ):
            if not (0 <= neighbour[0] < 8 and 0 <= neighbour[1] < 9):
                continue
            rows[number, number] += 1
            values[number] += step  # f(p) - f(neighbour)
            if neighbour in index:
                rows[number, index[neighbour]] -= 1
            else:
                values[number] += image[neighbour]
    result = image.copy()
    _exemplars.level_seams(result, hole.astype(np.uint8), image, right, down, screen, 300)
    np.testing.assert_allclose(result[hole], np.linalg.solve(rows, values), atol=1e-4)
    assert np.array_equal(result[~hole], image[~hole])


def test_levelled_seams_go_on_with_a_slope() -> None:
    y, x = np.mgrid[:20, :24].astype(np.float32)
    image = np.repeat((0.1 + 0.02 * x + 0.01 * y)[..., None], 3, axis=2)
    hole = rectangle(20, 24, 5, 6, 14, 17)
    right, down = np.full((20, 24, 3), -0.02, np.float32), np.full((20, 24, 3), -0.01, np.float32)
    result = np.where(hole[..., None], np.float32(0.9), image)
    _exemplars.level_seams(result, hole.astype(np.uint8), result.copy(), right, down, 0.0, 200)
    np.testing.assert_allclose(result, image, atol=1e-5)

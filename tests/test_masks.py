from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageOps

from glcic_hub.images.masks import open_mask, random_rectangle
from glcic_hub.images.processing import ImageLike
from tests.conftest import make_hole

HOLE = make_hole(20, 30) > 0


def transparent_strokes() -> Image.Image:
    image = Image.new("RGBA", (30, 20), (255, 255, 255, 0))
    image.putalpha(Image.fromarray(HOLE))
    return image


@pytest.mark.parametrize(
    "mask",
    [
        HOLE,
        HOLE.astype(np.uint8),
        HOLE.astype(np.uint8) * 255,
        HOLE.astype(np.int64),
        HOLE.astype(np.float32),
        HOLE[..., None],
        HOLE[None],
        np.repeat(HOLE[..., None], 3, axis=2),
        np.repeat(HOLE[..., None].astype(np.uint8) * 255, 3, axis=2),
        HOLE[..., None] * np.array([0, 0, 255], np.uint8),
        HOLE[..., None] * np.array([0, 255, 0, 255], np.uint8),
        HOLE[..., None] * np.array([0.5, 0, 0]),
        torch.from_numpy(HOLE)[None, None],
        torch.from_numpy(HOLE).byte().expand(3, 20, 30),
        torch.from_numpy(HOLE),
        torch.from_numpy(HOLE).float()[None],
        torch.from_numpy(HOLE).bfloat16(),
        Image.fromarray(HOLE),
        Image.fromarray(HOLE.astype(np.uint8)),
        Image.fromarray(HOLE).convert("RGB"),
        Image.fromarray(HOLE).convert("L").quantize(2),
        HOLE.astype(np.uint16) * 65535,
        HOLE.astype(np.uint16) * 255,
        torch.from_numpy(HOLE).int() * 255,
        Image.fromarray(HOLE.astype(np.uint16) * 65535),
        Image.fromarray(HOLE.astype(np.uint16) * 255),
        Image.fromarray(HOLE.astype(np.uint16)),
        Image.fromarray(HOLE.astype(np.int32)),
        Image.fromarray(HOLE.astype(np.int32) * 255),
        Image.fromarray(HOLE.astype(np.int32) * 65535),
        transparent_strokes(),
    ],
    ids=lambda mask: f"{type(mask).__name__} {getattr(mask, 'dtype', getattr(mask, 'mode', ''))}",
)
def test_every_kind_of_mask(mask: ImageLike) -> None:
    assert np.array_equal(open_mask(mask), HOLE)


def soft_disc() -> tuple[Image.Image, NDArray[np.bool_]]:
    """An antialiased white disc, and the pixels that it really touches by more than the threshold."""
    large = Image.new("L", (100 * 16, 80 * 16))
    ImageDraw.Draw(large).ellipse((20 * 16, 15 * 16, 70 * 16, 60 * 16), fill=255)
    soft = large.resize((100, 80), Image.Resampling.BOX)
    return soft, np.asarray(soft) > 51


def as_jpeg(image: Image.Image, quality: int = 75) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file)


def test_soft_masks_leave_no_rim() -> None:
    """Every pixel that the object covers by more than a fifth belongs to the hole, also inverted."""
    soft, covered = soft_disc()
    assert np.array_equal(open_mask(soft), covered)
    assert np.array_equal(open_mask(ImageOps.invert(soft), invert=True), covered)


def test_jpeg_masks_leave_no_rim_and_no_specks() -> None:
    soft, covered = soft_disc()
    hard = Image.fromarray(np.asarray(soft) > 127)
    inside, far_away = (np.asarray(hard), np.asarray(soft) == 0)
    for mask in (open_mask(as_jpeg(hard.convert("L"))), open_mask(as_jpeg(ImageOps.invert(hard)), invert=True)):
        assert (mask[inside]).all()
        assert mask[far_away].sum() <= 0.01 * covered.sum()  # ringing


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.zeros((8, 8, 2), np.uint8), r"must be \(H, W\), or have 1 or 3 channels; got shape \(8, 8, 2\)"),
        (np.full((8, 8), 0.5) * 255, r"float mask must be in \[0, 1\]"),
        (np.full((8, 8), np.nan), "NaN"),
        (np.full((8, 8), -1), r"and is in \[-1, -1\]"),
        (np.full((8, 8), 1000, np.uint16), r"whole numbers must be in \[0, 255\], and is in \[1000, 1000\]"),
        (np.full((8, 8), "x"), "not <U1"),
        ({}, "not dict"),
    ],
)
def test_wrong_masks_are_refused(mask: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        open_mask(mask)


@pytest.mark.parametrize("invert", [False, True])
def test_whole_numbers_are_read_as_their_fractions(invert: bool) -> None:
    """Each of the 256 levels is on the same side of the threshold as the float that it stands for."""
    levels = np.arange(256, dtype=np.uint8)[None]
    fractions = levels.astype(np.float32) / np.float32(255)
    assert np.array_equal(open_mask(levels, invert=invert), open_mask(fractions, invert=invert))
    binary = np.array([[0, 1]], np.uint8)
    assert open_mask(binary, invert=invert).tolist() == [[invert, not invert]]


def in_colour(*colour: int) -> Image.Image:
    """Strokes of a colour on black."""
    return Image.fromarray(HOLE[..., None] * np.array(colour, np.uint8))


@pytest.mark.parametrize(
    "colour",
    [(255, 0, 0), (0, 0, 255), (128, 0, 0), (0, 0, 128), (64, 0, 0), (0, 0, 1)],
    ids=lambda colour: str(colour),
)
def test_the_greatest_channel_counts(colour: tuple[int, int, int]) -> None:
    image = in_colour(*colour)
    assert np.array_equal(open_mask(image), HOLE)
    assert np.array_equal(open_mask(image.quantize(2)), HOLE)
    image.putalpha(Image.fromarray(HOLE))
    assert np.array_equal(open_mask(image), HOLE)


def labels(*levels: int) -> NDArray[np.uint8]:
    """A rectangle of each level on black."""
    mask = np.zeros((60, 40 * len(levels)), np.uint8)
    for index, level in enumerate(levels):
        mask[10:40, 40 * index + 5 : 40 * index + 30] = level
    return mask


def test_labels_of_a_palette() -> None:
    """The colours of PASCAL VOC: label 1 is dark red, label 64 so dark that it is not taken, which is said."""
    palette = [
        int(f"{label:08b}"[7 - bit :: -3][:3].ljust(3, "0"), 2) << 5 for label in range(256) for bit in range(3)
    ]
    image = Image.fromarray(labels(1, 2, 15))
    image.putpalette(palette)
    assert np.array_equal(open_mask(image), labels(1, 2, 15) > 0)
    image = Image.fromarray(labels(1, 64, 2))
    image.putpalette(palette)
    with pytest.warns(UserWarning, match="750 pixels of the mask are marked by values of up to 32 of 255"):
        assert np.array_equal(open_mask(image), labels(1, 0, 2) > 0)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int64, np.float32])
@pytest.mark.parametrize("invert", [False, True])
@pytest.mark.parametrize(
    ("levels", "taken"), [((1, 2), (0, 0)), ((40, 255), (0, 255)), ((1, 9, 20, 255), (0, 0, 0, 255))]
)
def test_marks_that_are_too_dark_are_named(
    dtype: type, invert: bool, levels: tuple[int, ...], taken: tuple[int, ...]
) -> None:
    mask = (255 - labels(*levels)) if invert else labels(*levels)
    with pytest.warns(UserWarning, match=rf"{750 * taken.count(0)} pixels of the mask are marked"):
        hole = open_mask((mask / 255 if dtype is np.float32 else mask).astype(dtype), invert=invert)
    assert np.array_equal(hole, labels(*taken) > 0)


def test_soft_edges_and_noise_are_no_dark_marks() -> None:
    """Feathers, antialiasing and JPEG leave pixels below the threshold, too; no warning, which would be an error."""
    square = np.zeros((400, 400), np.uint8)
    square[150:250, 120:260] = 255
    image = Image.fromarray(square)
    for radius in (1, 3, 10, 40, 90):
        open_mask(image.filter(ImageFilter.GaussianBlur(radius)))
        open_mask(ImageOps.invert(image.filter(ImageFilter.GaussianBlur(radius))), invert=True)
    for quality in (10, 30, 75):
        open_mask(as_jpeg(image, quality))
        open_mask(as_jpeg(image.convert("RGB"), quality))
    random = np.random.default_rng(0)
    open_mask(np.maximum(square, random.integers(0, 4, square.shape).astype(np.uint8)))
    open_mask(np.maximum(square, 16))  # black in video
    open_mask(np.tile(np.arange(256, dtype=np.uint8), (64, 1)))


def test_missing_mask(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no file"):
        open_mask(tmp_path / "mask.png")


def test_random_rectangles_are_the_papers() -> None:
    sides, corners = set(), set()
    for seed in range(2000):
        mask = random_rectangle(np.random.default_rng(seed), 40, 50, (5, 8)).mask(40, 50)
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        height, width = int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1
        assert mask.sum() == height * width
        sides.add((height, width))
        corners.add((rows[0] == 0, rows[-1] == 39, columns[0] == 0, columns[-1] == 49))
    assert sides == {(height, width) for height in range(5, 9) for width in range(5, 9)}  # drawn separately
    assert np.array(list(corners)).any(axis=0).all()  # every border is reached


def test_random_rectangles_follow_the_seed() -> None:
    first, again, other = (random_rectangle(np.random.default_rng(seed), 40, 50, (5, 8)) for seed in (1, 1, 2))
    assert first == again != other


def test_a_hole_that_does_not_fit() -> None:
    with pytest.raises(ValueError, match="does not fit an image of 30x20"):
        random_rectangle(np.random.default_rng(0), 20, 30, (5, 21))

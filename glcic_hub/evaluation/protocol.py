"""Decides which part of each photograph is taken, and where its hole is."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from glcic_hub.data.photographs import Folder, Photograph, Table, file_of
from glcic_hub.evaluation.metrics import SSIM_WINDOW
from glcic_hub.images.files import READ_FORMATS
from glcic_hub.images.folders import masks_by_name
from glcic_hub.images.masks import Rectangle, open_mask, random_rectangle, random_strokes
from glcic_hub.images.processing import open_image, to_uint8

DRAWN_HOLES = ("rectangles", "centre", "strokes")
GIVEN = "given"
HOLES = (*DRAWN_HOLES, GIVEN)

MIN_SIDE_FOR_STROKES = 32
"""In smaller images strokes would be a few pixels."""


class Case(NamedTuple):
    """A photograph (H, W, 3) uint8, and its hole as a mask (H, W) of 0 and 1."""

    image: NDArray[np.uint8]
    mask: NDArray[np.uint8]


@dataclass(frozen=True)
class Protocol:
    """Defines the images and holes of an evaluation; the same for all methods.

    Attributes:
        holes: `rectangles`: one in each photograph, as in the paper's training (sec. 3.4); `centre`: a square of half
            the side in the middle (fig. 5); `strokes`: free-form ones; `given`: the masks that come with the
            photographs, as in a dataset with a column `mask`; or a folder of masks, of the photographs' names and
            sizes.
        size: Side in pixels of the squares that are completed, of the photographs' centres; with given masks, or
            those of a folder, they are taken whole.
        hole_size: Range in pixels of the sides of rectangles, both included.
        seed: Decides the holes; each photograph's depends on its place among the photographs alone.
        fit: Scale photographs to have a short side of `size`, instead of cutting the square at their own resolution.

    Raises:
        ValueError: Sizes or seed are out of range, or settings contradict each other.
        FileNotFoundError: No such folder of masks.
    """

    holes: str = "rectangles"
    size: int = 256
    hole_size: tuple[int, int] = (96, 128)
    seed: int = 0
    fit: bool = False

    def __post_init__(self) -> None:
        least = MIN_SIDE_FOR_STROKES if self.holes == "strokes" else SSIM_WINDOW
        if self.size < least or self.seed < 0:
            raise ValueError(f"size must be at least {least} and seed at least 0, not {self.size} and {self.seed}")
        if self.holes == "rectangles" and not 1 <= self.hole_size[0] <= self.hole_size[1] <= self.size:
            raise ValueError(f"a hole of {list(self.hole_size)} pixels does not fit an image of {self.size}")
        if self.holes not in HOLES and not Path(self.holes).is_dir():
            raise FileNotFoundError(
                f"holes are {', '.join(HOLES)}, or a folder of masks; there is no folder {self.holes}"
            )
        if self.fit and self.holes not in DRAWN_HOLES:
            raise ValueError("photographs with masks of their own are taken whole and cannot be fitted")

    def describe(self) -> str:
        """Describes the protocol in words, for a table's heading."""
        if self.holes == GIVEN:
            return "whole photographs, the masks that come with them"
        if self.holes not in HOLES:
            return f"whole photographs, masks of {Path(self.holes).name}"
        hole = {
            "rectangles": f"one rectangle of {self.hole_size[0]} to {self.hole_size[1]} pixels a side",
            "centre": f"a square of {self.size // 2} pixels in the middle",
            "strokes": "free-form strokes",
        }[self.holes]
        square = "centre squares scaled to" if self.fit else "centre crops of"
        return f"{square} {self.size}×{self.size} pixels, {hole}, seed {self.seed}"


def case_opener(protocol: Protocol, photographs: Sequence[Photograph]) -> Callable[[int], Case]:
    """Makes a function that opens the photograph of an index with its hole, or raises a ValueError."""
    mask_of = masks_by_name(Path(protocol.holes)) if protocol.holes not in HOLES else None

    def open_case(index: int) -> Case:
        photograph = photographs[index]
        if protocol.holes == GIVEN:
            if photograph.mask is None:
                raise ValueError("it comes without a mask")
            return _with_mask(_whole(photograph), file_of(photograph.mask))
        if mask_of is not None:
            return _with_mask(_whole(photograph), mask_of(Path(short_name(photographs, index))))
        size = protocol.size
        image = centre_square(photograph, size, fit=protocol.fit)
        random = np.random.default_rng([protocol.seed, index])
        if protocol.holes == "strokes":
            return Case(image, random_strokes(random, size, size))
        begin = (size - size // 2) // 2
        hole = Rectangle(begin, begin, size // 2, size // 2)
        if protocol.holes == "rectangles":
            hole = random_rectangle(random, size, size, protocol.hole_size)
        return Case(image, hole.mask(size, size))

    return open_case


def default_holes(photographs: Sequence[Photograph]) -> str:
    """Returns `given` for photographs that come with masks, else `rectangles`."""
    return GIVEN if isinstance(photographs, Table) and photographs.has_masks else "rectangles"


def short_name(photographs: Sequence[Photograph], index: int) -> str:
    """Returns a photograph's name; in a folder, its path relative to the folder; in a dataset, its file's name."""
    path = Path(photographs[index].name)
    return str(path.relative_to(photographs.folder)) if isinstance(photographs, Folder) else path.name


def _with_mask(image: NDArray[np.uint8], file: Path | io.BytesIO) -> Case:
    mask = open_mask(file).astype(np.uint8)
    if mask.shape != image.shape[:2]:
        sizes = [f"{shape[1]}x{shape[0]}" for shape in (mask.shape, image.shape)]
        raise ValueError(f"its mask has {sizes[0]} pixels, and it has {sizes[1]}")
    if not mask.any():
        raise ValueError("its mask is black, so there is no hole")
    return Case(image, mask)


def centre_square(photograph: Photograph, size: int, *, fit: bool = False) -> NDArray[np.uint8]:
    """Cuts the centre (size, size, 3) out of a photograph at its own resolution, or scaled; enlarges smaller ones.

    Raises:
        ValueError: The photograph cannot be read.
    """
    image = Image.fromarray(_whole(photograph))
    if fit or min(image.size) < size:
        return np.asarray(ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC))
    left, top = ((side - size) // 2 for side in image.size)
    return np.asarray(image.crop((left, top, left + size, top + size)))


def _whole(photograph: Photograph) -> NDArray[np.uint8]:
    if isinstance(photograph.file, Path):
        return to_uint8(open_image(photograph.file).whole())
    with Image.open(file_of(photograph.file), formats=READ_FORMATS) as image:
        return to_uint8(open_image(image).whole())

"""Photographs to training samples: a random patch and a random hole (sec. 3.4)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import Dataset

from glcic_hub.files import first_line
from glcic_hub.masks import random_rectangle
from glcic_hub.training.recipe import Recipe

MEAN_PIXEL_SAMPLE = 10_000


def _open_rgb(path: Path, short_side: int) -> Image.Image:
    """Opens a photograph upright and in RGB; a JPEG is decoded at a fraction if that still has `short_side` pixels."""
    try:
        with Image.open(path) as file:
            file.draft("RGB", (short_side, short_side))
            return ImageOps.exif_transpose(file).convert("RGB")
    except Exception as error:  # Pillow's plugins raise a dozen kinds for broken files
        raise ValueError(f"cannot read the photograph {path}: {first_line(error)}") from None


def measure_mean_pixel(paths: Sequence[Path]) -> tuple[float, float, float]:
    """Mean (red, green, blue) in [0, 1] of photographs, each of the same weight (sec. 3.1).

    Of more than 10,000 photographs an evenly spread part is enough.
    """
    paths = paths[:: len(paths) // MEAN_PIXEL_SAMPLE + 1]
    sums = np.zeros(3)
    for path in paths:
        sums += np.asarray(_open_rgb(path, 64).resize((32, 32), Image.Resampling.BOX)).mean(axis=(0, 1))
    red, green, blue = (round(float(value), 4) for value in sums / len(paths) / 255)
    return red, green, blue


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    """The order of the photographs in an epoch."""
    return np.random.default_rng([seed, 0, epoch]).permutation(count)


class TrainingSamples(Dataset[dict[str, Tensor]]):
    """The samples of a whole run, by number.

    Sample `i` is the same whichever process or worker makes it and wherever a run was resumed: its photograph comes
    from a permutation of its own for each epoch, its patch and hole from a generator seeded with its number.

    Args:
        paths: The photographs.
        recipe: Patch, hole and seed.
        start: Number of the first sample, that of a resumed run.
        stop: Number after the last sample.
    """

    def __init__(self, paths: Sequence[Path], recipe: Recipe, start: int, stop: int) -> None:
        self.paths = paths
        self.recipe = recipe
        self.start = start
        self.stop = stop

    def __len__(self) -> int:
        return self.stop - self.start

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """Returns `image` (3, size, size) float32 in [0, 1] and `mask` (1, size, size), 1 = hole."""
        number = self.start + index
        epoch, place = divmod(number, len(self.paths))
        order = _order(self.recipe.seed, epoch, len(self.paths))
        random = np.random.default_rng([self.recipe.seed, 1, number])
        image = self._patch(self.paths[order[place]], random)
        size = self.recipe.image_size
        mask = random_rectangle(random, size, size, self.recipe.hole_size)
        return {
            "image": torch.from_numpy(image).permute(2, 0, 1).float() / 255,
            "mask": torch.from_numpy(mask).float()[None],
        }

    def _patch(self, path: Path, random: np.random.Generator) -> NDArray[np.uint8]:
        """A random (size, size, 3) patch of the photograph at a random scale."""
        size = self.recipe.image_size
        short_side = int(random.integers(self.recipe.resize[0], self.recipe.resize[1] + 1))
        photograph = _open_rgb(path, short_side)
        # Resizing the patch alone is the same as cutting it from the resized photograph, and takes less time.
        side = min(photograph.size) * size / short_side
        left, top = (random.uniform(0, length - side) for length in photograph.size)
        patch = photograph.resize((size, size), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side))
        if self.recipe.flip and random.random() < 0.5:
            patch = ImageOps.mirror(patch)
        return np.array(patch)

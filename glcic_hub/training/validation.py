"""Validation during training: metrics, and a grid of images."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from glcic_hub.data.photographs import Photograph, Stream, UnreadableError, open_rgb
from glcic_hub.evaluation.metrics import METRICS, hole_metrics, mean_of_defined
from glcic_hub.images.before_after import grid
from glcic_hub.images.processing import to_uint8
from glcic_hub.pipeline import GLCICPipeline
from glcic_hub.training.data import draw_hole
from glcic_hub.training.recipe import Recipe

VALIDATION_COUNT = 64
"""Photographs at most."""

GRID_ROWS = 4


class Example(NamedTuple):
    """The centre square of a photograph, (size, size, 3) uint8, with a (size, size) mask of 0 and 1."""

    image: NDArray[np.uint8]
    mask: NDArray[np.uint8]


def make_examples(photographs: Sequence[Photograph] | Stream, recipe: Recipe) -> list[Example]:
    """Takes the first photographs that can be read, and draws a hole for each as the recipe says."""
    size = recipe.image_size
    examples = []
    for index, photograph in enumerate(itertools.islice(photographs, VALIDATION_COUNT)):
        try:
            image = ImageOps.fit(open_rgb(photograph, size), (size, size), Image.Resampling.BICUBIC)
        except UnreadableError:
            continue
        mask, _ = draw_hole(recipe, np.random.default_rng(index))
        examples.append(Example(np.asarray(image), mask))
    return examples


def validate(pipe: GLCICPipeline, examples: Sequence[Example]) -> tuple[dict[str, float], Image.Image]:
    """Completes the examples by the network alone.

    Returns:
        The mean of each of `evaluation.METRICS` in the hole, without blending; and for the first four examples a row
        of hole (in the mean colour, as the network sees it), fill, blended fill and original.
    """
    mean = to_uint8(np.array(pipe.config.mean_pixel, np.float32))
    figures: list[dict[str, float]] = []
    rows: list[list[NDArray[np.uint8]]] = []
    for image, mask in examples:
        completed = pipe(image, mask, detail="none", blend="none")
        figures.append(hole_metrics(image, completed, mask))
        if len(rows) < GRID_ROWS:
            with_hole = np.where(mask[..., None] > 0, mean, image)
            blended = pipe(image, mask, detail="none", blend="poisson")
            rows.append([with_hole, completed, blended, image])
    return {metric: mean_of_defined([row[metric] for row in figures]) for metric in METRICS}, grid(rows)

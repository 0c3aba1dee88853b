"""Before and after in one image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from glcic_hub.images.exif import orientation_of
from glcic_hub.images.files import MAX_PIXELS
from glcic_hub.images.masks import hole_of
from glcic_hub.images.processing import ImageLike, open_image, to_uint8

GAP = 8
"""White pixels between two images."""


def side_by_side(
    image: ImageLike,
    mask: ImageLike | None,
    completed: ImageLike,
    *,
    invert_mask: bool = False,
    max_pixels: int = MAX_PIXELS,
) -> Image.Image:
    """Puts the image with the hole in white, the completed image and the original in a row, upright, as RGB.

    Args:
        image: What the pipeline was given.
        mask: What the pipeline was given.
        completed: What the pipeline returned.
        invert_mask: What the pipeline was given.
        max_pixels: What the pipeline was given.

    Returns:
        An RGB image, three times as wide as the image and two gaps of 8 pixels.

    Raises:
        ValueError: As the pipeline.
    """
    opened = open_image(image, max_pixels=max_pixels)
    hole = hole_of(opened, mask, invert=invert_mask, max_pixels=max_pixels)
    original, filled = (to_uint8(one.whole()) for one in (opened.without(hole), open_image(completed)))
    return grid([[np.where(hole[..., None], np.uint8(255), original), filled, original]])


def row_size(image: Image.Image) -> tuple[int, int]:
    """Computes the width and height of the row that `side_by_side` makes of a loaded PIL image."""
    width, height = image.size[::-1] if orientation_of(image) >= 5 else image.size  # those lie on their side
    return 3 * (width + GAP) - GAP, height


def grid(rows: Sequence[Sequence[NDArray[np.uint8]]]) -> Image.Image:
    """Puts images (H, W, 3) of one size into rows and columns, 8 white pixels apart."""
    height, width = rows[0][0].shape[:2]
    size = (len(rows[0]) * (width + GAP) - GAP, len(rows) * (height + GAP) - GAP)
    whole = Image.new("RGB", size, "white")
    for top, row in enumerate(rows):
        for left, image in enumerate(row):
            whole.paste(Image.fromarray(image), (left * (width + GAP), top * (height + GAP)))
    return whole

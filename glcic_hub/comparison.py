"""Before and after in one picture."""

from __future__ import annotations

import numpy as np
from PIL import Image

from glcic_hub.images import PictureLike, open_picture, to_uint8
from glcic_hub.masks import open_mask, transparent_pixels

GAP = 8
"""White pixels between two pictures."""


def side_by_side(
    image: PictureLike, mask: PictureLike | None, completed: PictureLike, *, invert_mask: bool = False
) -> Image.Image:
    """Puts the picture with the hole in white, the completed picture and the original in a row, upright, as RGB.

    Args:
        image: What the pipeline was given.
        mask: What the pipeline was given.
        completed: What the pipeline returned.
        invert_mask: What the pipeline was given.

    Returns:
        An RGB image, three times as wide as the picture and two gaps of 8 pixels.

    Raises:
        ValueError: As the pipeline.
    """
    opened = open_picture(image)
    hole = transparent_pixels(opened) if mask is None else open_mask(mask, invert=invert_mask)
    with_hole = np.where(hole[..., None], np.float32(1), opened.rgb)
    height, width = hole.shape
    row = Image.new("RGB", (3 * width + 2 * GAP, height), "white")
    for place, rgb in enumerate((with_hole, open_picture(completed).rgb, opened.rgb)):
        row.paste(Image.fromarray(to_uint8(rgb)), (place * (width + GAP), 0))
    return row

"""Masks: those that users give, and random ones for training and evaluation."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from functools import reduce
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageChops

from glcic_hub.images.exif import orientation_of
from glcic_hub.images.files import MAX_PIXELS, is_file, load_image, name_of
from glcic_hub.images.processing import ImageLike, OpenedImage, check_range, crop, load_pil, turn_upright

MASK_THRESHOLD = 0.2
"""Pixels of a mask above this belong to the hole. The authors' value: it takes in the soft edge of an antialiased mask
and leaves out the noise around the edge of one that was saved as JPEG."""


def open_mask(mask: ImageLike, *, invert: bool = False, max_pixels: int = MAX_PIXELS) -> NDArray[np.bool_]:
    """Opens a mask: white, 1 or True marks the pixels to complete.

    Soft masks (antialiased, or saved as JPEG) count from 0.2 of full white on. Of whole numbers, in files as in
    arrays, the greatest one decides what full white is: 1 if there is none above that, else 255, else 65535. Of
    colours the greatest channel counts; palettes are read by their colours, transparent pixels as black. A
    `UserWarning` says so if clearly marked pixels, such as those of a label, are too dark to be taken.

    Args:
        mask: A path or opened file, a PIL image, a NumPy array (H, W) or (H, W, C), or a tensor (H, W) or (C, H, W),
            with 1 or 3 channels, of which the greatest value counts; uint8 also with 4. Axes of length 1 before these
            do not matter.
        invert: Read black, 0 or False as the pixels to complete.
        max_pixels: The most pixels that a file may have.

    Returns:
        (H, W) boolean hole, turned as EXIF orientation says.

    Raises:
        FileNotFoundError: No such file.
        ValueError: The mask is broken, or of another kind, shape or range.
    """
    if is_file(mask):
        mask = _mask_from_pil(load_image(mask, max_pixels=max_pixels), name=name_of(mask))
    elif isinstance(mask, Image.Image):
        mask = _mask_from_pil(mask, name="mask")
    elif isinstance(mask, (np.ndarray, torch.Tensor)):
        mask = _mask_from_array(mask)
    else:
        raise ValueError(f"mask must be a path, file, PIL image, NumPy array or tensor, not {type(mask).__name__}")
    if mask.dtype == np.bool_:
        return ~mask if invert else mask
    if np.issubdtype(mask.dtype, np.floating):
        check_range(mask, "float mask")
        soft = mask.astype(np.float32)
        hole = np.asarray((1 - soft if invert else soft) > MASK_THRESHOLD)
        levels = np.rint(soft * 255).astype(np.uint8)
    else:
        full = _full_white(mask)
        if invert:
            hole = np.asarray(mask < math.ceil((1 - MASK_THRESHOLD) * full))
        else:
            hole = np.asarray(mask > math.floor(MASK_THRESHOLD * full))
        levels = mask if full < 256 and mask.dtype == np.uint8 else (mask // (full // 255 or 1)).astype(np.uint8)
    _warn_of_dark_marks(255 - levels if invert else levels, hole)
    return hole


def masks_of(masks: ImageLike | Sequence[ImageLike] | None, count: int) -> list[Any]:
    """Gives each of so many images its mask: of a list, of a batch (B, H, W) or with channels, or the same for all.

    Raises:
        ValueError: There are other than so many.
    """
    several = isinstance(masks, (list, tuple))
    if isinstance(masks, (np.ndarray, torch.Tensor)) and masks.ndim > 2 and len(masks) > 1:
        # An array (H, W, C) is one mask; a tensor (3, H, W) is three, unless it stands alone.
        several = masks.ndim == 4 or isinstance(masks, torch.Tensor) or masks.shape[2] not in (1, 3)
    each = list(masks) if several else [masks] * count  # type: ignore[arg-type]
    if len(each) != count:
        raise ValueError(f"{count} images and {len(each)} masks; give one mask for each image, or one for all")
    return each


def hole_of(
    image: OpenedImage, mask: ImageLike | None, *, invert: bool = False, max_pixels: int = MAX_PIXELS
) -> NDArray[np.bool_]:
    """Returns an image's hole, (H, W) boolean: that of its mask, or without one its transparent pixels.

    Raises:
        FileNotFoundError: As for `open_mask`.
        ValueError: As for `open_mask`, or there is neither a mask nor transparency.
    """
    return transparent_pixels(image) if mask is None else open_mask(mask, invert=invert, max_pixels=max_pixels)


def transparent_pixels(image: OpenedImage) -> NDArray[np.bool_]:
    """Returns the hole of pixels that are not fully opaque, (H, W) boolean.

    Raises:
        ValueError: The image has no transparency.
    """
    if image.alpha is None:
        raise ValueError("no mask was given, and the image has no transparent pixels to take it from")
    return np.asarray(image.alpha < 255)


def dilate(hole: NDArray[np.bool_], pixels: int) -> NDArray[np.bool_]:
    """Grows a hole (H, W) by all pixels that are at most so many from it.

    Raises:
        ValueError: There are fewer than none.
    """
    if pixels < 0:
        raise ValueError(f"a hole grows by 0 pixels or more, not by {pixels}")
    if not pixels or not hole.any():
        return hole
    return np.asarray(cv2.distanceTransform(1 - hole.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE) <= pixels)


class Rectangle(NamedTuple):
    """A rectangular hole, in pixels."""

    top: int
    left: int
    height: int
    width: int

    def mask(self, height: int, width: int) -> NDArray[np.uint8]:
        """Makes the (height, width) mask of 0 and 1; 1 = pixel to complete."""
        mask = np.zeros((height, width), np.uint8)
        mask[self.top : self.top + self.height, self.left : self.left + self.width] = 1
        return mask


def random_rectangle(random: np.random.Generator, height: int, width: int, hole_size: tuple[int, int]) -> Rectangle:
    """Draws one rectangular hole at a random place, as the paper's training does (sec. 3.4).

    Args:
        random: Source of randomness; the same state gives the same hole.
        height: Height of the image in pixels.
        width: Width of the image in pixels.
        hole_size: Least and greatest side of the hole in pixels, both included; height and width are drawn
            separately. [96, 128] in the paper.

    Raises:
        ValueError: The greatest hole does not fit.
    """
    least, greatest = hole_size
    if not 1 <= least <= greatest <= min(height, width):
        raise ValueError(f"a hole of [{least}, {greatest}] pixels does not fit an image of {width}x{height}")
    hole_height, hole_width = random.integers(least, greatest + 1, size=2)
    top = random.integers(0, height - hole_height + 1)
    left = random.integers(0, width - hole_width + 1)
    return Rectangle(int(top), int(left), int(hole_height), int(hole_width))


def random_strokes(random: np.random.Generator, height: int, width: int) -> NDArray[np.uint8]:
    """Draws free-form strokes, as one would paint them over what should go: 1 to 4 bent lines of round ends.

    Args:
        random: Source of randomness; the same state gives the same strokes.
        height: Height of the image in pixels, at least 16.
        width: Width of the image in pixels, at least 16.

    Returns:
        (height, width) of 0 and 1, 5 to 25 % of which are 1.
    """
    side = min(height, width)
    while True:
        mask = np.zeros((height, width), np.uint8)
        for _ in range(random.integers(1, 5)):
            thickness = max(1, int(random.integers(side // 20, side // 6)))
            point = random.integers(0, [width, height])
            angle = random.uniform(0, 2 * math.pi)
            for _ in range(random.integers(2, 9)):
                angle += random.uniform(-1, 1)
                step = random.uniform(0.05, 0.25) * side
                following = np.rint(point + step * np.array([math.cos(angle), math.sin(angle)])).astype(int)
                cv2.line(mask, point.tolist(), following.tolist(), 1, thickness)
                point = following
        if 0.05 <= mask.mean() <= 0.25:
            return mask


def _mask_from_pil(image: Image.Image, name: str) -> NDArray[Any]:
    """Reads the (H, W) values of a mask image, of several channels the greatest, turned upright."""
    load_pil(image, name)
    orientation = orientation_of(image)
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "black"), image.convert("RGBA"))
    if image.mode[0] in "IF":
        return np.asarray(turn_upright(image, orientation))
    if image.mode not in ("1", "L"):
        image = reduce(ImageChops.lighter, image.convert("RGB").split())
    upright = turn_upright(image, orientation)
    values = np.zeros((upright.height, upright.width), np.uint8)
    if box := upright.getbbox():  # most of a mask is black, which need not be copied
        left, top, right, bottom = box
        values[top:bottom, left:right] = np.asarray(crop(upright, box).convert("L"))
    return values


def _mask_from_array(mask: NDArray[Any] | torch.Tensor) -> NDArray[Any]:
    """Reads the (H, W) values of an array or a tensor."""
    if isinstance(mask, torch.Tensor):
        values = (mask.detach().cpu().float() if mask.is_floating_point() else mask.cpu()).numpy()
    else:
        values = np.asarray(mask)
    while values.ndim > 2 and len(values) == 1:
        values = values[0]
    if values.ndim == 3 and isinstance(mask, torch.Tensor):
        values = values.transpose(1, 2, 0)
    if values.ndim == 3 and values.shape[2] == 4 and values.dtype == np.uint8:
        return _mask_from_pil(Image.fromarray(np.ascontiguousarray(values)), "mask")
    if values.ndim == 3 and values.shape[2] in (1, 3):
        values = values.max(axis=2)
    if values.ndim != 2:
        raise ValueError(f"mask must be (H, W), or have 1 or 3 channels; got shape {tuple(mask.shape)}")
    return values


def _full_white(mask: NDArray[Any]) -> int:
    """Finds the whole number that a mask's greatest one says is white: 1, 255 or 65535.

    Raises:
        ValueError: They are no whole numbers, or none of these three can be.
    """
    if not np.issubdtype(mask.dtype, np.integer):
        raise ValueError(f"mask must be bool, whole numbers or float, not {mask.dtype}")
    least, greatest = (int(mask.min()), int(mask.max())) if mask.size else (0, 0)
    if least >= 0 and greatest <= 255:
        return 255 if greatest > 1 else 1
    if least < 0 or not MASK_THRESHOLD * 65535 < greatest <= 65535:
        raise ValueError(
            f"mask of whole numbers must be in [0, 255], and is in [{least}, {greatest}]; of 16 bits white is 65535"
        )
    return 65535


def _warn_of_dark_marks(levels: NDArray[np.uint8], hole: NDArray[np.bool_]) -> None:
    """Warns if pixels are marked and not taken, and that not for a soft edge, a feather or noise.

    Those make many levels, each in few places that are flat. Labels make few levels, nearly all of them flat.

    Args:
        levels: (H, W), 0 to 255, the hole the brighter part.
        hole: (H, W), what was taken of that.
    """
    levels = np.ascontiguousarray(levels)
    dark = (
        np.ravel(cv2.calcHist([levels], [0], (~hole).view(np.uint8), [256], [0, 256]))
        if levels.size
        else np.zeros(256)
    )
    dark[: int(levels.min(initial=255)) + 1] = 0
    if not (marked := int(dark.sum())):
        return
    most_common = np.argsort(dark)[-3:]
    flat = sum(int(cv2.erode((levels == level).astype(np.uint8), np.ones((3, 3))).sum()) for level in most_common)
    if flat > marked / 2 or not hole.any():
        greatest = int(np.flatnonzero(dark)[-1])
        warnings.warn(
            f"{marked} pixels of the mask are marked by values of up to {greatest} of 255, which are not above "
            f"{MASK_THRESHOLD} of white, and are not taken; make them white if they belong to the hole",
            stacklevel=3,
        )

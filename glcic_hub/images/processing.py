"""Images of every kind and mode, as the pipeline works on them, and back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from glcic_hub.files import first_line
from glcic_hub.images.boxes import Box
from glcic_hub.images.files import load_image, load_pixels, orientation_of, read_exif

AnyImage: TypeAlias = Image.Image | NDArray[Any] | torch.Tensor
"""A completed image, of the input's type; a PIL image for a path."""

ImageLike: TypeAlias = str | Path | AnyImage
"""An image or a mask as a user may give it: a path, PIL image, NumPy array or PyTorch tensor."""

Pixels: TypeAlias = NDArray[np.uint8] | NDArray[np.float32]
"""(H, W, 3) RGB: 0 to 255 as uint8, or [0, 1] as float32."""

MIN_IMAGE_SIDE = 4
"""The least height and width in pixels: below, the network has not a single position at its lowest resolution."""

_EDITABLE_MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK"})

_TURNS = {  # EXIF orientation: what turns the stored image upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class OpenedImage:
    """An image as the pipeline works on it: upright, RGB, and with the way back.

    Attributes:
        rgb: (H, W, 3) uint8, or float32 in [0, 1], turned as EXIF orientation says, or what gives parts of that.
        alpha: (H, W) uint8, 0 = transparent; None if the image has no transparency.
        put: Takes completed patches, and whether what they complete is to become opaque or keep its alpha; gives a new
            image of the kind that was opened, completed where the patches say and equal to the original bit for bit
            elsewhere.
        name: What messages call it.
    """

    rgb: Pixels | PilPixels
    alpha: NDArray[np.uint8] | None
    put: Callable[[Sequence[Patch], bool], AnyImage]
    name: str

    def whole(self) -> Pixels:
        """All of `rgb`.

        Raises:
            ValueError: There is NaN, infinity or a value outside [0, 1].
        """
        if not isinstance(self.rgb, PilPixels) and self.rgb.dtype != np.uint8:
            check_range(self.rgb, self.name)
        height, width, _ = self.rgb.shape
        return self.rgb[slice(0, height), slice(0, width)]

    def without(self, hole: NDArray[np.bool_]) -> OpenedImage:
        """Returns the image with black for what its hole (H, W) holds, if that is not in [0, 1].

        Raises:
            ValueError: There is NaN, infinity or a value outside [0, 1] outside the hole.
        """
        if isinstance(self.rgb, PilPixels) or self.rgb.dtype == np.uint8:
            return self
        if self.rgb.min() >= 0 and self.rgb.max() <= 1:  # and no NaN
            return self
        check_range(self.rgb[~hole], self.name)
        return replace(self, rgb=np.where(hole[..., None], np.float32(0), self.rgb))


class PilPixels:
    """The pixels of an 8-bit PIL image as an array (H, W, 3) of uint8 RGB, of which only what is asked for is made."""

    def __init__(self, image: Image.Image) -> None:
        self.image = image
        self.shape = (image.height, image.width, 3)

    def __getitem__(self, slices: tuple[slice, slice]) -> NDArray[np.uint8]:
        """The part (h, w, 3) within slices that have a begin and an end."""
        rows, columns = slices
        part = self.image.crop((columns.start, rows.start, columns.stop, rows.stop))
        if part.has_transparency_data:  # Pillow warns of a palette whose transparency would be lost
            part = part.convert("RGBA")
        return np.asarray(part.convert("RGB"))


class Patch(NamedTuple):
    """A completed part of an image."""

    box: Box
    fill: NDArray[np.float32]  # (height, width, 3) of the box, in [0, 1]
    hole: NDArray[np.bool_]  # (height, width) of the box: which of its pixels are completed


def open_image(image: ImageLike) -> OpenedImage:
    """Opens an image of any kind that the pipeline takes.

    Args:
        image: A path, a PIL image, a uint8 or float NumPy array (H, W, 3), or a float tensor (3, H, W); floats in
            [0, 1]. RGB, not BGR.

    Raises:
        FileNotFoundError: No such file.
        ValueError: The image is broken, of another kind or shape, or less than 4 pixels high or wide.
    """
    if isinstance(image, (str, Path)):
        opened = _from_pil(load_image(image), name=str(image))
    elif isinstance(image, Image.Image):
        opened = _from_pil(image, name="image")
    elif isinstance(image, np.ndarray):
        opened = _from_array(image)
    elif isinstance(image, torch.Tensor):
        opened = _from_tensor(image)
    else:
        raise ValueError(f"image must be a path, PIL image, NumPy array or tensor, not {type(image).__name__}")
    height, width = opened.rgb.shape[:2]
    if min(height, width) < MIN_IMAGE_SIDE:
        raise ValueError(f"image is {width}x{height} pixels; the least is {MIN_IMAGE_SIDE}x{MIN_IMAGE_SIDE}")
    return opened


def load_pil(image: Image.Image, name: str) -> Image.Exif:
    """Loads a PIL image's pixels, and gives what its EXIF says of the photograph (`read_exif`).

    Raises:
        ValueError: It is broken or closed, or has 16 bits a channel in colour.
    """
    try:
        load_pixels(image)
    except Exception as error:  # Pillow's plugins raise a dozen kinds for broken files
        raise ValueError(f"cannot read {name}: {first_line(error)}") from None
    return read_exif(image)


def turn_upright(image: Image.Image, orientation: int) -> Image.Image:
    """Turns an image as its EXIF orientation says that it is to be displayed."""
    turn = _TURNS.get(orientation)
    return image if turn is None else image.transpose(turn)


def _turn_back(image: Image.Image, orientation: int) -> Image.Image:
    return turn_upright(image, {6: 8, 8: 6}.get(orientation, orientation))


def _from_pil(image: Image.Image, name: str) -> OpenedImage:
    exif = load_pil(image, name)
    orientation = orientation_of(exif)
    if image.mode in ("1", "L", "RGB") and "transparency" in image.info:
        stored = image.convert("RGBA" if image.mode == "RGB" else "LA")  # one colour stands for transparency
    elif image.mode == "I" or image.mode.startswith("I;16"):
        stored = _to_uint16(image, name)
    else:
        stored = image
    info = {**stored.info, "exif": exif.tobytes() if exif else b""}
    if stored.mode in ("I;16", "F"):
        grey = np.asarray(turn_upright(stored, orientation)).astype(np.float32)
        grey /= 65535 if stored.mode == "I;16" else 1
        rgb = np.repeat(grey[..., None], 3, axis=2)
        return OpenedImage(
            rgb, None, lambda patches, _: _put_grey(stored, info, orientation, patches), f"{name} (mode {stored.mode})"
        )
    if stored.mode not in _EDITABLE_MODES:
        raise ValueError(f"{name} has the mode {stored.mode}; convert it to RGB first")
    upright = turn_upright(stored, orientation)
    alpha = np.asarray(upright.convert("RGBA").getchannel("A")) if stored.has_transparency_data else None
    return OpenedImage(PilPixels(upright), alpha, lambda *what: _put_pil(upright, info, orientation, *what), name)


def _to_uint16(image: Image.Image, name: str) -> Image.Image:
    """A grey image of mode I or any byte order of I;16 as I;16."""
    values = np.asarray(image)
    if values.min() < 0 or values.max() > 65535:
        raise ValueError(
            f"{name} (mode {image.mode}) must be in [0, 65535], and is in [{values.min()}, {values.max()}]"
        )
    wide = Image.fromarray(values.astype(np.uint16))
    wide.info = dict(image.info)
    return wide


def _put_pil(
    upright: Image.Image, info: dict[Any, Any], orientation: int, patches: Sequence[Patch], opaque: bool
) -> Image.Image:
    """Puts completed patches into a copy of an 8-bit PIL image, in its mode, turned as it was stored."""
    result = upright.copy()
    for box, completed, hole in patches:
        fill = Image.fromarray(to_uint8(completed))
        if upright.mode in ("P", "PA"):
            fill = _to_palette(fill, upright)
        elif upright.mode != "RGB":
            fill = fill.convert(upright.mode)
        place = (box.left, box.top, box.right, box.bottom)
        if upright.mode in ("LA", "PA", "RGBA") and not opaque:
            fill.putalpha(upright.crop(place).getchannel("A"))
        result.paste(fill, place, mask=Image.fromarray(hole))
    result = _turn_back(result, orientation)
    result.info = dict(info)
    return result


def _to_palette(fill: Image.Image, stored: Image.Image) -> Image.Image:
    """The fill in the opaque colours of the stored image's palette (the least transparent if none is), dithered."""
    colours = np.array(stored.getpalette("RGB"), np.uint8).reshape(-1, 3)
    opacity = np.full(len(colours), 255)
    if stored.mode == "P":
        swatch = stored.resize((len(colours), 1))  # one pixel of each colour
        swatch.putdata(range(len(colours)))
        opacity = np.asarray(swatch.convert("RGBA"))[0, :, 3]
    usable = np.flatnonzero(opacity == opacity.max())
    palette = Image.new("P", (1, 1))
    palette.putpalette(colours[usable].tobytes())
    indices = np.asarray(fill.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG))
    mapped = Image.fromarray(usable.astype(np.uint8)[indices])
    mapped.putpalette(colours.tobytes())
    return mapped if stored.mode == "P" else mapped.convert("PA")


def _put_grey(stored: Image.Image, info: dict[Any, Any], orientation: int, patches: Sequence[Patch]) -> Image.Image:
    """Puts completed patches into a copy of an I;16 or F image; Pillow cannot paste into these."""
    values = np.array(turn_upright(stored, orientation))
    for box, completed, hole in patches:
        grey = completed @ np.array([0.299, 0.587, 0.114], np.float32)
        fill = grey if stored.mode == "F" else np.rint(grey * 65535)
        values[box.slices][hole] = fill[hole]
    result = _turn_back(Image.fromarray(values), orientation)
    result.info = dict(info)
    return result


def _from_array(image: NDArray[Any]) -> OpenedImage:
    if image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"image array must be (H, W, 3), got {image.shape}")
    if image.dtype == np.uint8:
        rgb = image
    elif np.issubdtype(image.dtype, np.floating):
        with np.errstate(over="ignore"):  # infinity is refused, or in the hole
            rgb = image.astype(np.float32, copy=False)
    else:
        raise ValueError(f"image array must be uint8 or float, not {image.dtype}")

    def put(patches: Sequence[Patch], _: bool) -> NDArray[Any]:
        result = image.copy()
        for box, completed, hole in patches:
            fill = to_uint8(completed) if image.dtype == np.uint8 else completed.astype(image.dtype)
            result[box.slices][hole] = fill[hole]
        return result

    return OpenedImage(rgb, None, put, "image array")


def _from_tensor(image: torch.Tensor) -> OpenedImage:
    if image.ndim != 3 or image.shape[0] != 3 or not image.is_floating_point():
        raise ValueError(f"image tensor must be float (3, H, W), got {image.dtype} {tuple(image.shape)}")
    image = image.detach()
    rgb = image.cpu().float().permute(1, 2, 0).numpy()

    def put(patches: Sequence[Patch], _: bool) -> torch.Tensor:
        result = image.clone()
        for box, completed, hole in patches:
            fill = torch.from_numpy(completed).permute(2, 0, 1).to(image)
            area = (slice(None), *box.slices)
            result[area] = torch.where(torch.from_numpy(hole).to(image.device), fill, result[area])
        return result

    return OpenedImage(rgb, None, put, "image tensor")


def check_range(values: NDArray[Any], name: str) -> None:
    """Raises a ValueError that names `name` and the range, unless all values are in [0, 1]."""
    if not values.size:
        return
    least, greatest = values.min(), values.max()
    if not np.isfinite([least, greatest]).all():
        raise ValueError(f"{name} holds NaN or infinity")
    if least < 0 or greatest > 1:
        raise ValueError(f"{name} must be in [0, 1], and is in [{least:.4g}, {greatest:.4g}]")


def to_uint8(rgb: Pixels) -> NDArray[np.uint8]:
    """Rounds values in [0, 1] to 0 ... 255; uint8 is left as it is."""
    if rgb.dtype == np.uint8:
        return rgb.astype(np.uint8, copy=False)
    return np.rint(rgb * 255).astype(np.uint8)


def to_unit(rgb: Pixels) -> NDArray[np.float32]:
    """Values in [0, 1] as float32, in a new array."""
    unit = rgb.astype(np.float32)
    if rgb.dtype == np.uint8:
        unit /= 255
    return unit

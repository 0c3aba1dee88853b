"""Images of every kind and mode, as the pipeline works on them, and back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple, TypeAlias, TypeGuard

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from glcic_hub.files import first_line
from glcic_hub.images.boxes import Box
from glcic_hub.images.exif import orientation_of, read_exif
from glcic_hub.images.files import MAX_PIXELS, is_file, load_image, load_pixels, name_of

AnyImage: TypeAlias = Image.Image | NDArray[Any] | torch.Tensor
"""A completed image, of the input's type; a PIL image for a path or file."""

OutputType: TypeAlias = Literal["pil", "np", "pt"]
"""Kinds of images that a completed one can be turned into: PIL image, NumPy array, PyTorch tensor."""

ImageLike: TypeAlias = str | Path | BinaryIO | AnyImage
"""An image or a mask as a user may give it: a path, opened file, PIL image, NumPy array or PyTorch tensor."""

Pixels: TypeAlias = NDArray[np.uint8] | NDArray[np.float32]
"""(H, W, 3) RGB: 0 to 255 as uint8, or [0, 1] as float32."""

MIN_IMAGE_SIDE = 4
"""The least height and width in pixels: below, the network has not a single position at its lowest resolution."""

_CHANNELS = (1, 3, 4)
"""Numbers of channels of arrays and tensors: grey, RGB, RGB with alpha."""

_BRIGHTNESS = np.array([0.299, 0.587, 0.114], np.float32)

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
        """Returns all of `rgb`.

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
        """Returns the part (h, w, 3) within slices that have a begin and an end."""
        rows, columns = slices
        part = crop(self.image, (columns.start, rows.start, columns.stop, rows.stop))
        if part.has_transparency_data:  # Pillow warns of a palette whose transparency would be lost
            part = part.convert("RGBA")
        return np.asarray(part.convert("RGB"))


class Patch(NamedTuple):
    """A completed part of an image."""

    box: Box
    fill: NDArray[np.float32]  # (height, width, 3) of the box, in [0, 1]
    hole: NDArray[np.bool_]  # (height, width) of the box: which of its pixels are completed


def open_image(image: ImageLike, *, max_pixels: int = MAX_PIXELS) -> OpenedImage:
    """Opens an image of any kind that the pipeline takes.

    Args:
        image: A path or opened file, a PIL image, a NumPy array (H, W) or (H, W, C), or a tensor (H, W) or (C, H, W),
            with 1, 3 or 4 channels: grey, RGB (not BGR), RGB and alpha. Arrays and tensors of uint8, or float in
            [0, 1].
        max_pixels: The most pixels that a file may have.

    Raises:
        FileNotFoundError: No such file.
        ValueError: The image is broken, of another kind or shape, or less than 4 pixels high or wide.
    """
    if is_file(image):
        opened = _from_pil(load_image(image, max_pixels=max_pixels), name=name_of(image))
    elif isinstance(image, Image.Image):
        opened = _from_pil(image, name="image")
    elif isinstance(image, np.ndarray):
        opened = _from_array(image)
    elif isinstance(image, torch.Tensor):
        opened = _from_tensor(image)
    else:
        raise ValueError(f"image must be a path, file, PIL image, NumPy array or tensor, not {type(image).__name__}")
    height, width = opened.rgb.shape[:2]
    if min(height, width) < MIN_IMAGE_SIDE:
        raise ValueError(f"image is {width}x{height} pixels; the least is {MIN_IMAGE_SIDE}x{MIN_IMAGE_SIDE}")
    return opened


def is_batch(image: object) -> TypeGuard[NDArray[Any] | torch.Tensor]:
    """Tells whether this is an array (B, H, W, C) or a tensor (B, C, H, W) of images."""
    return isinstance(image, (np.ndarray, torch.Tensor)) and image.ndim == 4


def stack(images: Sequence[Any]) -> NDArray[Any] | torch.Tensor:
    """Makes a batch of images of one size, arrays or tensors."""
    return torch.stack(list(images)) if isinstance(images[0], torch.Tensor) else np.stack(images)


def as_type(image: AnyImage, output_type: OutputType) -> AnyImage:
    """Turns an image into a PIL image, an array or a tensor.

    Args:
        image: What the pipeline gives.
        output_type: `"pil"`: a PIL image as it is, all else with 8 bits, in RGB or RGBA. `"np"`: float32 in [0, 1],
            (H, W, 3), or (H, W, 4) with alpha, upright. `"pt"`: the same as a tensor (3, H, W) or (4, H, W).
    """
    if output_type == "pil" and isinstance(image, Image.Image):
        return image
    opened = open_image(image)
    pixels = opened.whole()
    if output_type == "pil":
        result = Image.fromarray(to_uint8(pixels))
        if opened.alpha is not None:
            result.putalpha(Image.fromarray(opened.alpha))
        return result
    unit = to_unit(pixels)
    if opened.alpha is not None:
        unit = np.dstack([unit, to_unit(opened.alpha)])
    if output_type == "np":
        return unit
    return torch.from_numpy(unit).permute(2, 0, 1).contiguous()


def load_pil(image: Image.Image, name: str) -> None:
    """Loads a PIL image's pixels.

    Raises:
        ValueError: It is broken or closed, or of a kind that would lose bits or bands.
    """
    try:
        load_pixels(image)
    except Exception as error:  # Pillow's plugins raise a dozen kinds for broken files
        raise ValueError(f"cannot read {name}: {first_line(error)}") from None


def turn_upright(image: Image.Image, orientation: int) -> Image.Image:
    """Turns an image as its EXIF orientation says that it is to be displayed."""
    turn = _TURNS.get(orientation)
    return image if turn is None else image.transpose(turn)


def crop(image: Image.Image, box: tuple[int, int, int, int]) -> Image.Image:
    """Crops an image to left, top, right, bottom, however large; Pillow's own way limits the pixels as of a file."""
    left, top, right, bottom = box
    return image.resize((right - left, bottom - top), Image.Resampling.NEAREST, box=box)


def _from_pil(image: Image.Image, name: str) -> OpenedImage:
    # Convert modes that cannot hold a fill as they are.
    load_pil(image, name)
    orientation = orientation_of(image)
    if image.mode in ("1", "L", "RGB") and "transparency" in image.info:
        stored = image.convert("RGBA" if image.mode == "RGB" else "LA")  # one colour stands for transparency
    elif image.mode == "I" or image.mode.startswith("I;16"):
        stored = _to_uint16(image, name)
    else:
        stored = image

    def restore(completed: Image.Image) -> Image.Image:
        """Turns a completed image as it was stored, with what came with it."""
        completed = turn_upright(completed, {6: 8, 8: 6}.get(orientation, orientation))
        exif = read_exif(image)
        completed.info = {**stored.info, "exif": exif.tobytes() if exif else b""}
        return completed

    # Work on grey of 16 bits and of floats in float32, else on 8 bits, copied in parts.
    if stored.mode in ("I;16", "F"):
        turned = turn_upright(stored, orientation)
        grey = np.asarray(turned).astype(np.float32)
        grey /= 65535 if stored.mode == "I;16" else 1
        rgb = np.repeat(grey[..., None], 3, axis=2)
        return OpenedImage(
            rgb,
            None,
            lambda patches, _: restore(_put_grey(np.asarray(turned), patches)),
            f"{name} (mode {stored.mode})",
        )
    if stored.mode not in _EDITABLE_MODES:
        raise ValueError(f"{name} has the mode {stored.mode}; convert it to RGB first")
    upright = turn_upright(stored, orientation)
    alpha = np.asarray(upright.convert("RGBA").getchannel("A")) if stored.has_transparency_data else None
    return OpenedImage(PilPixels(upright), alpha, lambda *what: restore(_put_pil(upright, *what)), name)


def _to_uint16(image: Image.Image, name: str) -> Image.Image:
    """Converts a grey image of mode I or any byte order of I;16 to I;16."""
    values = np.asarray(image)
    if values.min() < 0 or values.max() > 65535:
        raise ValueError(
            f"{name} (mode {image.mode}) must be in [0, 65535], and is in [{values.min()}, {values.max()}]"
        )
    wide = Image.fromarray(values.astype(np.uint16))
    wide.info = dict(image.info)
    return wide


def _put_pil(upright: Image.Image, patches: Sequence[Patch], opaque: bool) -> Image.Image:
    """Puts completed patches into a copy of an 8-bit PIL image, in its mode."""
    result = upright.copy()
    for box, completed, hole in patches:
        fill = Image.fromarray(to_uint8(completed))
        if upright.mode in ("P", "PA"):
            fill = _to_palette(fill, upright)
        elif upright.mode != "RGB":
            fill = fill.convert(upright.mode)
        place = (box.left, box.top, box.right, box.bottom)
        if upright.mode in ("LA", "PA", "RGBA") and not opaque:
            fill.putalpha(crop(upright, place).getchannel("A"))
        result.paste(fill, place, mask=Image.fromarray(hole))
    return result


def _to_palette(fill: Image.Image, stored: Image.Image) -> Image.Image:
    """Dithers the fill in the opaque colours of the stored image's palette (the least transparent if none is)."""
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


def _put_grey(upright: NDArray[Any], patches: Sequence[Patch]) -> Image.Image:
    """Puts completed patches into a copy of the values (H, W) of an I;16 or F image, which Pillow cannot do."""
    values = upright.copy()
    for box, completed, hole in patches:
        grey = completed @ _BRIGHTNESS
        fill = np.rint(grey * 65535) if values.dtype == np.uint16 else grey
        values[box.slices][hole] = fill[hole]
    return Image.fromarray(values)


def _from_array(image: NDArray[Any]) -> OpenedImage:
    image = np.asarray(image)  # np.matrix has no third axis
    pixels = image[..., None] if image.ndim == 2 else image
    if pixels.ndim != 3 or pixels.shape[2] not in _CHANNELS:
        raise ValueError(f"image array must be (H, W), or (H, W, C) with 1, 3 or 4 channels, got {image.shape}")
    if image.dtype != np.uint8 and not np.issubdtype(image.dtype, np.floating):
        raise ValueError(f"image array must be uint8, or float in [0, 1], not {image.dtype}")

    def put(patches: Sequence[Patch], opaque: bool) -> NDArray[Any]:
        result = image.copy()
        for box, completed, hole in patches:
            part = result.reshape(pixels.shape)[box.slices]
            colours, full = _in_channels(completed, pixels)
            part[hole, : colours.shape[2]] = colours[hole]
            if opaque:
                part[hole, 3] = full
        return result

    return _from_pixels(pixels, put, "image array")


def _from_tensor(image: torch.Tensor) -> OpenedImage:
    image = image.detach()
    planes = image[None] if image.ndim == 2 else image
    if planes.ndim != 3 or planes.shape[0] not in _CHANNELS:
        raise ValueError(
            f"image tensor must be (H, W), or (C, H, W) with 1, 3 or 4 channels, got {tuple(image.shape)}"
        )
    if image.dtype != torch.uint8 and not image.is_floating_point():
        raise ValueError(f"image tensor must be uint8, or float in [0, 1], not {image.dtype}")
    pixels = (planes.float() if image.is_floating_point() else planes).permute(1, 2, 0).cpu().numpy()

    def put(patches: Sequence[Patch], opaque: bool) -> torch.Tensor:
        result = image.clone()
        for box, completed, hole in patches:
            part = result.reshape(planes.shape)[(slice(None), *box.slices)]
            colours, full = _in_channels(completed, pixels)
            inside = torch.from_numpy(hole).to(image.device)
            part[: colours.shape[2], inside] = torch.from_numpy(colours[hole].T).to(image)
            if opaque:
                part[3, inside] = full
        return result

    return _from_pixels(pixels, put, "image tensor")


def _from_pixels(pixels: NDArray[Any], put: Callable[[Sequence[Patch], bool], AnyImage], name: str) -> OpenedImage:
    """Opens pixels (H, W, C) of uint8 or float."""
    with np.errstate(over="ignore"):  # infinity is refused, or in the hole
        unified = pixels if pixels.dtype == np.uint8 else pixels.astype(np.float32, copy=False)
    channels = pixels.shape[2]
    rgb = np.broadcast_to(unified, (*pixels.shape[:2], 3)) if channels == 1 else unified[..., :3]
    alpha: NDArray[np.uint8] | None = None
    if channels == 4 and pixels.dtype == np.uint8:
        alpha = pixels[..., 3]
    elif channels == 4:
        alpha = (np.nan_to_num(unified[..., 3]).clip(0, 1) * 255).astype(np.uint8)  # 1 alone becomes 255, opaque
    return OpenedImage(rgb, alpha, put, name)


def _in_channels(completed: NDArray[np.float32], pixels: NDArray[Any]) -> tuple[NDArray[Any], int]:
    """Converts a fill (h, w, 3) to the channels and dtype of pixels (H, W, C), opaque where it should be."""
    colours = (completed @ _BRIGHTNESS)[..., None] if pixels.shape[2] == 1 else completed
    return (to_uint8(colours), 255) if pixels.dtype == np.uint8 else (colours.astype(pixels.dtype), 1)


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

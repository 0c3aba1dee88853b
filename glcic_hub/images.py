"""Pictures of every kind and mode, as the pipeline works on them, and back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from glcic_hub.files import first_line
from glcic_hub.picture_files import load_image, load_pixels, orientation_of, read_exif

Picture: TypeAlias = Image.Image | NDArray[Any] | torch.Tensor
"""What a completed picture is: the kind that went in; a PIL image for a path."""

PictureLike: TypeAlias = str | Path | Picture
"""A picture or a mask as a user may give it: a path, PIL image, NumPy array or PyTorch tensor."""

LEAST_SIDE = 4
"""The least height and width in pixels: below, the network has not a single position at its lowest resolution."""

_EDITABLE_MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK"})

_TURNS = {  # EXIF orientation: what turns the stored picture upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class OpenedPicture:
    """A picture as the pipeline works on it: upright, RGB, and with the way back.

    Attributes:
        rgb: (H, W, 3) float32 in [0, 1], turned as EXIF orientation says.
        alpha: (H, W) float32 in [0, 1], 0 = transparent; None if the picture has no transparency.
        put: Takes a completed (H, W, 3) float32 picture in [0, 1], the (H, W) boolean hole, and whether the hole is to
            become opaque or keep its alpha; gives a new picture of the kind that was opened, completed inside the hole
            and equal to the original bit for bit outside it.
    """

    rgb: NDArray[np.float32]
    alpha: NDArray[np.float32] | None
    put: Callable[[NDArray[np.float32], NDArray[np.bool_], bool], Picture]


def open_picture(image: PictureLike) -> OpenedPicture:
    """Opens a picture of any kind that the pipeline takes.

    Args:
        image: A path, a PIL image, a uint8 or float NumPy array (H, W, 3), or a float tensor (3, H, W); floats in
            [0, 1]. RGB, not BGR.

    Raises:
        FileNotFoundError: No such file.
        ValueError: The picture is broken, of another kind, shape or range, or less than 4 pixels high or wide.
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
    if min(height, width) < LEAST_SIDE:
        raise ValueError(f"image is {width}x{height} pixels; the least is {LEAST_SIDE}x{LEAST_SIDE}")
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
    """Turns a picture as its EXIF orientation says that it is to be displayed."""
    turn = _TURNS.get(orientation)
    return image if turn is None else image.transpose(turn)


def _turn_back(image: Image.Image, orientation: int) -> Image.Image:
    return turn_upright(image, {6: 8, 8: 6}.get(orientation, orientation))


def _from_pil(image: Image.Image, name: str) -> OpenedPicture:
    exif = load_pil(image, name)
    orientation = orientation_of(exif)
    if image.mode in ("1", "L", "RGB") and "transparency" in image.info:
        stored = image.convert("RGBA" if image.mode == "RGB" else "LA")  # one colour stands for transparency
    elif image.mode == "I" or image.mode.startswith("I;16"):
        stored = _to_uint16(image, name)
    else:
        stored = image.copy()
    stored.info["exif"] = exif.tobytes() if exif else b""
    if stored.mode in ("I;16", "F"):
        grey = np.asarray(turn_upright(stored, orientation)).astype(np.float32)
        grey /= 65535 if stored.mode == "I;16" else 1
        check_range(grey, f"{name} (mode {stored.mode})")
        rgb = np.repeat(grey[..., None], 3, axis=2)
        return OpenedPicture(rgb, None, lambda completed, hole, _: _put_grey(stored, orientation, completed, hole))
    if stored.mode not in _EDITABLE_MODES:
        raise ValueError(f"{name} has the mode {stored.mode}; convert it to RGB first")
    transparent = stored.has_transparency_data
    upright = turn_upright(stored.convert("RGBA" if transparent else "RGB"), orientation)
    channels = np.asarray(upright, np.float32) / np.float32(255)
    rgb, alpha = (np.ascontiguousarray(channels[..., :3]), channels[..., 3]) if transparent else (channels, None)
    return OpenedPicture(rgb, alpha, lambda *what: _put_pil(stored, orientation, *what))


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
    stored: Image.Image, orientation: int, completed: NDArray[np.float32], hole: NDArray[np.bool_], opaque: bool
) -> Image.Image:
    """Puts the completed pixels into a copy of an 8-bit PIL image, in its mode, turned as it is stored."""
    mask = _turn_back(Image.fromarray(hole), orientation)
    fill = _turn_back(Image.fromarray(to_uint8(completed)), orientation)
    if stored.mode in ("P", "PA"):
        fill = _to_palette(fill, stored)
    elif stored.mode != "RGB":
        fill = fill.convert(stored.mode)
    if stored.mode in ("LA", "PA", "RGBA") and not opaque:
        fill.putalpha(stored.getchannel("A"))
    result = stored.copy()
    result.paste(fill, mask=mask)
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


def _put_grey(
    stored: Image.Image, orientation: int, completed: NDArray[np.float32], hole: NDArray[np.bool_]
) -> Image.Image:
    """Puts the completed pixels into a copy of an I;16 or F image; Pillow cannot paste into these."""
    grey = completed @ np.array([0.299, 0.587, 0.114], np.float32)
    fill = np.asarray(_turn_back(Image.fromarray(grey), orientation))
    mask = np.asarray(_turn_back(Image.fromarray(hole), orientation))
    values = np.array(stored)
    values[mask] = fill[mask] if stored.mode == "F" else np.rint(fill[mask] * 65535)
    result = Image.fromarray(values)
    result.info = dict(stored.info)
    return result


def _from_array(image: NDArray[Any]) -> OpenedPicture:
    if image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"image array must be (H, W, 3), got {image.shape}")
    if image.dtype == np.uint8:
        rgb = image.astype(np.float32) / np.float32(255)
    elif np.issubdtype(image.dtype, np.floating):
        check_range(image, "image array")
        rgb = image.astype(np.float32)
    else:
        raise ValueError(f"image array must be uint8 or float, not {image.dtype}")

    def put(completed: NDArray[np.float32], hole: NDArray[np.bool_], _: bool) -> NDArray[Any]:
        result = image.copy()
        fill = to_uint8(completed) if image.dtype == np.uint8 else completed.astype(image.dtype)
        result[hole] = fill[hole]
        return result

    return OpenedPicture(rgb, None, put)


def _from_tensor(image: torch.Tensor) -> OpenedPicture:
    if image.ndim != 3 or image.shape[0] != 3 or not image.is_floating_point():
        raise ValueError(f"image tensor must be float (3, H, W), got {image.dtype} {tuple(image.shape)}")
    image = image.detach()
    rgb = image.cpu().float().permute(1, 2, 0).contiguous().numpy()
    check_range(rgb, "image tensor")

    def put(completed: NDArray[np.float32], hole: NDArray[np.bool_], _: bool) -> torch.Tensor:
        fill = torch.from_numpy(completed).permute(2, 0, 1).to(image)
        return torch.where(torch.from_numpy(hole).to(image.device), fill, image)

    return OpenedPicture(rgb, None, put)


def check_range(values: NDArray[Any], name: str) -> None:
    """Raises a ValueError that names `name` and the range, unless all values are in [0, 1]."""
    if not values.size:
        return
    least, greatest = values.min(), values.max()
    if not np.isfinite([least, greatest]).all():
        raise ValueError(f"{name} holds NaN or infinity")
    if least < 0 or greatest > 1:
        raise ValueError(f"{name} must be in [0, 1], and is in [{least:.4g}, {greatest:.4g}]")


def to_uint8(rgb: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Rounds values in [0, 1] to 0 ... 255."""
    return np.rint(rgb * 255).astype(np.uint8)

"""Pictures in and out: the one place that knows about files and modes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from glcic_hub.files import write_whole

Picture: TypeAlias = Image.Image | NDArray[Any] | torch.Tensor
"""What a completed picture is: the kind that went in; a PIL image for a path."""

PictureLike: TypeAlias = str | Path | Picture
"""A picture or a mask as a user may give it: a path, PIL image, NumPy array or PyTorch tensor."""

LEAST_SIDE = 4
"""The least height and width in pixels: below, the network has not a single position at its lowest resolution."""

PICTURE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif"})

_FORMATS = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".webp": "WEBP", ".tif": "TIFF", ".tiff": "TIFF"}
_MODES = {
    "JPEG": {"L", "RGB", "CMYK"},
    "PNG": {"1", "L", "LA", "P", "RGB", "RGBA", "I;16"},
    "WEBP": {"RGB", "RGBA"},
    "TIFF": {"1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "F"},
}
_SAVE_OPTIONS: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 95, "subsampling": "4:4:4"},
    "PNG": {},
    "WEBP": {"lossless": True, "exact": True},
    "TIFF": {"compression": "tiff_adobe_deflate"},
}
_UNDO_ORIENTATION = {  # EXIF orientation: what turns the upright picture back into the stored one
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
ORIENTATION_TAG = 0x0112


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


def find_pictures(folder: Path) -> list[Path]:
    """All pictures in a folder and its subfolders but the hidden ones, sorted by name.

    Raises:
        FileNotFoundError: `folder` is not a folder.
        ValueError: It holds no pictures.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder}")
    paths = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in PICTURE_SUFFIXES and not path.name.startswith(".") and path.is_file()
    )
    if not paths:
        raise ValueError(f"{folder} holds no pictures ({', '.join(sorted(PICTURE_SUFFIXES))})")
    return paths


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


def check_output(path: Path, *, overwrite: bool) -> None:
    """Says what would keep `save_picture` from writing `path`, before any work is done.

    Raises:
        FileNotFoundError: Its folder does not exist.
        FileExistsError: It exists, and `overwrite` is false.
        ValueError: No format for its suffix.
    """
    if path.suffix.lower() not in _FORMATS:
        raise ValueError(f"cannot write {path}: the suffix must be one of {', '.join(sorted(_FORMATS))}")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"cannot write {path}: the folder {path.parent} does not exist")
    if path.is_dir():
        raise FileExistsError(f"cannot write {path}: it is a folder")
    if path.exists() and not overwrite:
        raise FileExistsError(
            f"{path} exists and is kept; give another name, or overwrite it (overwrite=True, --overwrite)"
        )


def save_picture(image: Image.Image, path: Path, *, overwrite: bool = False) -> None:
    """Writes a picture with its ICC profile, EXIF and resolution, whole or not at all.

    PNG, WebP and TIFF are written without loss. A mode that the format cannot hold becomes RGB, or RGBA.

    Raises:
        FileNotFoundError: Its folder does not exist.
        FileExistsError: It exists, and `overwrite` is false.
        ValueError: No format for its suffix, or one that would lose transparency or 16 bits.
        OSError: It cannot be written.
    """
    check_output(path, overwrite=overwrite)
    file_format = _FORMATS[path.suffix.lower()]
    fitting = _fit_mode(image, file_format)
    kept = {key: fitting.info[key] for key in ("exif", "icc_profile", "dpi") if fitting.info.get(key)}
    options = {**_SAVE_OPTIONS[file_format], **kept}
    write_whole(path, lambda temporary: fitting.save(temporary, file_format, **options))


def _fit_mode(image: Image.Image, file_format: str) -> Image.Image:
    if image.mode in _MODES[file_format]:
        return image
    mode = "RGBA" if image.has_transparency_data else "RGB"
    if image.mode in ("I;16", "F") or mode not in _MODES[file_format]:
        what = "transparency" if mode == "RGBA" else f"the mode {image.mode}"
        raise ValueError(f"{file_format} cannot hold {what}; write a .png or .tif file instead")
    converted = image.convert(mode)
    if image.mode not in ("P", "PA"):
        converted.info.pop("icc_profile", None)  # a grey or CMYK profile says nothing of RGB
    return converted


def load_image(path: str | Path) -> Image.Image:
    """Reads a picture's file whole.

    Raises:
        FileNotFoundError: No such file.
        ValueError: It is a folder, no picture, broken, animated, or so large that Pillow takes it for an attack.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no file {path}")
    if path.is_dir():
        raise ValueError(f"{path} is a folder, not a picture")
    try:
        with Image.open(path) as image:
            frames = getattr(image, "n_frames", 1)
            if frames > 1 and image.format != "MPO":  # the further frames of MPO are previews
                raise ValueError(f"{path} holds {frames} frames; give one picture a file")
            _refuse_16_bit_colour(image, str(path))
            image.load()
            return image
    except Image.DecompressionBombError as error:
        raise ValueError(f"{path} is too large: {error}") from None
    except (OSError, SyntaxError, EOFError) as error:
        if isinstance(error, PermissionError):
            raise
        reason = "it is not a picture that Pillow knows" if isinstance(error, UnidentifiedImageError) else error
        raise ValueError(f"cannot read {path}: {reason}") from None


def _refuse_16_bit_colour(image: Image.Image, name: str) -> None:
    """Pillow reads 16-bit colour as 8-bit and says nothing; the result would not be the user's picture."""
    for tile in getattr(image, "tile", ()):
        raw_mode = tile.args[0] if isinstance(tile.args, tuple) else tile.args
        if ";16" in str(raw_mode) and not image.mode.startswith("I"):
            raise ValueError(
                f"{name} has 16 bits a channel, of which 8 would be lost; save it with 8 bits, "
                "or pass it as a float array in [0, 1]"
            )


def _from_pil(image: Image.Image, name: str) -> OpenedPicture:
    _refuse_16_bit_colour(image, name)
    orientation = image.getexif().get(ORIENTATION_TAG, 1)
    if image.mode in ("1", "L", "RGB") and "transparency" in image.info:
        image = image.convert("RGBA" if image.mode == "RGB" else "LA")  # one colour stands for transparency
    stored = image.copy()
    if "exif" in stored.info:
        # Written anew without the thumbnail, which would still show what is removed.
        stored.info["exif"] = stored.getexif().tobytes()
    wide = stored.mode == "I" or stored.mode.startswith("I;16")
    if wide or stored.mode == "F":
        values = np.asarray(stored).astype(np.float32) / np.float32(65535 if wide else 1)
        check_range(values, f"{name} (mode {stored.mode})")
        upright = turn_upright(values, orientation)
        rgb = np.repeat(upright[..., None], 3, axis=2)
        return OpenedPicture(rgb, None, lambda completed, hole, _: _put_grey(stored, orientation, completed, hole))
    if stored.mode not in ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "HSV"):
        raise ValueError(f"{name} has the mode {stored.mode}; convert it to RGB first")
    transparent = stored.has_transparency_data
    channels = np.asarray(stored.convert("RGBA" if transparent else "RGB"), np.float32) / np.float32(255)
    channels = turn_upright(channels, orientation)
    rgb, alpha = (np.ascontiguousarray(channels[..., :3]), channels[..., 3]) if transparent else (channels, None)
    return OpenedPicture(rgb, alpha, lambda *what: _put_pil(stored, orientation, *what))


def turn_upright(values: NDArray[np.float32], orientation: int) -> NDArray[np.float32]:
    """Turns a stored (H, W) or (H, W, C) array upright."""
    turns = {2: (0, True), 3: (2, False), 4: (2, True), 5: (3, True), 6: (3, False), 7: (1, True), 8: (1, False)}
    if orientation not in turns:
        return values
    quarter_turns, mirrored = turns[orientation]
    turned = np.rot90(values, quarter_turns)
    return np.ascontiguousarray(turned[:, ::-1] if mirrored else turned)


def _stored_frame(image: Image.Image, orientation: int) -> Image.Image:
    undo = _UNDO_ORIENTATION.get(orientation)
    return image if undo is None else image.transpose(undo)


def _put_pil(
    stored: Image.Image, orientation: int, completed: NDArray[np.float32], hole: NDArray[np.bool_], opaque: bool
) -> Image.Image:
    """Puts the completed pixels into a copy of an 8-bit PIL image, in its mode, turned as it is stored."""
    mask = _stored_frame(Image.fromarray(hole), orientation)
    fill = _stored_frame(Image.fromarray(to_uint8(completed)), orientation)
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
    """The fill in the opaque colours of the stored image's palette, dithered."""
    colours = np.array(stored.getpalette("RGB"), np.uint8).reshape(-1, 3)
    opacity = np.full(len(colours), 255)
    if stored.mode == "P" and stored.has_transparency_data:
        entries = np.array(stored.getpalette("RGBA"), np.uint8).reshape(-1, 4)
        opacity[: len(entries)] = entries[:, 3]
        transparency = stored.info.get("transparency")
        if isinstance(transparency, int):
            opacity[transparency] = 0
        elif transparency is not None:
            opacity[: len(transparency)] = list(transparency)
    usable = np.flatnonzero(opacity == 255)
    palette = Image.new("P", (1, 1))
    palette.putpalette(colours[usable].tobytes())
    indices = np.asarray(fill.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG))
    mapped = Image.fromarray(usable.astype(np.uint8)[indices], "L")
    mapped.putpalette(colours.tobytes())
    return mapped if stored.mode == "P" else mapped.convert("PA")


def _put_grey(
    stored: Image.Image, orientation: int, completed: NDArray[np.float32], hole: NDArray[np.bool_]
) -> Image.Image:
    """Puts the completed pixels into a copy of a 16-bit or float grey image; Pillow cannot paste into these."""
    grey = completed @ np.array([0.299, 0.587, 0.114], np.float32)
    fill = np.asarray(_stored_frame(Image.fromarray(grey), orientation))
    mask = np.asarray(_stored_frame(Image.fromarray(hole), orientation))
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

"""Image files in and out: formats, EXIF, profiles."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TypeGuard

from PIL import Image, UnidentifiedImageError

from glcic_hub.files import first_line, write_whole

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif"})

MAX_PIXELS = 178_956_970
"""The most pixels that a file may have unless more are allowed; Pillow's own limit."""

READ_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF")
_WRITE_FORMATS = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".webp": "WEBP", ".tif": "TIFF", ".tiff": "TIFF"}
_MODES = {
    "JPEG": {"L", "RGB", "CMYK"},
    "PNG": {"1", "L", "LA", "P", "RGB", "RGBA", "I;16"},
    "WEBP": {"RGB", "RGBA"},
    "TIFF": {"1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "F"},
}
_SAVE_OPTIONS: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 95, "subsampling": "4:4:4"},
    "PNG": {},
    "WEBP": {"lossless": True, "exact": True},
    "TIFF": {"compression": "tiff_adobe_deflate"},
}

_ORIENTATION, _EXIF_BLOCK, _GPS_BLOCK = 0x0112, 0x8769, 0x8825
_BITS_PER_SAMPLE = 258
# Description, make, model, orientation, software, date, artist, copyright, rating: what speaks of the photograph. The
# other tags speak of the file that it was in, and would break the one that it goes to.
_KEPT_TAGS = frozenset({0x010E, 0x010F, 0x0110, _ORIENTATION, 0x0131, 0x0132, 0x013B, 0x8298, 0x4746})


def find_images(folder: Path) -> list[Path]:
    """All images in a folder and its subfolders but the hidden ones, sorted by name.

    Raises:
        FileNotFoundError: `folder` is not a folder.
        ValueError: It holds no images.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder}")
    paths = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in IMAGE_SUFFIXES
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.is_file()
    )
    if not paths:
        raise ValueError(f"{folder} holds no images ({', '.join(sorted(IMAGE_SUFFIXES))})")
    return paths


def masks_by_name(folder: Path) -> Callable[[Path], Path]:
    """Makes a function that finds an image's mask in a folder by name, whatever the suffix, or raises a ValueError.

    Raises:
        FileNotFoundError: `folder` is not a folder.
        ValueError: It holds no images.
    """
    masks: dict[Path, list[Path]] = {}
    for path in find_images(folder):
        masks.setdefault(path.relative_to(folder).with_suffix(""), []).append(path)

    def mask_of(image: Path) -> Path:
        name = image.with_suffix("")
        if len(masks.get(name, ())) != 1:
            raise ValueError(f"{folder} holds {'several masks' if name in masks else 'no mask'} called {name}")
        return masks[name][0]

    return mask_of


def is_file(image: object) -> TypeGuard[str | Path | BinaryIO]:
    """Tells whether an image is a path, or a file opened for reading."""
    return isinstance(image, (str, os.PathLike)) or hasattr(image, "read")


def name_of(file: str | Path | BinaryIO) -> str:
    """What messages call a file: its path, if it has one."""
    return str(getattr(file, "name", None) or "the file") if hasattr(file, "read") else os.fspath(file)


def load_image(file: str | Path | BinaryIO, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Reads an image's file whole: JPEG, PNG, WebP, TIFF, BMP or GIF.

    Args:
        file: A path, or a file opened for reading bytes.
        max_pixels: The most pixels that it may have.

    Raises:
        FileNotFoundError: No such file.
        PermissionError: It must not be read.
        ValueError: It is a URL or a folder, no image, broken, animated, or too large.
    """
    path = name_of(file)
    if path.startswith(("http://", "https://")):
        raise ValueError(
            f'{path} is not downloaded; load it yourself: PIL.Image.open(urllib.request.urlopen("{path}"))'
        )
    if not hasattr(file, "read"):
        if not Path(path).exists():
            raise FileNotFoundError(f"no file {path}")
        if Path(path).is_dir():
            raise ValueError(f"{path} is a folder, not an image")
    try:
        with _without_pillows_limit(), Image.open(file, formats=READ_FORMATS) as image:
            if image.width * image.height > max_pixels:
                raise ValueError(
                    f"it is {image.width}x{image.height} pixels, and at most {max_pixels} are read unless you allow "
                    f"more (max_pixels={image.width * image.height}, --max-pixels {image.width * image.height})"
                )
            frames = getattr(image, "n_frames", 1)
            if frames > 1 and image.format != "MPO":  # the further frames of MPO are previews
                raise ValueError(f"it holds {frames} frames; give one image a file")
            load_pixels(image)
            return image
    except PermissionError:
        raise
    except UnidentifiedImageError:
        raise ValueError(f"cannot read {path}: it is not an image, or of another format than "
                         f"{', '.join(READ_FORMATS)}") from None  # fmt: skip
    except Exception as error:  # Pillow's plugins raise a dozen kinds for broken files
        raise ValueError(f"cannot read {path}: {first_line(error)}") from None


_reading = threading.Lock()
_pillows_limit: list[int | None] = []  # once for each file that is being read


@contextmanager
def _without_pillows_limit() -> Iterator[None]:
    """Lifts Pillow's limit, which is a global, while any thread reads a file."""
    with _reading:
        _pillows_limit.append(_pillows_limit[0] if _pillows_limit else Image.MAX_IMAGE_PIXELS)
        Image.MAX_IMAGE_PIXELS = None
    try:
        yield
    finally:
        with _reading:
            limit = _pillows_limit.pop()
            if not _pillows_limit:
                Image.MAX_IMAGE_PIXELS = limit


def load_pixels(image: Image.Image) -> None:
    """Reads the pixels of an opened image, unless it is of the kind of which Pillow loses half without saying so.

    Raises:
        ValueError: It has 16 bits a channel in colour.
    """
    raw_modes = [tile.args[0] if isinstance(tile.args, tuple) else tile.args for tile in getattr(image, "tile", ())]
    bits = getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE, ())
    if image.mode[0] not in "IF" and (any(";16" in str(raw) for raw in raw_modes) or max(bits, default=8) > 8):
        raise ValueError(
            "it has 16 bits a channel, of which 8 would be lost; save it with 8, or pass a float array in [0, 1]"
        )
    image.load()


def read_exif(image: Image.Image) -> Image.Exif:
    """Keeps the EXIF tags of the photograph, not of its file; not the thumbnail, which shows the removed object.

    Empty if there is none, or if it is broken. TIFF files are turned upright when their pixels are loaded, so load
    them first.
    """
    kept = Image.Exif()
    try:
        exif = image.getexif()
        kept.update({tag: exif[tag] for tag in exif if tag in _KEPT_TAGS})
        for block in (_EXIF_BLOCK, _GPS_BLOCK):
            if entries := exif.get_ifd(block):
                kept[block] = entries
        kept.tobytes()
    except Exception:  # whatever a broken block makes Pillow raise
        return Image.Exif()
    return kept


def orientation_of(exif: Image.Exif) -> int:
    """The orientation, 1 to 8; 1 is upright."""
    orientation: int = exif.get(_ORIENTATION, 1)
    return orientation if orientation in range(1, 9) else 1


def check_output(path: Path, *, overwrite: bool) -> None:
    """Says what would keep `save_image` from writing `path`, before any work is done.

    Raises:
        FileNotFoundError: Its folder does not exist.
        FileExistsError: It exists, and `overwrite` is false.
        PermissionError: Its folder cannot be written.
        ValueError: No format for its suffix.
    """
    if path.suffix.lower() not in _WRITE_FORMATS:
        raise ValueError(f"cannot write {path}: the suffix must be one of {', '.join(sorted(_WRITE_FORMATS))}")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"cannot write {path}: the folder {path.parent} does not exist")
    if path.is_dir():
        raise FileExistsError(f"cannot write {path}: it is a folder")
    if not os.access(path.parent, os.W_OK):
        raise PermissionError(f"cannot write {path}: the folder {path.parent} is not yours to write")
    if path.exists() and not overwrite:
        raise FileExistsError(
            f"{path} exists and is kept; give another name, or overwrite it (overwrite=True, --overwrite)"
        )


def save_image(image: Image.Image, path: Path, *, overwrite: bool = False) -> None:
    """Writes an image with its ICC profile, EXIF and resolution, whole or not at all.

    PNG, WebP and TIFF are written without loss. A mode that the format cannot hold becomes RGB, or RGBA.

    Raises:
        FileNotFoundError: Its folder does not exist.
        FileExistsError: It exists, and `overwrite` is false.
        ValueError: No format for its suffix, or one that would lose transparency or 16 bits.
        OSError: It cannot be written.
    """
    check_output(path, overwrite=overwrite)
    file_format = _WRITE_FORMATS[path.suffix.lower()]
    fitting = _fit_mode(image, file_format)
    options = dict(_SAVE_OPTIONS[file_format])
    exif = read_exif(image)
    if file_format == "TIFF":  # Pillow cannot write the blocks into a TIFF
        for block in (_EXIF_BLOCK, _GPS_BLOCK):
            exif.pop(block, None)
    if exif:
        options["exif"] = exif.tobytes()
    if profile := fitting.info.get("icc_profile"):
        options["icc_profile"] = profile
    if _is_resolution(dpi := fitting.info.get("dpi")):
        options["dpi"] = dpi
    else:
        fitting = fitting.copy()
        fitting.info.pop("dpi", None)
    write_whole(path, lambda temporary: fitting.save(temporary, file_format, **options))


def _is_resolution(dpi: Any) -> bool:
    try:
        return len(dpi) == 2 and all(math.isfinite(value) and 0 < value < 1e6 for value in dpi)
    except TypeError:
        return False


def _fit_mode(image: Image.Image, file_format: str) -> Image.Image:
    if image.mode in _MODES[file_format]:
        return image
    mode = "RGBA" if image.has_transparency_data else "RGB"
    if image.mode[0] in "IF" or mode not in _MODES[file_format]:
        what = "transparency" if mode == "RGBA" else f"the mode {image.mode}"
        raise ValueError(f"{file_format} cannot hold {what}; write a .png or .tif file instead")
    converted = image.convert(mode)
    if image.mode not in ("P", "PA"):
        converted.info.pop("icc_profile", None)  # a grey or CMYK profile says nothing of RGB
    return converted

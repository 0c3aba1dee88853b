"""Image files in and out: formats, what they can hold, what comes with the pixels."""

from __future__ import annotations

import os
import struct
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, BinaryIO, TypeGuard

from PIL import Image, UnidentifiedImageError, features
from PIL.PngImagePlugin import PngInfo
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from glcic_hub.files import first_line, write_whole
from glcic_hub.images.exif import BLOCKS, read_exif, sort_exif

MAX_PIXELS = 178_956_970
"""The most pixels that a file may have unless more are allowed; Pillow's own limit."""

READ_FORMATS: tuple[str, ...] = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF")
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif"})
if features.check("avif"):  # not every build of Pillow has it
    READ_FORMATS += ("AVIF",)
    IMAGE_SUFFIXES |= {".avif"}
_WRITE_FORMATS = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".webp": "WEBP", ".tif": "TIFF", ".tiff": "TIFF"}
_MODES = {
    "JPEG": {"L", "RGB", "CMYK"},
    "PNG": {"1", "L", "LA", "P", "RGB", "RGBA", "I;16"},
    "WEBP": {"RGB", "RGBA"},
    "TIFF": {"1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "F"},
}
_MOST_PIXELS_A_SIDE = {"JPEG": 65_500, "WEBP": 16_383}
_MOST_EXIF_BYTES = {"JPEG": 65_533}
_BITS_PER_SAMPLE, _COMPRESSION, _SAMPLES_PER_PIXEL, _SAMPLE_FORMAT = 258, 259, 277, 339  # tags of TIFF
_SAVE_OPTIONS: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 95, "subsampling": "4:4:4"},
    "PNG": {},
    "WEBP": {"lossless": True, "exact": True},
    "TIFF": {"compression": "tiff_adobe_deflate"},
}


def is_file(image: object) -> TypeGuard[str | Path | BinaryIO]:
    """Tells whether an image is a path, or a file opened for reading."""
    return isinstance(image, (str, os.PathLike)) or hasattr(image, "read")


def name_of(file: str | Path | BinaryIO) -> str:
    """Returns what messages call a file: its path, if it has one."""
    return str(getattr(file, "name", None) or "the file") if hasattr(file, "read") else os.fspath(file)


def load_image(file: str | Path | BinaryIO, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Reads an image's file whole: JPEG, PNG, WebP, TIFF, BMP, GIF or AVIF.

    Args:
        file: A path, or a file opened for reading bytes.
        max_pixels: The most pixels that it may have.

    Raises:
        FileNotFoundError: No such file.
        PermissionError: It must not be read.
        ValueError: It is a URL or a folder, not an image, broken, animated, too large, or of a kind that would lose
            bits or bands.
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
    except (UnidentifiedImageError, KeyError):  # a KeyError is a TIFF's unknown compression
        reason = describe_tiff(path) or f"it is not an image, or of another format than {', '.join(READ_FORMATS)}"
        raise ValueError(f"cannot read {path}: {reason}") from None
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
    """Reads the pixels of an opened image, unless it is of a kind of which Pillow loses a part without saying so.

    What Pillow does not read of the meaning of colours is added to the image's `info`, as `cicp`.

    Raises:
        ValueError: It has over 8 bits a channel in colour, 12 in grey, or bands beside those of its colours and alpha;
            or it is broken.
    """
    # What the header says of bits, by TIFF's tags, by the modes that Pillow decodes from, and by AVIF's properties.
    tiles = getattr(image, "tile", ())
    raw_modes = [tile.args[0] if isinstance(tile.args, tuple) else tile.args for tile in tiles]
    tags = getattr(image, "tag_v2", {})
    bits = max(tags.get(_BITS_PER_SAMPLE, ()), default=8)
    if any(";16" in str(raw) for raw in raw_modes) and image.format != "BMP":  # of BMP these are 16 for all channels
        bits = max(bits, 16)
    if image.format in ("AVIF", "PNG") and (file := getattr(image, "fp", None)) is not None:  # it is not loaded yet
        place = file.tell()
        file.seek(0)
        avif_bits, cicp = _avif_properties(file) if image.format == "AVIF" else (8, _png_cicp(file))
        file.seek(place)
        bits = max(bits, avif_bits)
        if cicp is not None and (image.format == "PNG" or "icc_profile" not in image.info):
            image.info["cicp"] = cicp

    # What would be lost, or be made up.
    if image.mode[0] not in "IF" and bits > 8:
        raise ValueError(
            f"it has {bits} bits a channel, of which {bits - 8} would be lost; "
            "save it with 8, or pass a float array in [0, 1]"
        )
    if image.mode.startswith("I;16") and bits == 12:
        raise ValueError("it has 12 bits a channel; save it with 8 or 16")
    bands = len(image.getbands())
    if (samples := tags.get(_SAMPLES_PER_PIXEL, 1)) > bands:
        raise ValueError(
            f"it has {samples} bands, of which {samples - bands} would be lost; save it with those of {image.mode}"
        )
    if image.format == "TIFF" and tiles:
        areas = [(right - left) * (bottom - top) for _, (left, top, right, bottom), *_ in tiles]
        if sum(areas) < image.width * image.height:
            raise ValueError("it is truncated: some of its strips or tiles are missing")
    if not isinstance(image.info.get("xmp", b""), bytes):
        del image.info["xmp"]  # in which Pillow looks for the orientation; of another type it ends in an error
    image.load()


def _avif_properties(file: IO[bytes]) -> tuple[int, bytes | None]:
    """Reads the bits a channel of an AVIF file, and what it says of its colours in the form of a PNG's cICP."""
    head = file.read(2**16)
    record = head.partition(b"av1C")[2][:3].ljust(3, b"\0")
    bits = 8 if not record[2] & 0x40 else 12 if record[2] & 0x20 else 10
    primaries, transfer = head.partition(b"colrnclx")[2][1:4:2].ljust(2, b"\2")
    is_known = 2 not in (primaries, transfer) and (primaries, transfer) != (1, 13)  # 2: unspecified; 1, 13: sRGB
    return bits, bytes([primaries, transfer, 0, 1]) if is_known else None


def _png_cicp(file: IO[bytes]) -> bytes | None:
    """Reads the chunk cICP of a PNG file."""
    file.seek(8)
    while len(head := file.read(8)) == 8 and (kind := head[4:]) != b"IDAT":
        length = int.from_bytes(head[:4], "big")
        if kind == b"cICP":
            return file.read(length)
        file.seek(length + 4, os.SEEK_CUR)
    return None


def describe_tiff(path: str | Path) -> str | None:
    """Says what kind of TIFF it is that Pillow does not read; None if it is none."""
    try:
        with Path(path).open("rb") as file:
            head = file.read(8)
            directory = ImageFileDirectory_v2(head if head[2:4] in (b"*\0", b"\0*") else head + file.read(8))
            file.seek(directory.next)
            directory.load(file)
        bands, bits = directory.get(_SAMPLES_PER_PIXEL, 1), directory.get(_BITS_PER_SAMPLE, (1,))[0]
        kind = {2: " signed", 3: " float"}.get(directory.get(_SAMPLE_FORMAT, (1,))[0], "")
        return (
            f"it is a TIFF of a kind that is not read ({bands} × {bits}{kind} bits, compression "
            f"{directory.get(_COMPRESSION, 1)}); save it as RGB or grey of 8 bits, or pass a float array in [0, 1]"
        )
    except Exception:  # whatever a file that is no TIFF makes Pillow raise
        return None


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


def check_fits(path: Path, image: Image.Image) -> None:
    """Says what of an image the format of `path` cannot hold; its pixels need not be loaded.

    Raises:
        ValueError: No format for its suffix, or one that would lose transparency or 16 bits, or takes fewer pixels a
            side, or less EXIF.
    """
    file_format = _WRITE_FORMATS[path.suffix.lower()]
    _mode_in(file_format, image)
    check_sides(path, image.size)
    if most_exif := _MOST_EXIF_BYTES.get(file_format):
        size = len(sort_exif(image)[0].tobytes())
        if size > most_exif:
            raise ValueError(
                f"cannot write {path}: {file_format} takes at most {most_exif} bytes of EXIF, and the image has "
                f"{size}; write a .png or .webp file instead"
            )


def check_sides(path: Path, size: tuple[int, int]) -> None:
    """Raises a ValueError if the format of `path` cannot hold so many pixels a side (width, height)."""
    file_format = _WRITE_FORMATS[path.suffix.lower()]
    most = _MOST_PIXELS_A_SIDE.get(file_format)
    if most is not None and max(size) > most:
        raise ValueError(
            f"cannot write {path}: {file_format} takes at most {most} pixels a side, and it would have "
            f"{size[0]}x{size[1]}; write a .png or .tif file instead"
        )


def save_image(image: Image.Image, path: Path, *, overwrite: bool = False, compress_level: int = 6) -> None:
    """Writes an image with its ICC profile, EXIF and resolution, whole or not at all.

    PNG, WebP and TIFF are written without loss. A mode that the format cannot hold becomes RGB, or RGBA.

    Args:
        image: The image.
        path: Its suffix gives the format.
        overwrite: Replace an existing file.
        compress_level: Of PNG, 0 to 9. A photograph at 1 takes a fifth of the time, and a few percent more bytes.

    Raises:
        FileNotFoundError: Its folder does not exist.
        FileExistsError: It exists, and `overwrite` is false.
        ValueError: No format for its suffix, or one that would lose transparency or 16 bits.
        OSError: It cannot be written.
    """
    check_output(path, overwrite=overwrite)
    check_fits(path, image)
    # Convert to a mode that the format holds.
    file_format = _WRITE_FORMATS[path.suffix.lower()]
    fitting = _fit_mode(image, file_format)
    options = dict(_SAVE_OPTIONS[file_format])
    if file_format == "PNG":
        options["compress_level"] = compress_level
    # Keep what comes with the image: EXIF, profile, colour chunks, resolution.
    exif = read_exif(image)
    if file_format == "TIFF":  # Pillow cannot write the blocks into a TIFF
        for block in BLOCKS:
            exif.pop(block, None)
    if exif:
        options["exif"] = exif
    if profile := fitting.info.get("icc_profile"):
        options["icc_profile"] = profile
    if chunks := _colour_chunks(image.info):
        if file_format == "PNG":
            options["pnginfo"] = PngInfo()
            for name, content in chunks.items():
                options["pnginfo"].add(name.encode(), content)
        else:
            warnings.warn(
                f"{path}: {file_format} does not hold the image's {', '.join(chunks)}; its colours may look different",
                stacklevel=2,
            )
    if _is_resolution(dpi := fitting.info.get("dpi")):
        options["dpi"] = dpi
    else:
        fitting = fitting.copy()
        fitting.info.pop("dpi", None)
    write_whole(path, lambda temporary: fitting.save(temporary, file_format, **options))


def _colour_chunks(info: dict[Any, Any]) -> dict[str, bytes]:
    """Lists the chunks of a PNG that say, beside its profile, which colours its pixels mean."""
    chunks = {}
    if "cicp" in info:
        chunks["cICP"] = info["cicp"]
    if "srgb" in info:
        chunks["sRGB"] = bytes([info["srgb"]])
    if "gamma" in info:
        chunks["gAMA"] = struct.pack(">I", round(info["gamma"] * 100_000))
    if len(chromaticity := info.get("chromaticity", ())) == 8:
        chunks["cHRM"] = struct.pack(">8I", *(round(value * 100_000) for value in chromaticity))
    return chunks


def _is_resolution(dpi: Any) -> bool:
    try:
        return len(dpi) == 2 and all(0.5 <= value <= 65535 for value in dpi)
    except TypeError:
        return False


def _fit_mode(image: Image.Image, file_format: str) -> Image.Image:
    mode = _mode_in(file_format, image)
    if image.mode == mode:
        return image
    converted = image.convert(mode)
    if image.mode not in ("P", "PA"):
        converted.info.pop("icc_profile", None)  # a grey or CMYK profile says nothing of RGB
    return converted


def _mode_in(file_format: str, image: Image.Image) -> str:
    """Returns the mode that an image has in a file of that format."""
    mode = "I;16" if image.mode[0] == "I" else image.mode  # which a completed image has instead
    if mode in _MODES[file_format]:
        return mode
    fallback = "RGBA" if image.has_transparency_data else "RGB"
    if mode in ("I;16", "F") or fallback not in _MODES[file_format]:
        what = "transparency" if fallback == "RGBA" else f"the mode {image.mode}"
        instead = "a .tif" if file_format == "PNG" else "a .png or .tif"
        raise ValueError(f"{file_format} cannot hold {what}; write {instead} file instead")
    return fallback

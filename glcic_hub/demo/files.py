"""The demo's files: checks, the copy that is painted on, and completion at full size."""

from __future__ import annotations

import math
import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from gradio.utils import get_upload_folder
from numpy.typing import NDArray
from PIL import Image

from glcic_hub.completion.coarse_to_fine import out_of_reach
from glcic_hub.files import first_line
from glcic_hub.images.boxes import Box, bounds
from glcic_hub.images.files import READ_FORMATS, describe_tiff, load_image, save_image
from glcic_hub.images.masks import dilate, open_mask, transparent_pixels
from glcic_hub.images.processing import OpenedImage, open_image, to_uint8
from glcic_hub.pipeline import GLCICPipeline

MAX_MEGABYTES = 64
"""Larger files are refused."""

MAX_PIXELS = 64_000_000
"""Larger photographs are refused: they take gigabytes."""

PREVIEW_SIDE = 1600
"""Pixels a side, at most, of the copy that is painted on in the browser; the photograph itself stays on the server."""

KEPT_SECONDS = 3600
"""Uploads and results are deleted after this time."""

RESULT_PREFIX = "glcic-result-"

SUFFIXES = {"JPEG": ".jpg", "MPO": ".jpg", "PNG": ".png", "WEBP": ".webp", "TIFF": ".tif"}
"""Of formats that are written; others become PNG."""

_AS_JPEG = "save it as JPEG or PNG"
_SIGNATURES = (  # where in a file, what is there, what such a file is, and the way out
    (4, b"ftyphei", "a HEIC photograph", f"{_AS_JPEG} (iPhone: Settings, Camera, Formats, Most Compatible)"),
    (4, b"ftyphev", "a HEIC photograph", f"{_AS_JPEG} (iPhone: Settings, Camera, Formats, Most Compatible)"),
    (4, b"ftypmif1", "a HEIF photograph", f"{_AS_JPEG} (iPhone: Settings, Camera, Formats, Most Compatible)"),
    (4, b"ftypavi", "an AVIF photograph", _AS_JPEG),
    (4, b"ftypcrx", "a camera's raw file", "export it as JPEG or TIFF"),
    (4, b"ftyp", "a video", "save one of its frames as JPEG or PNG"),
    (0, b"\x1aE\xdf\xa3", "a video", "save one of its frames as JPEG or PNG"),
    (0, b"FUJIFILMCCD-RAW", "a camera's raw file", "export it as JPEG or TIFF"),
    (0, b"\xff\x0a", "a JPEG XL photograph", _AS_JPEG),
    (4, b"JXL ", "a JPEG XL photograph", _AS_JPEG),
    (4, b"jP  ", "a JPEG 2000 photograph", _AS_JPEG),
    (0, b"%PDF", "a PDF document", "export its page as JPEG or PNG"),
    (0, b"8BPS", "a Photoshop document", "export it as TIFF or PNG"),
    (0, b"PK\x03\x04", "an archive", "unpack it, and choose a photograph in it"),
    (0, b"<svg", "a drawing (SVG)", "export it as PNG"),
    (0, b"<?xml", "a drawing (SVG) or another XML document", "export it as PNG"),
)


class Result(NamedTuple):
    """A completed photograph's file, and a line that says what was done."""

    path: Path
    message: str


def check_size(path: str, what: str = "photograph") -> None:
    """Refuses what is too large, by its header, before it is decoded.

    Raises:
        ValueError: It is too large, no image, or gone; the message says what it is instead, and the way out.
    """
    try:
        with Image.open(path, formats=READ_FORMATS) as image:
            width, height = image.size
    except FileNotFoundError:
        raise ValueError(f"the {what} was deleted after an hour; choose it again") from None
    except Image.DecompressionBombError:
        raise ValueError(
            f"the {what} is too large, and at most {MAX_PIXELS / 1e6:.0f} megapixels are taken; make it smaller"
        ) from None
    except Exception:  # Pillow's plugins raise a dozen kinds
        raise ValueError(_refusal(Path(path), what)) from None
    if width * height > MAX_PIXELS:
        raise ValueError(
            f"the {what} has {width * height / 1e6:.0f} megapixels, and at most {MAX_PIXELS / 1e6:.0f} are taken; "
            "make it smaller"
        )


def _refusal(path: Path, what: str) -> str:
    """Says what a file is that is no image that can be read, and what to do about it."""
    with path.open("rb") as file:
        begin = file.read(64)
    if not begin:
        return "this file is empty; it may not have been copied or downloaded as a whole"
    for place, signature, kind, way_out in _SIGNATURES:
        if begin.startswith(signature, place):
            return f"this is {kind}, not a {what} that can be read; {way_out}"
    reason = describe_tiff(path) or f"{', '.join(READ_FORMATS)} are taken"
    return f"this is not a {what} that can be read; {reason}"


def open_photo(path: str) -> tuple[Image.Image, OpenedImage]:
    """Opens a photograph that a visitor chose.

    Returns:
        The PIL image, and the same as the pipeline works on it.

    Raises:
        ValueError: It is too large, or cannot be used.
    """
    check_size(path)
    try:
        image = load_image(path)
        return image, open_image(image)
    except (ValueError, OSError) as error:
        raise ValueError(first_line(error).replace(path, "the photograph")) from None


def preview_size(height: int, width: int) -> tuple[int, int]:
    """Computes height and width of the copy that is painted on."""
    scale = min(1, PREVIEW_SIDE / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def make_preview(photo: OpenedImage, area: Box | None = None) -> Image.Image:
    """Makes the copy that is painted on: upright, at most 1600 pixels a side, RGB, or RGBA where there is alpha.

    Args:
        photo: The photograph at its full size.
        area: The part of the copy to make; None makes all of it.
    """
    height, width = photo.rgb.shape[:2]
    rows, columns = preview_size(height, width)
    down, right = height / rows, width / columns
    area = area or Box(0, 0, rows, columns)
    # Four pixels of the copy around it are as far as the filter looks.
    wide = area.grown(4, rows, columns)
    cut = Box(
        int(wide.top * down), int(wide.left * right), math.ceil(wide.bottom * down), math.ceil(wide.right * right)
    ).common(Box(0, 0, height, width))
    image = Image.fromarray(to_uint8(photo.rgb[cut.slices]))
    if photo.alpha is not None:
        image.putalpha(Image.fromarray(photo.alpha[cut.slices]))
    box = (
        area.left * right - cut.left, area.top * down - cut.top,
        min(area.right * right, width) - cut.left, min(area.bottom * down, height) - cut.top,
    )  # fmt: skip
    return image.resize((area.right - area.left, area.bottom - area.top), Image.Resampling.LANCZOS, box=box)


def snap(preview: Image.Image, strokes: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Grows or shrinks strokes to the outline of what they roughly cover, by GrabCut (Rother et al. 2004).

    Args:
        preview: RGB.
        strokes: (H, W) boolean, of the preview's size.

    Returns:
        (H, W) boolean; the strokes themselves if no object is found.
    """
    core = cv2.erode(strokes.astype(np.uint8), np.ones((7, 7), np.uint8)) > 0
    if not core.any():
        return strokes
    # It may go beyond the strokes by half of their extent. What is farther is ground, of which a rim is enough.
    height, width = bounds(strokes).size
    reach = max(20, height // 2, width // 2)
    area = bounds(strokes).grown(2 * reach, *strokes.shape).slices
    labels = np.where(dilate(strokes, reach), cv2.GC_PR_BGD, cv2.GC_BGD).astype(np.uint8)
    labels[strokes] = cv2.GC_PR_FGD
    labels[core] = cv2.GC_FGD
    labels = np.ascontiguousarray(labels[area])
    if not (labels == cv2.GC_BGD).any():
        return strokes
    bgr = np.ascontiguousarray(np.asarray(preview.convert("RGB"))[area][..., ::-1])
    cv2.grabCut(bgr, labels, (0, 0, 1, 1), np.zeros((1, 65)), np.zeros((1, 65)), 4, cv2.GC_INIT_WITH_MASK)
    found = np.zeros(strokes.shape, bool)
    found[area] = (labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)
    return found if found.any() else strokes


def complete_file(
    pipe: GLCICPipeline,
    path: str,
    mask: str | None = None,
    *,
    grow: int = 0,
    detail: bool = True,
    blend: bool = False,
) -> Result:
    """Completes a photograph's file into another, at its full size.

    Args:
        pipe: What completes.
        path: The photograph.
        mask: A file, white = complete, of the photograph's size as it is displayed. Without one the photograph's
            transparent pixels are completed.
        grow: Pixels of the photograph by which the mask's hole grows to each side.
        detail: Take the fill's detail from the photograph; without, it is the network's alone.
        blend: Blend the fill into its surroundings.

    Returns:
        The new file, `<name>_completed.png` in a new folder, and what was done.

    Raises:
        ValueError: The photograph or the mask cannot be used.
        OSError: The disk is full.
        MemoryError: The photograph is too large for this machine.
    """
    photo, opened = open_photo(path)
    height, width = opened.rgb.shape[:2]
    hole = transparent_pixels(opened) if mask is None else dilate(open_mask_of(mask, height, width), grow)
    if not hole.any():
        raise ValueError("nothing is marked: the mask is black all over; white marks what to complete")
    begin = time.perf_counter()
    completed = pipe(
        photo,
        None if mask is None else hole,
        detail="exemplars" if detail else "none",
        blend="poisson" if blend else "none",
    )
    seconds = time.perf_counter() - begin
    result = completed_path(path, ".png")
    save_image(completed, result, compress_level=1)
    message = f"{width}×{height} pixels, hole {hole.mean():.1%}, {seconds:.2f} s on {pipe.device.type}"
    if not detail and out_of_reach(hole).any():
        message += ". The hole is larger than the network can see across, so its middle comes from a smaller copy"
    return Result(result, message)


def open_mask_of(path: str, height: int, width: int) -> NDArray[np.bool_]:
    """Opens a visitor's mask for a photograph of a size: (height, width) boolean, white = True.

    Raises:
        ValueError: It cannot be used, or is of another size.
    """
    check_size(path, "mask")
    mask = open_mask(path)
    if mask.shape != (height, width):
        raise ValueError(f"the mask has {mask.shape[1]}×{mask.shape[0]} pixels, and the photograph {width}×{height}")
    return mask


def completed_path(path: str, suffix: str) -> Path:
    """Names what is made of a photograph: `<name>_completed<suffix>` in a new folder."""
    return new_folder() / f"{Path(path).stem.removesuffix('_completed')}_completed{suffix}"


def new_folder() -> Path:
    """Makes a folder for files of the demo, beside the uploads."""
    uploads = Path(get_upload_folder())
    # Without its parents: once the demo has removed its folder, nothing makes it anew.
    uploads.mkdir(mode=0o700, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix=RESULT_PREFIX, dir=uploads))


def remove_old() -> None:
    """Removes the folders of `new_folder` that are too old; Gradio does so with uploads."""
    for folder in Path(get_upload_folder()).glob(f"{RESULT_PREFIX}*"):
        with suppress(FileNotFoundError):  # where demos share a folder, another was quicker
            if folder.stat().st_mtime < time.time() - KEPT_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)

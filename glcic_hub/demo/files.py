"""The demo's files: checks, the copy that is painted on, and completion at full size."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Sequence
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
from glcic_hub.images.exif import orientation_of
from glcic_hub.images.files import READ_FORMATS, describe_tiff, load_image, save_image
from glcic_hub.images.masks import open_mask, transparent_pixels
from glcic_hub.images.processing import open_image, to_uint8
from glcic_hub.pipeline import GLCICPipeline

MAX_PIXELS = 64_000_000
"""Larger photographs are refused: they take gigabytes."""

PREVIEW_SIDE = 1200
"""Pixels a side, at most, of the copy that is painted on in the browser; the photograph itself stays on the server."""

KEPT_SECONDS = 3600
"""Uploads and results are deleted after this time."""

RESULT_PREFIX = "glcic-result-"

SUFFIXES = {"JPEG": ".jpg", "MPO": ".jpg", "PNG": ".png", "WEBP": ".webp", "TIFF": ".tif"}
"""Of formats that are written; others become PNG."""


class Result(NamedTuple):
    """A completed photograph's file, and a line that says what was done."""

    path: Path
    message: str


def check_size(path: str, what: str = "photograph") -> None:
    """Refuses what is too large, by its header, before it is decoded.

    Raises:
        ValueError: It is too large, no image, or gone.
    """
    try:
        with Image.open(path, formats=READ_FORMATS) as image:
            width, height = image.size
    except FileNotFoundError:
        raise ValueError(f"the {what} was deleted after an hour; choose it again") from None
    except Image.DecompressionBombError:
        raise ValueError(f"the {what} is too large, and at most {MAX_PIXELS / 1e6:.0f} megapixels are taken") from None
    except Exception:  # Pillow's plugins raise a dozen kinds
        reason = describe_tiff(Path(path))
        raise ValueError(f"this is not a {what} that can be read" + (f": {reason}" if reason else "")) from None
    if width * height > MAX_PIXELS:
        raise ValueError(
            f"the {what} has {width * height / 1e6:.0f} megapixels, and at most {MAX_PIXELS / 1e6:.0f} are taken"
        )


def make_preview(path: str) -> Image.Image:
    """The copy that is painted on: upright, RGB, on white where it is transparent.

    Raises:
        ValueError: The photograph is too large, or cannot be used.
    """
    check_size(path)
    try:
        image = load_image(path)
        open_image(image)  # what cannot be completed is not painted on
        if image.mode in ("1", "P", "PA"):  # Pillow would not smooth these
            image = image.convert("RGBA" if image.has_transparency_data else "RGB")
        image.thumbnail((PREVIEW_SIDE, PREVIEW_SIDE), Image.Resampling.LANCZOS)
        opened = open_image(image)
    except (ValueError, OSError) as error:
        raise ValueError(first_line(error).replace(path, "the photograph")) from None
    preview = Image.fromarray(to_uint8(opened.whole()))
    if opened.alpha is None:
        return preview
    white = Image.new("RGB", preview.size, "white")
    white.paste(preview, mask=Image.fromarray(opened.alpha))
    return white


def strokes_of(layers: Sequence[Image.Image]) -> NDArray[np.bool_]:
    """Where there is paint on any of the layers: (H, W) boolean, of the first one's size; (1, 1) without layers."""
    height, width = (layers[0].height, layers[0].width) if layers else (1, 1)
    strokes = np.zeros((height, width), bool)
    for layer in layers:
        strokes |= np.asarray(layer.convert("RGBA").getchannel("A").resize((width, height))) > 0
    return strokes


def snap(preview: Image.Image, strokes: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Grows or shrinks strokes to the outline of what they roughly cover, by GrabCut (Rother et al. 2004).

    Args:
        preview: RGB.
        strokes: (H, W) boolean, of the preview's size.

    Returns:
        (H, W) boolean; the strokes themselves if no object is found.
    """
    near = cv2.dilate(strokes.astype(np.uint8), np.ones((41, 41), np.uint8)) > 0
    core = cv2.erode(strokes.astype(np.uint8), np.ones((7, 7), np.uint8)) > 0
    labels = np.full(strokes.shape, cv2.GC_BGD, np.uint8)
    labels[near] = cv2.GC_PR_BGD
    labels[strokes] = cv2.GC_PR_FGD
    labels[core] = cv2.GC_FGD
    if not core.any() or near.all():
        return strokes
    bgr = np.ascontiguousarray(np.asarray(preview.convert("RGB"))[..., ::-1])
    cv2.grabCut(bgr, labels, (0, 0, 1, 1), np.zeros((1, 65)), np.zeros((1, 65)), 4, cv2.GC_INIT_WITH_MASK)
    found = (labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)
    return found if found.any() else strokes


def dilate(hole: NDArray[np.bool_], pixels: int) -> NDArray[np.bool_]:
    """A hole (H, W) with all pixels that are at most so many from it."""
    if not pixels or not hole.any():
        return hole
    return np.asarray(cv2.distanceTransform(1 - hole.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE) <= pixels)


def complete_file(
    pipe: GLCICPipeline,
    path: str,
    mask: str | None = None,
    *,
    strokes: NDArray[np.bool_] | None = None,
    grow: int = 0,
    detail: bool = True,
    blend: bool = False,
    keep_format: bool = False,
) -> Result:
    """Completes a photograph's file into another, at its full size.

    Args:
        pipe: What completes.
        path: The photograph.
        mask: A file, white = complete, of the photograph's size as it is displayed. Without a mask and strokes the
            photograph's transparent pixels are completed.
        strokes: (h, w) boolean, what else is to be completed, in a copy of the photograph of any size.
        grow: Pixels of the photograph by which the mask's hole grows to each side.
        detail: Take the fill's detail from the photograph; without, it is the network's alone.
        blend: Blend the fill into its surroundings.
        keep_format: Write the photograph's own format, with loss if that has it, not PNG.

    Returns:
        The new file, `<name>_completed.<suffix>` in a new folder, and what was done.

    Raises:
        ValueError: The photograph or the mask cannot be used.
        OSError: The disk is full.
        MemoryError: The photograph is too large for this machine.
    """
    check_size(path)
    photo = load_image(path)
    opened = open_image(photo)
    height, width = opened.rgb.shape[:2]
    by_alpha = mask is None and strokes is None
    hole = transparent_pixels(opened) if by_alpha else np.zeros((height, width), bool)
    if mask is not None:
        check_size(mask, "mask")
        marked = open_mask(mask)
        if marked.shape != hole.shape:
            raise ValueError(
                f"the mask has {marked.shape[1]}×{marked.shape[0]} pixels, and the photograph {width}×{height}"
            )
        hole |= dilate(marked, grow)
    if strokes is not None:
        hole |= cv2.resize(strokes.astype(np.uint8) * 255, (width, height), interpolation=cv2.INTER_LINEAR) > 127
    if not hole.any():
        raise ValueError("nothing is marked: paint over what should go, or give a mask that has white in it")
    begin = time.perf_counter()
    completed = pipe(
        photo,
        None if by_alpha else hole,
        detail="exemplars" if detail else "none",
        blend="poisson" if blend else "none",
    )
    seconds = time.perf_counter() - begin
    suffix = SUFFIXES.get(_format_of(path), ".png") if keep_format else ".png"
    result = new_folder() / f"{Path(path).stem.removesuffix('_completed')}_completed{suffix}"
    save_image(completed, result)
    message = f"{width}×{height} pixels, hole {hole.mean():.1%}, {seconds:.2f} s on {pipe.device.type}"
    if not detail and out_of_reach(hole).any():
        message += ". The hole is larger than the network can see across, so its middle comes from a smaller copy"
    return Result(result, message)


def upright(path: str) -> str:
    """A file that every browser shows upright: the same, or a copy that is turned."""
    with Image.open(path) as image:
        if orientation_of(image) == 1 and image.format in ("JPEG", "PNG", "WEBP", "GIF", "BMP"):
            return path
    copy = new_folder() / "shown.png"
    Image.fromarray(to_uint8(open_image(path).whole())).save(copy, compress_level=1)
    return str(copy)


def new_folder() -> Path:
    """A folder for files of the demo, beside the uploads."""
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


def _format_of(path: str) -> str:
    with Image.open(path) as image:
        return image.format or ""

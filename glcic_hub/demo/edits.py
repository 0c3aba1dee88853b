"""What a visitor does to a photograph, step by step: the photograph stays, each step keeps the pixels it completed."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from gradio.utils import get_upload_folder
from numpy.typing import NDArray
from PIL import Image

from glcic_hub.completion.coarse_to_fine import out_of_reach
from glcic_hub.completion.tiling import far_apart
from glcic_hub.demo.files import (
    RESULT_PREFIX,
    SUFFIXES,
    completed_path,
    make_preview,
    new_folder,
    open_photo,
    preview_size,
    snap,
)
from glcic_hub.images.boxes import Box
from glcic_hub.images.files import READ_FORMATS, save_image
from glcic_hub.images.masks import dilate
from glcic_hub.images.processing import OpenedImage, Patch, open_image, to_unit
from glcic_hub.pipeline import GLCICPipeline


class Step(NamedTuple):
    """A completion.

    Attributes:
        name: For the steps of later calls.
        parts: Parts of the copy that is painted on that look different now: top, left, and their pixels. Where the
            photograph has no alpha, those that are as they were are transparent.
        notes: What a visitor may want to know about it, in sentences.
    """

    name: str
    parts: list[tuple[int, int, Image.Image]]
    notes: list[str]


def remove(
    pipe: GLCICPipeline,
    path: str,
    steps: Sequence[str],
    strokes: NDArray[np.bool_],
    *,
    margin: int = 0,
    detail: bool = True,
    blend: bool = False,
) -> Step:
    """Completes what is painted over, at the photograph's full size; what was transparent there becomes opaque.

    Args:
        pipe: What completes.
        path: The photograph's file.
        steps: Names of the steps before.
        strokes: (h, w) boolean, what is painted over in the copy that is painted on.
        margin: Pixels of the copy by which the strokes grow to each side.
        detail: Take the fill's detail from the photograph; without, it is the network's alone.
        blend: Blend the fill into its surroundings.

    Raises:
        ValueError: The photograph cannot be used; there are no strokes, they cover everything, or are of another size.
        OSError: The disk is full.
        MemoryError: The photograph is too large for this machine.
    """
    if not strokes.any():
        raise ValueError("paint over what should go first")
    photo, opened = _apply(path, steps)
    strokes = dilate(strokes, margin)
    hole = _at_full_size(strokes, opened)
    completed = open_image(
        pipe(photo, hole, detail="exemplars" if detail else "none", blend="poisson" if blend else "none")
    )
    name = _keep(completed, hole)
    after = open_image(opened.put(_patches([name], hole.shape), True))
    notes = []
    if not detail and out_of_reach(hole).any():
        notes.append("It is larger than the network can see across, so its middle comes from a smaller copy.")
    return Step(name, _parts(after, dilate(strokes, 3)), notes)


def select_object(path: str, steps: Sequence[str], strokes: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Fits rough strokes to the outline of the object under them; the strokes themselves if none is found.

    Args:
        path: The photograph's file.
        steps: Names of the steps so far.
        strokes: (h, w) boolean, in the copy that is painted on; so is what comes back.

    Raises:
        ValueError: The photograph cannot be used, or the strokes are of another size.
    """
    _, opened = _apply(path, steps)
    _check_strokes(strokes, opened)
    return snap(make_preview(opened), strokes)


def save(path: str, steps: Sequence[str], *, keep_format: bool = False) -> Path:
    """Writes the photograph with its steps as a file, `<name>_completed.<suffix>` in a new folder.

    Args:
        path: The photograph's file.
        steps: Names of its steps.
        keep_format: Write the photograph's own format, with loss if that has it, not PNG.

    Raises:
        ValueError: The photograph cannot be used.
        OSError: The disk is full.
    """
    photo, _ = _apply(path, steps)
    result = completed_path(path, suffix_of(path) if keep_format else ".png")
    save_image(photo, result, compress_level=1)
    return result


def save_all(photos: Sequence[tuple[str, Sequence[str]]]) -> Path:
    """Writes photographs, paths and names of steps, as `save` does, into one zip file in a new folder.

    Raises:
        ValueError: A photograph cannot be used.
        OSError: The disk is full.
    """
    result = new_folder() / "completed.zip"
    with zipfile.ZipFile(result, "w") as together:  # not compressed again
        for number, (path, steps) in enumerate(photos, start=1):
            one = save(path, steps)
            taken = one.name in together.namelist()
            together.write(one, f"{one.stem}_{number}{one.suffix}" if taken else one.name)
            one.unlink()
    return result


def save_mask(path: str, steps: Sequence[str], strokes: NDArray[np.bool_], margin: int) -> Path:
    """Writes what the steps completed and the strokes mark, white, as a mask of the photograph's full size."""
    _, opened = open_photo(path)
    marked = _at_full_size(dilate(strokes, margin), opened)
    for patch in _patches(steps, marked.shape):
        marked[patch.box.slices] |= patch.hole
    result = new_folder() / f"{Path(path).stem}_mask.png"
    save_image(Image.fromarray(marked), result)
    return result


def suffix_of(path: str) -> str:
    """Returns the suffix of the photograph's own format; `.png` for formats that are not written."""
    with Image.open(path, formats=READ_FORMATS) as image:
        return SUFFIXES.get(image.format or "", ".png")


def _apply(path: str, steps: Sequence[str]) -> tuple[Image.Image, OpenedImage]:
    """Opens the photograph and applies its steps."""
    photo, opened = open_photo(path)
    if not steps:
        return photo, opened
    edited = opened.put(_patches(steps, opened.rgb.shape[:2]), True)
    assert isinstance(edited, Image.Image)
    return edited, open_image(edited)


def _keep(completed: OpenedImage, hole: NDArray[np.bool_]) -> str:
    """Keeps a hole's pixels in a file, and names that."""
    boxes = far_apart(hole)
    arrays: dict[str, NDArray[Any]] = {"size": np.array(hole.shape), "boxes": np.array(boxes)}
    for number, box in enumerate(boxes):
        arrays |= {f"fill{number}": completed.rgb[box.slices], f"hole{number}": hole[box.slices]}
    folder = new_folder()
    np.savez(folder / "step.npz", **arrays)  # type: ignore[arg-type]
    return folder.name


def _patches(steps: Sequence[str], size: tuple[int, ...]) -> list[Patch]:
    """Reads the patches of all steps.

    Raises:
        ValueError: A step is gone, or another photograph's.
    """
    patches = []
    for name in steps:
        if not re.fullmatch(rf"{RESULT_PREFIX}\w+", name):
            raise ValueError(f"{name} is no step; choose the photograph again")
        try:
            with np.load(Path(get_upload_folder()) / name / "step.npz") as kept:
                if tuple(kept["size"]) != tuple(size):
                    raise ValueError("this was done to another photograph; choose the photograph again")
                patches += [
                    Patch(Box(*map(int, box)), to_unit(kept[f"fill{number}"]), kept[f"hole{number}"])
                    for number, box in enumerate(kept["boxes"])
                ]
        except FileNotFoundError:
            raise ValueError("what was completed was deleted after an hour; choose the photograph again") from None
    return patches


def _check_strokes(strokes: NDArray[np.bool_], photo: OpenedImage) -> None:
    expected = preview_size(*photo.rgb.shape[:2])
    if strokes.shape != expected:
        raise ValueError(
            f"the strokes are for {strokes.shape[1]}×{strokes.shape[0]} pixels, not {expected[1]}×{expected[0]}"
        )


def _at_full_size(strokes: NDArray[np.bool_], photo: OpenedImage) -> NDArray[np.bool_]:
    """Strokes as a hole (H, W) of the photograph, with the transparent pixels that they touch."""
    _check_strokes(strokes, photo)
    height, width = photo.rgb.shape[:2]

    def enlarge(marked: NDArray[np.bool_]) -> NDArray[np.bool_]:
        large = cv2.resize(marked.astype(np.uint8) * 255, (width, height), interpolation=cv2.INTER_LINEAR)
        return np.asarray(large > 127)

    hole = enlarge(strokes)
    if photo.alpha is not None:
        hole |= (photo.alpha < 255) & enlarge(dilate(strokes, 1))
    return hole


def _parts(photo: OpenedImage, changed: NDArray[np.bool_]) -> list[tuple[int, int, Image.Image]]:
    """Cuts out the parts of the copy in which pixels changed, which are those of (h, w) boolean."""
    parts = []
    for box in far_apart(changed):
        part = make_preview(photo, box)
        if photo.alpha is None:
            part.putalpha(Image.fromarray(changed[box.slices]).convert("L"))
            part = Image.composite(part, Image.new("RGBA", part.size), Image.fromarray(changed[box.slices]))
        parts.append((box.top, box.left, part))
    return parts

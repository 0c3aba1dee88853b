"""Completes a folder of pictures, one after the other, so that one that fails does not stop the rest."""

from __future__ import annotations

import warnings
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from tqdm.auto import tqdm

from glcic_hub.files import first_line
from glcic_hub.picture_files import check_output, find_pictures, save_picture
from glcic_hub.pipeline import Blend, GLCICPipeline, LargeHoles

LOSSLESS_SUFFIXES = frozenset({".png", ".webp", ".tif", ".tiff"})


class Failure(NamedTuple):
    """A picture that was not completed, and why."""

    path: Path
    reason: str


def complete_folder(
    pipe: GLCICPipeline,
    images: Path,
    masks: Path | None,
    output: Path,
    *,
    blend: Blend = "none",
    invert_mask: bool = False,
    large_holes: LargeHoles = "coarse_to_fine",
    overwrite: bool = False,
) -> list[Failure]:
    """Completes every picture of a folder and its subfolders, with a progress bar.

    Args:
        pipe: What completes.
        images: The folder of pictures.
        masks: A folder with a mask for each picture, of the same name but for the suffix; one mask for all; or None
            for the pictures' transparent pixels.
        output: An existing folder. The completed pictures keep their names and subfolders; what was saved with loss
            becomes a PNG, so that nothing outside the holes changes.
        blend: As for the pipeline.
        invert_mask: As for the pipeline.
        large_holes: As for the pipeline.
        overwrite: Replace pictures that are in `output` already; otherwise they are kept and count as failed.

    Returns:
        The pictures that failed; the others are completed.

    Raises:
        FileNotFoundError: A folder does not exist.
        ValueError: `images` holds no pictures, or `output` is the folder of the masks.
    """
    if not output.is_dir():
        raise FileNotFoundError(f"the output folder {output} does not exist; make it first")
    if masks is not None and masks.is_dir() and masks.samefile(output):
        raise ValueError(f"the output folder {output} is that of the masks, which would be overwritten")
    paths = find_pictures(images)
    if not images.samefile(output):  # an output folder inside the input folder holds results of earlier runs
        paths = [path for path in paths if output.resolve() not in path.resolve().parents]
    mask_of = _masks_by_name(masks) if masks is not None and masks.is_dir() else None
    results = {path: output / _lossless_name(path.relative_to(images)) for path in paths}
    times_used = Counter(results.values())
    failures = []
    for path, result in tqdm(results.items(), unit="picture"):
        try:
            if times_used[result] > 1:
                raise ValueError(f"several pictures would become {result}; rename them")
            mask = masks
            if mask_of is not None:
                name = path.relative_to(images).with_suffix("")
                if len(mask_of.get(name, ())) != 1:
                    found = "several masks" if name in mask_of else "no mask"
                    raise ValueError(f"{masks} holds {found} called {name}")
                mask = mask_of[name][0]
            result.parent.mkdir(parents=True, exist_ok=True)
            check_output(result, overwrite=overwrite)
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always", UserWarning)
                completed = pipe(path, mask, blend=blend, invert_mask=invert_mask, large_holes=large_holes)
            for warning in caught:
                warnings.warn(f"{path}: {warning.message}", stacklevel=2)
            save_picture(completed, result, overwrite=overwrite)
        except (ValueError, OSError, MemoryError) as error:
            failures.append(Failure(path, first_line(error)))
    return failures


def _masks_by_name(folder: Path) -> dict[Path, list[Path]]:
    masks: dict[Path, list[Path]] = {}
    for path in find_pictures(folder):
        masks.setdefault(path.relative_to(folder).with_suffix(""), []).append(path)
    return masks


def _lossless_name(name: Path) -> Path:
    return name if name.suffix.lower() in LOSSLESS_SUFFIXES else name.with_suffix(".png")

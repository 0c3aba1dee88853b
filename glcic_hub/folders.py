"""Completes a folder of pictures on any number of devices; one that fails does not stop the rest."""

from __future__ import annotations

import os
import time
import warnings
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

from accelerate import Accelerator, InitProcessGroupKwargs
from accelerate.utils import broadcast_object_list, gather_object
from tqdm.auto import tqdm

from glcic_hub.files import first_line
from glcic_hub.picture_files import check_output, find_pictures, save_picture
from glcic_hub.pipeline import Blend, GLCICPipeline, LargeHoles

LONGEST_WAIT = timedelta(weeks=4)
"""How long a process waits for those that have slower pictures."""

LOSSLESS_SUFFIXES = frozenset({".png", ".webp", ".tif", ".tiff"})


class Failure(NamedTuple):
    """A picture that was not completed, and why."""

    path: Path
    reason: str


class Outcome(NamedTuple):
    """What became of a folder, over all processes."""

    completed: int  # pictures
    kept: int  # were in the output folder already
    failures: list[Failure]
    seconds: float


def join_processes() -> Accelerator:
    """Joins the other processes if `accelerate launch` started several; gives this one's place and device.

    Raises:
        ValueError: There are several, and they cannot be joined.
    """
    accelerator = Accelerator(kwargs_handlers=[InitProcessGroupKwargs(timeout=LONGEST_WAIT)])
    if accelerator.num_processes == 1 and int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise ValueError("several processes, and no GPUs; with ACCELERATE_USE_CPU=true they share the processor")
    return accelerator


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
) -> Outcome:
    """Completes every picture of a folder and its subfolders, with a progress bar.

    What the output folder holds already is kept, so that a run that was stopped goes on. Under `accelerate launch`
    each process completes its share of what is left.

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
        overwrite: Replace pictures that are in `output` already.

    Returns:
        What became of the pictures, the same on every process.

    Raises:
        FileNotFoundError: A folder does not exist.
        ValueError: `images` holds no pictures, `output` is the folder of the masks, or there are several processes
            that cannot be joined.
    """
    if not output.is_dir():
        raise FileNotFoundError(f"the output folder {output} does not exist; make it first")
    if masks is not None and masks.is_dir() and masks.samefile(output):
        raise ValueError(f"the output folder {output} is that of the masks, which would be overwritten")
    paths = find_pictures(images)
    if not images.samefile(output):  # an output folder inside the input folder holds results of earlier runs
        paths = [path for path in paths if output.resolve() not in path.resolve().parents]
    mask_of = masks_by_name(masks) if masks is not None and masks.is_dir() else None
    accelerator = join_processes()
    results = {path: output / _lossless_name(path.relative_to(images)) for path in paths}
    times_used = Counter(results.values())
    left = {
        path: result
        for path, result in results.items()
        if overwrite or times_used[result] > 1 or not result.is_file() or result.samefile(path)
    }
    # The main process's view counts for all: another's may have changed by what the first have completed.
    left, kept = broadcast_object_list([left, len(results) - len(left)])
    begin = time.perf_counter()
    completed = 0
    failures: list[Failure] = []
    with accelerator.split_between_processes(list(left.items())) as own:
        for path, result in tqdm(own, unit="picture", disable=not accelerator.is_main_process):
            try:
                if times_used[result] > 1:
                    raise ValueError(f"several pictures would become {result}; rename them")
                mask = mask_of(path.relative_to(images)) if mask_of is not None else masks
                result.parent.mkdir(parents=True, exist_ok=True)
                check_output(result, overwrite=overwrite)
                with warnings.catch_warnings(record=True) as caught:
                    warnings.simplefilter("always", UserWarning)
                    picture = pipe(path, mask, blend=blend, invert_mask=invert_mask, large_holes=large_holes)
                for warning in caught:
                    warnings.warn(f"{path}: {warning.message}", stacklevel=2)
                save_picture(picture, result, overwrite=overwrite)
                completed += 1
            except (ValueError, OSError, MemoryError, FloatingPointError) as error:
                failures.append(Failure(path, first_line(error)))
    return Outcome(
        sum(gather_object([completed])),
        kept,
        gather_object(failures),
        max(gather_object([time.perf_counter() - begin])),
    )


def masks_by_name(folder: Path) -> Callable[[Path], Path]:
    """What gives the mask in a folder for a picture's name, whatever their suffixes; a ValueError without one.

    Raises:
        FileNotFoundError: `folder` is not a folder.
        ValueError: It holds no pictures.
    """
    masks: dict[Path, list[Path]] = {}
    for path in find_pictures(folder):
        masks.setdefault(path.relative_to(folder).with_suffix(""), []).append(path)

    def mask_of(picture: Path) -> Path:
        name = picture.with_suffix("")
        if len(masks.get(name, ())) != 1:
            raise ValueError(f"{folder} holds {'several masks' if name in masks else 'no mask'} called {name}")
        return masks[name][0]

    return mask_of


def _lossless_name(name: Path) -> Path:
    return name if name.suffix.lower() in LOSSLESS_SUFFIXES else name.with_suffix(".png")

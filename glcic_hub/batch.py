"""Completes a folder of images on any number of devices; failures are reported and skipped."""

from __future__ import annotations

import time
import warnings
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from accelerate.utils import broadcast_object_list, gather_object
from tqdm.auto import tqdm

from glcic_hub.distributed import join_processes
from glcic_hub.files import first_line
from glcic_hub.images.files import MAX_PIXELS, check_fits, check_output, load_image, save_image
from glcic_hub.images.folders import left_out_line, masks_by_name, search_folder, split_masks
from glcic_hub.images.masks import dilate, open_mask
from glcic_hub.pipeline import Blend, Detail, GLCICPipeline, LargeHoles

LOSSLESS_SUFFIXES = frozenset({".png", ".webp", ".tif", ".tiff"})


class Failure(NamedTuple):
    """An image that was not completed, and why."""

    path: Path
    reason: str


class Outcome(NamedTuple):
    """The outcome for a folder, over all processes."""

    completed: int  # images
    kept: int  # were in the output folder already
    failures: list[Failure]
    seconds: float


def complete_folder(
    pipe: GLCICPipeline,
    images: Path,
    masks: Path | None,
    output: Path,
    *,
    detail: Detail | None = None,
    blend: Blend | None = None,
    invert_mask: bool = False,
    grow: int = 0,
    large_holes: LargeHoles = "coarse_to_fine",
    max_pixels: int = MAX_PIXELS,
    overwrite: bool = False,
) -> Outcome:
    """Completes every image of a folder and its subfolders, with a progress bar.

    Files that the output folder holds are kept, so rerun to resume. Under `accelerate launch`
    each process completes its share of what is left.

    Args:
        pipe: What completes.
        images: The folder of images.
        masks: A folder with a mask for each image, named as for `masks_by_name`, which may be that of the images; one
            mask for all; or None for the images' transparent pixels.
        output: Another folder, made if it does not exist. The completed images keep their names and subfolders; what
            was saved with loss becomes a PNG, so that nothing outside the holes changes.
        detail: As for the pipeline.
        blend: As for the pipeline.
        invert_mask: As for the pipeline.
        grow: Pixels by which the holes of masks grow to each side.
        large_holes: As for the pipeline.
        max_pixels: As for the pipeline.
        overwrite: Replace images that are in `output` already.

    Returns:
        What became of the images, the same on every process.

    Raises:
        FileNotFoundError: A folder does not exist.
        OSError: `images` cannot be read, or `output` cannot be made or is a file.
        ValueError: `images` holds no images, `output` is the folder of the images or of the masks, or there are
            several processes that cannot be joined, or there are no masks to grow.
    """
    if grow and masks is None:
        raise ValueError("there is no mask to grow: transparent pixels are completed as they are")
    # List the images, and find the masks.
    for folder, what in ((images, "images"), (masks, "masks")):
        if folder is not None and folder.resolve() == output.resolve():
            raise ValueError(f"the output folder {output} is that of the {what}; give another")
    found = search_folder(images)
    # Masks and results of earlier runs may lie within the folder of the images, masks also beside them.
    beside = masks is not None and masks.resolve() == images.resolve()
    others = {folder.resolve() for folder in (masks, output) if folder is not None}
    others -= {images.resolve(), *images.resolve().parents}
    paths, left_out, unreadable = (
        [path for path in listed if not others & {path.resolve(), *path.resolve().parents}] for listed in found
    )
    paths, masks_beside = split_masks(paths) if beside else (paths, None)
    mask_of = masks_by_name(masks, masks_beside) if masks is not None and masks.is_dir() else None
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"cannot make the output folder {output}: {error.strerror}") from None
    accelerator = join_processes()
    failures: list[Failure] = []
    if accelerator.is_main_process:
        failures += [Failure(path, found.unreadable[path]) for path in unreadable]
        if left_out:
            warnings.warn(left_out_line(left_out, images), stacklevel=2)
    # Leave out what earlier runs have completed.
    results = {path: output / _lossless_name(path.relative_to(images)) for path in paths}
    times_used = Counter(results.values())
    left = {
        path: result for path, result in results.items() if overwrite or times_used[result] > 1 or not result.is_file()
    }
    # The main process's view counts for all: another's may have changed by what the first have completed.
    left, kept = broadcast_object_list([left, len(results) - len(left)])
    # Complete this process's share; a failure is kept and does not end the run.
    begin = time.perf_counter()
    completed = 0
    share = list(left.items())[accelerator.process_index :: accelerator.num_processes]
    for path, result in tqdm(share, unit="image", disable=not accelerator.is_main_process):
        try:
            if times_used[result] > 1:
                raise ValueError(f"several images would become {result}; rename them")
            mask_file = mask_of(path.relative_to(images)) if mask_of is not None else masks
            result.parent.mkdir(parents=True, exist_ok=True)
            check_output(result, overwrite=overwrite)
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always", UserWarning)
                image = load_image(path, max_pixels=max_pixels)
                check_fits(result, image)
                hole = None
                if mask_file is not None:
                    hole = dilate(open_mask(mask_file, invert=invert_mask, max_pixels=max_pixels), grow)
                image = pipe(
                    image,
                    hole,
                    detail=detail,
                    blend=blend,
                    invert_mask=invert_mask and hole is None,  # which is refused
                    large_holes=large_holes,
                    max_pixels=max_pixels,
                )
                save_image(image, result, overwrite=overwrite)
            for warning in caught:
                warnings.warn(f"{path}: {warning.message}", stacklevel=2)
            completed += 1
        except (ValueError, OSError, MemoryError, FloatingPointError) as error:
            failures.append(Failure(path, first_line(error)))
    # Gather what all processes did.
    return Outcome(
        sum(gather_object([completed])),
        kept,
        gather_object(failures),
        max(gather_object([time.perf_counter() - begin])),
    )


def _lossless_name(name: Path) -> Path:
    return name if name.suffix.lower() in LOSSLESS_SUFFIXES else name.with_suffix(".png")

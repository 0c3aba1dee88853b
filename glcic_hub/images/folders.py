"""Folders of images: which there are, and the masks that belong to them."""

from __future__ import annotations

import os
import re
import stat
import unicodedata
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from glcic_hub.images.files import IMAGE_SUFFIXES

_OTHER_SUFFIXES = frozenset({
    ".avif", ".avifs", ".apng", ".heic", ".heif", ".hif", ".jp2", ".j2k", ".jpf", ".jpx", ".jxl", ".jxr",
    ".psd", ".psb", ".xcf", ".kra", ".svg", ".svgz", ".eps", ".ai", ".tga", ".ppm", ".pgm", ".pbm", ".pnm",
    ".pfm", ".exr", ".hdr", ".ico", ".pcx", ".qoi", ".dds", ".dib", ".dng", ".cr2", ".cr3", ".crw", ".nef", ".nrw",
    ".arw", ".srf", ".sr2", ".srw", ".raf", ".raw", ".orf", ".rw2", ".rwl", ".pef", ".3fr", ".fff", ".erf", ".kdc",
    ".dcr", ".mos", ".mrw", ".x3f", ".iiq", ".gpr",
}) - IMAGE_SUFFIXES  # fmt: skip
_NAMES_AT_MOST = 20

# `x_mask.png`, `x-mask.png`, `x_mask001.png` and `mask_x.png` for the image x.
_MASK_NAME = re.compile(r"[-_. ]masks?[-_. ]?\d*$|^masks?[-_. ]", re.IGNORECASE)


class Found(NamedTuple):
    """What a folder and its subfolders hold but for the hidden ones, sorted by name."""

    images: list[Path]
    left_out: list[Path]
    """Files that look like images, of formats that are not read."""
    unreadable: dict[Path, str]
    """Folders that cannot be read and links that lead nowhere, and why."""


def search_folder(folder: Path) -> Found:
    """Searches a folder and its subfolders, each once, links to folders last.

    Raises:
        FileNotFoundError: `folder` is not a folder.
        OSError: It cannot be read.
        ValueError: It holds no images.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder}")
    # Folders first, then what links lead to, unless that was seen: so none is read twice, and no circle is followed.
    files: list[Path] = []
    errors: list[OSError] = []
    seen: set[str] = set()
    starts = [folder]
    for start in starts:
        for name, folders, names in os.walk(start, onerror=errors.append):
            if (real := os.path.realpath(name)) in seen:
                folders.clear()
                continue
            seen.add(real)
            folders[:] = [each for each in folders if not each.startswith(".")]
            starts += [path for each in folders if _is_link(path := Path(name, each))]
            files += [Path(name, each) for each in names if not each.startswith(".")]
    unreadable = {Path(error.filename): f"cannot be read: {error.strerror}" for error in errors}
    if folder in unreadable:
        raise OSError(f"{folder} {unreadable[folder]}")

    images: list[Path] = []
    left_out: list[Path] = []
    for path in sorted(files):
        suffix = path.suffix.lower()
        if suffix in _OTHER_SUFFIXES:
            left_out.append(path)
        elif suffix in IMAGE_SUFFIXES or (not suffix and _is_link(path)):
            try:
                is_file = stat.S_ISREG(path.stat().st_mode)
                if suffix:
                    (images if is_file else left_out).append(path)
            except FileNotFoundError:
                unreadable[path] = "the link leads nowhere"
            except OSError as error:
                unreadable[path] = f"cannot be read: {error.strerror}"
    if not images:
        reasons = [left_out_line(left_out, folder)] if left_out else []
        reasons += [f"{path}: {reason}" for path, reason in unreadable.items()]
        raise ValueError("; ".join([f"{folder} holds no images ({', '.join(sorted(IMAGE_SUFFIXES))})", *reasons]))
    return Found(images, left_out, unreadable)


def _is_link(path: Path) -> bool:
    return os.path.islink(path)  # noqa: PTH114 - Path.is_symlink raises an error where it must not look


def find_images(folder: Path) -> list[Path]:
    """Lists all images in a folder and its subfolders but the hidden ones, sorted by name.

    A `UserWarning` names what looks like an image and is not read, and what cannot be read.

    Raises:
        FileNotFoundError: `folder` is not a folder.
        OSError: It cannot be read.
        ValueError: It holds no images.
    """
    found = search_folder(folder)
    if found.left_out:
        warnings.warn(left_out_line(found.left_out, folder), stacklevel=2)
    for path, reason in found.unreadable.items():
        warnings.warn(f"{path} is left out: {reason}", stacklevel=2)
    return found.images


def left_out_line(paths: Sequence[Path], folder: Path) -> str:
    """Says how many files of a folder look like images and are not read, and which."""
    names = [str(path.relative_to(folder)) for path in paths[:_NAMES_AT_MOST]]
    more = f" and {len(paths) - len(names)} more" if len(paths) > len(names) else ""
    return f"left out {len(paths)} files that look like images of other formats: {', '.join(names)}{more}"


def masks_by_name(folder: Path, masks: Sequence[Path] | None = None, what: str = "mask") -> Callable[[Path], Path]:
    """Makes a function that finds an image's mask in a folder by name, or raises a ValueError.

    The mask of `a/x.jpg` is `a/x.png`, `a/x.jpg.png`, or these with `_mask`, `-mask`, `_mask001` or the like at the
    end or `mask_` at the beginning of the name; the suffix does not matter. Names in different Unicode forms are
    equal, unless there is one of the same form.

    Args:
        folder: Where the masks are.
        masks: Those to choose from; None takes all images of the folder.
        what: What messages call them, if they are no masks.

    Raises:
        FileNotFoundError: `folder` is not a folder.
        ValueError: It holds no images.
    """
    exact: dict[str, list[Path]] = {}
    composed: dict[str, list[Path]] = {}
    for path in find_images(folder) if masks is None else masks:
        for name in _image_names(path.relative_to(folder)):
            exact.setdefault(name, []).append(path)
            composed.setdefault(_compose(name), []).append(path)

    def mask_of(image: Path) -> Path:
        names = (str(image.with_suffix("")), str(image))
        found = [mask for name in names for mask in exact.get(name, ())]
        found = found or [mask for name in names for mask in composed.get(_compose(name), ())]
        if not found:
            raise ValueError(f"{folder} holds no {what} called {names[0]}")
        if len(found) > 1:
            listed = " and ".join(str(mask.relative_to(folder)) for mask in found)
            raise ValueError(f"{folder} holds several {what}s for {image}: {listed}; leave one")
        return found[0]

    return mask_of


def split_masks(paths: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Tells the images of a folder from the masks that lie beside them, by their names as in `masks_by_name`."""
    images = {name for path in paths for name in (str(path), str(path.with_suffix("")))}
    masks = {
        path
        for path in paths
        if str(path.with_suffix("")) in set(map(str, paths))
        or (_image_names(path) - {str(path.with_suffix(""))}) & images
    }
    return [path for path in paths if path not in masks], sorted(masks)


def _image_names(mask: Path) -> set[str]:
    """Lists the names, without suffix or with it, of the images whose mask it may be."""
    name = mask.with_suffix("")
    return {str(name), str(name.parent / (_MASK_NAME.sub("", name.name) or name.name))}


def _compose(name: str) -> str:
    """Composes a name (Unicode's form NFC): macOS and some archive programs take letters and accents apart."""
    return unicodedata.normalize("NFC", name)

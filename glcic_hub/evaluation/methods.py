"""Methods to compare: models, and baselines that need none."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from glcic_hub.completion.blending import INPAINT_RADIUS
from glcic_hub.data.photographs import Photograph
from glcic_hub.evaluation.protocol import DRAWN_HOLES, Case, Protocol, short_name
from glcic_hub.images.folders import masks_by_name
from glcic_hub.images.processing import open_image, to_uint8
from glcic_hub.pipeline import GLCICPipeline

Method = Callable[[NDArray[np.uint8], NDArray[np.uint8]], NDArray[Any]]
"""Takes a (H, W, 3) uint8 image and a (H, W) mask of 0 and 1; gives the completed image."""


class Completion(NamedTuple):
    """One of what is compared: a method that runs, or what another tool has completed."""

    complete: Callable[[int, Case], NDArray[np.uint8]]
    """Takes the index of a photograph and its case; gives the completed image (H, W, 3)."""
    is_timed: bool
    """Whether the time that it takes is that of completing."""


PATCH_RADIUS = 3
"""Of PatchMatch's patches, in pixels; the value of its package's examples."""


def network_methods(pipe: GLCICPipeline, name: str = "glcic") -> dict[str, Method]:
    """Lists what the paper measures: a model's network alone, without and with blending (sec. 3.5)."""
    return {
        name: lambda image, mask: pipe(image, mask, detail="none", blend="none"),
        f"{name}, blended": lambda image, mask: pipe(image, mask, detail="none", blend="poisson"),
    }


def default_methods(pipe: GLCICPipeline, name: str) -> dict[str, Method]:
    """Lists a model with its defaults, under its name: what raters of a study see."""
    return {name: lambda image, mask: pipe(image, mask)}


def model_methods(pipe: GLCICPipeline, name: str = "glcic") -> dict[str, Method]:
    """Lists a model's network alone, without and with blending, and with exemplars."""
    return {
        **network_methods(pipe, name),
        f"{name}, exemplars": lambda image, mask: pipe(image, mask, detail="exemplars", blend="none"),
    }


def fingerprint(pipe: GLCICPipeline) -> str:
    """Identifies a model and how it runs: a digest of its weights, its mean pixel, device and precision."""
    digest = hashlib.sha256(repr((pipe.config.mean_pixel, pipe.device.type, str(pipe.dtype))).encode())
    for name, values in sorted(pipe.network.state_dict().items()):
        digest.update(
            name.encode() + values.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        )
    return digest.hexdigest()[:16]


def _mean_colour(mean_pixel: Sequence[float], image: NDArray[np.uint8], mask: NDArray[np.uint8]) -> NDArray[Any]:
    return np.where(mask[..., None] > 0, to_uint8(np.array(mean_pixel, np.float32)), image)


def _opencv(kind: int, image: NDArray[np.uint8], mask: NDArray[np.uint8]) -> NDArray[Any]:
    return np.asarray(cv2.inpaint(image, mask, INPAINT_RADIUS, kind))


def _biharmonic(image: NDArray[np.uint8], mask: NDArray[np.uint8]) -> NDArray[Any]:
    from skimage.restoration import inpaint_biharmonic

    filled = inpaint_biharmonic(image, mask, channel_axis=-1)
    return to_uint8(filled.clip(0, 1).astype(np.float32))


def _patchmatch(image: NDArray[np.uint8], mask: NDArray[np.uint8]) -> NDArray[Any]:
    from patchmatch import patch_match

    patch_match.set_random_seed(0)
    filled: NDArray[Any] = patch_match.inpaint(image, mask * np.uint8(255), patch_size=PATCH_RADIUS)
    return filled


FILLS: dict[str, Method] = {
    "Telea": partial(_opencv, cv2.INPAINT_TELEA),
    "Navier-Stokes": partial(_opencv, cv2.INPAINT_NS),
    "biharmonic": _biharmonic,
    "PatchMatch": _patchmatch,
}
"""`cv2.inpaint`'s two methods (Telea 2004; Bertalmio et al. 2001), scikit-image's biharmonic one, and PatchMatch, with
which the paper compares (Barnes et al. 2009; by the package pypatchmatch). As their packages give them: they may see
what is in the hole, and may change what is outside."""


def _baseline(fill: Method, image: NDArray[np.uint8], mask: NDArray[np.uint8]) -> NDArray[Any]:
    """Hides the hole's pixels from a fill, and keeps the others as they are."""
    hole = mask[..., None]
    return np.where(hole > 0, fill(image * (1 - hole), mask), image)


BASELINES: dict[str, Method] = {name: partial(_baseline, fill) for name, fill in FILLS.items()}
"""The fills, under the rules that hold for models."""


def make_methods(
    models: Mapping[str, GLCICPipeline],
    baselines: Sequence[str] = (),
    of_model: Callable[[GLCICPipeline, str], dict[str, Method]] = model_methods,
) -> dict[str, Method]:
    """Lists methods by name: those of each model, then the baselines.

    Args:
        models: By name.
        baselines: Of `ALL_BASELINES`.
        of_model: What is measured of a model: `model_methods`, `network_methods` for the paper's experiments, or
            `default_methods`.

    Raises:
        ValueError: No such baseline, it is not installed, or a model has its name.
    """
    named: dict[str, Method] = {}
    for name, pipe in models.items():
        named.update(of_model(pipe, name))
    for name in baselines:
        if name in named:
            raise ValueError(f"a model cannot be called {name}, as a baseline is; rename its folder")
        if name == "mean colour":
            named[name] = partial(_mean_colour, next(iter(models.values())).config.mean_pixel)
        elif name in BASELINES:
            named[name] = BASELINES[name]
        else:
            raise ValueError(f"no baseline {name}; there are {', '.join(ALL_BASELINES)}")
    if "PatchMatch" in named:
        try:
            import patchmatch  # noqa: F401
        except ModuleNotFoundError:
            raise ValueError(
                'PatchMatch needs pypatchmatch, of the extra "evaluate": pip install "glcic-hub[evaluate]"'
            ) from None
    return named


def make_completions(
    methods: Mapping[str, Method],
    completed: Mapping[str, Path],
    photographs: Sequence[Photograph],
    protocol: Protocol,
) -> dict[str, Completion]:
    """Lists what is compared, by name: methods, then what other tools have completed.

    Args:
        methods: By name.
        completed: By name, a folder of completed photographs, named as for `masks_by_name`.
        photographs: What is completed.
        protocol: Which part of each photograph, and where its hole is.

    Raises:
        FileNotFoundError: No such folder.
        ValueError: A folder holds no images or none of these photographs, its name is a method's, several photographs
            have the same name, or the holes are drawn, so that no other tool can have seen them.
    """
    listed = {name: Completion(partial(_complete, method), is_timed=True) for name, method in methods.items()}
    if not completed:
        return listed
    if protocol.holes in DRAWN_HOLES:
        raise ValueError(
            f"what {' and '.join(completed)} completed has holes that are in no file here; take photographs that come "
            "with masks, or give the folder of masks (--holes FOLDER)"
        )
    names = [Path(short_name(photographs, index)) for index in range(len(photographs))]
    twice = [str(name) for name, count in Counter(name.with_suffix("") for name in names).items() if count > 1]
    if twice:
        raise ValueError(
            f"several photographs are called {twice[0]}, so their results cannot be told apart; rename them"
        )
    for name, folder in completed.items():
        if name in listed:
            raise ValueError(f"{folder} cannot be called {name}, as a method is; give another name")
        file_of = masks_by_name(folder, what="image")
        if not any(_has(file_of, photograph) for photograph in names):
            raise ValueError(f"{folder} holds none of the photographs completed, such as {names[0].stem}.png")
        listed[name] = Completion(partial(_read_completed, file_of, names), is_timed=False)
    return listed


def _has(file_of: Callable[[Path], Path], name: Path) -> bool:
    try:
        file_of(name)
    except ValueError:
        return False
    return True


def _complete(method: Method, index: int, case: Case) -> NDArray[np.uint8]:
    return to_uint8(method(case.image, case.mask))


def _read_completed(
    file_of: Callable[[Path], Path], names: Sequence[Path], index: int, case: Case
) -> NDArray[np.uint8]:
    path = file_of(names[index])
    image = to_uint8(open_image(path).whole())
    if image.shape != case.image.shape:
        sizes = [f"{shape[1]}x{shape[0]}" for shape in (image.shape, case.image.shape)]
        raise ValueError(f"{path.name} has {sizes[0]} pixels, and the photograph {sizes[1]}")
    return image


ALL_BASELINES = (*BASELINES, "mean colour")
FAST_BASELINES = ("Telea", "Navier-Stokes", "mean colour")


def model_names(models: Sequence[str | Path | None]) -> list[str]:
    """Names each model, none twice: `glcic` for a single one, else the last part of its folder or Hub name."""
    if len(models) == 1:
        return ["glcic"]
    paths = [Path(model or "glcic") for model in models]
    paths = [path.resolve() if path.is_dir() else path for path in paths]
    # A run's folder is called `model`, so that the run's name tells more.
    names = [path.parent.name if path.name == "model" else path.name for path in paths]
    return [name if name and names.count(name) == 1 else str(model) for name, model in zip(names, models, strict=True)]

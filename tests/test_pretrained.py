"""The weights that come with the package."""

from __future__ import annotations

from importlib import resources

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from skimage import data

from glcic_hub import GLCICPipeline
from glcic_hub.evaluation.methods import FAST_BASELINES, make_methods, network_methods
from glcic_hub.evaluation.metrics import hole_metrics
from glcic_hub.hub.model_files import PACKAGED
from glcic_hub.images.samples import load_sample


@pytest.fixture(scope="module")
def pretrained() -> GLCICPipeline:
    return GLCICPipeline.from_pretrained(device="cpu")


def test_they_are_small_and_in_the_package() -> None:
    folder = resources.files("glcic_hub") / "pretrained"
    assert PACKAGED.samefile(str(folder))
    assert sum(path.stat().st_size for path in PACKAGED.rglob("*")) < 16 * 2**20


def crops_and_masks() -> list[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
    """256×256 crops of scikit-image's photographs, which no weights of ours have seen, each with a 112×112 hole."""
    mask = np.zeros((256, 256), np.uint8)
    mask[72:184, 72:184] = 1
    pairs = []
    for name in ("coffee", "chelsea", "astronaut", "rocket"):
        photograph = np.asarray(getattr(data, name)())
        for left in range(0, photograph.shape[1] - 256, 64):
            pairs.append((photograph[20:276, left : left + 256], mask))
    return pairs


def test_they_beat_the_baselines(pretrained: GLCICPipeline) -> None:
    results: dict[str, list[list[float]]] = {}
    for original, mask in crops_and_masks():
        for name, method in make_methods({"glcic": pretrained}, FAST_BASELINES, network_methods).items():
            metrics = hole_metrics(original, method(original, mask), mask)
            results.setdefault(name, []).append([metrics["psnr"], metrics["ssim"]])
    mean = {name: np.mean(values, axis=0) for name, values in results.items()}
    for baseline in ("Telea", "Navier-Stokes", "mean colour"):
        assert mean["glcic"][0] > mean[baseline][0], mean  # PSNR
        assert (mean["glcic, blended"] > mean[baseline]).all(), mean


def test_the_fill_is_no_flat_blob(pretrained: GLCICPipeline) -> None:
    """The middle of the hole has the colour of its surroundings, and some structure."""
    middles, surroundings, textures = [], [], []
    for original, mask in crops_and_masks():
        completed = pretrained(original, mask, detail="none")
        middles.append(completed[112:144, 112:144].mean(axis=(0, 1)))
        middle = np.zeros_like(mask)
        middle[100:156, 100:156] = 1
        textures.append(hole_metrics(original, completed, middle)["texture"])
        ring = np.zeros_like(mask)
        ring[64:192, 64:192] = 1
        surroundings.append(original[(ring - mask) > 0].mean(axis=0))
    correlation = np.corrcoef(np.ravel(middles), np.ravel(surroundings))[0, 1]
    assert correlation > 0.9
    assert np.mean(textures) > 0.1
    assert np.std(middles, axis=0).min() > 0.5 * np.std(surroundings, axis=0).min()


def test_half_precision_gives_the_same_image() -> None:
    """Within the hole: 0.5 of 255 levels on average, 4 for 99.9 % of the pixels."""
    exact, half = (GLCICPipeline.from_pretrained(device="cpu", dtype=d) for d in (torch.float32, torch.bfloat16))
    differences = []
    for original, mask in crops_and_masks():
        image = torch.from_numpy(original).permute(2, 0, 1) / 255  # floats, so that rounding does not hide anything
        pair = [pipe(image, mask, detail="none") for pipe in (exact, half)]
        differences.append((pair[0] - pair[1])[:, mask > 0].abs().flatten() * 255)
    difference = torch.cat(differences)
    assert difference.mean() <= 0.5
    assert difference.quantile(0.999) <= 4


def test_those_for_faces_are_loaded_by_name_and_make_up_an_eye(pretrained: GLCICPipeline) -> None:
    """What they fill in is nearer to the face than general weights and baselines come, and dark where an eye was."""
    faces = GLCICPipeline.from_pretrained("faces", device="cpu")
    image, mask = (np.asarray(part) for part in load_sample("face"))
    hole = (mask > 0).astype(np.uint8)
    methods = make_methods({"faces": faces, "compact": pretrained}, FAST_BASELINES, network_methods)
    psnr = {name: hole_metrics(image, method(image, hole), hole)["psnr"] for name, method in methods.items()}
    assert max(psnr, key=lambda name: psnr[name]).startswith("faces"), psnr
    completed = faces(image, hole).mean(axis=-1)
    assert completed[40:46, 30:38].min() < completed[50:56, 30:38].mean() - 40  # the eye, and the cheek below it

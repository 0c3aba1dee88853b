from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from glcic_hub import GLCICPipeline
from glcic_hub.evaluation import as_table, centre_crop, evaluate, hole_metrics, methods
from tests.conftest import make_photo

ORIGINAL = make_photo(40, 50)
MASK = np.zeros((40, 50), np.uint8)
MASK[10:30, 15:40] = 1


def test_metrics_equal_scikit_images() -> None:
    completed = np.where(MASK[..., None] > 0, make_photo(40, 50, seed=1), ORIGINAL)
    metrics = hole_metrics(ORIGINAL, completed, MASK)
    inside = (slice(10, 30), slice(15, 40))
    psnr = peak_signal_noise_ratio(ORIGINAL[inside], completed[inside], data_range=255)  # type: ignore[no-untyped-call]
    assert metrics["psnr"] == pytest.approx(psnr, abs=1e-6)
    _, ssim_map = structural_similarity(ORIGINAL, completed, channel_axis=2, full=True)  # type: ignore[no-untyped-call]
    assert metrics["ssim"] == pytest.approx(ssim_map[inside].mean(), abs=1e-6)


def test_a_perfect_completion_is_perfect_and_a_flat_one_has_no_texture() -> None:
    assert hole_metrics(ORIGINAL, ORIGINAL, MASK) == {"psnr": float("inf"), "ssim": 1.0, "texture": 1.0}
    flat = np.where(MASK[..., None] > 0, np.uint8(128), ORIGINAL)
    metrics = hole_metrics(ORIGINAL, flat, MASK)
    assert metrics["psnr"] < 30 and metrics["ssim"] < 0.5 and metrics["texture"] < 0.5


def test_what_is_outside_the_hole_does_not_count() -> None:
    completed = np.where(MASK[..., None] > 0, make_photo(40, 50, seed=1), ORIGINAL)
    spoiled = np.where(MASK[..., None] > 0, completed, 0).astype(np.uint8)
    assert hole_metrics(ORIGINAL, spoiled, MASK) == hole_metrics(ORIGINAL, completed, MASK)


def test_no_method_sees_the_original(pipe: GLCICPipeline) -> None:
    damaged = np.where(MASK[..., None] > 0, 255 - ORIGINAL, ORIGINAL)
    for method in methods(pipe).values():
        assert np.array_equal(method(ORIGINAL, MASK), method(damaged, MASK))


@pytest.mark.parametrize("size", [(70, 90), (64, 64), (40, 100)])
def test_centre_crop(tmp_path: Path, size: tuple[int, int]) -> None:
    photo = make_photo(*size)
    Image.fromarray(photo).save(tmp_path / "photo.png")
    crop = centre_crop(tmp_path / "photo.png", 64)
    assert crop.shape == (64, 64, 3)
    if min(size) >= 64:
        top, left = (size[0] - 64) // 2, (size[1] - 64) // 2
        assert np.array_equal(crop, photo[top : top + 64, left : left + 64])


def test_flat_photographs_have_no_texture_ratio(tmp_path: Path, pipe: GLCICPipeline) -> None:
    Image.new("RGB", (64, 64), "red").save(tmp_path / "flat.png")
    assert np.isnan(evaluate(tmp_path, pipe, size=64, hole_size=(20, 30))["glcic"]["texture"])


@pytest.mark.parametrize("wrong", [{"size": 6}, {"seed": -1}, {"hole_size": (60, 70), "size": 64}])
def test_wrong_protocols_are_refused(tmp_path: Path, pipe: GLCICPipeline, wrong: dict[str, Any]) -> None:
    Image.new("RGB", (64, 64), "red").save(tmp_path / "flat.png")
    with pytest.raises(ValueError, match=r"size must be at least 7 and seed|does not fit"):
        evaluate(tmp_path, pipe, **wrong)


def test_evaluate(tmp_path: Path, pipe: GLCICPipeline) -> None:
    for index in range(3):
        Image.fromarray(make_photo(70, 90, seed=index)).save(tmp_path / f"{index}.png")
    results = evaluate(tmp_path, pipe, size=64, hole_size=(20, 30))
    assert list(results) == ["glcic", "glcic, blended", "Telea", "Navier-Stokes", "mean colour"]
    assert results == evaluate(tmp_path, pipe, size=64, hole_size=(20, 30))
    assert results != evaluate(tmp_path, pipe, size=64, hole_size=(20, 30), seed=1)
    assert results["Telea"]["psnr"] > results["mean colour"]["psnr"]  # the photographs are ramps
    assert as_table(results).count("\n") == 6

"""Exported networks against the pipeline, in the runtimes that they are for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray

from glcic_hub import GLCICPipeline
from glcic_hub.cli.main import main
from glcic_hub.hub.export import OPSET, export
from tests.conftest import make_photo

SIZES = [(5, 5), (5, 7), (46, 61), (64, 64), (129, 37), (200, 203)]


def cases(height: int, width: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Two images with holes inside, at the border and in the corner."""
    photos = np.stack([make_photo(height, width, seed) for seed in (0, 1)]).astype(np.float32) / np.float32(255)
    masks = np.zeros((2, height, width), np.float32)
    masks[0, height // 4 : height // 2 + 1, width // 3 : width // 2 + 1] = 1
    masks[0, -1:] = 1
    masks[1, : height // 3 + 1, -2:] = 0.7
    return photos, masks


@pytest.fixture(scope="module")
def onnx_file(pipe: GLCICPipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "glcic.onnx"
    export(pipe.network, path)
    return path


@pytest.mark.parametrize("size", SIZES)
def test_onnx_completes_as_the_pipeline(pipe: GLCICPipeline, onnx_file: Path, size: tuple[int, int]) -> None:
    session = onnxruntime.InferenceSession(onnx_file, providers=["CPUExecutionProvider"])
    photos, masks = cases(*size)
    (completed,) = session.run(None, {"image": photos.transpose(0, 3, 1, 2), "mask": masks[:, None]})
    (alone,) = session.run(None, {"image": photos[:1].transpose(0, 3, 1, 2), "mask": masks[:1, None]})
    for photo, mask, result in zip(photos, masks, completed, strict=True):
        result = result.transpose(1, 2, 0)
        np.testing.assert_allclose(result, pipe(photo, mask, detail="none"), atol=1e-4)
        assert np.array_equal(result[mask == 0], photo[mask == 0])
    np.testing.assert_allclose(alone, completed[:1], atol=1e-5)


@pytest.mark.parametrize("format", ["onnx", "torch"])
def test_nan_under_the_hole_does_not_matter(pipe: GLCICPipeline, onnx_file: Path, tmp_path: Path, format: str) -> None:
    photos, masks = cases(46, 61)
    damaged = np.where(masks[..., None] > 0.2, np.float32(np.nan), photos)
    images = [image.transpose(0, 3, 1, 2).copy() for image in (photos, damaged)]
    if format == "onnx":
        session = onnxruntime.InferenceSession(onnx_file, providers=["CPUExecutionProvider"])
        whole, holed = (session.run(None, {"image": image, "mask": masks[:, None]})[0] for image in images)
    else:
        export(pipe.network, tmp_path / "glcic.pt2", "torch")
        program = torch.export.load(tmp_path / "glcic.pt2").module()
        whole, holed = (program(torch.from_numpy(image), torch.from_numpy(masks)[:, None]).numpy() for image in images)
    assert np.array_equal(whole, holed) and np.isfinite(holed).all()


def test_onnx_file(onnx_file: Path) -> None:
    model = onnx.load(onnx_file)
    onnx.checker.check_model(onnx.shape_inference.infer_shapes(model, strict_mode=True), full_check=True)
    assert [entry.version for entry in model.opset_import if not entry.domain] == [OPSET]
    names = {value.name: value for value in (*model.graph.input, *model.graph.output)}
    assert set(names) == {"image", "mask", "completed"}
    for value in names.values():
        batch, channels, height, width = value.type.tensor_type.shape.dim
        assert batch.dim_param and height.dim_param and width.dim_param
        assert channels.dim_value == (1 if value.name == "mask" else 3)
    assert not list(onnx_file.parent.glob("*.data"))


@pytest.mark.parametrize("size", SIZES)
def test_torch_export(pipe: GLCICPipeline, tmp_path: Path, size: tuple[int, int]) -> None:
    export(pipe.network, tmp_path / "glcic.pt2", "torch")
    program = torch.export.load(tmp_path / "glcic.pt2").module()
    photos, masks = cases(*size)
    completed = program(torch.from_numpy(photos).permute(0, 3, 1, 2), torch.from_numpy(masks)[:, None])
    for photo, mask, result in zip(photos, masks, completed, strict=True):
        np.testing.assert_allclose(result.permute(1, 2, 0), pipe(photo, mask, detail="none"), atol=1e-4)


def test_glcic_export(tmp_path: Path, model_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["export", "--model", str(model_folder), "-o", str(tmp_path / "model.onnx")]
    assert main(options) == 0
    assert capsys.readouterr().out.startswith(f"wrote {tmp_path / 'model.onnx'} (0.")
    assert main(options) == 1
    assert "exists and is kept" in capsys.readouterr().err
    assert main([*options, "--overwrite", "--format", "torch"]) == 0
    with pytest.raises(ValueError, match='format must be "onnx" or "torch", not \'tflite\''):
        export(GLCICPipeline.from_pretrained(model_folder).network, tmp_path / "x", "tflite")

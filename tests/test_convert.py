"""Models of others, from files written here in their formats, against a forward pass in their terms."""

from __future__ import annotations

import io
import itertools
import json
import pickle
import struct
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from glcic_hub import GLCICPipeline
from glcic_hub.cli.main import main
from glcic_hub.hub.convert import convert
from glcic_hub.hub.model_files import save_model
from glcic_hub.networks.table_2 import TABLE_2
from tests.conftest import make_hole, make_photo

MEAN = (0.45, 0.5, 0.4)
WIDTH = 4


def convolutions(width: int = WIDTH, seed: int = 0) -> list[nn.Sequential]:
    """The rows of table 2 as others have them: with a bias everywhere, and statistics that are not the identity."""
    torch.manual_seed(seed)
    blocks, inputs = [], 4
    for row in TABLE_2:
        outputs = row.outputs if row.type == "output" else row.outputs * width // 64
        if row.type == "deconv":
            convolution: nn.Module = nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1)
        else:
            padding = row.dilation * (row.kernel // 2)
            convolution = nn.Conv2d(inputs, outputs, row.kernel, int(row.stride), padding, row.dilation)
        norm = nn.BatchNorm2d(outputs, eps=1e-3)
        for tensor, low, high in ((norm.running_mean, -0.3, 0.3), (norm.running_var, 0.3, 1.5)):
            assert tensor is not None
            tensor.uniform_(low, high)
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.uniform_(norm.bias, -0.3, 0.3)
        blocks.append(nn.Sequential(convolution, norm) if row.type != "output" else nn.Sequential(convolution))
        inputs = outputs
    return [block.eval().requires_grad_(False) for block in blocks]


class Torch7Writer:
    """Torch7's binary serialisation."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.indices: dict[int, int] = {}
        self.alive: list[Any] = []

    def pack(self, form: str, *values: Any) -> None:
        self.file.write(struct.pack("<" + form, *values))

    def text(self, text: str) -> None:
        self.pack("i", len(text))
        self.file.write(text.encode())

    def is_new(self, value: Any) -> bool:
        self.alive.append(value)  # its identity stays its own
        known = id(value) in self.indices
        self.pack("i", self.indices.setdefault(id(value), len(self.indices) + 1))
        return not known

    def write(self, value: Any) -> None:
        if value is None:
            self.pack("i", 0)
        elif isinstance(value, bool):
            self.pack("ii", 5, value)
        elif isinstance(value, (int, float)):
            self.pack("id", 1, value)
        elif isinstance(value, str):
            self.pack("i", 2)
            self.text(value)
        elif isinstance(value, np.ndarray):
            self.tensor(value)
        elif isinstance(value, dict) and "__class__" in value:
            self.pack("i", 4)
            if self.is_new(value):
                self.text("V 1")
                self.text(value["__class__"])
                self.write({name: entry for name, entry in value.items() if name != "__class__"})
        else:
            table = dict(enumerate(value, start=1)) if isinstance(value, list) else value
            self.pack("i", 3)
            if self.is_new(value):
                self.pack("i", len(table))
                for key, entry in table.items():
                    self.write(key)
                    self.write(entry)

    def tensor(self, value: NDArray[Any]) -> None:
        kind = {"float32": "Float", "float64": "Double"}[value.dtype.name]
        self.pack("i", 4)
        if not self.is_new(value):
            return
        self.text("V 1")
        self.text(f"torch.{kind}Tensor")
        self.pack("i", value.ndim)
        strides = [stride // value.itemsize for stride in value.strides]
        self.pack(f"{2 * value.ndim}q", *value.shape, *strides)
        self.pack("q", 1)
        self.pack("i", 4)
        self.is_new(object())
        self.text("V 1")
        self.text(f"torch.{kind}Storage")
        self.pack("q", value.size)
        self.file.write(np.ascontiguousarray(value).tobytes())


def torch7_modules(blocks: list[nn.Sequential]) -> list[dict[str, Any]]:
    modules: list[dict[str, Any]] = []
    for row, block in zip(TABLE_2, blocks, strict=True):
        convolution: Any = block[0]
        kinds = {"deconv": "SpatialFullConvolution", "dilated conv": "SpatialDilatedConvolution"}
        sizes = {"kW": row.kernel, "kH": row.kernel, "dW": convolution.stride[0], "dH": convolution.stride[0]}
        places = {"padW": convolution.padding[0], "padH": convolution.padding[0]}
        dilation = {"dilationW": row.dilation, "dilationH": row.dilation} if row.type == "dilated conv" else {}
        tensors = {"weight": convolution.weight.numpy(), "bias": convolution.bias.numpy()}
        kind = kinds.get(row.type, "SpatialConvolution")
        modules.append({"__class__": f"nn.{kind}", "train": False, **sizes, **places, **dilation, **tensors})
        if len(block) == 2:
            norm: Any = block[1]
            names = ("weight", "bias", "running_mean", "running_var")
            tensors = {name: getattr(norm, name).numpy() for name in names}
            modules.append({"__class__": "nn.SpatialBatchNormalization", "eps": norm.eps, "affine": True, **tensors})
            modules.append({"__class__": "nn.ReLU", "inplace": True})
    return [*modules, {"__class__": "nn.Sigmoid"}]


def write_torch7(path: Path, blocks: list[nn.Sequential], mean_as_table: bool = False) -> None:
    """A table of an nngraph module, with its graph that refers to itself, and the mean."""
    modules = torch7_modules(blocks)
    nodes: list[dict[str, Any]] = [{"__class__": "nngraph.Node", "data": {"module": module}} for module in modules]
    for node, following in itertools.pairwise(nodes):
        node["children"] = [following]
        following["data"]["mapindex"] = [node["data"]]
    model: dict[str, Any] = {"__class__": "nn.gModule", "modules": modules, "forwardnodes": nodes}
    model["graph"] = {"model": model}
    with path.open("wb") as file:
        Torch7Writer(file).write({"model": model, "mean": list(MEAN) if mean_as_table else np.array(MEAN)})


def authors_forward(blocks: list[nn.Sequential], image: Tensor, mask: Tensor) -> Tensor:
    x = torch.cat([(image - torch.tensor(MEAN).view(1, 3, 1, 1)) * (1 - mask), mask], dim=1)
    for block in blocks[:-1]:
        x = torch.relu(block(x))
    made: Tensor = torch.sigmoid(blocks[-1](x))
    return made


def others_forward(blocks: list[nn.Sequential], image: Tensor, mask: Tensor) -> Tensor:
    """otenim/GLCIC-PyTorch: batch normalisation after the ReLU, and the mean pixel in the hole of the image."""
    x = torch.cat([image - image * mask + torch.tensor(MEAN).view(1, 3, 1, 1) * mask, mask], dim=1)
    for block in blocks[:-1]:
        x = block[1](torch.relu(block[0](x)))
    made: Tensor = torch.sigmoid(blocks[-1](x))
    return made


def assert_completes_alike(folder: Path, forward: Any, blocks: list[nn.Sequential]) -> None:
    pipe = GLCICPipeline.from_pretrained(folder, device="cpu", dtype=torch.float32)
    for size in ((48, 64), (200, 340)):
        photo, mask = make_photo(*size).astype(np.float32) / 255, make_hole(*size)
        image, hole = torch.from_numpy(photo).permute(2, 0, 1)[None], torch.from_numpy(mask > 0)[None, None].float()
        expected = forward(blocks, image, hole)[0].permute(1, 2, 0).numpy()
        completed = pipe(photo, mask, detail="none")
        np.testing.assert_allclose(completed[mask > 0], expected[mask > 0], atol=1e-5)
        assert np.array_equal(completed[mask == 0], photo[mask == 0])


@pytest.mark.parametrize("mean_as_table", [False, True])
def test_torch7(tmp_path: Path, capsys: pytest.CaptureFixture[str], mean_as_table: bool) -> None:
    blocks = convolutions()
    write_torch7(tmp_path / "completionnet.t7", blocks, mean_as_table)
    assert main(["convert", str(tmp_path / "completionnet.t7"), "-o", str(tmp_path / "model")]) == 0
    assert capsys.readouterr().out == f"wrote {tmp_path / 'model'}\n"
    assert_completes_alike(tmp_path / "model", authors_forward, blocks)
    assert main(["convert", str(tmp_path / "completionnet.t7"), "-o", str(tmp_path / "model")]) == 1
    assert "exists and is kept" in capsys.readouterr().err


def pytorch_state(blocks: list[nn.Sequential], prefix: str = "") -> dict[str, Tensor]:
    state: dict[str, Tensor] = {}
    for number, (row, block) in enumerate(zip(TABLE_2, blocks, strict=True), start=1):
        names = ("deconv" if row.type == "deconv" else "conv", "bn")
        for name, module in zip(names, block, strict=False):
            state |= {f"{prefix}{name}{number}.{part}": tensor for part, tensor in module.state_dict().items()}
    return state


@pytest.mark.parametrize("form", ["bare", "parallel", "whole training", "legacy"])
def test_pytorch(tmp_path: Path, form: str) -> None:
    blocks = convolutions()
    for block in blocks[:-1]:
        cast(nn.BatchNorm2d, block[1]).eps = 1e-5
    state: Any = pytorch_state(blocks, "module." if form == "parallel" else "")
    (tmp_path / "phase_3").mkdir()
    (tmp_path / "config.json").write_text(json.dumps({"mpv": MEAN, "data_parallel": form == "parallel"}))
    path = tmp_path / "phase_3" / "model_cn_step400"
    torch.save(
        {"model_cn": state, "model_cd": {}} if form == "whole training" else state,
        path,
        _use_new_zipfile_serialization=form != "legacy",
    )
    config, network = convert(path)
    assert config.order == "relu-norm" and config.mean_pixel == pytest.approx(MEAN)
    save_model(tmp_path / "model", config, network)
    assert_completes_alike(tmp_path / "model", others_forward, blocks)


def test_files_that_are_refused(tmp_path: Path) -> None:
    """Pickles that would run code among them, and tensors that reach where they should not."""

    class Harm:
        def __reduce__(self) -> Any:
            return (Path.mkdir, (tmp_path / "harm",))

    def refuse(content: bytes, message: str) -> None:
        (tmp_path / "file").write_bytes(content)
        with pytest.raises(ValueError, match=message) as caught:
            convert(tmp_path / "file")
        assert "\n" not in str(caught.value) and not (tmp_path / "harm").exists()

    def torch7(value: Any) -> bytes:
        file = io.BytesIO()
        Torch7Writer(file).write(value)
        return file.getvalue()

    (tmp_path / "config.json").write_text(json.dumps({"mpv": MEAN}))
    buffer = io.BytesIO()
    torch.save({"model_cn": Harm()}, buffer)
    refuse(buffer.getvalue(), "holds more than tensors, which could run code and is not read")
    refuse(pickle.dumps(Harm(), protocol=2), "is broken, or holds more than tensors")
    refuse(b"PK junk", "is broken")
    refuse(b"GIF89a", "neither a binary Torch7 file nor a checkpoint of PyTorch")
    buffer = io.BytesIO()
    torch.save({"conv1.weight": torch.zeros(4, 4, 5, 5)}, buffer)
    refuse(buffer.getvalue(), "is not the completion network of otenim/GLCIC-PyTorch: it lacks bn1.weight")
    early = pytorch_state(convolutions())
    early["conv1.weight"] = torch.zeros(4, 3, 5, 5)
    buffer = io.BytesIO()
    torch.save(early, buffer)
    refuse(buffer.getvalue(), r"its first convolution, \(4, 3, 5, 5\), does not take image and mask")

    write_torch7(tmp_path / "good.t7", convolutions())
    good = (tmp_path / "good.t7").read_bytes()
    refuse(good[: len(good) // 2], "is not a whole Torch7 file")
    refuse(torch7({"weights": [1, 2]}), "is not one of the authors' models")
    modules = torch7_modules(convolutions())

    def sequential(modules: list[dict[str, Any]]) -> bytes:
        return torch7({"model": {"__class__": "nn.Sequential", "modules": modules}, "mean": np.array(MEAN)})

    refuse(sequential(modules[:-4]), "layer 16 is SpatialConvolution, and in the paper SpatialConvolution, SpatialB")
    modules[18]["dilationW"] = 3
    refuse(sequential(modules), "layer 7 has dilationW 3, and table 2 of the paper 2")
    modules[18]["dilationW"] = 2
    for number, changed, message in (
        (2, {"__class__": "nn.LeakyReLU"}, "layer 1 is SpatialConvolution, SpatialBatchNormalization, LeakyReLU"),
        (48 + 1, {"__class__": "nn.Tanh"}, "layer 17 is SpatialConvolution, Tanh, and in the paper"),
        (36, {**modules[36], "adjW": 1}, "layer 13 has adjW 1, and table 2 of the paper 0"),
        (0, {**modules[0], "padH": 1}, "layer 1 has padH 1"),
        (0, {**modules[0], "bias": np.zeros(1, np.float32)}, "layer 1 has a bias of 1 entries for 4 channels"),
        (5, modules[2], "it has a module twice"),
    ):
        refuse(sequential([*modules[:number], changed, *modules[number + 1 :]]), message)
    refuse(
        sequential([*modules[:3], {"__class__": "nn.SpatialMaxPooling"}, *modules[3:]]), "layer 2 is SpatialMaxPooling"
    )
    itself: dict[str, Any] = {"__class__": "nn.Sequential"}
    itself["modules"] = [itself]
    refuse(torch7({"model": itself, "mean": np.array(MEAN)}), "it has a module twice")
    modules[1]["running_mean"] = np.full(WIDTH, np.nan, np.float32)
    refuse(sequential(modules), "holds NaN")
    reaching = np.broadcast_to(np.float32(0), (2**14, 2**15))  # half a gigabyte of one element
    file = io.BytesIO()
    writer = Torch7Writer(file)
    writer.pack("iii", 3, 99, 1)
    writer.write("mean")
    writer.pack("i", 4)
    writer.is_new(object())
    for text in ("V 1", "torch.FloatTensor"):
        writer.text(text)
    writer.pack("i", 2)
    writer.pack("5q", *reaching.shape, 0, 0, 1)
    writer.pack("i", 4)
    writer.is_new(object())
    for text in ("V 1", "torch.FloatStorage"):
        writer.text(text)
    writer.pack("q", 4)
    file.write(bytes(16))
    refuse(file.getvalue(), "a tensor that reaches beyond its storage")


def test_a_config_that_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "deep").mkdir()
    path = tmp_path / "deep" / "model_cn"
    torch.save(pytorch_state(convolutions()), path)
    with pytest.raises(FileNotFoundError, match=r"config\.json do not exist; give the config\.json of the training"):
        convert(path)
    (tmp_path / "c.json").write_text("{}")
    with pytest.raises(ValueError, match='does not say "mpv"'):
        convert(path, tmp_path / "c.json")
    assert main(["convert", str(tmp_path / "nothing"), "-o", str(tmp_path / "model")]) == 1
    assert "no file" in capsys.readouterr().err

"""Models of others as model folders: the authors' Torch7 files, and checkpoints of otenim/GLCIC-PyTorch."""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from glcic_hub.config import GLCICConfig
from glcic_hub.files import first_line, read_small
from glcic_hub.networks import CompletionNetwork
from glcic_hub.networks.completion import Order
from glcic_hub.networks.table_2 import TABLE_2

EPSILON = 1e-5
"""The default epsilon of batch normalisation, in PyTorch and in Torch7."""

_AUTHORS = {
    "title": "A model of the authors, converted",
    "data": "as sec. 4 of the paper says",
    "software": "Torch7, by the authors",
    "license": {"license": "cc-by-nc-sa-4.0"},
    "terms": "CC BY-NC-SA 4.0, as the authors say.",
}
_OTHERS = {
    "title": "A model of otenim/GLCIC-PyTorch, converted",
    "data": "not recorded",
    "software": "otenim/GLCIC-PyTorch",
}

_TENSORS: dict[str, Any] = {"Byte": np.uint8, "Char": np.int8, "Short": np.int16, "Int": np.int32, "Long": np.int64}
_TENSORS |= {"Float": np.float32, "Double": np.float64}
_TENSORS |= {f"Cuda{kind}": dtype for kind, dtype in _TENSORS.items()} | {"Cuda": np.float32}
_CONVOLUTIONS = {
    "conv": "SpatialConvolution",
    "dilated conv": "SpatialDilatedConvolution",
    "deconv": "SpatialFullConvolution",
    "output": "SpatialConvolution",
}


def convert(source: Path, config: Path | None = None) -> tuple[GLCICConfig, CompletionNetwork]:
    """Reads a model of others, without running code from its file.

    Args:
        source: `completionnet_places2.t7`, `completionnet_places2_freeform.t7` or `completionnet_celeba.t7` of the
            authors (Torch7, binary), or the completion network's checkpoint of otenim/GLCIC-PyTorch.
        config: Of the latter, the `config.json` that its training wrote, which holds the mean pixel; None looks for it
            beside `source` and in the folder above.

    Returns:
        The config and the completion network in evaluation mode, in float32; `save_model` writes them.

    Raises:
        FileNotFoundError: No such file, or no config.
        ModuleNotFoundError: torchfile is not installed, and `source` is a Torch7 file.
        ValueError: The file is of another kind, broken, or holds another network; the message says which part differs.
    """
    if not source.is_file():
        raise FileNotFoundError(f"no file {source}")
    with source.open("rb") as file:
        begin = file.read(4)
    if begin[:2] in (b"PK", b"\x80\x02"):  # a ZIP archive, as `torch.save` writes it, or its older form
        return _from_pytorch(source, config)
    if int.from_bytes(begin, "little") in (3, 4):  # a table or an object
        return _from_torch7(source)
    raise ValueError(f"{source} is neither a binary Torch7 file nor a checkpoint of PyTorch")


def _from_pytorch(source: Path, config: Path | None) -> tuple[GLCICConfig, CompletionNetwork]:
    if zipfile.is_zipfile(source):
        with zipfile.ZipFile(source) as archive:
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                raise ValueError(f"{source} is compressed, which PyTorch's checkpoints are not")
    try:
        found = torch.load(source, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # broken files make it raise a dozen kinds
        raise ValueError(
            f"{source} is broken, or holds more than tensors, which could run code and is not read "
            f"({first_line(error)})"
        ) from None
    if isinstance(found, Mapping) and "model_cn" in found:
        found = found["model_cn"]
    if not isinstance(found, Mapping) or not all(isinstance(tensor, Tensor) for tensor in found.values()):
        raise ValueError(f"{source} holds no network, but {type(found).__name__}")
    state = {str(name).removeprefix("module."): tensor for name, tensor in found.items()}
    mean_pixel = _mean_pixel_beside(source, config)
    names = {}
    for number, row in enumerate(TABLE_2):
        kind = "deconv" if row.type == "deconv" else "conv"
        for part in ("weight", "bias"):
            names[f"layers.{number}.conv.{part}"] = f"{kind}{number + 1}.{part}"
            if row.type != "output":
                names[f"layers.{number}.norm.{part}"] = f"bn{number + 1}.{part}"
        if row.type != "output":
            for part in ("running_mean", "running_var"):
                names[f"layers.{number}.norm.{part}"] = f"bn{number + 1}.{part}"
    if missing := [theirs for theirs in names.values() if theirs not in state]:
        raise ValueError(f"{source} is not the completion network of otenim/GLCIC-PyTorch: it lacks {missing[0]}")
    network_config = _config_of(state[names["layers.0.conv.weight"]], mean_pixel, source, "relu-norm", _OTHERS)
    tensors = {ours: state[theirs] for ours, theirs in names.items()}
    return network_config, _filled(network_config, tensors, source)


def _mean_pixel_beside(source: Path, config: Path | None) -> tuple[float, ...]:
    places = [config] if config is not None else [folder / "config.json" for folder in source.resolve().parents[:2]]
    for place in places:
        if place.is_file():
            try:
                found = json.loads(read_small(place))["mpv"]
                return tuple(found) if isinstance(found, list) else (math.nan,)
            except (ValueError, KeyError, TypeError, RecursionError):
                raise ValueError(f'{place} does not say "mpv", the mean pixel, as a list of three numbers') from None
    raise FileNotFoundError(
        f"{' and '.join(map(str, places))} do not exist; give the config.json of the training, for the mean pixel"
    )


class _Layer(NamedTuple):
    """A convolution of a Torch7 model and the batch normalisation after it."""

    kind: str
    conv: Any
    norm: Any  # None at the output


def _from_torch7(source: Path) -> tuple[GLCICConfig, CompletionNetwork]:
    found = _read_torch7(source)
    try:
        model, mean = found[b"model"], found[b"mean"]
        mean = np.asarray(_listed(mean) if isinstance(mean, dict) else mean, float).reshape(-1)
        layers = _layers(model)
        config = _config_of(layers[0].conv["weight"], tuple(mean), source, "norm-relu", _AUTHORS)
        tensors: dict[str, Tensor] = {}
        for number, (row, layer) in enumerate(zip(TABLE_2, layers, strict=True)):
            _check_geometry(number, row, layer)
            tensors |= _tensors_of(number, layer)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError, RecursionError) as error:
        raise ValueError(f"{source} is not one of the authors' models ({first_line(error)})") from None
    return config, _filled(config, tensors, source)


def _read_torch7(source: Path) -> Any:
    import torchfile

    for kind, dtype in _TENSORS.items():
        torchfile.type_handlers[f"torch.{kind}Tensor".encode()] = _checked_tensor_reader(dtype)
    try:
        with source.open("rb") as file:
            # Its lists are tables with other keys, and it takes an empty table for one.
            return torchfile.T7Reader(file, use_list_heuristic=False, force_8bytes_long=True).read_obj()
    except Exception as error:  # torchfile raises whatever it stumbles over
        raise ValueError(f"{source} is not a whole Torch7 file ({first_line(error)})") from None


def _checked_tensor_reader(dtype: Any) -> Any:
    """Reads a tensor, as torchfile does, but refuses one that reaches beyond its storage."""

    def read(reader: Any, version: Any) -> NDArray[Any]:
        dimensions = reader.read_int()
        if not 0 <= dimensions <= 8:
            raise ValueError(f"a tensor of {dimensions} dimensions")
        sizes = [reader.read_long() for _ in range(dimensions)]
        strides = [reader.read_long() for _ in range(dimensions)]
        offset = reader.read_long() - 1
        storage = reader.read_obj()
        if storage is None or math.prod(sizes) == 0 or not sizes:
            return np.empty(0, dtype)
        last = offset + sum((size - 1) * stride for size, stride in zip(sizes, strides, strict=True))
        apart = math.prod(sizes) <= len(storage)  # otherwise elements share memory, of which a copy takes more
        if min(sizes) < 1 or min(strides) < 0 or offset < 0 or last >= len(storage) or not apart:
            raise ValueError("a tensor that reaches beyond its storage")
        item = storage.dtype.itemsize
        view = np.lib.stride_tricks.as_strided(storage[offset:], sizes, [stride * item for stride in strides])
        return np.ascontiguousarray(view)

    return read


def _layers(model: Any) -> list[_Layer]:
    """Lists the convolutions of a model in the order in which it runs them, and checks what is between them."""
    modules = [module for module in _modules(model, set()) if _kind(module) != "Identity"]
    layers = []
    for number, row in enumerate(TABLE_2):
        wanted = [
            _CONVOLUTIONS[row.type],
            *(["Sigmoid"] if row.type == "output" else ["SpatialBatchNormalization", "ReLU"]),
        ]
        found, modules = modules[: len(wanted)], modules[len(wanted) :]
        kinds = [_kind(module) for module in found]
        if kinds[1:] != wanted[1:] or kinds[0] not in _CONVOLUTIONS.values():
            raise ValueError(f"layer {number + 1} is {', '.join(kinds)}, and in the paper {', '.join(wanted)}")
        layers.append(_Layer(kinds[0], found[0], None if row.type == "output" else found[1]))
    if modules:
        raise ValueError(f"it continues after layer {len(TABLE_2)}, with {_kind(modules[0])}")
    return layers


def _kind(module: Any) -> str:
    return str(module.torch_typename().decode().split(".")[-1])


def _modules(module: Any, seen: set[int]) -> Iterator[Any]:
    """Lists the modules that hold no others; those of an nngraph module and of nn.Sequential as they run."""
    if id(module) in seen:
        raise ValueError("it has a module twice")
    seen.add(id(module))
    inner = module["modules"]
    if inner is None:
        yield module
    else:
        for part in _listed(inner):
            yield from _modules(part, seen)


def _listed(table: Mapping[Any, Any]) -> list[Any]:
    """Lists the entries of a Lua table that is a list."""
    return [table[key] for key in sorted(table)]


def _check_geometry(number: int, row: Any, layer: _Layer) -> None:
    stride = round(1 / row.stride) if row.type == "deconv" else int(row.stride)
    padding = (row.kernel - stride) // 2 if row.type == "deconv" else row.dilation * (row.kernel // 2)
    expected = {"kW": row.kernel, "kH": row.kernel, "dW": stride, "dH": stride, "padW": padding, "padH": padding}
    expected |= {"dilationW": row.dilation, "dilationH": row.dilation, "adjW": 0, "adjH": 0}
    left_out = {"dilationW": 1, "dilationH": 1, "adjW": 0, "adjH": 0}
    if (layer.kind == "SpatialFullConvolution") != (row.type == "deconv"):
        raise ValueError(f"layer {number + 1} is {layer.kind}, and in table 2 of the paper {row.type}")
    for name, value in expected.items():
        found = left_out.get(name) if layer.conv[name] is None else layer.conv[name]
        if found != value:
            raise ValueError(f"layer {number + 1} has {name} {found}, and table 2 of the paper {value}")


def _tensors_of(number: int, layer: _Layer) -> dict[str, Tensor]:
    """Renames tensors as our network's, which has no bias before batch normalisation: it goes into the mean."""

    def tensor(module: Any, name: str) -> Tensor:
        return torch.from_numpy(np.asarray(module[name], np.float32))

    weight, bias = tensor(layer.conv, "weight"), layer.conv["bias"]
    conv, norm = f"layers.{number}.conv", f"layers.{number}.norm"
    if layer.norm is None:
        return {f"{conv}.weight": weight, f"{conv}.bias": tensor(layer.conv, "bias")}
    mean, variance = tensor(layer.norm, "running_mean"), tensor(layer.norm, "running_var")
    if bias is not None and np.size(bias):
        if np.shape(bias) != mean.shape:
            raise ValueError(f"layer {number + 1} has a bias of {np.size(bias)} entries for {len(mean)} channels")
        mean = mean - tensor(layer.conv, "bias")
    return {
        f"{conv}.weight": weight,
        f"{norm}.weight": tensor(layer.norm, "weight"),
        f"{norm}.bias": tensor(layer.norm, "bias"),
        f"{norm}.running_mean": mean,
        f"{norm}.running_var": variance + (float(layer.norm["eps"]) - EPSILON),
    }


def _config_of(first: Any, mean_pixel: Any, source: Path, order: Order, about: Mapping[str, Any]) -> GLCICConfig:
    if len(first.shape) != 4 or first.shape[1] != 4:
        raise ValueError(f"{source}: its first convolution, {tuple(first.shape)}, does not take image and mask")
    return GLCICConfig(
        width=int(first.shape[0]),
        mean_pixel=mean_pixel,
        order=order,
        training=about,
    )


def _filled(config: GLCICConfig, tensors: Mapping[str, Tensor], source: Path) -> CompletionNetwork:
    with torch.device("meta"):  # takes no memory, whatever the file says
        expected = CompletionNetwork(config.width, config.mean_pixel, config.order).state_dict()
    for name, wanted in expected.items():
        if wanted.is_floating_point():
            tensor = tensors[name]
            if tensor.layout != torch.strided or tensor.is_meta or not tensor.is_floating_point():
                raise ValueError(f"{source}: {name} is no plain tensor of floating-point numbers")
            if tensor.shape != wanted.shape:
                raise ValueError(f"{source}: {name} is {tuple(tensor.shape)}, not {tuple(wanted.shape)}")
            if not tensor.isfinite().all():
                raise ValueError(f"{source} holds NaN or infinity in {name}")
    network = CompletionNetwork(config.width, config.mean_pixel, config.order)
    network.load_state_dict({**network.state_dict(), **{name: tensor.float() for name, tensor in tensors.items()}})
    return network.eval()

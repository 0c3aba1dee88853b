"""The files of a model folder or a model repository: the config and the networks."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from glcic_hub.config import GLCICConfig
from glcic_hub.files import read_small, write_text, write_whole
from glcic_hub.networks import CompletionNetwork, ContextDiscriminator

CONFIG_FILE = "config.json"
DTYPES = frozenset({"F16", "BF16", "F32", "F64"})
LARGEST_HEADER = 2**20
"""Bytes of a safetensors file's list of tensors; a network's takes thousands."""

WEIGHTS_FILE = "model.safetensors"
DISCRIMINATOR_PARTS = ("global_discriminator", "local_discriminator", "fusion")
"""Parts of the context discriminator, each in a file of its own, `<part>.safetensors`; completion needs none."""

PACKAGED = Path(__file__).parents[1] / "pretrained"
"""Folder of the models that come with the package, each in a folder of its name."""

DEFAULT_MODEL = "compact"

MODEL_FILES = (CONFIG_FILE, WEIGHTS_FILE, *(f"{part}.safetensors" for part in DISCRIMINATOR_PARTS), "recipe*.yaml")
"""Patterns of all that a model folder holds, besides its card and license."""


def packaged_model(model: str | Path) -> Path | None:
    """Returns the folder of a model that comes with the package; None if it is not the name of one."""
    names = [path.name for path in PACKAGED.iterdir()]
    return PACKAGED / model if model in names else None


def save_model(
    folder: Path,
    config: GLCICConfig,
    network: CompletionNetwork,
    discriminator: ContextDiscriminator | None = None,
    *,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Writes a model folder that `load_model` and `load_discriminator` read.

    Args:
        folder: Made if it does not exist; a model in it is replaced.
        config: Architecture and mean pixel of `network`.
        network: The completion network, batch normalisation not folded, so that it can be trained further.
        discriminator: Saved too, to train further.
        dtype: Precision of the weights of convolutions and fully-connected layers. All else, which is small, is
            saved in float32.

    Raises:
        OSError: The folder cannot be made or written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _save_weights(folder / WEIGHTS_FILE, network, dtype)
    for part in DISCRIMINATOR_PARTS:
        path = folder / f"{part}.safetensors"
        module = getattr(discriminator, part, None)
        if module is None:
            path.unlink(missing_ok=True)
        else:
            _save_weights(path, module, dtype)
    write_text(folder / CONFIG_FILE, config.to_json())


def _save_weights(path: Path, network: nn.Module, dtype: torch.dtype) -> None:
    tensors = {
        name: tensor.detach().to("cpu", dtype if tensor.ndim > 1 else torch.float32).contiguous()
        for name, tensor in network.state_dict().items()
        if tensor.is_floating_point()  # BN's count of batches is of no use to anyone
    }
    content = safetensors.torch.save(tensors, metadata={"format": "pt"})
    write_whole(path, lambda temporary: temporary.write_bytes(content))


def load_model(folder: Path) -> tuple[GLCICConfig, CompletionNetwork]:
    """Reads a model folder.

    Returns:
        The config, and the completion network in evaluation mode, in float32, on the CPU.

    Raises:
        FileNotFoundError: The folder or one of its two files does not exist.
        ValueError: A file is not what it should be; the message names it.
    """
    for path in (folder, folder / CONFIG_FILE, folder / WEIGHTS_FILE):
        if not path.exists():
            raise FileNotFoundError(f"no model in {folder}: {path.name} does not exist")
    try:
        config = GLCICConfig.from_json(read_small(folder / CONFIG_FILE))
    except ValueError as error:
        raise ValueError(f"{folder / CONFIG_FILE}: {error}") from None
    with torch.device("meta"):  # takes no memory, whatever the config says
        expected = CompletionNetwork(config.width, config.mean_pixel, config.order)
    tensors = _load_weights(folder / WEIGHTS_FILE, expected)
    with torch.device("cpu"):  # whatever PyTorch's default device is
        network = CompletionNetwork(config.width, config.mean_pixel, config.order)
    network.load_state_dict({**network.state_dict(), **tensors})
    return config, network.eval()


def load_discriminator(folder: Path, config: GLCICConfig) -> ContextDiscriminator | None:
    """Reads the discriminators of a model folder.

    Returns:
        The context discriminator in evaluation mode, in float32, on the CPU, of the parts that the folder holds; None
        if it holds none.

    Raises:
        ValueError: A file is not what it should be; the message names it.
    """
    found = [part for part in DISCRIMINATOR_PARTS if (folder / f"{part}.safetensors").exists()]
    if not found:
        return None
    if "fusion" not in found or len(found) == 1:
        raise ValueError(f"the discriminators in {folder} are not whole: there is {', '.join(found)} alone")
    kind: Literal["both", "global", "local"] = "both"
    if len(found) == 2:
        kind = "global" if "global_discriminator" in found else "local"
    with torch.device("meta"):
        expected = ContextDiscriminator(config.width, config.image_size, config.patch_size, kind)
    tensors = {
        f"{part}.{name}": tensor
        for part in found
        for name, tensor in _load_weights(folder / f"{part}.safetensors", getattr(expected, part)).items()
    }
    with torch.device("cpu"):
        discriminator = ContextDiscriminator(config.width, config.image_size, config.patch_size, kind)
    discriminator.load_state_dict({**discriminator.state_dict(), **tensors})
    return discriminator.eval()


def _load_weights(path: Path, expected: nn.Module) -> dict[str, Tensor]:
    """Reads the floating-point tensors of a network, in float32, if their names and shapes are as expected."""
    wanted = {
        name: tuple(tensor.shape) for name, tensor in expected.state_dict().items() if tensor.is_floating_point()
    }
    with path.open("rb") as content:
        length = int.from_bytes(content.read(8), "little")
    if LARGEST_HEADER < length <= path.stat().st_size:
        raise ValueError(f"{path} lists its tensors in {length} bytes, and no network's takes {LARGEST_HEADER}")
    try:
        with safe_open(path, framework="pt") as file:
            found = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
            if found != wanted:
                raise ValueError(f"{path} does not fit {CONFIG_FILE}: {_difference(found, wanted)}")
            dtypes = {name: file.get_slice(name).get_dtype() for name in wanted}
            if others := {name: dtype for name, dtype in dtypes.items() if dtype not in DTYPES}:
                name, dtype = min(others.items())
                raise ValueError(f"{path} holds {name} as {dtype}, not as one of {', '.join(sorted(DTYPES))}")
            tensors = {name: file.get_tensor(name).float() for name in wanted}
    except SafetensorError as error:
        raise ValueError(f"{path} is not a whole safetensors file ({error}); download it or save it again") from None
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise ValueError(f"{path} holds NaN or infinity in {name}")
        if name.endswith("running_var") and (tensor < 0).any():
            raise ValueError(f"{path} holds a variance below 0 in {name}")
    return tensors


def _difference(found: dict[str, tuple[int, ...]], wanted: dict[str, tuple[int, ...]]) -> str:
    """Describes the first way in which a file's tensors differ from the network's."""
    for name, shape in wanted.items():
        if name not in found:
            return f"it lacks {name}"
        if found[name] != shape:
            return f"{name} is {found[name]}, the config says {shape}"
    return f"it has a tensor too many, {min(set(found) - set(wanted))}"

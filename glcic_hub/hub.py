"""What a model folder holds: `config.json` and `model.safetensors`, the completion network."""

from __future__ import annotations

from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open

from glcic_hub.config import GLCICConfig
from glcic_hub.files import write_whole
from glcic_hub.networks import CompletionNetwork

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"


def save_model(
    folder: Path, config: GLCICConfig, network: CompletionNetwork, *, dtype: torch.dtype = torch.float32
) -> None:
    """Writes a model folder that `load_model` reads.

    Args:
        folder: Made if it does not exist; a model in it is replaced.
        config: Architecture and mean pixel of `network`.
        network: The completion network, batch normalisation not folded, so that it can be trained further.
        dtype: Precision of the convolutions' weights. All else, which is small, is saved in float32.

    Raises:
        OSError: The folder cannot be made or written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        name: tensor.detach().to("cpu", dtype if tensor.ndim > 1 else torch.float32).contiguous()
        for name, tensor in network.state_dict().items()
        if tensor.is_floating_point()  # BN's count of batches is of no use to anyone
    }
    content = safetensors.torch.save(tensors, metadata={"format": "pt"})
    write_whole(folder / WEIGHTS_FILE, lambda path: path.write_bytes(content))
    write_whole(folder / CONFIG_FILE, lambda path: path.write_text(config.to_json(), encoding="utf-8"))


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
        config = GLCICConfig.from_json((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{folder / CONFIG_FILE}: {error}") from None
    with torch.device("meta"):  # takes no memory, whatever the config says
        expected = CompletionNetwork(config.width, config.mean_pixel).state_dict()
    wanted = {name: tuple(tensor.shape) for name, tensor in expected.items() if tensor.is_floating_point()}
    weights = folder / WEIGHTS_FILE
    try:
        with safe_open(weights, framework="pt") as file:
            found = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
            if found != wanted:
                raise ValueError(f"{weights} does not fit {CONFIG_FILE}: {_difference(found, wanted)}")
            tensors = {name: file.get_tensor(name).float() for name in wanted}
    except SafetensorError as error:
        raise ValueError(
            f"{weights} is not a whole safetensors file ({error}); download it or save it again"
        ) from None
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise ValueError(f"{weights} holds NaN or infinity in {name}")
    network = CompletionNetwork(config.width, config.mean_pixel)
    network.load_state_dict({**network.state_dict(), **tensors})
    return config, network.eval()


def _difference(found: dict[str, tuple[int, ...]], wanted: dict[str, tuple[int, ...]]) -> str:
    """The first way in which the tensors of a file are not those of the network."""
    for name, shape in wanted.items():
        if name not in found:
            return f"it lacks {name}"
        if found[name] != shape:
            return f"{name} is {found[name]}, the config says {shape}"
    return f"it has a tensor too many, {min(set(found) - set(wanted))}"

"""The completion network as a file for other runtimes: ONNX, or a program of `torch.export`."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from glcic_hub.files import write_whole
from glcic_hub.images.masks import MASK_THRESHOLD
from glcic_hub.networks import CompletionNetwork, fold_batch_norm
from glcic_hub.networks.completion import composite
from glcic_hub.networks.table_2 import STRIDE

OPSET = 18
MIN_EXPORT_SIDE = 5
"""Pixels; with 4 the lowest resolution would have a length of 1, which exporters treat as a case of its own."""


class ImageCompletion(nn.Module):
    """All of completion in one graph: padding, network, cutting off, compositing.

    Args:
        network: The completion network, in evaluation mode.
    """

    def __init__(self, network: CompletionNetwork) -> None:
        super().__init__()
        self.network = fold_batch_norm(network).requires_grad_(False)

    def forward(self, image: Tensor, mask: Tensor) -> Tensor:
        """Completes images.

        Args:
            image: (B, 3, H, W) float32 RGB in [0, 1], of any height and width from 5 on.
            mask: (B, 1, H, W) float32; above 0.2 = complete.

        Returns:
            (B, 3, H, W), equal to `image` outside the hole.
        """
        height, width = image.shape[-2:]
        hole = (mask > MASK_THRESHOLD).to(image.dtype)
        known, padded_hole = (_pad(_pad(tensor, 2), 3) for tensor in (image, hole))
        made = self.network(known, padded_hole)
        for axis, length in ((2, height), (3, width)):
            made = made.index_select(axis, torch.arange(length, device=made.device))
        return composite(image, made, hole)


def _pad(tensor: Tensor, axis: int) -> Tensor:
    """Continues a tensor to a multiple of 4 by its last row or column.

    By indices: for `functional.pad` and for slices the exporter asks how lengths that it does not know compare.
    """
    length = tensor.shape[axis]
    places = torch.arange((length + STRIDE - 1) // STRIDE * STRIDE, device=tensor.device)
    return tensor.index_select(axis, places.clamp(max=length - 1))


def export_program(network: CompletionNetwork) -> ExportedProgram:
    """Exports the network as a program of `torch.export`, of dynamic batch, height and width.

    Args:
        network: The completion network.
    """
    example = tuple(torch.zeros(2, channels, 37, 42, dtype=torch.float32, device="cpu") for channels in (3, 1))
    batch, height, width = Dim("batch", min=1), Dim("height", min=MIN_EXPORT_SIDE), Dim("width", min=MIN_EXPORT_SIDE)
    axes = {0: batch, 2: height, 3: width}
    with torch.device("cpu"):  # whatever PyTorch's default device is
        return torch.export.export(ImageCompletion(network).eval(), example, dynamic_shapes=(axes, axes))


def export(network: CompletionNetwork, path: Path, format: str = "onnx") -> None:
    """Writes the network to a file, whole or not at all.

    Args:
        network: The completion network.
        path: The file to write or replace.
        format: `"onnx"`: inputs `image` and `mask`, output `completed`, as `ImageCompletion`. `"torch"`: what
            `torch.export.load` reads.

    Raises:
        ValueError: The format is another one.
        ModuleNotFoundError: onnx or onnxscript is not installed.
        OSError: The file cannot be written.
    """
    program = export_program(network)
    if format == "torch":
        write_whole(path, lambda temporary: torch.export.save(program, temporary))
    elif format == "onnx":
        write_whole(path, lambda temporary: _save_onnx(program, temporary))
    else:
        raise ValueError(f'format must be "onnx" or "torch", not {format!r}')


def _save_onnx(program: ExportedProgram, path: Path) -> None:
    import onnx

    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it misses torchvision, which we do without
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's, of its own parts
        exported: Any = torch.onnx.export(
            program, input_names=["image", "mask"], output_names=["completed"], opset_version=OPSET, verbose=False
        )
    exported.save(path, external_data=False)
    onnx.checker.check_model(onnx.load(path), full_check=True)

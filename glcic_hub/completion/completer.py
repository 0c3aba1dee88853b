"""Runs the completion network on the parts of an image that its holes need, at a cost that follows the holes."""

from __future__ import annotations

import os
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeAlias, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from glcic_hub.completion.receptive_field import LayerSpan, layer_spans, padded, region
from glcic_hub.completion.tiling import MAX_SIDE, tile
from glcic_hub.files import first_line
from glcic_hub.images.boxes import Box
from glcic_hub.images.processing import Patch, PilPixels, Pixels, to_unit
from glcic_hub.networks import CompletionNetwork
from glcic_hub.networks.layers import ConvNormAct
from glcic_hub.networks.table_2 import TABLE_2, Row

Source: TypeAlias = tuple[Pixels | PilPixels, NDArray[np.bool_]]
"""An image, (H, W, 3) uint8 or float32 in [0, 1], and its hole, (H, W) boolean."""

if sys.platform != "win32":
    # OpenMP's threads do not go with a process into its fork, which would wait for them for ever.
    os.register_at_fork(after_in_child=partial(torch.set_num_threads, 1))


def open_device(device: str | torch.device | None) -> torch.device:
    """Opens a device by name and checks that it computes; None takes a CUDA GPU if there is one, else the CPU.

    Raises:
        ValueError: The device cannot be used.
    """
    try:
        opened = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.zeros((), device=opened).item()
    except (RuntimeError, AssertionError, ImportError, NotImplementedError) as error:  # torch raises any of these
        raise ValueError(f"cannot use the device {str(device)!r}: {first_line(error)}") from None
    return opened


def is_out_of_memory(error: RuntimeError) -> bool:
    """Tells whether the device ran out of memory: PyTorch has an exception for that on a GPU, none on the CPU."""
    return isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error)


def best_dtype(device: torch.device) -> torch.dtype:
    """Chooses the fastest precision of a device whose results look the same as float32's.

    bfloat16 on CPUs with native support for it (AVX512-BF16, AMX), float16 on GPUs, float32 elsewhere.
    """
    if device.type == "cuda":
        return torch.float16
    # Not public yet; without them float32 is right, only slower.
    checks = (getattr(torch.cpu, f"_is_{name}_supported", bool) for name in ("avx512_bf16", "amx_tile"))
    return torch.bfloat16 if device.type == "cpu" and any(check() for check in checks) else torch.float32


class Step(NamedTuple):
    """A layer's work along one axis: its padding, and the part of its output that is needed."""

    before: int  # zeros before the input, as the network pads at the image's border
    after: int
    skip: int  # outputs to drop at the beginning
    length: int  # outputs to keep


class Completer:
    """Runs the completion network (sec. 3.2) on the regions of images that their holes depend on.

    The results equal those of the network run on the whole image, up to rounding. The content of the hole has no
    influence. Heights and widths that are not multiples of 4 are padded by repeating the last row or column.

    Args:
        network: The completion network in evaluation mode; its weights decide device and precision.
    """

    def __init__(self, network: CompletionNetwork) -> None:
        self.network = network
        self._run_compiled: Callable[..., Tensor] | None = None
        self._compiled_by = 0  # number of the process

    def __reduce__(self) -> tuple[type[Completer], tuple[CompletionNetwork]]:
        """Pickles the network alone, as compiled code belongs to its process."""
        return Completer, (self.network,)

    def compile(self) -> None:
        """Has `torch.compile` compile the layers at their first use, for regions that do not reach the border."""
        self._run_compiled = torch.compile(_run_layers, dynamic=True)
        self._compiled_by = os.getpid()

    def complete(self, sources: Sequence[Source]) -> list[list[Patch]]:
        """Completes images.

        Returns:
            For each image its patches, whose holes do not overlap and together cover its hole.
        """
        tiles = [tile(hole) for _, hole in sources]
        fills = iter(self.fill([(source, box) for source, boxes in zip(sources, tiles, strict=True) for box in boxes]))
        return [
            [Patch(box, next(fills), hole[box.slices]) for box in boxes]
            for (_, hole), boxes in zip(sources, tiles, strict=True)
        ]

    @torch.inference_mode()
    def fill(self, parts: Sequence[tuple[Source, Box]]) -> list[NDArray[np.float32]]:
        """Computes the network's output in boxes of images; regions of equal size go through it as a batch.

        Args:
            parts: Images, and a box within each.

        Returns:
            (height, width, 3) float32 of each box, in [0, 1].

        Raises:
            FloatingPointError: The network gives NaN or infinity.
        """
        # Group the parts whose regions have the same size and padding.
        alike: dict[Any, list[int]] = defaultdict(list)
        for number, ((_, hole), box) in enumerate(parts):
            alike[(region(box, *hole.shape).size, *_steps(box, *hole.shape))].append(number)
        # Run each group in batches of bounded size.
        fills: dict[int, NDArray[np.float32]] = {}
        for ((height, width), *steps), numbers in alike.items():
            at_border = any(step.before or step.after for axis in steps for step in axis)
            run_layers = _run_layers
            # A fork would wait for the compiler's threads, which did not come with it.
            if self._run_compiled is not None and self._compiled_by == os.getpid() and not at_border:
                run_layers = self._run_compiled
            at_once = max(1, MAX_SIDE**2 // (height * width))
            for begin in range(0, len(numbers), at_once):
                batch = numbers[begin : begin + at_once]
                x = torch.cat([self._encode(*parts[number]) for number in batch])  # (B, 4, h, w)
                x = run_layers(self.network, x.contiguous(memory_format=torch.channels_last), *steps)
                if not x.isfinite().all():
                    raise FloatingPointError("the network gives NaN or infinity: its weights are broken")
                fills |= zip(batch, x.permute(0, 2, 3, 1).float().cpu().numpy(), strict=True)
        return [fills[number] for number in range(len(parts))]

    def _encode(self, source: Source, box: Box) -> Tensor:
        """Makes the first layer's input for a box: (1, 4, h, w)."""
        rgb, hole = source
        weight = next(self.network.parameters())
        needed = region(box, *hole.shape)
        return self.network.encode_input(
            *(
                torch.from_numpy(part).to(weight.device, weight.dtype).permute(2, 0, 1)[None]
                for part in (to_unit(_cut(rgb, needed)), _cut(hole, needed)[..., None].astype(np.float32))
            )
        )


def _cut(image: Any, box: Box) -> NDArray[Any]:
    """Cuts a box out of an image; beyond the lower and right edges it repeats the last row and column."""
    height, width = image.shape[:2]
    inside = box._replace(bottom=min(box.bottom, height), right=min(box.right, width))
    part: NDArray[Any] = image[inside.slices]
    beyond = [(0, box.bottom - inside.bottom), (0, box.right - inside.right), (0, 0)]
    return np.pad(part, beyond[: part.ndim], mode="edge") if inside != box else part


def _steps(box: Box, height: int, width: int) -> tuple[tuple[Step, ...], tuple[Step, ...]]:
    """Plans each layer's work along rows and columns for a box of an image."""
    rows, columns = (
        tuple(map(_step, TABLE_2, layer_spans(span, padded(length))))
        for span, length in ((box.rows, height), (box.columns, width))
    )
    return rows, columns


def _step(row: Row, span: LayerSpan) -> Step:
    # Without padding, the first input of a deconvolution is the first tap of output 2 i - 1.
    skip = span.output.begin - (2 * span.inside.begin - 1) if row.type == "deconv" else 0
    return Step(span.inside.begin - span.needed.begin, span.needed.end - span.inside.end, skip, span.output.length)


def _run_layers(network: CompletionNetwork, x: Tensor, rows: tuple[Step, ...], columns: tuple[Step, ...]) -> Tensor:
    for block, vertical, horizontal in zip(network.layers, rows, columns, strict=True):
        x = _run_layer(cast(ConvNormAct, block), x, vertical, horizontal)
    return x


def _run_layer(block: ConvNormAct, x: Tensor, vertical: Step, horizontal: Step) -> Tensor:
    """Runs a layer on the needed part of its input, for the needed part of its output."""
    convolution = block.conv
    if isinstance(convolution, nn.ConvTranspose2d):
        y = functional.conv_transpose2d(x, convolution.weight, convolution.bias, stride=convolution.stride)
        y = y.narrow(2, vertical.skip, vertical.length).narrow(3, horizontal.skip, horizontal.length)
    else:
        beyond = [horizontal.before, horizontal.after, vertical.before, vertical.after]
        if any(beyond):
            x = functional.pad(x, beyond)
        y = functional.conv2d(
            x, convolution.weight, convolution.bias, stride=convolution.stride, dilation=convolution.dilation
        )
    return block.after_conv(y)

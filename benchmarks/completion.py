"""Completion by regions next to the whole picture as in the paper, and next to what one might use instead.

    python benchmarks/completion.py [--width 64] [--sizes 512 768 1024 2048 4096] [--device cpu]

Weights are random: time does not depend on them.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from glcic_hub.blending import TELEA_RADIUS
from glcic_hub.completion import best_dtype, complete
from glcic_hub.images import to_unit
from glcic_hub.networks import CompletionNetwork, fold_batch_norm
from glcic_hub.support import Box, multiply_adds, plan

HOLE = 128


def main() -> None:
    """Measures and prints tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=64, help="base width of the network (default: 64, the paper's)")
    parser.add_argument("--sizes", type=int, nargs="+", default=[512, 768, 1024, 2048, 4096], metavar="N")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--runs", type=int, default=5, metavar="N", help="of each kind, in turns (default: 5)")
    parser.add_argument("--full-frame-up-to", type=int, default=1024, metavar="N", help="larger ones take minutes")
    options = parser.parse_args()
    device = torch.device(options.device)
    network = CompletionNetwork(options.width, (0.5, 0.5, 0.5)).eval().requires_grad_(False).to(device)
    dtypes = sorted({torch.float32, best_dtype(device)}, key=str, reverse=True)
    folded = {dtype: _prepare(network, dtype) for dtype in dtypes}
    rates = {dtype: _attainable_rate(dtype, device) for dtype in dtypes}
    for dtype in dtypes:
        print(f"one large convolution in {_name(dtype)}: {rates[dtype] / 1e9:.0f} G multiply-adds/s")

    print(f"\nA {HOLE}x{HOLE} hole in the middle, base width {options.width}; seconds, medians of {options.runs}\n")
    header = ["picture", "plain"] + [f"{kind} {_name(dtype)}" for dtype in dtypes for kind in ("whole", "region")]
    print("| " + " | ".join([*header, "Telea", "Navier-Stokes"]) + " |\n" + "|---" * (len(header) + 2) + "|")
    for size in options.sizes:
        rgb, hole = _picture(size)
        kinds: dict[str, Callable[[], Any]] = {}
        if size <= options.full_frame_up_to:
            kinds["plain"] = partial(_whole, network, rgb, hole)
        for dtype in dtypes:
            if size <= options.full_frame_up_to:
                kinds[f"whole {_name(dtype)}"] = partial(_whole, folded[dtype], rgb, hole)
            kinds[f"region {_name(dtype)}"] = partial(complete, folded[dtype], rgb, hole)
        for name, method in (("Telea", cv2.INPAINT_TELEA), ("Navier-Stokes", cv2.INPAINT_NS)):
            kinds[name] = partial(cv2.inpaint, rgb, hole.astype(np.uint8), TELEA_RADIUS, method)
        seconds = measure(kinds, options.runs)
        cells = [f"{seconds[name]:.3f}" if name in seconds else "" for name in [*header[1:], "Telea", "Navier-Stokes"]]
        print(f"| {size}² | " + " | ".join(cells) + " |", flush=True)
        if size <= options.full_frame_up_to:
            whole = multiply_adds(Box(0, 0, size, size), size, size, options.width)
            part = sum(multiply_adds(box, size, size, options.width) for box in plan(hole))
            for dtype in dtypes:
                once, region = seconds[f"whole {_name(dtype)}"], seconds[f"region {_name(dtype)}"]
                shares = [cost / time_ / rates[dtype] for cost, time_ in ((whole, once), (part, region))]
                print(
                    f"<!-- {size}² {_name(dtype)}: whole / region {once / region:.1f}, plain / region "
                    f"{seconds['plain'] / region:.1f}; of the convolution's rate: whole {shares[0]:.0%}, "
                    f"region {shares[1]:.0%} -->"
                )


def measure(kinds: dict[str, Callable[[], Any]], runs: int) -> dict[str, float]:
    """The median seconds of each kind, run in turns, after a first turn that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in kinds}
    for run in range(runs + 1):
        for name, work in kinds.items():
            begin = time.perf_counter()
            work()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if run:
                seconds[name].append(time.perf_counter() - begin)
    return {name: median(values) for name, values in seconds.items()}


def _picture(size: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    rgb = np.random.default_rng(0).integers(0, 256, (size, size, 3), np.uint8)
    hole = np.zeros((size, size), bool)
    begin = (size - HOLE) // 2
    hole[begin : begin + HOLE, begin : begin + HOLE] = True
    return rgb, hole


@torch.inference_mode()
def _whole(network: CompletionNetwork, rgb: NDArray[np.uint8], hole: NDArray[np.bool_]) -> torch.Tensor:
    """The whole picture through the network, as the paper does it."""
    weight = next(network.parameters())
    image = torch.from_numpy(to_unit(rgb)).permute(2, 0, 1)[None].to(weight.device, weight.dtype)
    mask = torch.from_numpy(hole)[None, None].to(weight.device, weight.dtype)
    if weight.is_contiguous(memory_format=torch.channels_last):
        image, mask = (tensor.contiguous(memory_format=torch.channels_last) for tensor in (image, mask))
    made: torch.Tensor = network(image, mask)
    return made


def _prepare(network: CompletionNetwork, dtype: torch.dtype) -> CompletionNetwork:
    folded: CompletionNetwork = fold_batch_norm(network).to(dtype).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return folded


@torch.inference_mode()
def _attainable_rate(dtype: torch.dtype, device: torch.device) -> float:
    """The multiply-adds a second of one large convolution, the like of which the network consists of."""
    channels, side = 256, 256
    x = torch.randn(1, channels, side, side, dtype=dtype, device=device).contiguous(memory_format=torch.channels_last)
    weight = torch.randn(channels, channels, 3, 3, dtype=dtype, device=device).contiguous(
        memory_format=torch.channels_last
    )
    seconds = measure({"convolution": partial(functional.conv2d, x, weight, padding=1)}, 5)["convolution"]
    return side**2 * channels**2 * 9 / seconds


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


if __name__ == "__main__":
    main()

"""What detail from the image itself costs, beside PatchMatch and Telea: medians of interleaved runs.

python benchmarks/exemplars.py [PHOTOGRAPHS] [--model FOLDER] [--runs 5] [--count 3] [--only 640x480]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from statistics import median
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from glcic_hub import GLCICPipeline
from glcic_hub.data.photographs import open_photographs
from glcic_hub.evaluation.methods import BASELINES, Method
from glcic_hub.evaluation.speed import measure
from glcic_hub.images.files import load_image

OURS = "exemplars"
OTHERS = ("PatchMatch", "Telea")


class Case(NamedTuple):
    """Holes in an image."""

    name: str
    width: int
    height: int
    side: int  # of a hole, in pixels
    holes: int = 1
    once: bool = False
    patchmatch: bool = True  # it works on the whole image, and takes minutes on large ones


CASES = (
    Case("256x256, hole 112x112", 256, 256, 112),
    Case("640x480, hole 168x168", 640, 480, 168),
    Case("6000x4000, hole 512x512", 6000, 4000, 512, patchmatch=False),
    Case("6000x4000, hole 2000x2000", 6000, 4000, 2000, once=True, patchmatch=False),
    Case("1024x1024, 50 holes 20x20", 1024, 1024, 20, holes=50),
)


def main() -> None:
    """Measures and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", metavar="PHOTOGRAPHS", nargs="?", help="a folder; a synthetic image is first")
    parser.add_argument("--model", metavar="FOLDER", help="default: the package's")
    parser.add_argument("--runs", type=int, default=5, metavar="N", help="runs of each method (default: 5)")
    parser.add_argument("--count", type=int, default=3, metavar="N", help="photographs at most (default: 3)")
    parser.add_argument("--only", default="", metavar="TEXT", help="the cases whose name has this in it")
    parser.add_argument("--first", metavar="METHOD", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.first:
        print(_first_result(options.first, options.model))
        return
    paths: list[Any] = [None]
    if options.photographs:
        paths += [photograph.file for photograph in list(open_photographs(options.photographs))[: options.count]]
    methods = _methods(options.model)
    print(f"{torch.get_num_threads()} threads of PyTorch, {cv2.getNumThreads()} of OpenCV, {os.cpu_count()} cores.\n")
    print(f"| case | image | {OURS}, s | " + " | ".join(f"{name}, s | {OURS} : {name}" for name in OTHERS) + " |")
    print("|---|---|---|" + "---|" * 2 * len(OTHERS))
    for case in CASES:
        if options.only not in case.name:
            continue
        chosen = {name: method for name, method in methods.items() if case.patchmatch or name != "PatchMatch"}
        for number, path in enumerate(paths):
            image, mask = _image(case, path), _mask(case)
            work = {name: partial(method, image, mask) for name, method in chosen.items()}
            seconds = _once(work) if case.once else measure(work, options.runs)
            _print_row(case.name, f"photograph {number}" if number else "synthetic", seconds)
    name = "first call in a new process"
    if options.only in name:
        rows = list(_first_calls(options.model, options.runs))
        _print_row(f"{name}, {CASES[0].name}", "synthetic", {key: median(v[0] for v in of) for key, of in rows})
        # Only ours: the others would be charged with this script's imports, PyTorch's above all.
        imports = {key: median(v[1] for v in of) for key, of in rows if key == OURS}
        _print_row(f"{name}, with imports", "synthetic", imports)


def _methods(model: str | None) -> dict[str, Method]:
    return {OURS: GLCICPipeline.from_pretrained(model), **{name: BASELINES[name] for name in OTHERS}}


def _image(case: Case, path: Any) -> NDArray[np.uint8]:
    """A photograph scaled and cropped to the case's size; without one, coloured noise of several sizes."""
    if path is not None:
        image = np.asarray(load_image(path).convert("RGB"))
        scale = max(case.height / image.shape[0], case.width / image.shape[1])
        size = (max(case.width, round(image.shape[1] * scale)), max(case.height, round(image.shape[0] * scale)))
        return np.asarray(Image.fromarray(image).resize(size))[: case.height, : case.width].copy()
    random = np.random.default_rng(0)
    total = np.full((case.height, case.width, 3), 128, np.float32)
    for step, strength in ((2, 12), (5, 12), (16, 16), (64, 24), (256, 32)):
        coarse = random.normal(0, strength, (case.height // step + 2, case.width // step + 2, 3)).astype(np.float32)
        total += cv2.resize(coarse, (case.width, case.height), interpolation=cv2.INTER_CUBIC)
    total += 20 * np.sign(np.sin(np.arange(case.width, dtype=np.float32) / 5))[None, :, None]  # something that repeats
    return total.clip(0, 255).astype(np.uint8)


def _mask(case: Case) -> NDArray[np.uint8]:
    """One hole in the middle, or several in rows: 1 = complete."""
    mask = np.zeros((case.height, case.width), np.uint8)
    rows = int(case.holes**0.5)
    columns = -(-case.holes // rows)
    for hole in range(case.holes):
        row, column = divmod(hole, columns)
        top = (2 * row + 1) * case.height // (2 * rows) - case.side // 2
        left = (2 * column + 1) * case.width // (2 * columns) - case.side // 2
        mask[top : top + case.side, left : left + case.side] = 1
    return mask


def _once(work: dict[str, Any]) -> dict[str, float]:
    seconds = {}
    for name, run in work.items():
        begin = time.perf_counter()
        run()
        seconds[name] = time.perf_counter() - begin
    return seconds


def _first_calls(model: str | None, runs: int) -> Iterator[tuple[str, list[tuple[float, float]]]]:
    """For each method, seconds from the end of the imports to the first result, and from the process's start."""
    command = [sys.executable, __file__, *(["--model", model] if model else []), "--first"]
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in (OURS, *OTHERS)}
    for _ in range(runs):
        for name, values in seconds.items():
            begin = time.perf_counter()
            done = subprocess.run([*command, name], capture_output=True, text=True, check=True)
            values.append((float(done.stdout), time.perf_counter() - begin))
    yield from seconds.items()


def _first_result(name: str, model: str | None) -> float:
    """The seconds from now to the first result, a model's loading included."""
    image, mask = _image(CASES[0], None), _mask(CASES[0])
    begin = time.perf_counter()
    method = GLCICPipeline.from_pretrained(model) if name == OURS else BASELINES[name]
    method(image, mask)
    return time.perf_counter() - begin


def _print_row(case: str, image: str, seconds: dict[str, float]) -> None:
    cells = [case, image, f"{seconds[OURS]:.2f}"]
    for name in OTHERS:
        known = name in seconds
        cells += [f"{seconds[name]:.2f}", f"{seconds[OURS] / seconds[name]:.2f}"] if known else ["", ""]
    print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()

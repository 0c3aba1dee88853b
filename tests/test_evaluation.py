from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Browser
from scipy.stats import t as students
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torchmetrics.functional.image import peak_signal_noise_ratio as torch_psnr
from torchmetrics.functional.regression import mean_absolute_error

from glcic_hub import GLCICPipeline
from glcic_hub.cli.main import main
from glcic_hub.data.photographs import Photograph, open_photographs
from glcic_hub.evaluation.evaluate import evaluate
from glcic_hub.evaluation.methods import ALL_BASELINES, Method, fingerprint, make_methods, model_names, network_methods
from glcic_hub.evaluation.metrics import METRICS, hole_metrics
from glcic_hub.evaluation.protocol import Protocol, case_opener, centre_square, default_holes
from glcic_hub.evaluation.report import as_markdown, differences, estimate, means, write_report
from glcic_hub.images.masks import random_strokes
from tests.conftest import CONFIG, ENVIRONMENT, LAUNCH_TWO, ROOT, TWO_PROCESSES, make_network, make_photo
from tests.local_hub import serve_hub

ORIGINAL = make_photo(40, 50)
MASK = np.zeros((40, 50), np.uint8)
MASK[10:30, 15:40] = 1
OTHER = np.where(MASK[..., None] > 0, make_photo(40, 50, seed=1), ORIGINAL)
SMALL = Protocol(size=64, hole_size=(20, 30))


def save_photographs(folder: Path, count: int = 3) -> Path:
    folder.mkdir(exist_ok=True)
    for index in range(count):
        Image.fromarray(make_photo(70, 90, seed=index)).save(folder / f"{index}.png")
    return folder


def test_metrics_equal_scikit_images() -> None:
    metrics = hole_metrics(ORIGINAL, OTHER, MASK)
    inside = (slice(10, 30), slice(15, 40))
    psnr = peak_signal_noise_ratio(ORIGINAL[inside], OTHER[inside], data_range=255)  # type: ignore[no-untyped-call]
    assert metrics["psnr"] == pytest.approx(psnr, abs=1e-6)
    mean, ssim_map = structural_similarity(ORIGINAL, OTHER, channel_axis=2, full=True)  # type: ignore[no-untyped-call]
    assert metrics["ssim"] == pytest.approx(ssim_map[inside].mean(), abs=1e-6)
    assert metrics["ssim_whole"] == pytest.approx(mean, abs=1e-6)
    whole = peak_signal_noise_ratio(ORIGINAL, OTHER, data_range=255)  # type: ignore[no-untyped-call]
    assert metrics["psnr_whole"] == pytest.approx(whole, abs=1e-6)


def test_metrics_equal_torchmetrics() -> None:
    metrics = hole_metrics(ORIGINAL, OTHER, MASK)
    a, b = (torch.from_numpy(image[10:30, 15:40].astype(np.float64)) for image in (ORIGINAL, OTHER))
    assert metrics["psnr"] == pytest.approx(float(torch_psnr(b, a, data_range=255.0)), abs=1e-6)
    assert metrics["l1"] == pytest.approx(float(mean_absolute_error(b, a)) / 2.55, abs=1e-6)


def test_a_perfect_completion_is_perfect_and_a_shifted_one_is_worse() -> None:
    smooth = np.asarray(Image.fromarray(make_photo(6, 8)).resize((50, 40), Image.Resampling.BICUBIC))
    perfect = hole_metrics(smooth, smooth, MASK)
    assert perfect == {name: metric.best for name, metric in METRICS.items()}
    shifted = np.where(MASK[..., None] > 0, np.roll(smooth, 9, axis=(0, 1))[..., ::-1], smooth)
    for name, value in hole_metrics(smooth, shifted, MASK).items():
        best = METRICS[name].best
        assert abs(value - best) > 1e-3, name


def test_a_flat_completion_has_no_texture_and_a_bright_one_a_seam() -> None:
    flat = np.where(MASK[..., None] > 0, np.uint8(128), ORIGINAL)
    metrics = hole_metrics(ORIGINAL, flat, MASK)
    assert metrics["psnr"] < 30 and metrics["ssim"] < 0.5 and metrics["texture"] < 0.5
    grey = np.full_like(ORIGINAL, 100)
    brighter = grey + 20 * MASK[..., None]
    assert hole_metrics(grey, brighter, MASK)["seam"] == pytest.approx(20)
    assert hole_metrics(grey, brighter, MASK)["a"] == pytest.approx(0, abs=0.01)
    assert math.isnan(hole_metrics(grey, brighter, MASK)["texture"])
    red = grey.copy()
    red[..., 0] += 40
    assert hole_metrics(grey, red, MASK)["a"] > 10


def test_what_is_outside_the_hole_counts_for_the_whole_image_alone() -> None:
    spoiled = np.where(MASK[..., None] > 0, OTHER, 0).astype(np.uint8)
    before, after = hole_metrics(ORIGINAL, OTHER, MASK), hole_metrics(ORIGINAL, spoiled, MASK)
    assert {name for name in METRICS if before[name] != after[name]} == {"psnr_whole", "ssim_whole", "l1_whole"}


def test_no_method_sees_the_original(pipe: GLCICPipeline) -> None:
    damaged = np.where(MASK[..., None] > 0, 255 - ORIGINAL, ORIGINAL)
    for name, method in make_methods({"glcic": pipe}, ALL_BASELINES).items():
        completed = method(ORIGINAL, MASK)
        assert np.array_equal(completed[MASK == 0], ORIGINAL[MASK == 0]), name
        assert np.array_equal(completed, method(damaged, MASK)), name


def test_names_of_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert model_names([None]) == model_names(["user/model"]) == ["glcic"]
    models = [None, "runs/a/model", "runs/b/model", "user/small", "x/b"]
    assert model_names(models) == ["glcic", "a", "runs/b/model", "small", "x/b"]
    (tmp_path / "run" / "model").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "run")
    assert model_names(["model", "."]) == ["model", "."]
    assert model_names(["./model", "best"]) == ["run", "best"]
    with pytest.raises(ValueError, match="no baseline LaMa; there are Telea"):
        make_methods({}, ["LaMa"])
    with pytest.raises(ValueError, match="cannot be called Telea"):
        make_methods({"Telea": GLCICPipeline.from_pretrained()}, ["Telea"])


@pytest.mark.parametrize("size", [(70, 90), (64, 64), (40, 100)])
def test_centre_square(tmp_path: Path, size: tuple[int, int]) -> None:
    photo = make_photo(*size)
    Image.fromarray(photo).save(tmp_path / "photo.png")
    crop = centre_square(Photograph("photo", tmp_path / "photo.png"), 64)
    assert np.array_equal(crop, centre_square(Photograph("photo", (tmp_path / "photo.png").read_bytes()), 64))
    assert crop.shape == (64, 64, 3)
    if min(size) >= 64:
        top, left = (size[0] - 64) // 2, (size[1] - 64) // 2
        assert np.array_equal(crop, photo[top : top + 64, left : left + 64])


def test_squares_that_fit_show_the_whole_short_side(tmp_path: Path) -> None:
    smooth = cv2.GaussianBlur(make_photo(64, 64), (0, 0), 4)
    wide = np.pad(smooth.repeat(3, axis=0).repeat(3, axis=1), ((0, 0), (30, 30), (0, 0)))
    Image.fromarray(wide).save(tmp_path / "photo.png")
    fitted = centre_square(Photograph("photo", tmp_path / "photo.png"), 64, fit=True)
    assert np.abs(fitted.astype(float) - smooth).mean() < 1
    case = case_opener(Protocol("centre", 64, fit=True), open_photographs(tmp_path))(0)
    assert np.array_equal(case.image, fitted)
    with pytest.raises(ValueError, match="are taken whole and cannot be fitted"):
        Protocol(str(tmp_path), fit=True)


def test_holes(tmp_path: Path) -> None:
    photographs = open_photographs(save_photographs(tmp_path))

    def masks(protocol: Protocol) -> list[NDArray[np.uint8]]:
        open_case = case_opener(protocol, photographs)
        return [open_case(index).mask for index in range(3)]

    for mask in masks(SMALL):
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        assert mask.sum() == len(rows) * len(columns) and 20 <= len(rows) <= 30 and 20 <= len(columns) <= 30
    for mask in masks(Protocol("centre", size=64)):
        assert mask.sum() == 32 * 32 and mask[16:48, 16:48].all()
    strokes = masks(Protocol("strokes", size=64))
    assert all(0.05 <= mask.mean() <= 0.25 for mask in strokes) and not np.array_equal(strokes[0], strokes[1])
    for holes in ("rectangles", "strokes"):
        again, other = (masks(Protocol(holes, 64, hole_size=(20, 30), seed=seed)) for seed in (0, 1))
        assert all(map(np.array_equal, again, masks(Protocol(holes, 64, hole_size=(20, 30)))))
        assert not all(map(np.array_equal, again, other))


def save_set(folder: Path) -> Path:
    """Photographs with their masks, in the layout that the Hub shows."""
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    rows = []
    for index in range(3):
        rows.append({"file_name": f"images/{index}.png", "mask_file_name": f"masks/{index}.png"})
        Image.fromarray(make_photo(40, 50, seed=index)).save(folder / rows[-1]["file_name"])
        Image.fromarray(np.roll(MASK, index, axis=1) * np.uint8(255)).save(folder / rows[-1]["mask_file_name"])
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_photographs_that_come_with_masks(tmp_path: Path) -> None:
    """The same figures as with a folder of masks; a photograph without its mask, or a lost one, is named."""
    folder = save_set(tmp_path / "set")
    photographs, methods = open_photographs(folder), make_methods({}, ["Telea"])
    assert default_holes(photographs) == "given" and default_holes(open_photographs(folder / "images")) == "rectangles"
    evaluation = evaluate(photographs, methods, Protocol("given"), tmp_path / "out")
    assert "3 photographs; whole photographs, the masks that come with them" in as_markdown(evaluation)
    apart = evaluate(open_photographs(folder / "images"), methods, Protocol(str(folder / "masks")))
    assert without_times(evaluation.records) == without_times(apart.records)
    with pytest.raises(ValueError, match=r"not one of 3 photographs could be .*: it comes without a mask"):
        evaluate(open_photographs(folder / "images"), methods, Protocol("given"))
    with pytest.raises(ValueError, match="with masks of their own are taken whole and cannot be fitted"):
        Protocol("given", fit=True)
    (folder / "images" / "0.png").unlink()
    with (folder / "metadata.jsonl").open("a") as rows:
        rows.write(json.dumps({"file_name": "images/1.png", "mask_file_name": None}) + "\n")
    with pytest.raises(ValueError, match=r"another evaluation \(other photographs, masks\)"):
        evaluate(open_photographs(folder), methods, Protocol("given"), tmp_path / "out")
    failures = evaluate(open_photographs(folder), methods, Protocol("given")).failures
    assert [failure["photograph"] for failure in failures] == ["0.png", "1.png"]
    assert "no file" in failures[0]["error"] and failures[1]["error"] == "it comes without a mask"


def test_a_set_on_the_hub(tmp_path: Path) -> None:
    """Measured by its name as by its folder."""
    folder = save_set(tmp_path / "set")
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.*")}
    with serve_hub() as hub:
        hub.add("datasets/user/set", files)
        environment = {"HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1"}
        command = [sys.executable, "-m", "glcic_hub", "evaluate", "user/set", "-o", str(tmp_path / "out")]
        done = subprocess.run(
            [*command, "--baselines", "Telea"], env={**ENVIRONMENT, **environment}, cwd=ROOT, capture_output=True,
            text=True, timeout=200, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "3 photographs; whole photographs, the masks that come with them" in done.stdout
    lines = (tmp_path / "out" / "records-0.jsonl").read_text().splitlines()
    found = [record for record in map(json.loads, lines) if record["method"] == "Telea"]
    here = evaluate(open_photographs(folder), make_methods({}, ["Telea"]), Protocol("given"))
    assert without_times(found) == without_times(here.records)


def test_results_of_other_tools(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Measured as they are, beside ours; what is missing or of another size is named in a line."""
    folder, results = save_set(tmp_path / "set"), tmp_path / "results"
    results.mkdir()
    for index, name in enumerate(("0.png", "1_mask001.png", "2.png")):
        Image.fromarray(make_photo(40, 50, seed=9 + index)).save(results / name)
    arguments = ["evaluate", str(folder), "--baselines", "Telea", "--completed", f"LaMa={results}"]
    assert main([*arguments, "-o", str(tmp_path / "out")]) == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("| LaMa |"))
    assert row.endswith("| - |")  # nobody knows the seconds
    lines = (tmp_path / "out" / "records-0.jsonl").read_text().splitlines()
    records = [record for record in map(json.loads, lines) if record["method"] == "LaMa"]
    for index, record in enumerate(records):
        mask = np.roll(MASK, index, axis=1)
        figures = hole_metrics(make_photo(40, 50, seed=index), make_photo(40, 50, seed=9 + index), mask)
        assert record["photograph"] == f"{index}.png" and record["seconds"] is None
        assert {name: record[name] for name in figures} == pytest.approx(figures)

    Image.new("RGB", (30, 20)).save(results / "0.png")
    (results / "2.png").unlink()
    assert main(arguments) == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert errors == [
        "glcic: error: 0.png: LaMa: 0.png has 30x20 pixels, and the photograph 50x40",
        f"glcic: error: 2.png: LaMa: {results} holds no image called 2",
    ]
    for wrong, message in (
        ([f"LaMa={tmp_path / 'nothing'}"], "no folder"),
        ([f"LaMa={ROOT / 'docs'}"], "holds none of the photographs completed, such as 0.png"),
        ([f"Telea={results}"], "cannot be called Telea, as a method is"),
        ([f"a={results}", "--completed", f"a={results}"], "two folders of --completed have the same name"),
        ([f"a={results}", "--holes", "centre"], "has holes that are in no file here"),
    ):
        assert main([*arguments[:4], "--completed", *wrong]) == 1
        assert message in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*arguments, "--completed", str(results)])
    assert "give a name and a folder, such as LaMa=results/lama" in capsys.readouterr().err
    (folder / "images" / "0.jpg").write_bytes((folder / "images" / "0.png").read_bytes())
    with pytest.raises(ValueError, match="several photographs are called 0, so their results cannot be told apart"):
        photographs = open_photographs(folder / "images")
        evaluate(photographs, {}, Protocol(str(folder / "masks")), completed={"a": results})


def test_the_page_makes_a_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The code of docs/evaluation.md, run: its set gives what the holes it was drawn with give."""
    photographs = open_photographs(save_photographs(tmp_path / "photographs", 2))
    code = (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    monkeypatch.chdir(tmp_path)
    exec(code.replace('Protocol("strokes")', 'Protocol("strokes", 64)'), {})
    methods = make_methods({}, ["Telea"])
    first = evaluate(open_photographs(tmp_path / "benchmark"), methods, Protocol("given")).records
    second = evaluate(photographs, methods, Protocol("strokes", 64)).records
    names = ("psnr", "ssim", "texture")
    assert [[record[name] for name in names] for record in first] == [[r[name] for name in names] for r in second]


def test_strokes_are_the_same_everywhere() -> None:
    """Pinned, so that figures of other machines and releases can be compared."""
    masks = [random_strokes(np.random.default_rng([0, index]), 256, 256) for index in range(4)]
    assert [int(mask.sum()) for mask in masks] == [15434, 8244, 3782, 7820]


def test_masks_of_a_folder(tmp_path: Path, pipe: GLCICPipeline) -> None:
    """One that is missing, of another size or black is counted and named; the others go on."""
    photographs = open_photographs(save_photographs(tmp_path / "photographs", 4))
    (tmp_path / "masks").mkdir()
    mask = np.zeros((70, 90), np.uint8)
    mask[20:40, 30:60] = 255
    for name, content in (("0", mask), ("1", mask[:50]), ("2", mask * 0)):
        Image.fromarray(content).save(tmp_path / "masks" / f"{name}.png")
    evaluation = evaluate(photographs, make_methods({"glcic": pipe}), Protocol(str(tmp_path / "masks")))
    assert {record["photograph"] for record in evaluation.records} == {"0.png"}
    assert [failure["error"] for failure in evaluation.failures] == [
        "its mask has 90x50 pixels, and it has 90x70",
        "its mask is black, so there is no hole",
        f"{tmp_path / 'masks'} holds no mask called 3",
    ]


@pytest.mark.parametrize(
    "wrong", [{"size": 6}, {"seed": -1}, {"hole_size": (60, 70), "size": 64}, {"holes": "strokes", "size": 20}]
)
def test_wrong_protocols_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"size must be at least \d+ and seed|does not fit"):
        Protocol(**wrong)
    with pytest.raises(FileNotFoundError, match="there is no folder circles"):
        Protocol("circles")


def test_evaluate(tmp_path: Path, pipe: GLCICPipeline) -> None:
    photographs = open_photographs(save_photographs(tmp_path))
    methods = make_methods({"glcic": pipe}, ["Telea", "Navier-Stokes", "mean colour"])
    evaluation = evaluate(photographs, methods, SMALL)
    figures = means(evaluation)
    assert list(figures) == ["glcic", "glcic, blended", "glcic, exemplars", "Telea", "Navier-Stokes", "mean colour"]
    assert figures["Telea"]["psnr"].mean > figures["mean colour"]["psnr"].mean  # the photographs are ramps
    again = evaluate(photographs, methods, SMALL)
    assert without_times(evaluation.records) == without_times(again.records)
    crop = centre_square(photographs[1], 64)
    mask = case_opener(SMALL, photographs)(1).mask
    kinds: dict[str, Any] = {
        "glcic": pipe(crop, mask, detail="none"),
        "glcic, blended": pipe(crop, mask, detail="none", blend="poisson"),
        "glcic, exemplars": pipe(crop, mask),
    }
    for name, completed in kinds.items():
        assert evaluation.values(name, "psnr")[1] == hole_metrics(crop, completed, mask)["psnr"]
    assert list(make_methods({"a": pipe}, ["Telea"], network_methods)) == ["a", "a, blended", "Telea"]
    text = as_markdown(evaluation)
    assert "3 photographs; centre crops of 64×64 pixels, one rectangle of 20 to 30 pixels a side, seed 0" in text
    assert f"| Telea | {figures['Telea']['psnr'].mean:.2f} [" in text


def without_times(records: Any) -> list[dict[str, Any]]:
    return [{key: value for key, value in record.items() if key != "seconds"} for record in records]


def test_intervals() -> None:
    """The bootstrap's intervals are near those of Student's distribution, which holds for such values."""
    values = np.random.default_rng(0).normal(20, 3, 200)
    found = estimate(values.tolist())
    low, high = students.interval(0.95, 199, values.mean(), values.std(ddof=1) / math.sqrt(200))
    assert found.mean == pytest.approx(values.mean()) and found == estimate(values.tolist())
    assert found.low == pytest.approx(low, abs=0.08) and found.high == pytest.approx(high, abs=0.08)
    assert estimate([1.0]).show(2) == "1.00"
    assert math.isnan(estimate([math.nan]).mean)


def test_differences_are_paired(tmp_path: Path) -> None:
    """A method that is always a little better is so beyond doubt, however much the photographs differ."""

    def worse(more: int) -> Method:
        """Errors of another size on each photograph."""
        return lambda image, mask: np.where(mask[..., None] > 0, image // (2 + int(image[0, 0, 0]) % 7) + more, image)

    photographs = open_photographs(save_photographs(tmp_path, 12))
    evaluation = evaluate(photographs, {"first": worse(0), "second": worse(2)}, SMALL)
    paired, apart = differences(evaluation)["second"]["psnr"], means(evaluation)
    assert paired.mean == pytest.approx(apart["second"]["psnr"].mean - apart["first"]["psnr"].mean)
    assert 0 < paired.low < paired.mean < paired.high
    assert apart["second"]["psnr"].low < apart["first"]["psnr"].high  # not to be told apart unpaired


def test_a_method_that_mostly_fails_is_left_out(tmp_path: Path) -> None:
    """The others keep their means; what failed is tried again."""
    photographs = open_photographs(save_photographs(tmp_path / "photographs"))
    broken = [True]

    def moody(image: NDArray[np.uint8], mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
        if broken:
            raise MemoryError
        return image

    methods: dict[str, Method] = {"Telea": make_methods({}, ["Telea"])["Telea"], "moody": moody}
    evaluation = evaluate(photographs, methods, SMALL, tmp_path / "out")
    assert evaluation.methods == ("Telea",) and len(evaluation.values("Telea", "psnr")) == 3
    assert "Left out, for they failed on more than half: moody." in as_markdown(evaluation)
    broken.clear()
    again = evaluate(photographs, methods, SMALL, tmp_path / "out")
    assert again.methods == ("Telea", "moody") and not again.failures and len(again.records) == 6


def test_another_evaluation_is_not_mixed_in(tmp_path: Path, pipe: GLCICPipeline) -> None:
    photographs = open_photographs(save_photographs(tmp_path / "photographs"))
    methods = make_methods({"glcic": pipe})
    evaluate(photographs, methods, SMALL, tmp_path / "out", {"models": fingerprint(pipe)})
    other = GLCICPipeline(CONFIG, make_network(seed=1), device="cpu", dtype=torch.float32)
    assert fingerprint(pipe) == fingerprint(pipe) != fingerprint(other)
    with pytest.raises(ValueError, match=r"another evaluation \(other models\)"):
        evaluate(photographs, methods, SMALL, tmp_path / "out", {"models": fingerprint(other)})
    Image.fromarray(make_photo(71, 90)).save(tmp_path / "photographs" / "0.png")
    with pytest.raises(ValueError, match=r"another evaluation \(other files\)"):
        evaluate(open_photographs(tmp_path / "photographs"), methods, SMALL, tmp_path / "out")
    with pytest.raises(ValueError, match="is in the photographs' folder"):
        evaluate(photographs, methods, SMALL, tmp_path / "photographs" / "out")


def failing(image: NDArray[np.uint8], mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if image[0, 0, 0] == make_photo(70, 90, seed=1)[3, 13, 0]:
        raise RuntimeError("not this one\nand more")
    return image


def test_what_fails_is_counted_and_left_out(tmp_path: Path, pipe: GLCICPipeline) -> None:
    """Means are over the photographs that all methods completed, so that they can be compared."""
    folder = save_photographs(tmp_path / "photographs")
    for name, content in ((b"2\xe9.png", (folder / "2.png").read_bytes()), (b"3\xe9.png", b"nothing")):
        (folder / os.fsdecode(name)).write_bytes(content)  # names that are not Unicode
    (folder / "2.png").unlink()
    methods: dict[str, Method] = {"good": make_methods({"glcic": pipe})["glcic"], "bad": failing}
    output = tmp_path / "out"
    evaluation = evaluate(open_photographs(folder), methods, SMALL, output)
    assert [(failure["photograph"], failure["method"]) for failure in evaluation.failures] == [
        ("1.png", "bad"),
        ("3?.png", ""),
    ]
    assert evaluation.failures[0]["error"] == "not this one"
    assert list(evaluation.values("good", "psnr")) == list(evaluation.values("bad", "psnr")) == [0, 2]
    write_report(evaluation, output, "Title")
    text = (output / "results.md").read_text()
    assert "2 photographs" in text and "- 1.png by bad: not this one" in text
    again = evaluate(open_photographs(folder), methods, SMALL, output)
    assert again.records == evaluation.records and again.failures == evaluation.failures


def test_no_photographs(tmp_path: Path, pipe: GLCICPipeline, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(tmp_path)]) == 1
    assert "holds no images" in capsys.readouterr().err
    (tmp_path / "a.png").write_bytes(b"nothing")
    with pytest.raises(
        ValueError, match=r"not one of 1 photographs could be measured; the first, a\.png: cannot read"
    ):
        evaluate(open_photographs(tmp_path), make_methods({"glcic": pipe}), SMALL)


def test_it_goes_on_where_it_stopped(tmp_path: Path, pipe: GLCICPipeline) -> None:
    """Killed at any place, even within a line: the same records as at once, and nothing is done twice."""
    photographs = open_photographs(save_photographs(tmp_path / "photographs", 4))
    called: list[int] = []

    def counted(image: NDArray[np.uint8], mask: NDArray[np.uint8]) -> NDArray[Any]:
        called.append(1)
        return np.asarray(pipe(image, mask))

    methods: dict[str, Method] = {"a": counted, "b": make_methods({}, ["Telea"])["Telea"]}
    output = tmp_path / "out"
    whole = evaluate(photographs, methods, SMALL, output)
    file = output / "records-0.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    assert len(lines) == 8 and len(called) == 4
    for kept in ("".join(lines[:3]), "".join(lines[:4]) + lines[4][:30]):
        file.write_text(kept)
        called.clear()
        assert without_times(evaluate(photographs, methods, SMALL, output).records) == without_times(whole.records)
        assert len(called) <= 3 and len(file.read_text().splitlines()) == 8
    called.clear()
    evaluate(photographs, methods, SMALL, output)
    assert not called
    with pytest.raises(ValueError, match=r"holds another evaluation \(other protocol\); give another folder"):
        evaluate(photographs, methods, Protocol(size=64, hole_size=(20, 30), seed=1), output)
    file.write_text("broken\n")
    with pytest.raises(ValueError, match=r"records-0\.jsonl is broken; delete it"):
        evaluate(photographs, methods, SMALL, output)


def test_odd_numbers_survive(tmp_path: Path) -> None:
    """JSON has no NaN, and a flat photograph's texture is not defined."""
    (tmp_path / "photographs").mkdir()
    Image.new("RGB", (64, 64), "red").save(tmp_path / "photographs" / "flat.png")
    photographs = open_photographs(tmp_path / "photographs")
    for _ in range(2):
        evaluation = evaluate(photographs, {"same": lambda image, mask: image}, SMALL, tmp_path / "out")
        assert evaluation.values("same", "psnr") == {0: 100}
        assert math.isnan(evaluation.values("same", "texture")[0])
    assert json.loads((tmp_path / "out" / "records-0.jsonl").read_text())["texture"] is None


def test_a_full_disk(tmp_path: Path) -> None:
    """One line says so; what was measured before is still there, and the run continues from it."""
    save_photographs(tmp_path / "photographs", 6)
    command = [sys.executable, "-m", "glcic_hub", "evaluate", str(tmp_path / "photographs"), "--size", "64"]
    command += ["--hole-size", "20", "30", "-o", str(tmp_path / "out")]
    limited = subprocess.run(
        ["bash", "-c", 'ulimit -f 3; exec "$@"', "bash", *command],
        capture_output=True, text=True, env=ENVIRONMENT, cwd=ROOT, timeout=120, check=False,
    )  # fmt: skip
    assert limited.returncode == 1 and f"error: cannot write to {tmp_path / 'out'}: File too large" in limited.stderr
    assert "Traceback" not in limited.stderr
    done = len((tmp_path / "out" / "records-0.jsonl").read_text().splitlines())
    assert done >= 1
    whole = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, cwd=ROOT, timeout=120, check=True)
    assert "6 photographs" in whole.stdout and (tmp_path / "out" / "report.html").exists()


@pytest.mark.slow
def test_killed_from_outside(tmp_path: Path) -> None:
    """By SIGKILL, by a real process; another goes on, and two processes give the same."""
    save_photographs(tmp_path / "photographs", 30)
    arguments = ["-m", "glcic_hub", "evaluate", str(tmp_path / "photographs"), "--size", "64"]
    arguments += ["--hole-size", "20", "30", "--baselines", "Telea", "-o"]
    file = tmp_path / "killed" / "records-0.jsonl"
    with subprocess.Popen(
        [sys.executable, *arguments, str(tmp_path / "killed")], env=ENVIRONMENT, cwd=ROOT
    ) as process:
        deadline = time.monotonic() + 90
        while not (file.exists() and file.read_text().count("\n") > 5) and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    assert 5 < file.read_text().count("\n") < 90
    results = []
    for folder, launch in (("killed", [sys.executable]), ("two", LAUNCH_TWO)):
        subprocess.run(
            [*launch, *arguments, str(tmp_path / folder)],
            env=TWO_PROCESSES, cwd=ROOT, timeout=200, check=True, capture_output=True,
        )  # fmt: skip
        records = [
            json.loads(line)
            for part in (tmp_path / folder).glob("records-*.jsonl")
            for line in part.read_text().splitlines()
        ]
        results.append(sorted(without_times(records), key=lambda record: (record["index"], record["method"])))
    assert len(results[0]) == 120 and results[0] == results[1]
    assert len(list((tmp_path / "two").glob("records-*.jsonl"))) == 2


def test_the_report(tmp_path: Path, pipe: GLCICPipeline, browser: Browser) -> None:
    """In a browser: the table sorts, the worst and the best come first, nothing is loaded from elsewhere."""
    photographs = open_photographs(save_photographs(tmp_path / "<photo&graphs>", 15))
    methods = make_methods({"a <b>": pipe}, ["Telea"], network_methods)
    evaluation = evaluate(photographs, methods, SMALL, tmp_path / "out")
    write_report(evaluation, tmp_path / "out", "<i>Title")
    page = browser.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: pytest.fail(str(error)))
    page.goto((tmp_path / "out" / "report.html").as_uri())
    assert page.title() == "<i>Title" and "a <b>, blended" in page.inner_text("table")
    assert all(url.startswith(("file:", "data:")) for url in asked)
    assert page.locator("figure").count() == 12 and page.locator(".plots svg").count() == 1
    page.click("#more")
    assert page.locator("figure").count() == 15
    for order, sign in (("worst", 1), ("best", -1)):
        page.select_option("#order", order)
        page.select_option("#method", "Telea")
        names = [text.partition(",")[0] for text in page.locator("figcaption").all_inner_texts()]
        values = evaluation.values("Telea", "psnr")
        expected = sorted(values, key=lambda index: sign * values[index])
        assert names == [Path(photographs[index].name).name for index in expected][: len(names)]
    assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    page.click("th:nth-child(2) button")
    means_shown = [float(text.split()[0]) for text in page.locator("#figures td:nth-child(2)").all_inner_texts()]
    assert means_shown == sorted(means_shown, reverse=True)


def test_on_the_command_line(tmp_path: Path, model_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_photographs(tmp_path / "photographs")
    arguments = ["evaluate", str(tmp_path / "photographs"), "--size", "64", "--hole-size", "20", "30"]
    both = ["--model", str(model_folder), "--model", str(ROOT / "glcic_hub" / "pretrained" / "compact")]
    assert main([*arguments, *both, "--baselines"]) == 0
    printed = capsys.readouterr().out
    assert f"| {model_folder.name}, blended |" in printed and "| compact |" in printed and "Telea" not in printed
    (tmp_path / "photographs" / "z.png").write_bytes(b"nothing")
    assert main([*arguments, "--holes", "strokes", "-o", str(tmp_path / "out")]) == 1
    captured = capsys.readouterr()
    assert "error: z.png: not used: cannot read" in captured.err and "free-form strokes" in captured.out
    assert (tmp_path / "out" / "results.md").read_text() in captured.out

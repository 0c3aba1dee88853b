"""The scripts of docs, as their pages call them."""

from __future__ import annotations

import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from glcic_hub import GLCICPipeline
from glcic_hub.training.recipe import Recipe
from tests.conftest import ROOT, make_photo

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photographs")
    for index in range(3):
        Image.fromarray(make_photo(256, 300, seed=index)).save(folder / f"{index}.png")
    return folder


def run(script: str, *arguments: str | Path) -> str:
    command = [sys.executable, ROOT / "docs" / script, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout


def cells(table: str) -> dict[str, list[str]]:
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines() if line.startswith("|")]
    return {name: values for name, *values in rows if not name.startswith("-")}


def test_context(photographs: Path) -> None:
    """Telea's method sees the rim of the hole, whatever is farther away; the network sees more."""
    table = cells(run("experiments/context.py", photographs, "--every", "1"))
    heads, *rows = table.values()
    assert len(rows) == 4
    by_method = {name: [row[place] for row in rows] for place, name in enumerate(heads)}
    assert set(by_method["Telea"]) == {"0.00"}
    changes = [float(cell) for cell in by_method["glcic"]]
    assert changes[0] > changes[-1] > 0


def test_limits(photographs: Path) -> None:
    table = cells(run("experiments/limits.py", photographs, "--every", "2"))
    assert len(table) == 10 and len(set(map(str, table.values()))) == 10
    assert all(len(row) == 4 for row in table.values())


@pytest.mark.parametrize(("flags", "columns"), [([], 4), (["--plain", "--removal", "--baselines", "Telea"], 4)])
def test_grid(tmp_path: Path, flags: list[str], columns: int) -> None:
    run("experiments/grid.py", "-o", tmp_path / "grid.png", "--size", "64", *flags)
    with Image.open(tmp_path / "grid.png") as grid:
        assert grid.width == columns * 64 + (columns - 1) * 8


def test_train_for(photographs: Path, tmp_path: Path) -> None:
    """As many steps as fit in two minutes, shared among the phases as the recipe says."""
    with zipfile.ZipFile(tmp_path / "photographs.zip", "w") as archive:
        for number, path in enumerate(sorted(photographs.iterdir())):
            archive.write(path, f"{'train' if number else 'val'}/{path.name}")
    flags = ["--recipe", "small", "--width", "4", "--minutes", "2"]
    begin = time.monotonic()
    run("train_for.py", tmp_path / "photographs.zip", tmp_path / "out", *flags)
    assert time.monotonic() - begin < 135
    names = ["config.json", "grid.png", "log.jsonl", "losses.png", "model.safetensors", "recipe.yaml"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names
    trained, asked = Recipe.load(str(tmp_path / "out/recipe.yaml")), Recipe.load("small")
    assert trained.total_steps > 60
    assert trained.completion_steps / trained.total_steps == pytest.approx(
        asked.completion_steps / asked.total_steps, 0.1
    )
    assert GLCICPipeline.from_pretrained(tmp_path / "out").config.width == 4

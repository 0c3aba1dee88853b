"""The benchmark runs, and says what it should; its times are nobody's business."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from glcic_hub.cli.main import main
from glcic_hub.evaluation.speed import benchmark, measure


def rows_of(tables: str, heading: str) -> list[dict[str, str]]:
    lines = tables.split(heading, 1)[1].strip().splitlines()
    names, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    return [dict(zip(names, row, strict=True)) for row in rows if len(row) == len(names)]


def test_bench(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ["--sizes", "160", "320", "--full-frame-up-to", "160", "--hole-sizes", "16", "40"]
    assert main(["bench", "-o", str(tmp_path), "--width", "2", "--runs", "1", *sizes]) == 0
    tables = capsys.readouterr().out
    assert (tmp_path / "benchmark.md").read_text() == tables
    assert "<svg" in (tmp_path / "benchmark.svg").read_text()

    small, large = rows_of(tables, "in the middle; seconds. cv2.inpaint gets the whole image, too\n")[:2]
    assert small["image"] == "160²" and float(small["plain"]) > 0 and float(small["region float32"]) > 0
    assert large["image"] == "320²" and large["plain"] == "" and float(large["Telea"]) > 0
    ratio, *_ = rows_of(tables, "Ratios of these\n")[:1]
    assert ratio["image"] == "160²" and float(ratio["whole / region, both float32"]) > 0
    methods = {row["method"] for row in rows_of(tables, "What one might use instead")}
    assert methods >= {"plain", "Telea", "Navier-Stokes", "PatchMatch", "biharmonic"}
    memory = rows_of(tables, "Peak memory")
    assert memory[1]["whole, 1 hole"] == ""
    assert 0 < float(memory[1]["region, 1 hole"]) < 100  # a process that imports PyTorch takes hundreds


def test_medians_of_runs_in_turns() -> None:
    """The first turn does not count; what takes long is not run a third time."""
    calls: list[str] = []
    kinds = {name: lambda name=name: calls.append(name) for name in ("a", "b")}
    measure(kinds, 3)
    assert "".join(calls) == "abababab"
    clock = iter([0.0, 90.0, 90.0, 120.0, 120.0, 121.0])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "perf_counter", lambda: next(clock))
        assert measure({"long": lambda: None}, 5) == {"long": 30.0}


def test_bad_sizes(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="larger than the hole's 128 pixels, not 128"):
        benchmark(tmp_path, sizes=[256, 128])
    with pytest.raises(FileNotFoundError, match="does not exist"):
        benchmark(tmp_path / "nothing")
    with pytest.raises(ValueError, match="cannot use the device 'abacus'"):
        benchmark(tmp_path, device="abacus")

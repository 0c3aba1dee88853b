"""Trains a recipe for some minutes, on a machine that can be had for no longer, such as a lent GPU.

python docs/train_for.py PHOTOGRAPHS.zip OUTPUT --minutes 9 [--recipe compact] [any flag of glcic train]

A few steps of each phase are timed; then the recipe is trained with as many steps as fit, shared among the phases as
it says. OUTPUT then holds the model (float16) with its recipe, the log, the curves and the last grid.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

from glcic_hub.cli.common import OK, PREEMPTED
from glcic_hub.training.recipe import DEFAULT_RECIPE, Recipe

TIMED_STEPS = 20
"""Of each phase. The log has the rate of the last ten; the first ones are slow."""

RESERVE = 1.5
"""Share of the time that the timed run took above its steps, kept for start, validation and saving of the real one."""

SURE = 0.9
"""Share of the time left that steps are planned for; they may take longer than those timed."""


def main() -> None:
    """Unpacks, times, trains, and leaves the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument(
        "photographs", metavar="PHOTOGRAPHS.zip", type=Path, help="those in a folder val are validated on"
    )
    parser.add_argument("output", metavar="OUTPUT", type=Path, help="a folder")
    parser.add_argument("--minutes", type=float, required=True, metavar="N", help="for everything")
    parser.add_argument("--recipe", default=DEFAULT_RECIPE, metavar="NAME|FILE")
    options, flags = parser.parse_known_args()
    deadline = time.monotonic() + 60 * options.minutes
    if not zipfile.is_zipfile(options.photographs):
        parser.error(f"{options.photographs} is no zip file")
    try:
        phases = phase_steps(Recipe.load(options.recipe))
    except ValueError as error:
        parser.error(str(error))

    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        command = [sys.executable, "-m", "glcic_hub", "train", "--recipe", options.recipe, *flags]
        command += ["--trackers", "--data", *unpack(options.photographs, work / "photographs")]

        begin = time.monotonic()
        trial = [min(TIMED_STEPS, count) for count in phases]
        train([*command, "--output", work / "trial", *step_flags(trial)], deadline)
        seconds = seconds_per_step(work / "trial")
        timed = duration(trial, seconds)
        reserve = RESERVE * (time.monotonic() - begin - timed)

        left = SURE * (deadline - time.monotonic() - reserve)
        if left <= 0:
            sys.exit(f"{options.minutes:g} minutes are too few: timing a few steps took {(timed + reserve) / 60:.1f}")
        steps = [round(count * left / duration(phases, seconds)) for count in phases]
        print(f"steps of phases 1, 2, 3: {steps}; seconds a step: {seconds}", flush=True)
        run = work / "run"
        try:
            train([*command, "--output", run, *step_flags(steps)], deadline - reserve / 3)
        finally:
            leave(run, options.output)


def unpack(archive: Path, folder: Path) -> list[str | Path]:
    """Unpacks photographs; gives the folder to train on, and what else `--data` is followed by."""
    with zipfile.ZipFile(archive) as opened:
        opened.extractall(folder)
    held_out = next((path for path in folder.rglob("val") if path.is_dir()), None)
    if held_out is None:
        return [folder]
    validation = shutil.move(held_out, folder.parent / "validation")
    return [folder, "--validation", validation]


def phase_steps(recipe: Recipe) -> list[int]:
    """Gives the number of steps of each phase."""
    first, second, last = recipe.phase_ends
    return [first, second - first, last - second]


def step_flags(phases: list[int]) -> list[str]:
    """Gives the flags of `glcic train` that set the number of steps of each phase."""
    return [
        f"--completion-steps={phases[0]}",
        f"--discriminator-steps={phases[1]}",
        f"--total-steps={sum(phases)}",
    ]


def train(command: list[str | Path], deadline: float) -> None:
    """Runs a command; asks it to save and stop if it is not done by the deadline, a time of the monotonic clock."""
    with subprocess.Popen(command) as process:
        try:
            process.wait(max(0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.terminate()
    if process.returncode not in (OK, PREEMPTED):
        sys.exit(process.returncode)


def seconds_per_step(run: Path) -> dict[int, float]:
    """Reads the seconds that a step of each phase took, from the last line of each phase in a run's log."""
    batch = Recipe.load(str(run / "recipe.yaml")).batch_size
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    return {line["phase"]: round(batch / line["images_per_s"], 4) for line in lines if "images_per_s" in line}


def duration(phases: list[int], seconds: dict[int, float]) -> float:
    """Computes the seconds that so many steps of each phase take."""
    return sum(count * seconds.get(phase, 0) for phase, count in enumerate(phases, start=1))


def leave(run: Path, output: Path) -> None:
    """Copies what one wants of a run."""
    output.mkdir(parents=True, exist_ok=True)
    grids = sorted((run / "grids").glob("*.png"))
    model = [run / "model" / name for name in ("config.json", "model.safetensors", "recipe.yaml")]
    for path in [*model, run / "log.jsonl", run / "losses.png", *grids[-1:]]:
        if path.exists():
            shutil.copyfile(path, output / ("grid.png" if path in grids else path.name))


if __name__ == "__main__":
    main()

"""The folder of a run: checkpoints, images, models, written whole or not at all, and a log that grows by lines."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from accelerate import Accelerator
from matplotlib.figure import Figure
from PIL import Image

from glcic_hub.files import first_line, printable, write_text, write_whole
from glcic_hub.hub.card import LICENSE_FILES
from glcic_hub.training.recipe import Recipe

CHECKPOINT_NAME = re.compile(r"checkpoint-\d{8,}")
LATEST = "latest"


@dataclass(frozen=True)
class RunFacts:
    """Facts that a run begins with and keeps: `run.json`."""

    data: str
    """The photographs' folder, its last part alone, or their name on the Hub."""
    photographs: int | None
    """Their number; None for a stream."""
    digest: str | None
    """Of the names of a folder's photographs."""
    validation: str | None
    """Where validation photographs come from; None if they are kept back."""
    mean_pixel: tuple[float, float, float]
    """Mean (red, green, blue) of the photographs, in [0, 1]."""
    start: str | None
    """The model that was started from."""
    contents: str | None = None
    """Of names and sizes of the photographs' files, by which their folder is known again under another name."""
    validation_contents: str | None = None
    """The same of the validation photographs."""
    inherited: dict[str, Any] = dataclasses.field(default_factory=dict)
    """What the model's record takes over from the model that was started from: `hub.card.inherited`."""


def step_of(checkpoint: Path) -> int:
    """Returns the number of steps that a checkpoint was saved after."""
    return int(checkpoint.name.removeprefix("checkpoint-"))


class Run:
    """The folder of a run, and what is in it.

    Only the main process writes, but for its own random state that each process adds to a checkpoint.
    """

    def __init__(self, folder: Path, checkpoints_kept: int) -> None:
        self.folder = folder
        self.checkpoints_kept = checkpoints_kept
        self.recipe_file = folder / "recipe.yaml"
        self.facts_file = folder / "run.json"
        self.log_file = folder / "log.jsonl"
        self.unreadable_file = folder / "unreadable.txt"
        self.model = folder / "model"
        self.best = folder / "best"
        self.grids = folder / "grids"
        self.license = folder / "license-of-start"

    def begin(self, recipe: Recipe, facts: RunFacts) -> None:
        """Writes down what a new run is; what is left of one that never saved goes."""
        for path in (self.log_file, self.unreadable_file):
            path.unlink(missing_ok=True)
        for folder in (self.best, self.grids, self.license, *self.folder.glob("phase-*")):
            shutil.rmtree(folder, ignore_errors=True)
        recipe.save(self.recipe_file)
        write_text(self.facts_file, json.dumps(dataclasses.asdict(facts), indent=2) + "\n")

    def keep_license(self, start: Path) -> None:
        """Keeps the license of the model that the run starts from: each model of the run gets a copy."""
        for file in LICENSE_FILES:
            if (start / file).is_file():
                self.license.mkdir(exist_ok=True)
                shutil.copyfile(start / file, self.license / file)

    def copy_license(self, model: Path) -> None:
        """Copies the license that was kept, if there is one, into the folder of a model."""
        for file in self.license.glob("*"):
            shutil.copyfile(file, model / file.name)

    def facts(self) -> RunFacts:
        """Reads what the run began with."""
        facts = json.loads(self.facts_file.read_text(encoding="utf-8"))
        return RunFacts(**{**facts, "mean_pixel": tuple(facts["mean_pixel"])})

    def check_same(self, recipe: Recipe, facts: dict[str, Any], done: int) -> None:
        """Checks that a run is resumed as it began.

        Args:
            recipe: The recipe to resume with.
            facts: Those of `RunFacts` that are known now and must be as they were. A folder may have another name, if
                its files have the same names and sizes.
            done: The number of steps to resume after.

        Raises:
            ValueError: Something differs; the message names each difference.
        """
        recipe_begun = Recipe.load(str(self.recipe_file))
        if not recipe.continues(recipe_begun, done):
            raise ValueError(
                f"{self.folder} was begun with another recipe: {recipe_begun.differences(recipe)}; numbers of steps "
                f"alone may grow, where the {done} steps that are done would have been the same; to train its model "
                f"by another recipe, begin a new run with --from {self.model}"
            )
        begun = dataclasses.asdict(self.facts())
        compared = dict(facts)
        for place, contents in (("data", "contents"), ("validation", "validation_contents")):
            if compared.pop(contents) == begun[contents] is not None:
                del compared[place]
        if changed := [
            f"{name} {begun[name]} and {value}" for name, value in compared.items() if begun[name] != value
        ]:
            raise ValueError(f"{self.folder} was begun otherwise: {', '.join(changed)}")

    def checkpoints(self) -> list[Path]:
        """Lists the checkpoints, all of them whole, oldest first."""
        return sorted(path for path in self.folder.glob("checkpoint-*") if CHECKPOINT_NAME.fullmatch(path.name))

    def checkpoint(self, which: Literal[True] | str | Path) -> Path:
        """Returns the checkpoint to resume from.

        Args:
            which: True or "latest" takes the newest; else its name, its path in this folder, or its step.

        Raises:
            FileNotFoundError: There is none, or not that.
        """
        checkpoints = self.checkpoints()
        if not checkpoints:
            raise FileNotFoundError(f"no run to resume in {self.folder}: it holds no checkpoint")
        if which is True or str(which) == LATEST:
            return checkpoints[-1]
        asked = Path(which)
        if len(asked.parts) == 1 or asked.resolve().parent == self.folder.resolve():
            step = asked.name.removeprefix("checkpoint-")
            for checkpoint in checkpoints:
                if step.isdecimal() and int(step) == step_of(checkpoint):
                    return checkpoint
        names = ", ".join(path.name for path in checkpoints)
        raise FileNotFoundError(f"no checkpoint {which} in {self.folder}: there is {names}, or {LATEST}")

    def last_good(self) -> str:
        """Says for an error message what there is to resume from."""
        checkpoints = self.checkpoints()
        return f"the last good checkpoint is {checkpoints[-1]}" if checkpoints else "there is no checkpoint yet"

    def save_checkpoint(self, accelerator: Accelerator, step: int) -> None:
        """Saves the state of the run after `step` steps, and drops the oldest checkpoints. All processes call it.

        Raises:
            OSError: It cannot be written; the older checkpoints stay.
        """
        unfinished = self.folder / f".unfinished-checkpoint-{step:08d}"
        if accelerator.is_main_process:
            self._clear()
        accelerator.wait_for_everyone()
        try:
            accelerator.save_state(str(unfinished))
        except Exception as error:  # torch and safetensors have their own for a full disk
            shutil.rmtree(unfinished, ignore_errors=True)
            raise OSError(f"cannot write a checkpoint into {self.folder}: {first_line(error)}") from None
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            unfinished.replace(self.folder / f"checkpoint-{step:08d}")
            for old in self.checkpoints()[: -self.checkpoints_kept]:
                old.replace(self.folder / f".unfinished-{old.name}")
            self._clear()
        accelerator.wait_for_everyone()

    def _clear(self) -> None:
        for leftover in self.folder.glob(".unfinished-*"):
            shutil.rmtree(leftover)

    def load_checkpoint(self, accelerator: Accelerator, checkpoint: Path) -> None:
        """Loads a checkpoint.

        Raises:
            ValueError: It is broken, or of another precision.
        """
        try:
            accelerator.load_state(str(checkpoint))
        except Exception as error:  # of safetensors, torch or the file system
            raise ValueError(
                f"cannot resume from {checkpoint}: {first_line(error)}; if it is broken, remove it or give an older "
                "one (--resume CHECKPOINT); if the run was begun with another --mixed-precision, give that"
            ) from None

    def replace_model(self, folder: Path, write: Callable[[Path], None]) -> None:
        """Replaces `model` or `best` by what `write` puts into a new folder."""
        new, old = (self.folder / f".unfinished-{age}-{folder.name}" for age in ("new", "old"))
        for leftover in (new, old):
            shutil.rmtree(leftover, ignore_errors=True)
        try:
            new.mkdir()
            write(new)
        except OSError:
            shutil.rmtree(new, ignore_errors=True)
            raise
        if folder.exists():
            folder.replace(old)
        new.replace(folder)
        shutil.rmtree(old, ignore_errors=True)

    def keep_model(self, phase: int) -> None:
        """Keeps a copy of `model` as that of the end of a phase, whatever comes after it."""

        def write(folder: Path) -> None:
            shutil.copytree(self.model, folder, dirs_exist_ok=True)

        self.replace_model(self.folder / f"phase-{phase}", write)

    def save_grid(self, image: Image.Image, step: int) -> None:
        """Saves a grid of validation images."""
        self.grids.mkdir(exist_ok=True)
        write_whole(self.grids / f"step-{step:08d}.png", lambda path: image.save(path, "PNG"))

    def log(self, entry: dict[str, Any]) -> None:
        """Adds a line to the log."""
        with self.log_file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")

    def read_log(self) -> list[dict[str, Any]]:
        """Reads the lines of the log."""
        if not self.log_file.exists():
            return []
        return [
            json.loads(line) for line in self.log_file.read_text(encoding="utf-8").splitlines() if line.endswith("}")
        ]

    def go_back(self, step: int) -> None:
        """Makes the folder that of a run after so many steps, which it is about to resume.

        What was logged later is dropped, as it is logged again; checkpoints of later steps get another name.
        """
        later = [checkpoint for checkpoint in self.checkpoints() if step_of(checkpoint) > step]
        for checkpoint in later:
            aside = self.folder / f"set-aside-{checkpoint.name}"
            shutil.rmtree(aside, ignore_errors=True)
            checkpoint.replace(aside)
        if later:
            names = ", ".join(checkpoint.name for checkpoint in later)
            warnings.warn(f"of later steps, and kept as set-aside-checkpoint-*: {names}", stacklevel=3)
        lines = [json.dumps(entry) + "\n" for entry in self.read_log() if entry["step"] <= step]
        write_text(self.log_file, "".join(lines))

    def note_unreadable(self, names: Iterable[str]) -> tuple[int, list[str]]:
        """Adds the names of photographs that cannot be read to a list; returns its length and those that are new."""
        known = self.unreadable_file.read_text(encoding="utf-8").splitlines() if self.unreadable_file.exists() else []
        new = sorted({printable(name) for name in names} - set(known))
        if new:
            write_text(self.unreadable_file, "".join(f"{name}\n" for name in [*known, *new]))
        return len(known) + len(new), new

    def plot(self, recipe: Recipe) -> None:
        """Draws the losses over the three phases, and the validation figures, into `losses.png`."""
        log = self.read_log()
        curves = [
            ("mse", "eq. 2, squared error in the hole"),
            ("discriminator", "eq. 4, discriminators"),
            ("adversarial", "eq. 5, adversarial term"),
            ("psnr", "PSNR in the hole, dB"),
            ("ssim", "SSIM in the hole"),
            ("texture", "texture ratio"),
        ]
        figure = Figure(figsize=(12, 6), layout="constrained")
        for axes, (name, title) in zip(figure.subplots(2, 3).flat, curves, strict=True):
            points = [(entry["step"], entry[name]) for entry in log if name in entry]
            axes.plot(*zip(*points, strict=True), linewidth=1) if points else axes.text(0.5, 0.5, "none", ha="center")
            axes.set(title=title, xlabel="step", xlim=(0, recipe.phase_ends[-1]))
            for end in recipe.phase_ends[:2]:
                axes.axvline(end, color="grey", linestyle=":", linewidth=1)
        write_whole(self.folder / "losses.png", lambda path: figure.savefig(path, dpi=100))

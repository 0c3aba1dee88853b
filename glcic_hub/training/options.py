"""Options of a run: what may change from one machine to the next, and does not decide the result."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal


def _option(default: Any, help_text: str, **flag: Any) -> Any:
    """Makes a field with its help, and with what else its flag on the command line needs."""
    return dataclasses.field(default=default, metadata={"help": help_text, **flag})


@dataclass(frozen=True)
class TrainingOptions:
    """Options of `train`. `glcic train` has a flag for each, with the help that stands here.

    Raises:
        ValueError: A number is out of its range, or options do not go together.
    """

    stream: bool = _option(False, "read a dataset as it comes", group="data")
    validation: str | Path | None = _option(
        None,
        "other photographs, 64 at most (default: a tenth is kept back, none of a stream)",
        metavar="WHERE",
        group="data",
    )
    mean_pixel: tuple[float, float, float] | None = _option(
        None,
        "of the photographs, in [0, 1] (default: measured, or that of --from)",
        metavar=("R", "G", "B"),
        group="data",
    )
    workers: int | None = _option(
        None, "processes that read photographs, for each training process (default: 1; GPU: 8)", least=0, group="data"
    )
    start_from: str | Path | None = _option(
        None,
        "a trained model, folder or user/name; its discriminators are taken if the recipe has no phase 2",
        flag="--from",
        metavar="MODEL",
    )
    resume: bool | str | Path = _option(
        False,
        "resume the run in the output folder, from the newest checkpoint (latest) or another (checkpoint-00000500)",
        argparse={"nargs": "?", "const": "latest", "metavar": "CHECKPOINT"},
    )
    mixed_precision: Literal["no", "bf16", "fp16"] | None = _option(
        None, "default: what accelerate launch or its config says"
    )
    accumulation: int | None = _option(
        None,
        "parts that a batch is cut into to fit the memory (default: ACCELERATE_GRADIENT_ACCUMULATION_STEPS, else 1)",
        least=1,
    )
    compile: bool = _option(False, "compile the networks")
    save_every: int = _option(
        250, "from one checkpoint to the next; there is one at the end of each phase, too", least=1, metavar="STEPS"
    )
    keep: int = _option(2, "checkpoints that are kept", least=1)
    validate_every: int = _option(
        1000, "from one validation to the next; phases 1 and 3 end with one", least=1, metavar="STEPS"
    )
    trackers: tuple[str, ...] = _option(
        ("tensorboard",), "that Accelerate knows, or all; no NAME, no tracker", metavar="NAME"
    )
    push_to_hub: str | None = _option(
        None,
        "upload the model at the end (no name: that of the output folder)",
        argparse={"nargs": "?", "const": "", "metavar": "USER/NAME"},
    )
    private: bool = _option(False, "make its repository private, if it is new")
    push_every: int | None = _option(None, "upload it before that, too", least=1, metavar="STEPS")

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value, least = getattr(self, field.name), field.metadata.get("least")
            if least is not None and value is not None and value < least:
                raise ValueError(f"{field.name} must be at least {least}, not {value}")
        if self.push_every is not None and self.push_to_hub is None:
            raise ValueError("push_every says when to upload, and push_to_hub must say where")

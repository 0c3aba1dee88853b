"""The configuration of a trained model: architecture, mean pixel, and how it completes best."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

MODEL_TYPE = "glcic"
FORMAT_VERSION = 1


LINES = ("title", "data", "steps", "start", "base_model", "software", "validation", "terms")
LISTS = ("sources", "datasets")
FIGURES = ("phase", "step", "psnr", "ssim", "texture")
LICENSE = ("license", "license_name", "license_link")


def _check_training(training: Any) -> None:
    """Checks that a model card can be made from a record of the training."""

    def is_line(text: Any) -> bool:
        return isinstance(text, str) and len(text) <= 2000 and text.isprintable()

    def is_value(value: Any) -> bool:
        return value is None or type(value) in (bool, int, float) or is_line(value)

    def is_record(record: Any, names: tuple[str, ...]) -> bool:
        return isinstance(record, Mapping) and set(record) <= set(names)

    # Only what a card shows may be in it, each in its form.
    if not is_record(training, (*LINES, *LISTS, "recipe", "figures", "license")):
        raise ValueError("training must be a record of what is known of it, and of nothing else")
    figures, recipe = training.get("figures", []), training.get("recipe", {})
    checks = {
        **{name: is_line(training.get(name, "")) for name in LINES},
        **{
            name: isinstance(lines := training.get(name, []), (list, tuple)) and all(map(is_line, lines))
            for name in LISTS
        },
        "recipe": isinstance(recipe, Mapping)
        and all(
            is_line(name) and all(map(is_value, value if isinstance(value, (list, tuple)) else [value]))
            for name, value in recipe.items()
        ),
        "figures": isinstance(figures, (list, tuple))
        and all(
            is_record(row, FIGURES) and len(row) == len(FIGURES) and all(type(v) in (int, float) for v in row.values())
            for row in figures
        )
        and (not figures or "validation" in training),
        "license": is_record(training.get("license", {}), LICENSE)
        and all(map(is_line, training.get("license", {}).values())),
    }
    if wrong := [name for name, good in checks.items() if not good]:
        raise ValueError(f"training has {wrong[0]} in a form that no training writes")


@dataclass(frozen=True, kw_only=True)
class GLCICConfig:
    """Architecture of the three networks, and the mean pixel they were trained with.

    The paper's recipes differ in these numbers alone (sec. 3.4, 4.1.2 and 4.5): 256/128 for Places2, 160/96 for
    CelebA, 128/64 for the centre region of ImageNet.

    Attributes:
        mean_pixel: Mean (red, green, blue) of the training photographs, each in [0, 1]. The hole is filled with it
            before it enters the completion network (sec. 3.1), so weights are useless without it.
        width: Outputs of the first convolution; every other layer scales with it. 64 in the paper, 32 for a network
            of a quarter of the cost. An even number.
        image_size: Side in pixels of the square that the global discriminator sees.
        patch_size: Side in pixels of the square that the local discriminator sees.
        order: As for `CompletionNetwork`; all but the paper's `"norm-relu"` is for converted models.
        detail: What the pipeline does unless it is asked otherwise, and so what suits the model best: `"exemplars"` or
            `"none"`, as for `GLCICPipeline`.
        blend: The same: `"none"` or `"poisson"`.
        training: What is known of the training, for the model card; completion does not look at it.

    Raises:
        ValueError: A value is out of its range.
    """

    mean_pixel: tuple[float, float, float]
    width: int = 64
    image_size: int = 256
    patch_size: int = 128
    order: Literal["norm-relu", "relu-norm"] = "norm-relu"
    detail: Literal["exemplars", "none"] = "exemplars"
    blend: Literal["none", "poisson"] = "none"
    training: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        for name in ("width", "image_size", "patch_size"):
            value = getattr(self, name)
            if type(value) is not int:
                raise ValueError(f"{name} must be a whole number, not {value!r}")
        if not (2 <= self.width <= 1024 and self.width % 2 == 0):
            raise ValueError(f"width must be an even number from 2 to 1024, not {self.width}")
        if not 16 <= self.patch_size <= self.image_size <= 4096:
            raise ValueError(
                "sizes must obey 16 <= patch_size <= image_size <= 4096, "
                f"not patch_size {self.patch_size} and image_size {self.image_size}"
            )
        given: Any = self.mean_pixel
        numbers = isinstance(given, (list, tuple)) and all(
            isinstance(value, (int, float)) and value is not True for value in given
        )
        mean = tuple(map(float, given)) if numbers and all(-1 <= value <= 2 for value in given) else ()
        if len(mean) != 3 or not all(0 <= value <= 1 for value in mean):
            raise ValueError(f"mean_pixel must be three numbers in [0, 1], not {self.mean_pixel!r}")
        object.__setattr__(self, "mean_pixel", mean)
        for name, kinds in (
            ("order", ("norm-relu", "relu-norm")),
            ("detail", ("exemplars", "none")),
            ("blend", ("none", "poisson")),
        ):
            if getattr(self, name) not in kinds:
                raise ValueError(f"{name} must be {' or '.join(kinds)}, not {getattr(self, name)!r}")
        if self.training is not None:
            _check_training(self.training)

    def to_json(self) -> str:
        """Writes the text of `config.json`."""
        entries = {name: value for name, value in dataclasses.asdict(self).items() if value is not None}
        document = {"model_type": MODEL_TYPE, "format_version": FORMAT_VERSION, **entries}
        return json.dumps(document, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> GLCICConfig:
        """Reads the text of a `config.json`.

        Raises:
            ValueError: The text is not JSON, not of this kind of model, of a newer format, or has unknown, missing or
                wrong entries.
        """
        try:
            document: Any = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"config is not JSON: {error}") from None
        if not isinstance(document, dict) or document.pop("model_type", None) != MODEL_TYPE:
            raise ValueError(f'config is not one of a GLCIC model: it lacks "model_type": "{MODEL_TYPE}"')
        version = document.pop("format_version", None)
        if type(version) is not int or version != FORMAT_VERSION:
            raise ValueError(
                f"config has format_version {version!r}, and this release reads {FORMAT_VERSION}: "
                "a newer glcic-hub may read it"
            )
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(set(document) - known):
            raise ValueError(f"config has unknown entries: {', '.join(unknown)}; known are {', '.join(sorted(known))}")
        if "mean_pixel" not in document:
            raise ValueError("config lacks mean_pixel")
        return cls(**document)

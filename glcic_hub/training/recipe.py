"""Recipes: everything that decides the result of a training run, in one file that a user can copy."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import yaml

from glcic_hub.config import GLCICConfig
from glcic_hub.files import write_text

RECIPES = resources.files("glcic_hub.training") / "recipes"

DEFAULT_RECIPE = "compact"
WARMUP_STEPS = 200
STEP_COUNTS = ("completion_steps", "discriminator_steps", "total_steps")


def _entry(default: Any, help_text: str) -> Any:
    return dataclasses.field(default=default, metadata={"help": help_text})


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The numbers of a training run. Defaults are the paper's for Places2 (sec. 3.4).

    What each entry means stands beside it, and in `glcic train --help`.

    Raises:
        ValueError: An entry is of a wrong type or out of its range, or entries contradict each other.
    """

    width: int = _entry(64, "outputs of the first layers, of which all others are multiples")
    image_size: int = _entry(256, "side of the square training patches in pixels")
    patch_size: int = _entry(128, "side of the local discriminator's patch in pixels")
    resize: tuple[int, int] = _entry(
        (256, 384), "range of the short side in pixels that photographs are resized to before a patch is cut"
    )
    hole_size: tuple[int, int] = _entry((96, 128), "range of the hole's height and width in pixels, drawn separately")
    hole_position: Literal["random", "centre"] = _entry("random", "where the hole is")
    strokes: float = _entry(0.0, "share of the holes that are free-form strokes, anywhere, and no rectangle")
    flip: bool = _entry(False, "mirror half of the patches left to right")
    batch_size: int = _entry(96, "images in one step, over all processes")
    completion_steps: int = _entry(90_000, "T_C, steps of phase 1: the completion network alone")
    discriminator_steps: int = _entry(10_000, "T_D, steps of phase 2: the discriminators alone")
    total_steps: int = _entry(500_000, "T_train, steps of all phases; phase 3, both jointly, takes what is left")
    discriminators: Literal["both", "global", "local", "none"] = _entry(
        "both", "which discriminators there are (fig. 6); with none, phase 1 takes all steps but those of phase 2"
    )
    optimizer: Literal["adadelta", "adamw"] = _entry("adadelta", "of all networks")
    learning_rate: float = _entry(1.0, "greatest rate of the completion network in phase 1; ADADELTA's own is 1")
    joint_learning_rate: float = _entry(1.0, "greatest rate of the completion network in phase 3")
    discriminator_learning_rate: float = _entry(1.0, "rate of the discriminators")
    schedule: Literal["constant", "cosine"] = _entry(
        "constant", "of the completion network's rate; cosine: up in 200 steps, then down to 0 at the phase's last"
    )
    alpha: float = _entry(0.0004, "weight of the adversarial loss in phase 3 (eq. 5)")
    adversarial_loss: Literal["minimax", "non-saturating"] = _entry(
        "minimax", "what the completion network minimises: log(1 - D), as eq. 3 says, or -log D"
    )
    balance_steps: int = _entry(
        0, "steps at the start of phase 3 in which alpha is chosen anew each time so that both losses' gradients, "
        "taken at the completed image, have the same norm"
    )  # fmt: skip
    r1_weight: float = _entry(
        0.0,
        "weight of the penalty on the discriminators' gradient at real images (R1, Mescheder et al. 2018), which is "
        "taken in every 8th step and then counts eightfold",
    )
    colour_augmentation: bool = _entry(
        False,
        "show the discriminators real and completed images with brightness, saturation and contrast changed at random "
        "(Zhao et al. 2020)",
    )
    frozen_statistics: bool = _entry(
        False, "in phase 3 the completion network's batch normalisation keeps and uses the statistics of phase 1"
    )
    initialisation: Literal["pytorch", "spreading"] = _entry(
        "pytorch", "of the completion network: PyTorch's, or one that spreads what it sees into the hole"
    )
    tint_weight: float = _entry(0.0, "weight of the error of colour differences, added to eq. 2")
    gradient_weight: float = _entry(0.0, "weight of the error of differences between neighbours, added to eq. 2")
    similarity_weight: float = _entry(0.0, "weight of 1 less the structural similarity, added to eq. 2")
    ema: bool = _entry(
        False,
        "validate and save an exponential moving average of the completion network's weights; training continues with "
        "the weights themselves",
    )
    detail: Literal["exemplars", "none"] = _entry(
        "exemplars", "how the model completes unless it is asked otherwise; none: by the network alone, as faces need"
    )
    blend: Literal["none", "poisson"] = _entry("none", "the same, with or without post-processing")
    seed: int = _entry(0, "decides initial weights, order of the photographs, patches and holes")

    def __post_init__(self) -> None:
        # Check types, then ranges, then what entries ask of each other.
        for name, kind in get_type_hints(type(self)).items():
            object.__setattr__(self, name, _checked(name, kind, getattr(self, name)))
        for name in ("batch_size", "total_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"recipe: {name} must be at least 1, not {getattr(self, name)}")
        for name in ("completion_steps", "discriminator_steps", "balance_steps", "seed"):
            if getattr(self, name) < 0:
                raise ValueError(f"recipe: {name} must be at least 0, not {getattr(self, name)}")
        if self.completion_steps + self.discriminator_steps > self.total_steps:
            raise ValueError(
                f"recipe: total_steps {self.total_steps} is less than completion_steps {self.completion_steps} "
                f"and discriminator_steps {self.discriminator_steps} together; give these, too"
            )
        for name in ("learning_rate", "joint_learning_rate", "discriminator_learning_rate"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"recipe: {name} must be above 0 and finite, not {getattr(self, name)}")
        for name in ("alpha", "r1_weight", "tint_weight", "gradient_weight", "similarity_weight"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"recipe: {name} must be at least 0 and finite, not {getattr(self, name)}")
        if not 0 <= self.strokes <= 1:
            raise ValueError(f"recipe: strokes must be a share in [0, 1], not {self.strokes}")
        if self.strokes and self.hole_position == "centre":
            raise ValueError(f"recipe: strokes {self.strokes} are anywhere, and hole_position is centre")
        if not self.image_size <= self.resize[0] <= self.resize[1]:
            raise ValueError(
                f"recipe: resize {list(self.resize)} must be a range from image_size {self.image_size} up"
            )
        if not 1 <= self.hole_size[0] <= self.hole_size[1] < self.image_size:
            raise ValueError(
                f"recipe: hole_size {list(self.hole_size)} must be a range below image_size {self.image_size}"
            )
        if self.hole_size[1] > self.patch_size:
            raise ValueError(
                f"recipe: hole_size {list(self.hole_size)} must not exceed patch_size {self.patch_size}: "
                "the local discriminator sees the whole hole"
            )
        self.config(mean_pixel=(0, 0, 0))
        if self.image_size % 4:
            raise ValueError(f"recipe: image_size must be a multiple of 4, not {self.image_size}")

    def config(self, mean_pixel: tuple[float, float, float]) -> GLCICConfig:
        """Makes the config of the networks that the recipe trains."""
        return GLCICConfig(
            mean_pixel=mean_pixel,
            width=self.width,
            image_size=self.image_size,
            patch_size=self.patch_size,
            detail=self.detail,
            blend=self.blend,
        )

    @property
    def phase_ends(self) -> tuple[int, int, int]:
        """The steps after which phases 1, 2 and 3 end (algorithm 1); a phase without steps ends as the one before it.

        Without discriminators all is phase 1, and as long as the completion network is trained otherwise.
        """
        if self.discriminators == "none":
            steps = self.total_steps - self.discriminator_steps
            return steps, steps, steps
        return self.completion_steps, self.completion_steps + self.discriminator_steps, self.total_steps

    @property
    def is_adversarial(self) -> bool:
        """Tells whether there are steps with discriminators."""
        return self.phase_ends[2] > self.phase_ends[0]

    def phase_of(self, step: int) -> int:
        """Returns the phase, 1 to 3, of a step, counted from 0."""
        return 1 + sum(step >= end for end in self.phase_ends[:2])

    def learning_rate_at(self, step: int) -> float:
        """Returns the completion network's learning rate in a step, counted from 0."""
        phase = self.phase_of(step)
        greatest = self.learning_rate if phase == 1 else self.joint_learning_rate
        if self.schedule == "constant":
            return greatest
        begin, end = (0, *self.phase_ends)[phase - 1 : phase + 1]
        warmup = min(1.0, (step - begin + 1) / WARMUP_STEPS)
        return greatest * warmup * 0.5 * (1 + math.cos(math.pi * (step - begin) / (end - begin)))

    def continues(self, begun: Recipe, done: int) -> bool:
        """Tells whether a run that was begun with another recipe may go on with this one.

        It may if nothing differs but numbers of steps, which have grown, and if the steps that are done would have
        been the same: of the same phase, at the same rate.
        """
        if begun == self:
            return True
        grown = {name: getattr(self, name) for name in STEP_COUNTS if getattr(self, name) > getattr(begun, name)}
        return (
            {**begun.entries(), **grown} == self.entries()
            and begun.is_adversarial == self.is_adversarial
            and all(
                begun.phase_of(step) == self.phase_of(step)
                and begun.learning_rate_at(step) == self.learning_rate_at(step)
                for step in range(done)
            )
        )

    def in_proportion(self, total_steps: int) -> dict[str, int]:
        """Scales the steps of phases 1 and 2 to another total: at least 1, if they have any."""
        counts = {name: getattr(self, name) for name in STEP_COUNTS[:2]}
        share = total_steps / self.total_steps
        return {name: max(min(count, 1), round(count * share)) for name, count in counts.items()}

    @classmethod
    def load(cls, name: str, **overrides: Any) -> Recipe:
        """Reads a recipe that comes with the package, or a YAML file.

        Args:
            name: `places2`, `compact`, ..., or the path of a file.
            overrides: Entries that replace those of the file.

        Raises:
            ValueError: No such recipe, or an entry is unknown or wrong.
        """
        shipped = RECIPES / f"{name}.yaml"
        source = shipped if shipped.is_file() else Path(name)
        if not source.is_file():
            raise ValueError(f"no recipe and no file is called {name!r}; recipes are {', '.join(recipe_names())}")
        try:
            entries = yaml.safe_load(source.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ValueError(f"{name} is not YAML: {' '.join(str(error).split())}") from None
        if not isinstance(entries, dict):
            raise ValueError(f"{name} must hold `key: value` lines")
        known = [field.name for field in dataclasses.fields(cls)]
        if unknown := sorted(set(map(str, entries)) - set(known)):
            raise ValueError(f"{name} has unknown entries: {', '.join(unknown)}; known are {', '.join(known)}")
        return cls(**{**entries, **overrides})

    def save(self, path: Path) -> None:
        """Writes the recipe as YAML that `load` reads, whole or not at all.

        Raises:
            OSError: It cannot be written.
        """
        text = yaml.safe_dump(self.entries(), sort_keys=False)
        write_text(path, text)

    def entries(self) -> dict[str, Any]:
        """Lists the entries by name, in types that YAML and JSON have."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in dataclasses.asdict(self).items()}

    def differences(self, other: Recipe) -> str:
        """Names the entries in which two recipes differ, with both values; empty if they are equal."""
        mine, others = self.entries(), other.entries()
        return ", ".join(f"{name} {mine[name]} and {others[name]}" for name in mine if mine[name] != others[name])


def recipe_names() -> list[str]:
    """Lists the recipes that come with the package."""
    return sorted(path.name.removesuffix(".yaml") for path in RECIPES.iterdir())


def _checked(name: str, kind: Any, value: Any) -> Any:
    """Returns `value` if it is of the annotated type (whole numbers pass as floats), else raises a ValueError."""
    if get_origin(kind) is Literal:
        if value in get_args(kind):
            return value
        raise ValueError(f"recipe: {name} must be one of {', '.join(get_args(kind))}, not {value!r}")
    if get_origin(kind) is tuple:
        if isinstance(value, (list, tuple)) and len(value) == 2 and all(type(number) is int for number in value):
            return tuple(value)
        raise ValueError(f"recipe: {name} must be two whole numbers, not {value!r}")
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise ValueError(f"recipe: {name} must be of type {kind.__name__}, not {value!r}")
    return value

"""Recipes: everything that decides what comes out of a training run, in one file that a user can copy."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import yaml

from glcic_hub.config import GLCICConfig

RECIPES = resources.files("glcic_hub.training") / "recipes"


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The numbers of a training run. Defaults are the paper's for Places2 (sec. 3.4).

    Attributes:
        width: Base width of the networks.
        image_size: Side in pixels of the square training patches.
        patch_size: Side in pixels of the local discriminator's patch.
        resize: The photograph's short side is resized to a random size of this range, in pixels. A photograph that
            is smaller is enlarged.
        hole_size: Range of the hole's height and width, drawn separately, in pixels.
        flip: Whether half of the patches are mirrored left to right.
        batch_size: Pictures in one step, over all processes.
        completion_steps: T_C, the steps of phase 1.
        optimizer: `adadelta`, as the paper, or `adamw`.
        learning_rate: Greatest rate. ADADELTA sets its own: 1.
        schedule: `constant`, or `cosine`: up in 200 steps, then down to 0 at the last.
        initialisation: `pytorch`, the defaults of the layers, or `spreading` (`initialisation.py`).
        tint_weight: Weight of the squared error of the colour differences, added to eq. 2. 0 in the paper.
        gradient_weight: Weight of the squared error of the differences between neighbours, added to eq. 2. 0 in the
            paper.
        seed: Decides initial weights, order of the photographs, patches and holes.
    """

    width: int = 64
    image_size: int = 256
    patch_size: int = 128
    resize: tuple[int, int] = (256, 384)
    hole_size: tuple[int, int] = (96, 128)
    flip: bool = False
    batch_size: int = 96
    completion_steps: int = 90_000
    optimizer: Literal["adadelta", "adamw"] = "adadelta"
    learning_rate: float = 1.0
    schedule: Literal["constant", "cosine"] = "constant"
    initialisation: Literal["pytorch", "spreading"] = "pytorch"
    tint_weight: float = 0.0
    gradient_weight: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name, kind in get_type_hints(type(self)).items():
            object.__setattr__(self, name, _checked(name, kind, getattr(self, name)))
        for name in ("batch_size", "completion_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"recipe: {name} must be at least 1, not {getattr(self, name)}")
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(f"recipe: learning_rate must be above 0 and finite, not {self.learning_rate}")
        for name in ("tint_weight", "gradient_weight"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"recipe: {name} must be at least 0 and finite, not {getattr(self, name)}")
        if not self.image_size <= self.resize[0] <= self.resize[1]:
            raise ValueError(
                f"recipe: resize {list(self.resize)} must be a range from image_size {self.image_size} up"
            )
        if not 1 <= self.hole_size[0] <= self.hole_size[1] < self.image_size:
            raise ValueError(
                f"recipe: hole_size {list(self.hole_size)} must be a range below image_size {self.image_size}"
            )
        self.config(mean_pixel=(0, 0, 0))
        if self.image_size % 4:
            raise ValueError(f"recipe: image_size must be a multiple of 4, not {self.image_size}")

    def config(self, mean_pixel: tuple[float, float, float]) -> GLCICConfig:
        """The config of the networks that the recipe trains."""
        return GLCICConfig(
            mean_pixel=mean_pixel, width=self.width, image_size=self.image_size, patch_size=self.patch_size
        )

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
            names = sorted(path.name.removesuffix(".yaml") for path in RECIPES.iterdir())
            raise ValueError(f"no recipe and no file is called {name!r}; recipes are {', '.join(names)}")
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
        """Writes the recipe as YAML that `load` reads."""
        entries = {name: list(v) if isinstance(v, tuple) else v for name, v in dataclasses.asdict(self).items()}
        path.write_text(yaml.safe_dump(entries, sort_keys=False), encoding="utf-8")


def _checked(name: str, kind: Any, value: Any) -> Any:
    """`value` if it is of the annotated type (whole numbers pass as floats), else a ValueError."""
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

"""Sample photographs, those in scikit-image's wheel, each with something to remove from it."""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files

from PIL import Image, ImageDraw


def _spoon(draw: ImageDraw.ImageDraw) -> None:
    draw.ellipse((314, 228, 414, 334), fill=255)
    draw.polygon([(360, 244), (392, 180), (404, 110), (406, 62), (432, 66), (422, 120), (402, 250)], fill=255)


def _scratches(draw: ImageDraw.ImageDraw) -> None:
    draw.line([(20, 60), (120, 130), (230, 170), (430, 280)], fill=255, width=7, joint="curve")
    draw.line([(330, 0), (300, 120), (190, 300)], fill=255, width=7, joint="curve")


def _badges(draw: ImageDraw.ImageDraw) -> None:
    draw.ellipse((124, 338, 218, 434), fill=255)
    draw.polygon([(272, 338), (326, 330), (338, 384), (284, 388)], fill=255)


def _tower(draw: ImageDraw.ImageDraw) -> None:
    draw.polygon([(440, 116), (456, 116), (466, 190), (488, 410), (426, 410), (438, 190)], fill=255)


SAMPLES: dict[str, tuple[str, Callable[[ImageDraw.ImageDraw], None]]] = {
    "coffee": ("coffee.png", _spoon),
    "chelsea": ("chelsea.png", _scratches),
    "astronaut": ("astronaut.png", _badges),
    "rocket": ("rocket.jpg", _tower),
}


def load_sample(name: str) -> tuple[Image.Image, Image.Image]:
    """Opens a sample photograph and draws its mask.

    Args:
        name: `coffee` (remove the spoon), `chelsea` (mend scratches), `astronaut` (remove badge and name tag) or
            `rocket` (remove a tower).

    Returns:
        The RGB photograph, and a mask of its size, mode L, white = complete.

    Raises:
        ValueError: No sample of that name.
    """
    if name not in SAMPLES:
        raise ValueError(f"no sample {name!r}; there are {', '.join(SAMPLES)}")
    file, draw = SAMPLES[name]
    with files("skimage.data").joinpath(file).open("rb") as content:  # `skimage.data.coffee()` takes 0.2 s to import
        image = Image.open(content).convert("RGB")
    mask = Image.new("L", image.size)
    draw(ImageDraw.Draw(mask))
    return image, mask

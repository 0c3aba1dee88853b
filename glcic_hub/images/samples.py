"""Sample photographs, each with something to remove from it.

They are scikit-image's, pixel for pixel, and free to use: coffee (Rachel Michetti), chelsea (Stefan van der Walt) and
rocket (SpaceX) under CC0, astronaut (NASA) in the public domain.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from PIL import Image, ImageDraw, ImageFilter

PHOTOGRAPHS = Path(__file__).with_name("photographs")


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


def _eye(draw: ImageDraw.ImageDraw) -> None:
    draw.rectangle((18, 30, 45, 59), fill=255)


FACE = (2.2, -0.1, 130.9, 0.1, 2.2, 1.2)
"""Takes x and y of an aligned face of 89×97 pixels to the astronaut's photograph, which ends above her hair."""

SAMPLES: dict[str, tuple[str, Callable[[ImageDraw.ImageDraw], None]]] = {
    "coffee": ("coffee.webp", _spoon),
    "chelsea": ("chelsea.webp", _scratches),
    "astronaut": ("astronaut.webp", _badges),
    "rocket": ("rocket.jpg", _tower),
    "face": ("astronaut.webp", _eye),
}


def load_sample(name: str) -> tuple[Image.Image, Image.Image]:
    """Opens a sample photograph and draws its mask.

    Args:
        name: `coffee` (remove the spoon), `chelsea` (mend scratches), `astronaut` (remove badge and name tag),
            `rocket` (remove a tower) or `face` (make up an eye; the astronaut's, aligned for the model `faces`).

    Returns:
        The RGB photograph, and a mask of its size, mode L, white = complete.

    Raises:
        ValueError: No sample of that name.
    """
    if name not in SAMPLES:
        raise ValueError(f"no sample {name!r}; there are {', '.join(SAMPLES)}")
    file, draw = SAMPLES[name]
    with Image.open(PHOTOGRAPHS / file) as opened:
        image = opened.convert("RGB")
    if name == "face":
        smooth = image.filter(ImageFilter.GaussianBlur(0.9))  # it is scaled down
        image = smooth.transform((89, 97), Image.Transform.AFFINE, FACE, Image.Resampling.BICUBIC)
    mask = Image.new("L", image.size)
    draw(ImageDraw.Draw(mask))
    return image, mask

"""Draws an experiment's image: scikit-image's photographs, completed by each method, side by side.

python docs/experiments/grid.py -o docs/experiments/ablation.jpg --size 128 --model runs/ablation-none/model ...
python docs/experiments/grid.py -o docs/experiments/object-removal.jpg --removal
python docs/experiments/grid.py -o docs/experiments/exemplars.jpg --removal --exemplars --plain --baselines PatchMatch
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, ImageOps
from skimage import data

from glcic_hub import GLCICPipeline
from glcic_hub.evaluation.methods import make_methods, model_methods, model_names, network_methods
from glcic_hub.images.before_after import GAP
from glcic_hub.images.masks import random_rectangle
from glcic_hub.images.processing import to_uint8
from glcic_hub.images.samples import SAMPLES, load_sample

HEADING = 24
HOLE_COLOUR = (128, 128, 128)
MORE_REMOVALS: dict[str, list[tuple[int, int]]] = {
    "camera": [(406, 134), (416, 106), (428, 106), (438, 134), (438, 198), (406, 198)],  # the tower on the horizon
    "moon": [(88, 88), (100, 58), (122, 50), (146, 60), (156, 88), (146, 114), (122, 124), (98, 114)],  # the crater
    "stereo_motorcycle": [(320, 372), (340, 372), (352, 444), (314, 444)],  # the stand
}
"""Outlines of what is taken away, in scikit-image's other photographs."""


def main() -> None:
    """Completes and draws."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE")
    parser.add_argument("--model", action="append", metavar="FOLDER", help="again for more (default: the package's)")
    parser.add_argument("--baselines", nargs="*", default=(), metavar="NAME", help="as of glcic evaluate")
    parser.add_argument("--plain", action="store_true", help="without the blended images")
    parser.add_argument("--exemplars", action="store_true", help="with detail from the image itself, too")
    parser.add_argument("--removal", action="store_true", help="take the samples' objects away")
    parser.add_argument("--size", type=int, default=256, metavar="N", help="side of the images (default: 256)")
    options = parser.parse_args()
    models = options.model or [None]
    pipes = [GLCICPipeline.from_pretrained(model) for model in models]
    of_model = model_methods if options.exemplars else network_methods
    methods = make_methods(dict(zip(model_names(models), pipes, strict=True)), options.baselines, of_model)
    if options.plain:
        methods = {name: method for name, method in methods.items() if not name.endswith(", blended")}
    rows = []
    for image, mask in removals() if options.removal else random_holes(options.size):
        with_hole = np.where(mask[..., None] > 0, np.array(HOLE_COLOUR, np.uint8), image)
        rows.append([with_hole, *(to_uint8(method(image, mask)) for method in methods.values()), image])
    labelled(["hole", *methods, "original"], rows, options.size).save(options.output, quality=90)


def removals() -> list[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
    """The samples with their masks, and a few more."""
    cases = [load_sample(name) for name in SAMPLES if name != "face"]
    for name, outline in MORE_REMOVALS.items():
        image = photograph(name)
        mask = Image.new("L", image.size)
        ImageDraw.Draw(mask).polygon(outline, fill=255)
        cases.append((image, mask))
    return [(np.asarray(image), np.asarray(mask) // 255) for image, mask in cases]


def random_holes(size: int) -> list[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
    """The photographs' centre squares, scaled, each with a rectangle of three to four eighths of the side."""
    cases = []
    for index, name in enumerate(("rocket", "stereo_motorcycle", "chelsea", "coffee", "astronaut")):
        image = ImageOps.fit(photograph(name), (size, size), Image.Resampling.BICUBIC)
        random = np.random.default_rng(index)
        hole = random_rectangle(random, size, size, (3 * size // 8, size // 2))
        cases.append((np.asarray(image), hole.mask(size, size)))
    return cases


def photograph(name: str) -> Image.Image:
    """One of scikit-image's, in RGB; of a stereo pair the left one."""
    loaded = getattr(data, name)()
    return Image.fromarray(loaded[0] if isinstance(loaded, tuple) else loaded).convert("RGB")


def labelled(names: list[str], rows: list[list[NDArray[np.uint8]]], side: int) -> Image.Image:
    """Rows of images, scaled to be `side` pixels wide, under the columns' names."""
    heights = [round(side * row[0].shape[0] / row[0].shape[1]) for row in rows]
    size = (len(names) * (side + GAP) - GAP, HEADING + sum(heights) + GAP * (len(rows) - 1))
    whole = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(whole)
    for column, name in enumerate(names):
        draw.text((column * (side + GAP), 2), name, fill="black", font=ImageFont.load_default(14))
        top = HEADING
        for row, height in zip(rows, heights, strict=True):
            image = Image.fromarray(row[column]).resize((side, height), Image.Resampling.LANCZOS)
            whole.paste(image, (column * (side + GAP), top))
            top += height + GAP
    return whole


if __name__ == "__main__":
    main()

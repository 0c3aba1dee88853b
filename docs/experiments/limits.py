"""How completion gets worse with the size of the hole and at the image's border (sec. 4.8, fig. 13 and 15).

python docs/experiments/limits.py PHOTOGRAPHS [--model FOLDER] [--every 8]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from glcic_hub import GLCICPipeline
from glcic_hub.data.photographs import open_photographs
from glcic_hub.evaluation.evaluate import evaluate
from glcic_hub.evaluation.methods import make_methods, network_methods
from glcic_hub.evaluation.protocol import Protocol, centre_square
from glcic_hub.evaluation.report import means
from glcic_hub.images.masks import Rectangle

SIZE = 256


class Place(NamedTuple):
    """A square hole in the middle, and how many rows and columns of the image are cut off above and left of it."""

    side: int
    cut_rows: int = 0
    cut_columns: int = 0


PLACES = {
    **{f"{side}×{side} in the middle": Place(side) for side in (16, 32, 64, 96, 128, 160, 192)},
    "the 96×96 hole where the image ends left of it": Place(96, 0, 80),
    "the 96×96 hole where it ends left and above": Place(96, 80, 80),
}


def main() -> None:
    """Measures and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", metavar="FOLDER")
    parser.add_argument("--model", metavar="FOLDER", help="default: the package's")
    parser.add_argument("--every", type=int, default=8, metavar="N", help="take every Nth photograph (default: 8)")
    options = parser.parse_args()
    pipe = GLCICPipeline.from_pretrained(options.model)
    methods = make_methods({"glcic": pipe}, ["Telea", "PatchMatch"], network_methods)
    photographs = open_photographs(options.photographs)
    squares = [centre_square(photographs[index], SIZE) for index in range(0, len(photographs), options.every)]
    print(f"{len(squares)} photographs; PSNR in dB and SSIM in the hole.\n")
    print("| hole | " + " | ".join(methods) + " |")
    print("|---" * (1 + len(methods)) + "|")
    for name, place in PLACES.items():
        with tempfile.TemporaryDirectory() as folder:
            images, masks = Path(folder, "photographs"), Path(folder, "masks")
            images.mkdir()
            masks.mkdir()
            for index, square in enumerate(squares):
                Image.fromarray(square[place.cut_rows :, place.cut_columns :]).save(images / f"{index}.png")
                Image.fromarray(255 * mask_of(place)).save(masks / f"{index}.png")
            evaluation = evaluate(open_photographs(str(images)), methods, Protocol(str(masks)))
        cells = [f"{row['psnr'].mean:.2f}, {row['ssim'].mean:.3f}" for row in means(evaluation).values()]
        print("| " + " | ".join([name, *cells]) + " |", flush=True)


def mask_of(place: Place) -> NDArray[np.uint8]:
    """The hole in what is left of the image."""
    begin = (SIZE - place.side) // 2
    whole = Rectangle(begin, begin, place.side, place.side).mask(SIZE, SIZE)
    return whole[place.cut_rows :, place.cut_columns :]


if __name__ == "__main__":
    main()

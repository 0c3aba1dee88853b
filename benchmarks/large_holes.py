"""A 512x512 hole in the middle of photographs enlarged to 1024x1024: coarse to fine, as it is, and Telea.

python benchmarks/large_holes.py PHOTOGRAPHS [--every 6] [--count 40]
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps

from glcic_hub import GLCICPipeline
from glcic_hub.blending import TELEA_RADIUS
from glcic_hub.evaluation import METRICS, as_table, hole_metrics
from glcic_hub.images import open_picture, to_uint8
from glcic_hub.masks import Rectangle
from glcic_hub.picture_files import find_pictures

SIZE, HOLE = 1024, 512


def main() -> None:
    """Measures and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", type=Path, metavar="FOLDER")
    parser.add_argument("--every", type=int, default=6, metavar="N", help="take every Nth photograph (default: 6)")
    parser.add_argument("--count", type=int, default=40, metavar="N", help="photographs at most (default: 40)")
    options = parser.parse_args()
    warnings.simplefilter("ignore", UserWarning)  # that says of "direct" what is measured here
    pipe = GLCICPipeline.from_pretrained()
    begin = (SIZE - HOLE) // 2
    mask = Rectangle(begin, begin, HOLE, HOLE).mask(SIZE, SIZE)
    rows: dict[str, list[dict[str, float]]] = {}
    for path in find_pictures(options.photographs)[:: options.every][: options.count]:
        photograph = Image.fromarray(to_uint8(open_picture(path).whole()))
        image = np.asarray(ImageOps.fit(photograph, (SIZE, SIZE), Image.Resampling.BICUBIC))
        blank = image * (1 - mask[..., None])
        completed = {
            "coarse to fine": pipe(image, mask),
            "coarse to fine, blended": pipe(image, mask, blend="poisson"),
            "direct": pipe(image, mask, large_holes="direct"),
            "Telea": cv2.inpaint(blank, mask, TELEA_RADIUS, cv2.INPAINT_TELEA),
        }
        for name, result in completed.items():
            rows.setdefault(name, []).append(hole_metrics(image, result, mask))
    means = {name: {m: float(np.mean([row[m] for row in values])) for m in METRICS} for name, values in rows.items()}
    print(as_table(means))


if __name__ == "__main__":
    main()

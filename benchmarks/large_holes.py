"""A 512x512 hole in the middle of photographs enlarged to 1024x1024: coarse to fine, as it is, and Telea.

python benchmarks/large_holes.py PHOTOGRAPHS [--every 6] [--count 40]
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import numpy as np

from glcic_hub import GLCICPipeline
from glcic_hub.evaluation import METRICS, Method, as_table, centre_crop, hole_metrics, methods
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
    named = methods(pipe)
    kinds: dict[str, Method] = {
        "coarse to fine": named["glcic"],
        "coarse to fine, blended": named["glcic, blended"],
        "direct": lambda image, mask: pipe(image, mask, large_holes="direct"),
        "Telea": named["Telea"],
    }
    rows: dict[str, list[dict[str, float]]] = {}
    for path in find_pictures(options.photographs)[:: options.every][: options.count]:
        image = centre_crop(path, SIZE)
        for name, method in kinds.items():
            rows.setdefault(name, []).append(hole_metrics(image, method(image, mask), mask))
    means = {name: {m: float(np.mean([row[m] for row in values])) for m in METRICS} for name, values in rows.items()}
    print(as_table(means))


if __name__ == "__main__":
    main()

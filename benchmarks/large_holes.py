"""A 512x512 hole in the middle of photographs enlarged to 1024x1024: the network coarse to fine, as it is, and Telea.

python benchmarks/large_holes.py PHOTOGRAPHS [--model FOLDER] [--every 6] [--count 40]
"""

from __future__ import annotations

import argparse
from pathlib import Path

from glcic_hub import GLCICPipeline
from glcic_hub.data.photographs import Photograph, open_photographs
from glcic_hub.evaluation.evaluate import evaluate
from glcic_hub.evaluation.methods import BASELINES, Method, network_methods
from glcic_hub.evaluation.protocol import Protocol
from glcic_hub.evaluation.report import as_markdown


def main() -> None:
    """Measures and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", type=Path, metavar="FOLDER")
    parser.add_argument("--model", metavar="FOLDER", help="default: the package's")
    parser.add_argument("--every", type=int, default=6, metavar="N", help="take every Nth photograph (default: 6)")
    parser.add_argument("--count", type=int, default=40, metavar="N", help="photographs at most (default: 40)")
    options = parser.parse_args()
    pipe = GLCICPipeline.from_pretrained(options.model)
    methods: dict[str, Method] = {
        **network_methods(pipe, "coarse to fine"),
        "direct": lambda image, mask: pipe(image, mask, detail="none", large_holes="direct"),
        "Telea": BASELINES["Telea"],
    }
    photographs: list[Photograph] = list(open_photographs(options.photographs))[:: options.every][: options.count]
    print(as_markdown(evaluate(photographs, methods, Protocol("centre", size=1024))))


if __name__ == "__main__":
    main()

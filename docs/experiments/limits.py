"""How completion gets worse with the size of the hole and at the picture's border (sec. 4.8, fig. 13 and 15).

python docs/experiments/limits.py PHOTOGRAPHS [--model FOLDER] [--every 4]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from PIL import Image

from glcic_hub import GLCICPipeline
from glcic_hub.evaluation.methods import make_methods
from glcic_hub.evaluation.protocol import Protocol, centre_square
from glcic_hub.evaluation.report import means
from glcic_hub.evaluation.run import evaluate
from glcic_hub.masks import Rectangle
from glcic_hub.training.photographs import open_photographs

SIZE = 256
HOLES = {
    **{f"{side}×{side} in the middle": Rectangle((SIZE - side) // 2, (SIZE - side) // 2, side, side)
       for side in (16, 32, 64, 96, 128, 160, 192)},
    "96×96 at an edge": Rectangle((SIZE - 96) // 2, 0, 96, 96),
    "96×96 in a corner": Rectangle(0, 0, 96, 96),
}  # fmt: skip


def main() -> None:
    """Measures and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", metavar="FOLDER")
    parser.add_argument("--model", metavar="FOLDER", help="default: the package's")
    parser.add_argument("--every", type=int, default=4, metavar="N", help="take every Nth photograph (default: 4)")
    options = parser.parse_args()
    methods = make_methods({"glcic": GLCICPipeline.from_pretrained(options.model)}, ["Telea", "PatchMatch"])
    photographs = open_photographs(options.photographs)
    chosen = range(0, len(photographs), options.every)
    print(f"{len(chosen)} photographs; PSNR in dB and SSIM in the hole.\n")
    print("| hole | " + " | ".join(methods) + " |")
    print("|---" * (1 + len(methods)) + "|")
    with tempfile.TemporaryDirectory() as folder:
        pictures, masks = Path(folder, "photographs"), Path(folder, "masks")
        pictures.mkdir()
        masks.mkdir()
        for index in chosen:
            Image.fromarray(centre_square(photographs[index], SIZE)).save(pictures / f"{index}.png")
        for name, hole in HOLES.items():
            mask = Image.fromarray(255 * hole.mask(SIZE, SIZE))
            for index in chosen:
                mask.save(masks / f"{index}.png")
            evaluation = evaluate(open_photographs(str(pictures)), methods, Protocol(str(masks)))
            figures = means(evaluation).values()
            cells = [f"{row['psnr'].mean:.2f}, {row['ssim'].mean:.3f}" for row in figures]
            print("| " + " | ".join([name, *cells]) + " |", flush=True)


if __name__ == "__main__":
    main()

"""What a better guide would bring: the fill under the network's guide, and under the original, blurred.

python docs/experiments/guide.py PHOTOGRAPHS [--model FOLDER] [--every 4]
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

from glcic_hub import GLCICPipeline
from glcic_hub.completion.exemplars import fill_from_exemplars, small_copy
from glcic_hub.data.photographs import Photograph, open_photographs
from glcic_hub.evaluation.metrics import hole_metrics
from glcic_hub.evaluation.perceptual import compare
from glcic_hub.evaluation.protocol import Protocol, case_opener
from glcic_hub.images.processing import to_uint8, to_unit

BLURS = (8, 4, 2, 0)
"""Standard deviations of the Gaussian blurs of the original, in pixels of the small copy."""


def main() -> None:
    """Measures and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", metavar="FOLDER")
    parser.add_argument("--model", metavar="FOLDER", help="default: the package's")
    parser.add_argument("--every", type=int, default=4, metavar="N", help="take every Nth photograph (default: 4)")
    options = parser.parse_args()
    pipe = GLCICPipeline.from_pretrained(options.model)
    photographs: list[Photograph] = list(open_photographs(options.photographs))[:: options.every]
    open_case = case_opener(Protocol(), photographs)
    rows: dict[str, list[list[float]]] = {}
    for index in range(len(photographs)):
        image, mask = open_case(index)
        hole = mask > 0
        for name, guide in guides(pipe, to_unit(image), hole):
            fill = fill_from_exemplars(to_unit(image), ~hole, hole, guide)
            if fill is None:
                raise ValueError(f"nothing around the hole of {photographs[index].name} can be copied")
            values = hole_metrics(image, to_uint8(fill), mask)
            of_guide = hole_metrics(image, to_uint8(guide), mask)["psnr"]
            distance = compare(image, to_uint8(fill), mask).distance
            rows.setdefault(name, []).append([of_guide, values["psnr"], values["ssim"], values["texture"], distance])
    print(f"{len(photographs)} photographs, {Protocol().describe()}.\n")
    print(
        "| guide | its PSNR, dB | PSNR, dB | SSIM | texture ratio | EfficientNet distance |\n|---|---|---|---|---|---|"
    )
    for name, of_each in rows.items():
        guide_psnr, psnr, ssim, texture, distance = np.nanmean(of_each, axis=0)
        print(f"| {name} | {guide_psnr:.2f} | {psnr:.2f} | {ssim:.3f} | {texture:.2f} | {distance:.3f} |")


def guides(
    pipe: GLCICPipeline, image: NDArray[np.float32], hole: NDArray[np.bool_]
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Makes guides of an image (H, W, 3), each of its size."""
    copy, gap = small_copy(image, hole)
    original = cv2.resize(image, gap.shape[::-1], interpolation=cv2.INTER_AREA)
    fills = {"the network's": pipe(copy, gap, detail="none", blend="poisson")}
    for sigma in BLURS:
        name = f"the original, blurred over {sigma} pixels" if sigma else "the original"
        fills[name] = cv2.GaussianBlur(original, (0, 0), sigma) if sigma else original
    for name, fill in fills.items():
        small = np.where(gap[..., None], fill, copy)
        yield name, cv2.resize(small, hole.shape[::-1], interpolation=cv2.INTER_LINEAR).clip(0, 1)


if __name__ == "__main__":
    main()

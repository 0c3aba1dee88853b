"""`glcic complete`: an image, or a folder of images."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from glcic_hub.cli.common import FAILED, OK, add_examples, add_model, load_pipeline, say
from glcic_hub.images.files import MAX_PIXELS

if TYPE_CHECKING:
    from PIL.Image import Image

STREAM = Path("-")
"""Standard input, or standard output."""

STREAMED_AS = Path("standard output.png")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `glcic complete`."""
    parser.set_defaults(run=lambda options: _run(parser, options))
    add_examples(
        parser,
        "glcic complete photo.jpg mask.png -o out.png",
        "glcic complete cut-out.png --mask-from-alpha -o out.png",
        "glcic complete photos/ masks/ -o results/",
        "glcic complete --sample coffee -o coffee.png --comparison before-after.png",
    )
    parser.add_argument(
        "image", type=Path, nargs="?", metavar="IMAGE", help="an image, or a folder of images; - for standard input"
    )
    parser.add_argument(
        "mask",
        type=Path,
        nargs="?",
        metavar="MASK",
        help="white = complete; for a folder of images, one mask for all or a folder of masks, by name",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        metavar="OUT",
        help="a file; for a folder of images a folder; - for a PNG on standard output",
    )
    parser.add_argument("--mask-from-alpha", action="store_true", help="complete the transparent pixels; no MASK")
    parser.add_argument("--invert-mask", action="store_true", help="black = complete")
    parser.add_argument("--grow", type=int, default=0, metavar="N", help="pixels by which the hole grows (default: 0)")
    parser.add_argument("--sample", metavar="NAME", help="coffee, chelsea, astronaut, rocket, face; no IMAGE, no MASK")
    parser.add_argument(
        "--detail",
        choices=["exemplars", "none"],
        help="from around the hole, guided by the network; or the network's fill (default: what suits the model)",
    )
    parser.add_argument("--blend", choices=["none", "poisson"], help="post-processing (default: what suits the model)")
    parser.add_argument(
        "--large-holes",
        choices=["coarse_to_fine", "direct"],
        default="coarse_to_fine",
        help="with --detail none: complete holes too large for the network from a smaller copy (default) or as is",
    )
    parser.add_argument(
        "--comparison", type=Path, metavar="FILE", help="also write hole, result and original in a row"
    )
    parser.add_argument(
        "--max-pixels",
        type=int,
        default=MAX_PIXELS,
        metavar="N",
        help=f"refuse larger files, which may exhaust memory (default: {MAX_PIXELS})",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace what OUT holds already")
    add_model(parser)


def _run(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    given = [name for name in ("image", "mask") if getattr(options, name) is not None]
    expected = [] if options.sample else ["image"] if options.mask_from_alpha else ["image", "mask"]
    if given != expected or (options.sample and options.mask_from_alpha):
        parser.error("give IMAGE and MASK, or IMAGE and --mask-from-alpha, or --sample NAME")
    if options.grow and options.mask_from_alpha:
        parser.error("--grow is for a MASK: transparent pixels are completed as they are")
    if options.image is not None and options.image.is_dir():
        return _complete_folder(parser, options)
    return _complete_image(options)


def _complete_image(options: argparse.Namespace) -> int:
    from glcic_hub.images.before_after import row_size, side_by_side
    from glcic_hub.images.files import check_fits, check_output, check_sides, load_image, save_image
    from glcic_hub.images.masks import dilate, open_mask
    from glcic_hub.images.processing import open_image
    from glcic_hub.images.samples import load_sample

    # Say first what would keep the result from being written.
    if options.image not in (None, STREAM) and not options.image.exists():
        raise FileNotFoundError(f"no file or folder {options.image}")
    if options.mask is not None and not options.mask.exists():
        raise FileNotFoundError(f"no file or folder {options.mask}")
    output = None if options.output == STREAM else options.output
    for path in (output, options.comparison):
        if path is not None:
            check_output(path, overwrite=options.overwrite)
    if output and options.comparison and output.resolve() == options.comparison.resolve():
        raise ValueError(f"{options.comparison} cannot hold both the result and the comparison")

    # Then what is wrong with the image, and what the files' formats cannot hold.
    if options.sample:
        image, mask = load_sample(options.sample)
    else:
        source = sys.stdin.buffer if options.image == STREAM else options.image
        image, mask = load_image(source, max_pixels=options.max_pixels), options.mask
    open_image(image)
    check_fits(output or STREAMED_AS, image)
    if options.comparison is not None:
        check_sides(options.comparison, row_size(image))

    # Complete, and make the comparison before the result may overwrite the image or the mask.
    hole = None
    if mask is not None:
        hole = dilate(open_mask(mask, invert=options.invert_mask, max_pixels=options.max_pixels), options.grow)
    names = ("detail", "blend", "large_holes", "max_pixels")
    settings = {name: getattr(options, name) for name in names}
    completed = load_pipeline(options)(image, hole, invert_mask=options.invert_mask and hole is None, **settings)
    results = [(completed, output)]
    if options.comparison is not None:
        results.append((side_by_side(image, hole, completed), options.comparison))

    # What goes to standard output goes there alone.
    for result, path in results:
        if path is None:
            _write_to_standard_output(result)
        else:
            save_image(result, path, overwrite=options.overwrite)
            print(f"wrote {path}", file=sys.stdout if output else sys.stderr)
    if options.output.suffix.lower() in (".jpg", ".jpeg"):
        say("note: JPEG changes pixels outside the hole, too; write a .png to keep them")
    return OK


def _write_to_standard_output(image: Image) -> None:
    from glcic_hub.images.files import save_image

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / STREAMED_AS
        save_image(image, file)
        sys.stdout.buffer.write(file.read_bytes())
        sys.stdout.buffer.flush()


def _complete_folder(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    if options.comparison is not None:
        parser.error("--comparison is for a single image")
    if options.output == STREAM:
        parser.error("-o - is for a single image")
    from glcic_hub.batch import complete_folder
    from glcic_hub.distributed import join_processes

    accelerator = join_processes()
    if accelerator.num_processes > 1 and options.device is None:
        options.device = accelerator.device
    outcome = complete_folder(
        load_pipeline(options),
        options.image,
        options.mask,
        options.output,
        detail=options.detail,
        blend=options.blend,
        invert_mask=options.invert_mask,
        grow=options.grow,
        large_holes=options.large_holes,
        max_pixels=options.max_pixels,
        overwrite=options.overwrite,
    )
    accelerator.end_training()
    if accelerator.is_main_process:
        for failure in outcome.failures:
            say(f"error: {failure.path}: {failure.reason}")
        rate = outcome.completed / outcome.seconds
        print(f"completed {outcome.completed} images in {outcome.seconds:.1f} s, {rate:.2f} a second")
        if outcome.kept:
            print(f"kept {outcome.kept} that {options.output} held already; --overwrite replaces them")
        if outcome.failures:
            say(f"{len(outcome.failures)} images failed")
    # Accelerate's launcher stops all processes as soon as one fails, and the main one may still be writing.
    return FAILED if outcome.failures and accelerator.is_main_process else OK

"""`glcic evaluate`: a model beside baselines."""

from __future__ import annotations

import argparse
from pathlib import Path

from glcic_hub.cli.common import (
    FAILED,
    OK,
    PHOTOGRAPHS_HELP,
    add_examples,
    add_methods,
    baselines,
    completed_by_others,
    load_models,
    make_protocol,
    needs,
    say,
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `glcic evaluate`."""
    from glcic_hub.evaluation.methods import FAST_BASELINES

    parser.set_defaults(run=_run)
    add_examples(
        parser,
        "glcic evaluate photographs/ -o report/ --baselines all",
        "glcic evaluate photographs/ -o strokes/ --holes strokes --model runs/first/model",
    )
    parser.add_argument("photographs", metavar="WHERE", help=PHOTOGRAPHS_HELP)
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FOLDER", help="records, tables and a page with images; rerun to resume"
    )
    add_methods(parser, FAST_BASELINES)


def _run(options: argparse.Namespace) -> int:
    from glcic_hub.data.photographs import open_photographs
    from glcic_hub.distributed import join_processes
    from glcic_hub.evaluation import perceptual
    from glcic_hub.evaluation.evaluate import evaluate
    from glcic_hub.evaluation.methods import fingerprint, make_methods
    from glcic_hub.evaluation.report import as_markdown, write_report

    with needs("evaluate", "the evaluation"):  # before images are completed
        import skimage  # noqa: F401

    accelerator = join_processes()
    if accelerator.num_processes > 1 and options.device is None:
        options.device = accelerator.device
    photographs = open_photographs(options.photographs)
    models = load_models(options)
    methods = make_methods(models, baselines(options))
    settings = {"where": options.photographs, "models": {name: fingerprint(pipe) for name, pipe in models.items()}}
    protocol = make_protocol(options, photographs)
    evaluation = evaluate(photographs, methods, protocol, options.output, settings, completed_by_others(options))
    accelerator.end_training()
    if not accelerator.is_main_process:
        return OK
    print(as_markdown(evaluation), end="")
    if not perceptual.installed():
        say(f"note: {perceptual.NEEDED}")
    if options.output is not None:
        with needs("evaluate", "the report"):
            write_report(evaluation, options.output, f"Image completion on {Path(options.photographs).name}")
        print(f"wrote {options.output / 'report.html'}")
    for failure in evaluation.failures:
        say(f"error: {failure['photograph']}: {failure['method'] or 'not used'}: {failure['error']}")
    return FAILED if evaluation.failures else OK

"""`glcic study`: raters say which images are real."""

from __future__ import annotations

import argparse
from pathlib import Path

from glcic_hub.cli.common import (
    OK,
    PHOTOGRAPHS_HELP,
    add_examples,
    add_methods,
    baselines,
    completed_by_others,
    load_models,
    make_protocol,
    needs,
    port,
    say,
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `glcic study`."""
    parser.set_defaults(run=lambda options: _run(parser, options))
    add_examples(
        parser,
        "glcic study study/ --photographs photographs/ --baselines PatchMatch",
        "glcic study study/ --results",
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="the study's own, new or begun")
    parser.add_argument("--photographs", metavar="WHERE", help=f"for a new study: {PHOTOGRAPHS_HELP}")
    parser.add_argument("--count", type=int, default=100, metavar="N", help="images a rater sees (default: 100)")
    parser.add_argument("--results", action="store_true", help="count the votes instead of taking more")
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0 for all (default: this machine alone)")
    parser.add_argument("--port", type=port, default=7870, metavar="N", help="default: 7870")
    add_methods(parser, ())


def _run(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    from glcic_hub.data.photographs import open_photographs
    from glcic_hub.evaluation.methods import default_methods, make_methods
    from glcic_hub.evaluation.study import Study, check_new, prepare_study
    from glcic_hub.evaluation.study_page import make_app
    from glcic_hub.evaluation.study_results import results, results_as_markdown, write_results

    if options.photographs is not None and options.results:
        parser.error("--results is for a study that was begun, without --photographs")
    if not options.results:
        with needs("demo", "the study"):  # before images are completed
            import uvicorn
    if options.photographs is not None:
        check_new(options.folder)  # before models are downloaded
        shown = make_methods(load_models(options), baselines(options), default_methods)
        photographs = open_photographs(options.photographs)
        protocol, completed = make_protocol(options, photographs), completed_by_others(options)
        for failure in prepare_study(options.folder, photographs, shown, protocol, options.count, completed):
            say(f"error: not used: {failure}")
    study = Study(options.folder)
    if options.results:
        found = results(study)
        with needs("evaluate", "the results' plot"):
            write_results(study, found)
        print(results_as_markdown(study, found), end="")
        print(f"wrote {options.folder / 'results.html'}")
        return OK
    app = make_app(study)
    print(f"The study is at http://{options.host}:{options.port}; end it by Ctrl-C, votes are kept.", flush=True)
    uvicorn.run(app, host=options.host, port=options.port, log_level="warning", timeout_graceful_shutdown=2)
    return OK

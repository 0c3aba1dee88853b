"""`glcic demo`: the demo in the browser."""

from __future__ import annotations

import argparse
import signal

from glcic_hub.cli.common import OK, add_examples, needs, port


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `glcic demo`."""
    parser.set_defaults(run=_run)
    add_examples(
        parser,
        "glcic demo",
        "glcic demo --host 0.0.0.0 --port 8080 --model user/model",
    )
    parser.add_argument("--host", help="address to listen on; 0.0.0.0 for all (default: this machine alone)")
    parser.add_argument("--port", type=port, metavar="N", help="default: the first free one from 7860 on")
    parser.add_argument("--model", metavar="NAME|FOLDER|USER/NAME", help="default: compact, which is packaged")
    parser.add_argument("--share", action="store_true", help="also serve under a public address that Gradio lends")


def _run(options: argparse.Namespace) -> int:
    from glcic_hub.demo.folder import use_own_folder

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends as by Ctrl-C, and removes its files
    remove_files = use_own_folder()
    with needs("demo", "the demo"):
        from glcic_hub.demo.app import launch, make_demo
    launch(make_demo(options.model), host=options.host, port=options.port, share=options.share)
    remove_files()  # at once: the process ends when the photograph that is being completed is done
    return OK

"""The command line: thin doors to functions that Python users call too."""

from __future__ import annotations

import argparse
import importlib
import sys
import warnings
from collections.abc import Collection, Sequence
from pathlib import Path

import shtab

from glcic_hub.cli.common import FAILED, INTERRUPTED, say
from glcic_hub.version import __version__

COMMANDS = {
    "complete": ("complete", "add_options", "complete an image, or a folder of images"),
    "train": ("train", "add_options", "train the networks on a folder of photographs"),
    "bench": ("bench", "add_options", "measure what completion costs on this machine"),
    "evaluate": ("evaluate", "add_options", "measure a model next to baselines"),
    "study": ("study", "add_options", "have raters say which images are real"),
    "push": ("hub", "add_push_options", "upload a model to the Hub, or the demo as a Space"),
    "convert": ("hub", "add_convert_options", "convert another project's model"),
    "demo": ("demo", "add_options", "start the demo in the browser"),
    "export": ("hub", "add_export_options", "write a model as ONNX or for torch.export.load"),
}
"""By name: the module that has the command, its function that adds the options, and a line for `glcic --help`."""


def main(arguments: Sequence[str] | None = None, *, script: str | None = None) -> int:
    """Runs the `glcic` command.

    Args:
        arguments: Those after `glcic`; None takes the process's own.
        script: What users call instead of `glcic COMMAND`, for the command's help.

    Returns:
        The exit code: 0 if all went well; 1 if something failed, with a line on standard error for each failure; 75
        (try again) if training was stopped by SIGTERM and saved; 130 if it was interrupted. Wrong usage exits with 2.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    commands = COMMANDS.keys() if arguments[:1] == ["--print-completion"] else arguments[:1]
    options = make_parser(commands, script).parse_args(arguments)
    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = lambda message, *_, **__: say(f"warning: {message}")
        try:
            code: int = options.run(options)
            return code
        except (ValueError, OSError, MemoryError, FloatingPointError) as error:
            # A loader's worker puts its traceback before the message.
            say(f"error: {(str(error).strip() or type(error).__name__).splitlines()[-1]}")
            return FAILED
        except KeyboardInterrupt:
            say("interrupted")
            return INTERRUPTED


def make_parser(commands: Collection[str] = COMMANDS.keys(), script: str | None = None) -> argparse.ArgumentParser:
    """Makes the parser of the `glcic` command.

    Args:
        commands: Those whose options are added. The modules of the others are not imported, which takes seconds.
        script: What users call instead of `glcic COMMAND`.
    """
    parser = argparse.ArgumentParser(
        prog="glcic", description="Fill holes in photographs and leave the rest alone.", allow_abbrev=False
    )
    shtab.add_argument_to(parser, help="print a script by which a shell completes options and files")
    parser.add_argument("--version", action="version", version=f"glcic-hub {__version__}")
    added = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, (module, add_options, line) in COMMANDS.items():
        command = added.add_parser(name, help=line, allow_abbrev=False)
        if name in commands:
            command.prog = script or command.prog
            getattr(importlib.import_module(f"glcic_hub.cli.{module}"), add_options)(command)
            for action in command._actions:
                if action.type is Path:
                    action.complete = shtab.FILE  # type: ignore[attr-defined]
    return parser

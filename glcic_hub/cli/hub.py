"""`glcic push`, `convert` and `export`: models to the Hub, from others, and for other runtimes."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from glcic_hub.cli.common import OK, add_examples, needs


def add_push_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `glcic push`."""
    parser.set_defaults(run=lambda options: _push(parser, options))
    add_examples(
        parser,
        "glcic push runs/first/model user/model --private",
        "glcic push --space user/demo",
    )
    parser.add_argument("model", type=Path, nargs="?", metavar="FOLDER", help="a model folder; not for a Space")
    parser.add_argument("name", metavar="USER/NAME", help="on the Hub; made if it does not exist")
    parser.add_argument("--space", action="store_true", help="make a Gradio Space of the demo")
    parser.add_argument("--private", action=argparse.BooleanOptionalAction, help="of a new repository")
    parser.add_argument("--revision", metavar="BRANCH", help="commit to this branch, made if it does not exist")
    parser.add_argument("--tag", metavar="NAME", help="tag the commit, to load the model by; a new name")
    parser.add_argument("--create-pr", action="store_true", help="propose it as a pull request")
    parser.add_argument("-m", "--message", help="of the commit")


def _push(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    if options.space != (options.model is None):
        parser.error("give FOLDER and USER/NAME, or --space and USER/NAME")
    if options.space and (options.revision or options.tag):
        parser.error("--revision and --tag are for a model: a Space runs what is on its main branch")
    from glcic_hub.demo.space import push_space
    from glcic_hub.publish import push_model

    settings: dict[str, Any] = {"private": options.private, "create_pr": options.create_pr}
    if options.message is not None:
        settings["commit_message"] = options.message
    with needs("demo", "a Space"):
        if options.space:
            address = push_space(options.name, **settings)
        else:
            address = push_model(options.model, options.name, revision=options.revision, tag=options.tag, **settings)
    print(f"uploaded: {address}")
    return OK


def add_convert_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `glcic convert`."""
    parser.set_defaults(run=_convert)
    add_examples(
        parser,
        "glcic convert completionnet_places2.t7 -o places2/",
    )
    parser.add_argument(
        "source", type=Path, metavar="FILE", help="of the authors (.t7), or a checkpoint of otenim/GLCIC-PyTorch"
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="of the latter (default: config.json beside it)")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER", help="a new model folder")


def _convert(options: argparse.Namespace) -> int:
    from glcic_hub.hub.convert import convert
    from glcic_hub.hub.model_files import save_model

    if options.output.exists():
        raise FileExistsError(f"{options.output} exists and is kept; give another name")
    with needs("convert", "a Torch7 file"):
        config, network = convert(options.source, options.config)
    save_model(options.output, config, network)
    print(f"wrote {options.output}")
    return OK


def add_export_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `glcic export`."""
    parser.set_defaults(run=_export)
    add_examples(
        parser,
        "glcic export -o glcic.onnx",
        "glcic export --format torch -o glcic.pt2 --model user/model",
    )
    parser.add_argument("--format", choices=["onnx", "torch"], default="onnx", help="default: onnx")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE")
    parser.add_argument("--overwrite", action="store_true", help="replace FILE")
    parser.add_argument("--model", metavar="NAME|FOLDER|USER/NAME", help="default: compact, which is packaged")
    parser.add_argument("--revision", help="branch, tag or commit of a model on the Hub")


def _export(options: argparse.Namespace) -> int:
    from glcic_hub.hub.export import export
    from glcic_hub.pipeline import GLCICPipeline

    if options.output.exists() and not options.overwrite:
        raise FileExistsError(f"{options.output} exists and is kept; give another name, or --overwrite")
    pipe = GLCICPipeline.from_pretrained(options.model, revision=options.revision, device="cpu")
    with needs("export", "ONNX"):
        export(pipe.network, options.output, options.format)
    print(f"wrote {options.output} ({options.output.stat().st_size / 1e6:.1f} MB)")
    return OK

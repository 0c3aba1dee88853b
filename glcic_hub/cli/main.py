"""The command line: thin doors to functions that Python users call too."""

from __future__ import annotations

import argparse
import dataclasses
import signal
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import torch

from glcic_hub.batch import complete_folder
from glcic_hub.data.photographs import open_photographs
from glcic_hub.demo.folder import use_own_folder
from glcic_hub.demo.space import push_space
from glcic_hub.distributed import join_processes
from glcic_hub.evaluation.methods import ALL_BASELINES, FAST_BASELINES, fingerprint, make_methods, model_names
from glcic_hub.evaluation.protocol import HOLES, Protocol
from glcic_hub.hub.convert import convert
from glcic_hub.hub.export import export
from glcic_hub.hub.model_files import save_model
from glcic_hub.images.before_after import side_by_side
from glcic_hub.images.files import check_output, save_picture
from glcic_hub.images.samples import load_sample
from glcic_hub.pipeline import GLCICPipeline
from glcic_hub.publish import push_model
from glcic_hub.training.recipe import DEFAULT_RECIPE, Recipe, recipe_names
from glcic_hub.version import __version__

OK, FAILED, PREEMPTED, INTERRUPTED = 0, 1, 75, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the `glcic` command.

    Returns:
        The exit code: 0 if all went well; 1 if something failed, with a line on standard error for each failure; 75
        (try again) if training was stopped by SIGTERM and saved; 130 if it was interrupted. Wrong usage exits with 2.
    """
    options = make_parser().parse_args(arguments)
    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = lambda message, *_, **__: _say(f"warning: {message}")
        try:
            code: int = options.run(options)
            return code
        except (ValueError, OSError, MemoryError, FloatingPointError) as error:
            # A loader's worker puts its traceback before the message.
            _say(f"error: {(str(error).strip() or type(error).__name__).splitlines()[-1]}")
            return FAILED
        except KeyboardInterrupt:
            _say("interrupted")
            return INTERRUPTED


def _say(line: str) -> None:
    print(f"glcic: {line}", file=sys.stderr)


def make_parser() -> argparse.ArgumentParser:
    """What the `glcic` command takes."""
    parser = argparse.ArgumentParser(prog="glcic", description="Fill holes in photographs and leave the rest alone.")
    parser.add_argument("--version", action="version", version=f"glcic-hub {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_complete(commands.add_parser("complete", help="complete a picture, or a folder of pictures"))
    _add_train(commands.add_parser("train", help="train the networks on a folder of photographs"))
    _add_bench(commands.add_parser("bench", help="measure what completion costs on this machine"))
    _add_evaluate(commands.add_parser("evaluate", help="measure a model next to baselines"))
    _add_study(commands.add_parser("study", help="have raters say which pictures are real"))
    _add_push(commands.add_parser("push", help="upload a model to the Hub, or the demo as a Space"))
    _add_convert(commands.add_parser("convert", help="make a model folder of a model of others"))
    _add_demo(commands.add_parser("demo", help="start the demo in the browser"))
    _add_export(commands.add_parser("export", help="write a model as ONNX or for torch.export.load"))
    return parser


def _add_complete(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=lambda options: _complete(parser, options))
    parser.add_argument("image", type=Path, nargs="?", metavar="IMAGE", help="a picture, or a folder of pictures")
    parser.add_argument(
        "mask",
        type=Path,
        nargs="?",
        metavar="MASK",
        help="white = complete; for a folder of pictures, one mask for all or a folder of masks of the same names",
    )
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="OUT", help="a file; for a folder of pictures a folder"
    )
    parser.add_argument("--mask-from-alpha", action="store_true", help="complete the transparent pixels; no MASK")
    parser.add_argument("--invert-mask", action="store_true", help="black = complete")
    parser.add_argument("--sample", metavar="NAME", help="coffee, chelsea, astronaut or rocket; no IMAGE, no MASK")
    parser.add_argument(
        "--detail",
        choices=["exemplars", "none"],
        default="exemplars",
        help="from around the hole, led by the network (default); or the network's fill as it is",
    )
    parser.add_argument("--blend", choices=["none", "poisson"], default="none", help="post-processing (default: none)")
    parser.add_argument(
        "--large-holes",
        choices=["coarse_to_fine", "direct"],
        default="coarse_to_fine",
        help="of --detail none, holes too large for the network: from a smaller copy first (default), or as they are",
    )
    parser.add_argument(
        "--comparison", type=Path, metavar="FILE", help="also write hole, result and original in a row"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace what OUT holds already")
    _add_model(parser)


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model",
        metavar="FOLDER|USER/NAME",
        help="a trained model, here or on the Hub (default: that of the package)",
    )
    parser.add_argument("--revision", help="branch, tag or commit of a model on the Hub")
    _add_device(parser)


def _add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps, ... (default: a CUDA GPU if there is one)")
    dtypes = ["auto", "float32", "bfloat16", "float16"]
    parser.add_argument("--dtype", choices=dtypes, default="auto", help="precision (default: what suits the device)")


def _complete(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    given = [name for name in ("image", "mask") if getattr(options, name) is not None]
    expected = [] if options.sample else ["image"] if options.mask_from_alpha else ["image", "mask"]
    if given != expected or (options.sample and options.mask_from_alpha):
        parser.error("give IMAGE and MASK, or IMAGE and --mask-from-alpha, or --sample NAME")
    if options.image is not None and options.image.is_dir():
        return _complete_folder(parser, options)
    return _complete_picture(options)


def _complete_picture(options: argparse.Namespace) -> int:
    for path in (options.image, options.mask):
        if path is not None and not path.exists():
            raise FileNotFoundError(f"no file or folder {path}")
    outputs = [path for path in (options.output, options.comparison) if path is not None]
    for path in outputs:
        check_output(path, overwrite=options.overwrite)
    if len({path.resolve() for path in outputs}) < len(outputs):
        raise ValueError(f"{options.comparison} cannot hold both the result and the comparison")
    image, mask = load_sample(options.sample) if options.sample else (options.image, options.mask)
    settings = {name: getattr(options, name) for name in ("detail", "blend", "invert_mask", "large_holes")}
    completed = _pipeline(options)(image, mask, **settings)
    pictures = [completed]
    if options.comparison is not None:  # before the result may overwrite the picture or the mask
        pictures.append(side_by_side(image, mask, completed, invert_mask=options.invert_mask))
    for picture, path in zip(pictures, outputs, strict=True):
        save_picture(picture, path, overwrite=options.overwrite)
        print(f"wrote {path}")
    if options.output.suffix.lower() in (".jpg", ".jpeg"):
        _say("note: JPEG changes pixels outside the hole, too; write a .png to keep them")
    return OK


def _complete_folder(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    if options.comparison is not None:
        parser.error("--comparison is for a single picture")
    accelerator = join_processes()
    if accelerator.num_processes > 1 and options.device is None:
        options.device = accelerator.device
    outcome = complete_folder(
        _pipeline(options),
        options.image,
        options.mask,
        options.output,
        detail=options.detail,
        blend=options.blend,
        invert_mask=options.invert_mask,
        large_holes=options.large_holes,
        overwrite=options.overwrite,
    )
    accelerator.end_training()
    if accelerator.is_main_process:
        for failure in outcome.failures:
            _say(f"error: {failure.path}: {failure.reason}")
        rate = outcome.completed / outcome.seconds
        print(f"completed {outcome.completed} pictures in {outcome.seconds:.1f} s, {rate:.2f} a second")
        if outcome.kept:
            print(f"kept {outcome.kept} that {options.output} held already; --overwrite replaces them")
        if outcome.failures:
            _say(f"{len(outcome.failures)} pictures failed")
    # Accelerate's launcher stops all processes as soon as one fails, and the main one may still be writing.
    return FAILED if outcome.failures and accelerator.is_main_process else OK


def _pipeline(options: argparse.Namespace) -> GLCICPipeline:
    settings = {"revision": options.revision, "device": options.device, "dtype": _dtype(options)}
    return GLCICPipeline.from_pretrained(options.model, **settings)


def _dtype(options: argparse.Namespace) -> Any:
    return options.dtype if options.dtype == "auto" else getattr(torch, options.dtype)


def _add_train(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=_train)
    data = parser.add_argument_group("data")
    data.add_argument(
        "--data",
        required=True,
        metavar="WHERE",
        help="a folder of photographs; or user/name, a dataset on the Hub; or a folder of Parquet files or tar "
        "shards; name:split takes another split than train",
    )
    data.add_argument("--stream", action="store_true", help="read a dataset as it comes")
    data.add_argument("--validation", metavar="WHERE", help="other photographs (default: a tenth is kept back)")
    data.add_argument(
        "--mean-pixel", type=float, nargs=3, metavar=("R", "G", "B"), help="default: measured, or that of --from"
    )
    data.add_argument("--workers", type=int, metavar="N", help="processes that read photographs (default: 1; GPU: 8)")
    run = parser.add_argument_group("run")
    run.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="checkpoints, log, pictures, model")
    run.add_argument("--resume", action="store_true", help="go on from the newest checkpoint in the output folder")
    run.add_argument("--from", dest="start_from", metavar="MODEL", help="a trained model, folder or user/name")
    run.add_argument(
        "--mixed-precision", choices=["no", "bf16", "fp16"], help="default: what accelerate launch or its config says"
    )
    run.add_argument(
        "--accumulation", type=int, default=1, metavar="N", help="parts that a batch is cut into to fit the memory"
    )
    run.add_argument("--compile", action="store_true", help="compile the networks")
    run.add_argument("--save-every", type=int, default=250, metavar="STEPS", help="default: 250")
    run.add_argument("--keep", type=int, default=2, metavar="N", help="checkpoints that are kept (default: 2)")
    run.add_argument("--validate-every", type=int, default=1000, metavar="STEPS", help="default: 1000")
    run.add_argument(
        "--trackers",
        nargs="*",
        default=["tensorboard"],
        metavar="NAME",
        help="default: tensorboard; no NAME, no tracker",
    )
    run.add_argument("--push-to-hub", "--push_to_hub", metavar="USER/NAME", help="upload the model at the end")
    run.add_argument("--push-every", type=int, metavar="STEPS", help="upload it before that, too")
    recipe = parser.add_argument_group("recipe", "what comes out depends on this, and is saved with the run")
    recipe.add_argument(
        "--recipe",
        metavar="NAME|FILE",
        help=f"{', '.join(recipe_names())}, or a YAML file (default: {DEFAULT_RECIPE})",
    )
    types = get_type_hints(Recipe)
    for entry in dataclasses.fields(Recipe):
        recipe.add_argument(
            f"--{entry.name.replace('_', '-')}", help=entry.metadata["help"], **_flag(types[entry.name])
        )


def _flag(kind: Any) -> dict[str, Any]:
    """How a recipe entry of a type is given on the command line."""
    if get_origin(kind) is Literal:
        return {"choices": get_args(kind)}
    if get_origin(kind) is tuple:
        return {"type": int, "nargs": 2, "metavar": ("MIN", "MAX")}
    return {"action": argparse.BooleanOptionalAction} if kind is bool else {"type": kind, "metavar": "N"}


def _train(options: argparse.Namespace) -> int:
    with _needs("train", "training"):
        from glcic_hub.training.trainer import PreemptedError, train

    entries = {entry.name: getattr(options, entry.name) for entry in dataclasses.fields(Recipe)}
    overrides = {name: value for name, value in entries.items() if value is not None}
    saved = options.output / "recipe.yaml"
    source = options.recipe or (str(saved) if options.resume and saved.exists() else DEFAULT_RECIPE)
    try:
        model = train(
            Recipe.load(source, **overrides),
            options.data,
            options.output,
            stream=options.stream,
            validation=options.validation,
            mean_pixel=options.mean_pixel,
            start_from=options.start_from,
            resume=options.resume,
            mixed_precision=options.mixed_precision,
            accumulation=options.accumulation,
            compile=options.compile,
            workers=options.workers,
            save_every=options.save_every,
            keep=options.keep,
            validate_every=options.validate_every,
            trackers=options.trackers,
            push_to_hub=options.push_to_hub,
            push_every=options.push_every,
        )
    except PreemptedError as stopped:
        _say(str(stopped))
        return PREEMPTED
    print(f"wrote {model}")
    return OK


def _add_evaluate(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=_evaluate)
    parser.add_argument("photographs", metavar="WHERE", help=PHOTOGRAPHS_HELP)
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FOLDER", help="records, tables and a page with pictures; goes on there"
    )
    _add_methods(parser, FAST_BASELINES)


PHOTOGRAPHS_HELP = "photographs that no model was trained on: a folder, or a dataset as of glcic train --data"


def _add_methods(parser: argparse.ArgumentParser, baselines: Sequence[str]) -> None:
    """What is measured, and on which holes."""
    parser.add_argument(
        "--model",
        action="append",
        metavar="FOLDER|USER/NAME",
        help="a trained model, here or on the Hub; again for more (default: that of the package)",
    )
    parser.add_argument(
        "--baselines",
        nargs="*",
        default=baselines,
        metavar="NAME",
        help=f"of {', '.join(ALL_BASELINES)}; or all (default: {', '.join(baselines) or 'none'})",
    )
    parser.add_argument(
        "--holes",
        default="rectangles",
        metavar="KIND|FOLDER",
        help=f"{', '.join(HOLES)}, or a folder of masks of the same names (default: rectangles)",
    )
    parser.add_argument("--size", type=int, default=256, metavar="N", help="side of the centre squares (default: 256)")
    parser.add_argument("--fit", action="store_true", help="scale photographs to that size instead of cropping them")
    parser.add_argument(
        "--hole-size", type=int, nargs=2, default=(96, 128), metavar=("MIN", "MAX"), help="default: 96 128"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="decides the holes (default: 0)")
    _add_device(parser)


def _protocol(options: argparse.Namespace) -> Protocol:
    return Protocol(options.holes, options.size, tuple(options.hole_size), options.seed, options.fit)


def _models(options: argparse.Namespace) -> dict[str, GLCICPipeline]:
    models = options.model or [None]
    settings = {"device": options.device, "dtype": _dtype(options)}
    pipes = [GLCICPipeline.from_pretrained(model, **settings) for model in models]
    return dict(zip(model_names(models), pipes, strict=True))


def _baselines(options: argparse.Namespace) -> Sequence[str]:
    return ALL_BASELINES if list(options.baselines) == ["all"] else list(options.baselines)


def _add_study(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=lambda options: _study(parser, options))
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="the study's own, new or begun")
    parser.add_argument("--photographs", metavar="WHERE", help=f"for a new study: {PHOTOGRAPHS_HELP}")
    parser.add_argument("--count", type=int, default=100, metavar="N", help="pictures a rater sees (default: 100)")
    parser.add_argument("--results", action="store_true", help="count the votes instead of taking more")
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0 for all (default: this machine alone)")
    parser.add_argument("--port", type=_port, default=7870, metavar="N", help="default: 7870")
    _add_methods(parser, ())


def _study(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    from glcic_hub.evaluation.study import Study, check_new, prepare_study
    from glcic_hub.evaluation.study_page import make_app
    from glcic_hub.evaluation.study_results import results, results_as_markdown, write_results

    if options.photographs is not None and options.results:
        parser.error("--results is for a study that was begun, without --photographs")
    if not options.results:
        with _needs("demo", "the study"):  # before pictures are completed
            import uvicorn
    if options.photographs is not None:
        check_new(options.folder)  # before models are downloaded
        pipes = _models(options)
        methods = make_methods(pipes, _baselines(options))
        # Raters see of each model what people get without asking, under the model's name.
        unseen = {*pipes, *(f"{name}, blended" for name in pipes)}
        shown = {name.removesuffix(", exemplars"): method for name, method in methods.items() if name not in unseen}
        photographs = open_photographs(options.photographs)
        for failure in prepare_study(options.folder, photographs, shown, _protocol(options), options.count):
            _say(f"error: not used: {failure}")
    study = Study(options.folder)
    if options.results:
        found = results(study)
        with _needs("evaluate", "the results' plot"):
            write_results(study, found)
        print(results_as_markdown(study, found), end="")
        print(f"wrote {options.folder / 'results.html'}")
        return OK
    app = make_app(study)
    print(f"The study is at http://{options.host}:{options.port}; end it by Ctrl-C, votes are kept.", flush=True)
    uvicorn.run(app, host=options.host, port=options.port, log_level="warning", timeout_graceful_shutdown=2)
    return OK


def _add_bench(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=_bench)
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="FOLDER", help="existing; tables and a plot"
    )
    parser.add_argument("--device", help="cpu, cuda, cuda:1, ... (default: a CUDA GPU if there is one)")
    parser.add_argument("--width", type=int, metavar="N", help="base width (default: the paper's)")
    parser.add_argument("--sizes", type=int, nargs="+", metavar="N", help="sides of pictures")
    parser.add_argument("--hole-sizes", type=int, nargs="+", metavar="N", help="sides of holes")
    parser.add_argument(
        "--full-frame-up-to", type=int, metavar="N", help="larger whole pictures take minutes (default: 1024)"
    )
    parser.add_argument("--runs", type=int, metavar="N", help="of each kind, in turns (default: 5)")
    parser.add_argument("--compile", action="store_true", help="measure the compiled network, too")


def _bench(options: argparse.Namespace) -> int:
    names = ("width", "device", "sizes", "hole_sizes", "full_frame_up_to", "runs")
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    with _needs("bench", "the benchmark"):
        from glcic_hub.evaluation.speed import benchmark

        tables = benchmark(options.output, compile=options.compile, **given)
    print(tables, end="")
    return OK


def _evaluate(options: argparse.Namespace) -> int:
    from glcic_hub.evaluation import perceptual
    from glcic_hub.evaluation.evaluate import evaluate
    from glcic_hub.evaluation.report import as_markdown, write_report  # SciPy's statistics take a second

    accelerator = join_processes()
    if accelerator.num_processes > 1 and options.device is None:
        options.device = accelerator.device
    photographs = open_photographs(options.photographs)
    models = _models(options)
    methods = make_methods(models, _baselines(options))
    settings = {"where": options.photographs, "models": {name: fingerprint(pipe) for name, pipe in models.items()}}
    evaluation = evaluate(photographs, methods, _protocol(options), options.output, settings)
    accelerator.end_training()
    if not accelerator.is_main_process:
        return OK
    print(as_markdown(evaluation), end="")
    if not perceptual.installed():
        _say(f"note: {perceptual.NEEDED}")
    if options.output is not None:
        with _needs("evaluate", "the report"):
            write_report(evaluation, options.output, f"Image completion on {Path(options.photographs).name}")
        print(f"wrote {options.output / 'report.html'}")
    for failure in evaluation.failures:
        _say(f"error: {failure['photograph']}: {failure['method'] or 'not used'}: {failure['error']}")
    return FAILED if evaluation.failures else OK


def _add_push(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=lambda options: _push(parser, options))
    parser.add_argument("model", type=Path, nargs="?", metavar="FOLDER", help="a model folder; not for a Space")
    parser.add_argument("name", metavar="USER/NAME", help="on the Hub; made if it does not exist")
    parser.add_argument("--space", action="store_true", help="make a Gradio Space of the demo")
    parser.add_argument("--private", action=argparse.BooleanOptionalAction, help="of what is new")
    parser.add_argument("--create-pr", action="store_true", help="propose it as a pull request")
    parser.add_argument("-m", "--message", help="of the commit")


def _push(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    if options.space != (options.model is None):
        parser.error("give FOLDER and USER/NAME, or --space and USER/NAME")
    settings: dict[str, Any] = {"private": options.private, "create_pr": options.create_pr}
    if options.message is not None:
        settings["commit_message"] = options.message
    with _needs("demo", "a Space"):
        if options.space:
            address = push_space(options.name, **settings)
        else:
            address = push_model(options.model, options.name, **settings)
    print(f"uploaded: {address}")
    return OK


def _add_convert(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=_convert)
    parser.add_argument(
        "source", type=Path, metavar="FILE", help="of the authors (.t7), or a checkpoint of otenim/GLCIC-PyTorch"
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="of the latter (default: config.json beside it)")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER", help="a new model folder")


def _convert(options: argparse.Namespace) -> int:
    if options.output.exists():
        raise FileExistsError(f"{options.output} exists and is kept; give another name")
    with _needs("convert", "a Torch7 file"):
        config, network = convert(options.source, options.config)
    save_model(options.output, config, network)
    print(f"wrote {options.output}")
    return OK


def _add_export(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=_export)
    parser.add_argument("--format", choices=["onnx", "torch"], default="onnx", help="default: onnx")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE")
    parser.add_argument("--overwrite", action="store_true", help="replace FILE")
    parser.add_argument("--model", metavar="FOLDER|USER/NAME", help="default: that of the package")
    parser.add_argument("--revision", help="branch, tag or commit of a model on the Hub")


def _export(options: argparse.Namespace) -> int:
    if options.output.exists() and not options.overwrite:
        raise FileExistsError(f"{options.output} exists and is kept; give another name, or --overwrite")
    pipe = GLCICPipeline.from_pretrained(options.model, revision=options.revision, device="cpu")
    with _needs("export", "ONNX"):
        export(pipe.network, options.output, options.format)
    print(f"wrote {options.output} ({options.output.stat().st_size / 1e6:.1f} MB)")
    return OK


def _add_demo(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=_demo)
    parser.add_argument("--host", help="address to listen on; 0.0.0.0 for all (default: this machine alone)")
    parser.add_argument("--port", type=_port, metavar="N", help="default: the first free one from 7860 on")
    parser.add_argument("--model", metavar="FOLDER|USER/NAME", help="default: that of the package")
    parser.add_argument("--share", action="store_true", help="also serve under a public address that Gradio lends")


def _demo(options: argparse.Namespace) -> int:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends as by Ctrl-C, and removes its files
    use_own_folder()
    with _needs("demo", "the demo"):
        from glcic_hub.demo.app import launch, make_demo
    launch(make_demo(options.model), host=options.host, port=options.port, share=options.share)
    return OK


def _port(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"a port is a number from 1 to 65535, not {text!r}")
    return int(text)


@contextmanager
def _needs(extra: str, what: str) -> Iterator[None]:
    """Says which extra of the package has what is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise ValueError(f'{what} needs {error.name}, of the extra "{extra}": pip install ".[{extra}]"') from None

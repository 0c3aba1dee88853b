"""The demo: paint over what should go, get the image back at full size."""

from __future__ import annotations

import asyncio
import io
import logging
import re
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

with suppress(ImportError):
    import spaces  # lends GPUs on a Space (ZeroGPU); before anything asks for one

import cv2
import gradio as gr
import numpy as np
from gradio.data_classes import FileData
from gradio.utils import get_upload_folder
from PIL import Image
from starlette.responses import JSONResponse
from starlette.routing import Route

from glcic_hub.demo.files import (
    KEPT_SECONDS,
    PREVIEW_SIDE,
    complete_file,
    dilate,
    make_preview,
    new_folder,
    remove_old,
    snap,
    strokes_of,
    upright,
)
from glcic_hub.files import first_line
from glcic_hub.hub.transfer import look_up
from glcic_hub.images.samples import load_sample
from glcic_hub.pipeline import GLCICPipeline
from glcic_hub.version import __version__

MAX_FILE_SIZE = "64mb"
MAX_MODEL_BYTES = 64_000_000
"""Of a model that a visitor names: more than twice those of the paper's width in single precision."""

MAX_LAYERS = 8
MAX_LAYER_BYTES = 32_000_000
MAX_GROWTH = 64

MAX_WAITING = 64
"""Requests that may wait; more are told to come back."""

SAMPLE_TITLES = {
    "coffee": "Remove the spoon",
    "chelsea": "Repair the scratches",
    "astronaut": "Remove the badges",
    "rocket": "Remove the tower",
}

WORKER = ThreadPoolExecutor(1)
"""One thread for all completions: for every thread that it runs in PyTorch starts others, with memory of their own."""

STROKE = (255, 64, 64)

CSS = ".gradio-container { max-width: 1400px; width: 100%; margin: 0 auto; }"


def _photograph(**options: Any) -> gr.Image:
    """An upload, given to us as the file that it is.

    `gr.Image` would decode it, and take what it cannot decode for a fault of ours. (A subclass of it would have Gradio
    write a stub file beside this one.)
    """
    component = gr.Image(type="filepath", **options)
    # Unlike an image's data, a file's has to say that it is one, so that Gradio checks that it was uploaded.
    component.data_model = FileData  # type: ignore[assignment]
    component.preprocess = lambda payload: None if payload is None else str(payload.path)  # type: ignore[method-assign]
    _take_no_addresses(component)
    return component


def _take_no_addresses(component: Any) -> None:
    """Gradio would download what an address leads to, however large, before a function of ours is called."""
    move = component.async_move_resource_to_block_cache

    async def move_uploads(path: Any) -> Any:
        if str(path).lower().startswith(("http://", "https://")):
            raise gr.Error("Upload the file; addresses are not fetched.", print_exception=False)
        return await move(path)

    component.async_move_resource_to_block_cache = move_uploads


def _uploaded(path: str) -> str:
    """The path of an upload, or of a file of ours; whatever a visitor sends.

    Raises:
        ValueError: It is neither.
    """
    if not Path(path).resolve().is_relative_to(Path(get_upload_folder()).resolve()):
        raise ValueError("this file was not uploaded")
    return path


def _canvas(**options: Any) -> gr.ImageEditor:
    """The copy that is painted on; takes no more and no larger layers than this page sends."""
    # An image that comes with layers has them displaced by half of what the canvas was larger before (Gradio 6.31).
    component = gr.ImageEditor(type="pil", canvas_size=(4, 4), **options)
    preprocess, convert = component.preprocess, component.convert_and_format_image
    accept, kept = component.accept_blobs, component.blob_storage

    def accept_few(data: Any) -> Any:
        index = str(data.data.get("index") or "0")
        if index != "null" and not (index.isdecimal() and int(index) < MAX_LAYERS):
            raise gr.Error(f"At most {MAX_LAYERS} layers are taken.", print_exception=False)
        if sum(len(content) for _, content in data.files) > MAX_LAYER_BYTES:
            raise gr.Error("The painting is larger than the page makes it.", print_exception=False)
        while len(kept) >= 2 * MAX_WAITING:  # of visitors who did not go on
            kept.pop(next(iter(kept)), None)
        return accept(data)

    def preprocess_few(payload: Any) -> Any:
        if payload is not None and len(payload.layers) > MAX_LAYERS:
            raise gr.Error(f"{len(payload.layers)} layers, and at most {MAX_LAYERS} are taken.", print_exception=False)
        return preprocess(payload)

    def convert_small(file: Any, flatten_on_white: bool = False) -> Any:
        if file is not None:
            try:
                source = io.BytesIO(file) if isinstance(file, bytes) else file.path
                with Image.open(source, formats=("PNG", "WEBP", "JPEG")) as image:
                    too_large = max(image.size) > 2 * PREVIEW_SIDE
            except Exception:  # Pillow's plugins raise a dozen kinds
                raise gr.Error("This is not a painting that can be read.", print_exception=False) from None
            if too_large:
                raise gr.Error("The painting is larger than the page makes it.", print_exception=False)
        return convert(file, flatten_on_white)

    accept_few._is_server_fn = True  # type: ignore[attr-defined]
    component.accept_blobs = accept_few
    component.preprocess = preprocess_few  # type: ignore[method-assign]
    component.convert_and_format_image = convert_small  # type: ignore[method-assign]
    return component


@lru_cache(maxsize=2)
def _named_pipeline(named: str) -> GLCICPipeline:
    """The model that a visitor names: on the Hub alone, and one that everybody may see.

    Which folders there are on this machine, and which models its owner may see, is none of a visitor's business.
    """
    if Path(named).exists() or named.count("/") != 1 or named.startswith((".", "/", "~", "\\")):
        raise ValueError(f"{named} is not the name of a model on the Hub, such as user/model")
    commit, size = look_up(named)
    if size > MAX_MODEL_BYTES:
        raise ValueError(f"{named} has {size / 1e6:.0f} MB, and at most {MAX_MODEL_BYTES / 1e6:.0f} are taken")
    # Not into the Hub's cache, which nobody would empty of what visitors name.
    return GLCICPipeline.from_pretrained(named, revision=commit, token=False, cache_dir=new_folder())


def make_demo(model: str | None = None) -> gr.Blocks:
    """Builds the demo; `launch` starts it.

    Args:
        model: The model to start with: a folder or a name on the Hub; None takes the one in the package.

    Raises:
        FileNotFoundError: No such model.
        ValueError: The model is broken.
    """
    own = GLCICPipeline.from_pretrained(model)

    def places_of(path: str | None, painted: Any) -> tuple[Any, ...]:
        """Resets the page for another photograph."""
        chosen = path is not None
        off = gr.update(interactive=False)
        shown = (gr.update(visible=not chosen), gr.update(visible=chosen), gr.update(visible=chosen))
        return path, None, painted, *shown, None, None, "", gr.update(value=None, interactive=False), None, off

    def begin(path: str | None) -> tuple[Any, ...]:
        """A photograph was chosen: its copy to paint on takes the place of the upload."""
        if path is None:
            return (gr.skip(),) * 12
        with _told():
            preview = make_preview(_uploaded(path))
        return places_of(path, {"background": preview, "layers": [], "composite": preview})

    def begin_sample(name: str) -> tuple[Any, ...]:
        image, mask = load_sample(name)
        path = new_folder() / f"{name}.png"
        image.save(path)
        layer = Image.new("RGBA", image.size, (*STROKE, 0))
        layer.paste((*STROKE, 255), mask=mask)
        return places_of(str(path), {"background": image, "layers": [layer], "composite": image})

    def put_away() -> tuple[Any, ...]:
        """Gradio's editor takes a second image only when it is built anew."""
        return None, gr.update(visible=False)

    def start_over() -> tuple[Any, ...]:
        return places_of(None, None)

    @_on_gpu
    def run(
        path: str | None,
        drawing: Any,
        mask: str | None,
        detail: bool,
        blend: bool,
        grow: int,
        snapped: bool,
        keep: bool,
        named: str | None,
        progress: Any = gr.Progress(),  # noqa: B008, Gradio finds it by its default
    ) -> Iterator[tuple[Any, ...]]:
        if path is None:
            raise gr.Error("Choose a photograph first.", print_exception=False)
        nothing = (gr.skip(),) * 5  # between two steps a visitor can cancel
        with _told():
            progress(0.1, desc="Loading the model")
            yield nothing
            pipe = _named_pipeline(named.strip()) if named and named.strip() else own
            strokes = strokes_of(drawing["layers"] if drawing else ())
            if not strokes.any() and mask is None:
                raise ValueError("paint over what should go, then press the button")
            if snapped and strokes.any():
                progress(0.2, desc="Looking for the object")
                yield nothing
                preview = make_preview(path)
                strokes = snap(preview, cv2.resize(strokes.astype(np.uint8), preview.size) > 0)
            progress(0.4, desc="Completing")
            yield nothing
            result = WORKER.submit(
                complete_file,
                pipe,
                path,
                mask and _uploaded(mask),
                strokes=dilate(strokes, grow),
                detail=detail,
                blend=blend,
                keep_format=keep,
            ).result()
            progress(0.9, desc="Sending")
            yield nothing
            shown = (upright(path), upright(str(result.path)))
        file = str(result.path)
        yield shown, result.message, gr.update(value=file, interactive=True), file, gr.update(interactive=True)

    @_on_gpu
    def complete(
        image: str, mask: str | None, blend: bool = False, grow: int = 0, detail: bool = True
    ) -> tuple[str, str]:
        """Completes a photograph: fills what is white in the mask, and leaves the rest as it is.

        Args:
            image: The photograph, a file.
            mask: White = complete; of the photograph's size as it is displayed. Without one, transparent pixels are
                completed.
            blend: Blend the fill into its surroundings.
            grow: Pixels by which the hole grows to each side.
            detail: Take the fill's detail from the photograph; without, it is the network's alone, and soft.

        Returns:
            The completed photograph, a PNG of the same size, and a line that says what was done.
        """
        if image is None:
            raise gr.Error("There is no photograph.", print_exception=False)
        with _told():
            own_mask = mask and _uploaded(mask)
            grow = min(max(int(grow or 0), 0), MAX_GROWTH)
            result = WORKER.submit(
                complete_file, own, _uploaded(image), own_mask, grow=grow, detail=detail, blend=blend
            ).result()
        return str(result.path), result.message

    one_by_one: dict[str, Any] = {"concurrency_id": "network", "concurrency_limit": 1}
    private: dict[str, Any] = {"api_visibility": "private"}
    work = {**private, **one_by_one}
    demo: gr.Blocks
    with gr.Blocks(
        title="Image completion", delete_cache=(600, KEPT_SECONDS), analytics_enabled=False, fill_width=True
    ) as demo:
        original, latest = gr.State(None), gr.State(None)
        gr.Markdown(
            "# Image completion\nChoose a photograph, paint over what should go, press **Complete**. "
            "All else stays as it was, to the last bit, at full size."
        )
        with gr.Row():
            with gr.Column(min_width=320):
                with gr.Column() as upload_place:
                    upload = _photograph(
                        sources=["upload", "clipboard", "webcam"], label="Photograph", height=420,
                        elem_id="photograph",
                    )  # fmt: skip
                with gr.Column(visible=False) as canvas_place:
                    canvas = _canvas(
                        sources=(), layers=False, transforms=(),
                        label="Paint over it", height=520, elem_id="canvas",
                        brush=gr.Brush(default_size=28, colors=["#ff4040"], color_mode="fixed"),
                        eraser=gr.Eraser(default_size=28),
                    )  # fmt: skip
                with gr.Row():
                    button = gr.Button("Complete", variant="primary", elem_id="complete", min_width=100)
                    cancel = gr.Button("Cancel", elem_id="cancel", min_width=100)
                    other = gr.Button("New photograph", visible=False, elem_id="other", min_width=100)
            with gr.Column(min_width=320):
                slider = gr.ImageSlider(label="Before and after", interactive=False, elem_id="result", max_height=520)
                message = gr.Textbox(label="Status", interactive=False, elem_id="message")
                with gr.Row():
                    download = gr.DownloadButton("Download", interactive=False, elem_id="download", min_width=100)
                    again = gr.Button("Continue from result", interactive=False, elem_id="again", min_width=100)
        with gr.Row():
            samples = {name: gr.Button(title, size="sm", min_width=140) for name, title in SAMPLE_TITLES.items()}
        with gr.Accordion("Options", open=False):
            with gr.Row():
                detail = gr.Checkbox(True, label="Detail from the photograph")
                blend = gr.Checkbox(False, label="Blend the fill into its surroundings")
                snapped = gr.Checkbox(False, label="Snap to the object under the strokes")
                keep = gr.Checkbox(False, label="Keep the photograph's format (JPEG changes every pixel a little)")
            with gr.Row():
                grow = gr.Slider(0, 32, 4, step=1, label="Grow the strokes by pixels, as they are painted")
                named = gr.Textbox(label="Another model on the Hub", placeholder="user/model", max_length=120)
            mask = _photograph(
                sources=["upload"], label="A mask, instead of strokes or beside them: white = complete", height=200,
                elem_id="mask",
            )  # fmt: skip

        places = [original, upload, canvas, upload_place, canvas_place, other]
        places += [mask, slider, message, download, latest, again]
        upload.input(begin, upload, places, **work)
        other.click(start_over, None, places, **private)
        again.click(put_away, None, [canvas, canvas_place], **private).then(begin, latest, places, **work)
        inputs = [original, canvas, mask, detail, blend, grow, snapped, keep, named]
        outputs = [slider, message, download, latest, again]
        running: list[Any] = [button.click(run, inputs, outputs, **work)]
        for name, sample in samples.items():
            begun = sample.click(put_away, None, [canvas, canvas_place], **private).then(
                partial(begin_sample, name), None, places, **private
            )
            running += [begun, begun.success(run, inputs, outputs, **work)]
        cancel.click(None, cancels=running)
        with gr.Group(visible=False):
            files = [gr.File(label=label, type="filepath") for label in ("image", "mask")]
            for file in files:
                _take_no_addresses(file)
            settings = [
                gr.Checkbox(False, label="blend"), gr.Number(0, label="grow", precision=0),
                gr.Checkbox(True, label="detail"),
            ]  # fmt: skip
            answers = [gr.File(label="completed"), gr.Textbox(label="message")]
            gr.Button("Complete files").click(
                complete, [*files, *settings], answers, api_name="complete", **one_by_one
            )
    demo.queue(max_size=MAX_WAITING, default_concurrency_limit=4)
    _fill_in_defaults(demo)
    return demo


def _fill_in_defaults(demo: gr.Blocks) -> None:
    """Lets calls by plain HTTP leave out the last values of `/complete`, as Gradio's client does.

    Gradio refuses them, so that programs of others would break with every option that is added.
    """
    validate = demo.validate_inputs

    def validate_filled(block_fn: Any, inputs: list[Any]) -> None:
        if block_fn.api_name == "complete":
            inputs += [component.value for component in block_fn.inputs[len(inputs) :]]
        validate(block_fn, inputs)

    demo.validate_inputs = validate_filled  # type: ignore[method-assign]


def launch(demo: gr.Blocks, *, host: str | None = None, port: int | None = None, share: bool = False) -> None:
    """Starts the demo, and serves until it is interrupted.

    Files go where Gradio puts them, unless `use_own_folder` was called before.

    Args:
        demo: As `make_demo` built it.
        host: The address to listen on; None takes `GRADIO_SERVER_NAME`, else this machine alone.
        port: The port; None takes `GRADIO_SERVER_PORT`, else the first free one from 7860 on.
        share: Also serve under a public address that Gradio lends.

    Raises:
        OSError: The port is taken.
    """
    demo.launch(
        prevent_thread_lock=True,
        server_name=host,
        server_port=port,
        share=share,
        max_file_size=MAX_FILE_SIZE,
        footer_links=["api"],
        css=CSS,
        app_kwargs={"routes": [Route("/health", _health)], "lifespan": _cleaned},
    )
    with suppress(KeyboardInterrupt):
        while demo.is_running:
            time.sleep(0.1)
    demo.close()  # lets go of the pages that are open; what Gradio does on an interrupt waits for them
    # Whoever still sends or waits has had five seconds, and is cut off, without a traceback for each: nothing is to be
    # written any more when the files are removed.
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
    demo.server.force_exit = True
    demo.server.thread.join()


@asynccontextmanager
async def _cleaned(_: Any) -> AsyncIterator[None]:
    """Removes results that are too old while the demo serves."""

    async def clean() -> None:
        while True:
            remove_old()
            await asyncio.sleep(600)

    cleaning = asyncio.create_task(clean())
    yield
    cleaning.cancel()


async def _health(_: Any) -> JSONResponse:
    return JSONResponse({"status": "ok", "version": __version__})


def _on_gpu(function: Any) -> Any:
    """Asks for a GPU while the function runs, where they are lent."""
    return spaces.GPU(function) if "spaces" in globals() else function


@contextmanager
def _told() -> Iterator[None]:
    """Tells the visitor what is wrong with what was given, in a sentence."""
    try:
        yield
    except (ValueError, OSError, MemoryError, FloatingPointError) as error:
        text = first_line(error).partition("; if black marks")[0]  # that speaks of options that are not on the page
        # What files are called on this machine is none of a visitor's business.
        text = re.sub(r"\S*[/\\]\S*[/\\](\S+)", r"\1", text) if "://" not in text else text
        raise gr.Error(text[:1].upper() + text[1:] + ".", print_exception=False) from None

"""The demo: paint over what should go, get the picture back at full size."""

from __future__ import annotations

import io
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import gradio as gr
import numpy as np
from gradio.data_classes import FileData
from gradio.utils import get_upload_folder
from numpy.typing import NDArray
from PIL import Image
from starlette.responses import JSONResponse
from starlette.routing import Route

from glcic_hub.files import first_line
from glcic_hub.images import open_picture, to_uint8
from glcic_hub.large_holes import out_of_reach
from glcic_hub.masks import open_mask, transparent_pixels
from glcic_hub.picture_files import READ_FORMATS, orientation_of, read_exif, save_picture
from glcic_hub.pipeline import GLCICPipeline
from glcic_hub.samples import load_sample
from glcic_hub.version import __version__

MAX_FILE_SIZE = "64mb"
MAX_PIXELS = 64_000_000
"""Larger photographs are refused: they take gigabytes."""

PREVIEW_SIDE = 1200
"""Pixels a side, at most, of the copy that is painted on in the browser; the photograph itself stays on the server."""

MAX_LAYERS = 8
MAX_GROWTH = 64

MAX_WAITING = 64
"""Requests that may wait; more are told to come back."""

KEPT_SECONDS = 3600
"""Uploads and results are deleted after this time, at the next request."""

SUFFIXES = {"JPEG": ".jpg", "MPO": ".jpg", "PNG": ".png", "WEBP": ".webp", "TIFF": ".tif"}
"""Of formats that are written; others become PNG."""

SAMPLE_TITLES = {
    "coffee": "Take the spoon away",
    "chelsea": "Mend the scratches",
    "astronaut": "Take the badges off",
    "rocket": "Take the tower away",
}

STROKE = (255, 64, 64)

CSS = ".gradio-container { max-width: 1400px; margin: 0 auto; }"


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
    places = (Path(get_upload_folder()), _root())
    if not any(Path(path).resolve().is_relative_to(place.resolve()) for place in places):
        raise ValueError("this file was not uploaded")
    return path


def _canvas(**options: Any) -> gr.ImageEditor:
    """The copy that is painted on; takes no more and no larger layers than this page sends."""
    component = gr.ImageEditor(type="pil", **options)
    preprocess, convert = component.preprocess, component.convert_and_format_image
    accept, kept = component.accept_blobs, component.blob_storage

    def accept_few(data: Any) -> Any:
        index = str(data.data.get("index") or "0")
        if index != "null" and not (index.isdecimal() and int(index) < MAX_LAYERS):
            raise gr.Error(f"At most {MAX_LAYERS} layers are taken.", print_exception=False)
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


class Result(NamedTuple):
    """A completed photograph."""

    path: Path
    message: str


@lru_cache(maxsize=2)
def _named_pipeline(named: str) -> GLCICPipeline:
    """The model that a visitor names: on the Hub alone, and one that everybody may see.

    Which folders there are on this machine, and which models its owner may see, is none of a visitor's business.
    """
    if Path(named).exists() or named.count("/") != 1 or named.startswith((".", "/", "~", "\\")):
        raise ValueError(f"{named} is not the name of a model on the Hub, such as user/model")
    return GLCICPipeline.from_pretrained(named, token=False)


def _check_size(path: str) -> None:
    """Refuses what is too large before it is decoded."""
    try:
        with Image.open(path, formats=READ_FORMATS) as image:
            width, height = image.size
    except FileNotFoundError:
        raise ValueError("the photograph was deleted after an hour; choose it again") from None
    except Image.DecompressionBombError:
        raise ValueError(
            f"the photograph is too large, and at most {MAX_PIXELS / 1e6:.0f} megapixels are taken"
        ) from None
    except Exception:  # Pillow's plugins raise a dozen kinds
        raise ValueError("this is not a photograph that can be read") from None
    if width * height > MAX_PIXELS:
        raise ValueError(
            f"the photograph has {width * height / 1e6:.0f} megapixels, and at most {MAX_PIXELS / 1e6:.0f} are taken"
        )


def _preview(path: str) -> Image.Image:
    """The copy that is painted on: upright, RGB, on white where it is transparent."""
    _check_size(path)
    try:
        opened = open_picture(path)
    except (ValueError, OSError, MemoryError) as error:
        raise ValueError(first_line(error).replace(path, "the photograph")) from None
    whole = opened.whole()
    rgb = to_uint8(whole)
    if opened.alpha is not None:
        share = opened.alpha[..., None].astype(np.float32) / 255
        rgb = np.rint(rgb * share + 255 * (1 - share)).astype(np.uint8)
    image = Image.fromarray(rgb)
    image.thumbnail((PREVIEW_SIDE, PREVIEW_SIDE), Image.Resampling.LANCZOS)
    return image


def _painted(drawing: dict[str, Any] | None) -> NDArray[np.bool_] | None:
    """Where there are strokes, in the preview; None if there are none."""
    if drawing is None:
        return None
    strokes = [np.asarray(layer.convert("RGBA"))[..., 3] > 0 for layer in drawing["layers"]]
    if not strokes or not any(stroke.any() for stroke in strokes):
        return None
    return np.asarray(np.logical_or.reduce(strokes))


def snap(preview: Image.Image, strokes: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Grows or shrinks strokes to the outline of what they roughly cover, by GrabCut (Rother et al. 2004).

    Args:
        preview: RGB.
        strokes: (H, W) boolean, of the preview's size.

    Returns:
        (H, W) boolean; the strokes themselves if no object is found.
    """
    near = cv2.dilate(strokes.astype(np.uint8), np.ones((41, 41), np.uint8)) > 0
    core = cv2.erode(strokes.astype(np.uint8), np.ones((7, 7), np.uint8)) > 0
    labels = np.full(strokes.shape, cv2.GC_BGD, np.uint8)
    labels[near] = cv2.GC_PR_BGD
    labels[strokes] = cv2.GC_PR_FGD
    labels[core] = cv2.GC_FGD
    if not core.any() or near.all():
        return strokes
    bgr = np.ascontiguousarray(np.asarray(preview.convert("RGB"))[..., ::-1])
    cv2.grabCut(bgr, labels, (0, 0, 1, 1), np.zeros((1, 65)), np.zeros((1, 65)), 4, cv2.GC_INIT_WITH_MASK)
    found = (labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)
    return found if found.any() else strokes


def complete_file(
    pipe: GLCICPipeline,
    path: str,
    mask: NDArray[np.bool_] | str | None,
    *,
    blend: bool = True,
    grow: int = 0,
    keep_format: bool = False,
) -> Result:
    """Completes a photograph's file into another, at its full size.

    Args:
        pipe: What completes.
        path: The photograph.
        mask: (H, W) boolean of any size of the photograph's proportions; a mask's file; or None for the photograph's
            transparent pixels.
        blend: Blend the fill into its surroundings.
        grow: Pixels by which the hole grows to each side.
        keep_format: Write the photograph's own format, with loss if that has it, not PNG.

    Returns:
        The new file, `<name>_completed.<suffix>` in a new folder, and a line that says what was done.

    Raises:
        ValueError: The photograph or the mask cannot be used.
        OSError: The disk is full.
        MemoryError: The photograph is too large for this machine.
    """
    _check_size(path)
    if isinstance(mask, str):
        _check_size(mask)
    opened = open_picture(path)
    height, width = opened.rgb.shape[:2]
    if mask is None:
        hole = transparent_pixels(opened)
    elif isinstance(mask, str):
        hole = open_mask(mask)
    else:
        hole = cv2.resize(mask.astype(np.uint8) * 255, (width, height), interpolation=cv2.INTER_LINEAR) > 127
    if grow and mask is not None and hole.any():
        hole = cv2.distanceTransform(1 - hole.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE) <= grow
    if not hole.any():
        raise ValueError("nothing is marked: paint over what should go, or give a mask that has white in it")
    begin = time.perf_counter()
    completed = pipe(path, None if mask is None else hole, blend="poisson" if blend else "none")
    seconds = time.perf_counter() - begin
    with Image.open(path) as image:
        suffix = SUFFIXES.get(image.format or "", ".png") if keep_format else ".png"
    result = _new_folder() / f"{Path(path).stem.removesuffix('_completed')}_completed{suffix}"
    save_picture(completed, result)
    share = hole.mean()
    message = f"{width}×{height} pixels, hole {share:.1%}, {seconds:.2f} s on {pipe.device.type}"
    if out_of_reach(hole).any():
        message += ". The hole is larger than the network can see across, so its middle comes from a smaller copy"
    return Result(result, message)


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
        """What another photograph changes on the page: all that was of the one before goes."""
        chosen = path is not None
        off = gr.update(interactive=False)
        shown = (gr.update(visible=not chosen), gr.update(visible=chosen), gr.update(visible=chosen))
        return path, None, painted, *shown, None, None, "", gr.update(value=None, interactive=False), None, off

    def begin(path: str | None) -> tuple[Any, ...]:
        """A photograph was chosen: its copy to paint on takes the place of the upload."""
        if path is None:
            return (gr.skip(),) * 12
        with _told():
            preview = _preview(_uploaded(path))
        return places_of(path, {"background": preview, "layers": [], "composite": preview})

    def begin_sample(name: str) -> tuple[Any, ...]:
        image, mask = load_sample(name)
        path = _new_folder() / f"{name}.png"
        image.save(path)
        layer = Image.new("RGBA", image.size, (*STROKE, 0))
        layer.paste((*STROKE, 255), mask=mask)
        both = Image.alpha_composite(image.convert("RGBA"), layer)
        return places_of(str(path), {"background": image, "layers": [layer], "composite": both})

    def put_away() -> tuple[Any, ...]:
        """Gradio's editor takes a second picture only when it is built anew."""
        return None, gr.update(visible=False)

    def start_over() -> tuple[Any, ...]:
        return places_of(None, None)

    @_on_gpu
    def run(
        path: str | None,
        drawing: Any,
        mask: str | None,
        blend: bool,
        grow: int,
        snapped: bool,
        keep: bool,
        named: str | None,
        progress: Any = gr.Progress(),  # noqa: B008, Gradio finds it by its default
    ) -> tuple[Any, ...]:
        if path is None:
            raise gr.Error("Choose a photograph first.", print_exception=False)
        with _told():
            progress(0.1, desc="Loading the model")
            pipe = _named_pipeline(named.strip()) if named and named.strip() else own
            hole: NDArray[np.bool_] | str | None = mask and _uploaded(mask)
            if mask is None:
                hole = _painted(drawing)
                if hole is None:
                    raise ValueError("paint over what should go, then press the button")
                if snapped:
                    progress(0.2, desc="Looking for the object")
                    hole = snap(_preview(path), hole)
            progress(0.4, desc="Completing")
            result = complete_file(pipe, path, hole, blend=blend, grow=grow, keep_format=keep)
            progress(0.9, desc="Sending")
            shown = (_upright(path), _upright(str(result.path)))
        file = str(result.path)
        return shown, result.message, gr.update(value=file, interactive=True), file, gr.update(interactive=True)

    @_on_gpu
    def complete(image: str, mask: str | None, blend: bool = True, grow: int = 0) -> tuple[str, str]:
        """Completes a photograph: fills what is white in the mask, and leaves the rest as it is.

        Args:
            image: The photograph, a file.
            mask: White = complete; of the photograph's size as it is displayed. Without one, transparent pixels are
                completed.
            blend: Blend the fill into its surroundings.
            grow: Pixels by which the hole grows to each side.

        Returns:
            The completed photograph, a PNG of the same size, and a line that says what was done.
        """
        if image is None:
            raise gr.Error("There is no photograph.", print_exception=False)
        with _told():
            own_mask = mask and _uploaded(mask)
            grow = min(max(int(grow), 0), MAX_GROWTH)
            result = complete_file(own, _uploaded(image), own_mask, blend=blend, grow=grow)
        return str(result.path), result.message

    private: dict[str, Any] = {"api_visibility": "private"}
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
                        label="Paint over what should go", height=520, elem_id="canvas",
                        brush=gr.Brush(default_size=28, colors=["#ff4040"], color_mode="fixed"),
                        eraser=gr.Eraser(default_size=28),
                    )  # fmt: skip
                with gr.Row():
                    button = gr.Button("Complete", variant="primary", elem_id="complete")
                    cancel = gr.Button("Cancel", elem_id="cancel")
                    other = gr.Button("Another photograph", visible=False, elem_id="other")
            with gr.Column(min_width=320):
                slider = gr.ImageSlider(label="Before and after", interactive=False, elem_id="result", max_height=520)
                message = gr.Textbox(label="What was done", interactive=False, elem_id="message")
                with gr.Row():
                    download = gr.DownloadButton("Download", interactive=False, elem_id="download")
                    again = gr.Button("Go on from the result", interactive=False, elem_id="again")
        with gr.Row():
            samples = {name: gr.Button(title, size="sm") for name, title in SAMPLE_TITLES.items()}
        with gr.Accordion("Options", open=False):
            with gr.Row():
                blend = gr.Checkbox(True, label="Blend the fill into its surroundings")
                snapped = gr.Checkbox(False, label="Snap to the object under the strokes")
                keep = gr.Checkbox(False, label="Keep the photograph's format (JPEG changes every pixel a little)")
            with gr.Row():
                grow = gr.Slider(0, MAX_GROWTH, 4, step=1, label="Grow what is painted, pixels of the photograph")
                named = gr.Textbox(label="Another model on the Hub", placeholder="user/model", max_length=120)
            mask = _photograph(
                sources=["upload"], label="A mask instead of painting: white = complete", height=200,
                elem_id="mask",
            )  # fmt: skip

        places = [original, upload, canvas, upload_place, canvas_place, other]
        places += [mask, slider, message, download, latest, again]
        upload.input(begin, upload, places, **private)
        other.click(start_over, None, places, **private)
        again.click(put_away, None, [canvas, canvas_place], **private).then(begin, latest, places, **private)
        inputs = [original, canvas, mask, blend, grow, snapped, keep, named]
        outputs = [slider, message, download, latest, again]
        running = button.click(run, inputs, outputs, concurrency_id="network", **private)
        cancel.click(None, cancels=[running])
        for name, sample in samples.items():
            begun = sample.click(put_away, None, [canvas, canvas_place], **private).then(
                partial(begin_sample, name), None, places, **private
            )
            begun.then(run, inputs, outputs, concurrency_id="network", **private)
        with gr.Group(visible=False):
            files = [gr.File(label=label, type="filepath") for label in ("image", "mask")]
            for file in files:
                _take_no_addresses(file)
            settings = [gr.Checkbox(True, label="blend"), gr.Number(0, label="grow", precision=0)]
            answers = [gr.File(label="completed"), gr.Textbox(label="message")]
            gr.Button("Complete files").click(
                complete, [*files, *settings], answers, api_name="complete", concurrency_id="network"
            )
    demo.queue(max_size=MAX_WAITING, default_concurrency_limit=4)
    return demo


def launch(demo: gr.Blocks, *, host: str | None = None, port: int | None = None, share: bool = False) -> None:
    """Starts the demo, and serves until it is interrupted.

    Args:
        demo: As `make_demo` built it.
        host: The address to listen on; None takes `GRADIO_SERVER_NAME`, else this machine alone.
        port: The port; None takes `GRADIO_SERVER_PORT`, else the first free one from 7860 on.
        share: Also serve under a public address that Gradio lends.

    Raises:
        OSError: The port is taken.
    """
    demo.launch(
        server_name=host,
        server_port=port,
        share=share,
        max_file_size=MAX_FILE_SIZE,
        footer_links=["api"],
        css=CSS,
        app_kwargs={"routes": [Route("/health", _health)]},
    )


async def _health(_: Any) -> JSONResponse:
    return JSONResponse({"status": "ok", "version": __version__})


def _on_gpu(function: Any) -> Any:
    """Asks for a GPU while the function runs, on a Space that lends them (ZeroGPU)."""
    if find_spec("spaces") is None:
        return function
    import spaces

    return spaces.GPU(function)


@contextmanager
def _told() -> Iterator[None]:
    """Tells the visitor what is wrong with what was given, in a sentence."""
    try:
        yield
    except (ValueError, OSError, MemoryError) as error:
        text = first_line(error).partition("; if black marks")[0]  # that speaks of options that are not on the page
        # What files are called on this machine is none of a visitor's business.
        text = re.sub(r"\S*[/\\]\S*[/\\](\S+)", r"\1", text) if "://" not in text else text
        raise gr.Error(text[:1].upper() + text[1:] + ".", print_exception=False) from None


def _root() -> Path:
    return Path(tempfile.gettempdir()) / "glcic-demo"


def _new_folder() -> Path:
    """A folder for files of the demo; folders that are too old are removed."""
    root = _root()
    root.mkdir(mode=0o700, exist_ok=True)
    for old in root.iterdir():
        with suppress(FileNotFoundError):  # another visitor's request removed it
            if old.stat().st_mtime < time.time() - KEPT_SECONDS:
                shutil.rmtree(old, ignore_errors=True)
    return Path(tempfile.mkdtemp(dir=root))


def _upright(path: str) -> str:
    """A file that every browser shows upright: the same, or a copy that is turned."""
    with Image.open(path) as image:
        if orientation_of(read_exif(image)) == 1 and image.format in ("JPEG", "PNG", "WEBP", "GIF", "BMP"):
            return path
    copy = _new_folder() / "shown.png"
    Image.fromarray(to_uint8(open_picture(path).whole())).save(copy, compress_level=1)
    return str(copy)

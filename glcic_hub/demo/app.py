"""The demo: paint over what should go, get the image back at full size."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import logging
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, TypeVar

with suppress(ImportError):
    import spaces  # lends GPUs on a Space (ZeroGPU); before anything asks for one

import gradio as gr
import numpy as np
from gradio.events import api
from gradio.utils import get_upload_folder
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from starlette.responses import JSONResponse
from starlette.routing import Route

from glcic_hub.demo import edits
from glcic_hub.demo.files import (
    KEPT_SECONDS,
    MAX_MEGABYTES,
    PREVIEW_SIDE,
    complete_file,
    make_preview,
    new_folder,
    open_mask_of,
    open_photo,
    preview_size,
    remove_old,
)
from glcic_hub.files import first_line
from glcic_hub.hub.model_files import packaged_model
from glcic_hub.hub.transfer import look_up
from glcic_hub.images.files import READ_FORMATS
from glcic_hub.images.masks import transparent_pixels
from glcic_hub.images.samples import load_sample
from glcic_hub.pipeline import GLCICPipeline
from glcic_hub.version import __version__

MAX_MODEL_BYTES = 64_000_000
"""Of a model that a visitor names: more than twice those of the paper's width in single precision."""

MAX_STROKES_BYTES = 4_000_000
"""Of the strokes' PNG, in which each pixel takes a bit before it is compressed."""

MAX_GROWTH = 64
MAX_PHOTOS = 20
"""In one zip file, and on one page."""

MAX_WAITING = 64
"""Requests that may wait; more are told to come back."""

SAMPLE_TITLES = {
    "coffee": "Remove the spoon",
    "chelsea": "Repair the scratches",
    "astronaut": "Remove the badges",
    "rocket": "Remove the tower",
    "face": "Make up the eye",
}

WORKER = ThreadPoolExecutor(1)
"""One thread for all completions: for every thread that it runs in PyTorch starts others, with memory of their own."""

HERE = Path(__file__).parent

Asked = dict[str, Any]
"""What the page sends to a function of ours, or an attacker: JSON."""

Kind = TypeVar("Kind")


def _take_no_addresses(component: Any) -> None:
    """Refuses addresses: Gradio would download what they lead to, however large, before it calls us."""
    move = component.async_move_resource_to_block_cache

    async def move_uploads(path: Any) -> Any:
        if str(path).lower().startswith(("http://", "https://")):
            raise gr.Error("Upload the file; addresses are not fetched.", print_exception=False)
        return await move(path)

    component.async_move_resource_to_block_cache = move_uploads


def _uploaded(path: str) -> str:
    """Returns the path of an upload or of a file of ours, whatever a visitor sends.

    Raises:
        ValueError: It is neither.
    """
    if not Path(path).resolve().is_relative_to(Path(get_upload_folder()).resolve()):
        raise ValueError("this file was not uploaded")
    return path


def _value(asked: Asked, name: str, kind: type[Kind]) -> Kind:
    """Reads a value that the page sent.

    Raises:
        ValueError: It is missing, or of another kind.
    """
    value = asked.get(name) if isinstance(asked, dict) else None
    if not isinstance(value, kind):
        raise ValueError(f"the page sent no {name} that can be used; reload it")
    return value


def _photo(asked: Asked, name: str = "photo") -> str:
    return _uploaded(_value(asked, name, str))


def _steps(asked: Asked) -> list[str]:
    steps = [str(step) for step in _value(asked, "steps", list)]
    if len(set(steps)) < len(steps):  # each is read whole
        raise ValueError("the page sent a step twice; reload it")
    return steps


def _strokes(asked: Asked) -> NDArray[np.bool_]:
    """Strokes that the page sent, a PNG in base64: (h, w) boolean."""
    encoded = _value(asked, "strokes", str)
    if len(encoded) > MAX_STROKES_BYTES:
        raise ValueError("the strokes are larger than the page makes them")
    try:
        with Image.open(io.BytesIO(base64.b64decode(encoded)), formats=("PNG",)) as image:
            if max(image.size) <= PREVIEW_SIDE:
                return np.asarray(image.convert("L")) > 127
    except Exception:  # Pillow's plugins raise a dozen kinds
        raise ValueError("the strokes cannot be read") from None
    raise ValueError("the strokes are larger than the page makes them")


def _margin(asked: Asked) -> int:
    return min(max(_value(asked, "margin", int), 0), MAX_GROWTH)


def _encode(image: Image.Image, kind: str = "PNG", **options: Any) -> str:
    """Encodes an image's file in base64, for the page."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return base64.b64encode(buffer.getvalue()).decode()


def _encode_strokes(marked: NDArray[np.bool_]) -> str:
    return _encode(Image.fromarray(marked))


def _as_strokes(hole: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Shrinks a hole (H, W) of the photograph to strokes in the copy that is painted on."""
    height, width = preview_size(*hole.shape)
    small = Image.fromarray(hole.astype(np.uint8) * 255).resize((width, height), Image.Resampling.BOX)
    return np.asarray(small) > 127


@lru_cache(maxsize=2)
def _named_pipeline(named: str) -> GLCICPipeline:
    """Loads the model that a visitor names: one of the package, or one on the Hub that everybody may see.

    Which folders there are on this machine, and which models its owner may see, is none of a visitor's business.
    """
    if packaged_model(named):
        return GLCICPipeline.from_pretrained(named)
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
        model: The model to start with: a name of the package's, a folder, or a name on the Hub; None takes the
            package's for photographs of all kinds.

    Raises:
        FileNotFoundError: No such model.
        ValueError: The model is broken.
    """
    own = GLCICPipeline.from_pretrained(model)
    detail_asked, blend_asked = own.config.detail == "exemplars", own.config.blend == "poisson"

    @_on_gpu
    def remove(asked: Asked) -> Asked:
        """Completes what is painted over."""
        with _told():
            named = _value(asked, "model", str).strip()
            step = WORKER.submit(
                edits.remove,
                _named_pipeline(named) if named else own,
                _photo(asked),
                _steps(asked),
                _strokes(asked),
                margin=_margin(asked),
                detail=_value(asked, "detail", bool),
                blend=_value(asked, "blend", bool),
            ).result()
        parts = [{"top": top, "left": left, "image": _encode(image)} for top, left, image in step.parts]
        return {"step": step.name, "parts": parts, "notes": step.notes}

    @_on_gpu
    def complete(
        image: str, mask: str | None, blend: bool = blend_asked, grow: int = 0, detail: bool = detail_asked
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

    demo: gr.Blocks
    with gr.Blocks(
        title="Image completion", delete_cache=(600, KEPT_SECONDS), analytics_enabled=False, fill_width=True
    ) as demo:
        _lay_out_page(detail=detail_asked, blend=blend_asked)
        # Choosing and looking do not wait behind completions; two at a time, as each may take a gigabyte.
        network: dict[str, Any] = {"concurrency_id": "network", "concurrency_limit": 1}
        files: dict[str, Any] = {"concurrency_id": "files", "concurrency_limit": 2}
        api(remove, api_name="remove", api_visibility="private", **network)
        for function in (open_photograph, open_sample, read_mask, select_object, save, save_all):
            api(function, api_name=function.__name__, api_visibility="private", **files)
        _offer(complete, detail=detail_asked, blend=blend_asked, **network)
    demo.queue(max_size=MAX_WAITING, default_concurrency_limit=4)
    _fill_in_defaults(demo)
    return demo


def open_photograph(asked: Asked) -> Asked:
    """Opens an upload: makes the copy that is painted on, and strokes of its transparent pixels."""
    with _told():
        path = _photo(asked)
        _, photo = open_photo(path)
        preview = make_preview(photo)
        strokes = None if photo.alpha is None else _encode_strokes(_as_strokes(transparent_pixels(photo)))
        height, width = photo.rgb.shape[:2]
    opaque = photo.alpha is None
    return {
        "photo": path,
        "name": Path(path).name,
        "suffix": edits.suffix_of(path),
        "width": width,
        "height": height,
        "transparent": not opaque,
        "preview": _encode(preview, "JPEG", quality=92, subsampling=0) if opaque else _encode(preview),
        "strokes": strokes,
    }


def open_sample(asked: Asked) -> Asked:
    """Opens a sample as `open_photograph` does, with strokes over what is to be removed."""
    with _told():
        image, mask = sample_of(_value(asked, "name", str))
        path = new_folder() / f"{asked['name']}.png"
        image.save(path)
        strokes = np.asarray(mask) > 0
    return {**open_photograph({"photo": str(path)}), "strokes": _encode_strokes(strokes)}


def sample_of(name: str) -> tuple[Image.Image, Image.Image]:
    """Loads a sample photograph and its mask, and scratches the cat, which has no scratches of its own.

    Raises:
        ValueError: No sample of that name.
    """
    image, mask = load_sample(name)
    if name == "chelsea":
        image.paste((238, 232, 222), mask=mask.filter(ImageFilter.MinFilter(3)))
    return image, mask


def read_mask(asked: Asked) -> Asked:
    """Reads an uploaded mask as strokes."""
    with _told():
        _, photo = open_photo(_photo(asked))
        height, width = photo.rgb.shape[:2]
        return {"strokes": _encode_strokes(_as_strokes(open_mask_of(_photo(asked, "mask"), height, width)))}


def select_object(asked: Asked) -> Asked:
    """Fits the strokes to the object under them."""
    with _told():
        return {"strokes": _encode_strokes(edits.select_object(_photo(asked), _steps(asked), _strokes(asked)))}


def save(asked: Asked) -> Asked:
    """Makes the file that is downloaded, at full size."""
    with _told():
        path, steps, kind = _photo(asked), _steps(asked), _value(asked, "kind", str)
        if kind == "mask":
            return {"path": str(edits.save_mask(path, steps, _strokes(asked), _margin(asked)))}
        return {"path": str(edits.save(path, steps, keep_format=kind == "same"))}


def save_all(asked: Asked) -> Asked:
    """Makes one file of several photographs."""
    with _told():
        photos = _value(asked, "photos", list)
        if len(photos) > MAX_PHOTOS:
            raise ValueError(f"{len(photos)} photographs are too many; at most {MAX_PHOTOS} are taken")
        return {"path": str(edits.save_all([(_photo(one), _steps(one)) for one in photos]))}


def _lay_out_page(*, detail: bool, blend: bool) -> None:
    """Adds the page: a canvas of our own, in three files of the web's languages, with settings that suit the model."""
    html = (HERE / "canvas.html").read_text(encoding="utf-8")
    samples = "".join(
        f'<button type="button" data-sample="{name}"><img src="data:image/webp;base64,{_thumbnail(name)}" alt="">'
        f"<span>{title}</span></button>"
        for name, title in SAMPLE_TITLES.items()
        if detail != (name == "face")  # models for faces, which complete by the network alone, get the face
    )
    formats = ", ".join(READ_FORMATS).replace("WEBP", "WebP")
    for mark, value in {
        "@samples": samples, "@formats": formats, "@megabytes": str(MAX_MEGABYTES), "@version": __version__,
        "@detail": "checked" if detail else "", "@blend": "checked" if blend else "",
    }.items():  # fmt: skip
        html = html.replace(mark, value)
    css, script = ((HERE / name).read_text(encoding="utf-8") for name in ("canvas.css", "canvas.js"))
    limits = json.dumps({"megabytes": MAX_MEGABYTES, "photos": MAX_PHOTOS, "seconds": KEPT_SECONDS})
    gr.HTML(
        html_template=html,
        head=f"<style>{css}</style>",
        js_on_load=f"{script}\nconst LIMITS = {limits};\nopenEditor(element);",
        apply_default_css=False,
    )


def _thumbnail(name: str) -> str:
    return base64.b64encode((HERE / "samples" / f"{name}.webp").read_bytes()).decode()


def _offer(complete: Callable[..., Any], *, detail: bool, blend: bool, **options: Any) -> None:
    """Adds `/complete` for programs: what takes files is made of components, which check that they were uploaded."""
    with gr.Group(visible=False):
        image, mask = (gr.File(label=label, type="filepath") for label in ("image", "mask"))
        inputs = {
            image: "The photograph: at most 64 MB and 64 megapixels.",
            mask: "White = complete; of the photograph's size as displayed. None takes its transparent pixels.",
            gr.Checkbox(blend, label="blend"): "Blend the fill into its surroundings.",
            gr.Number(0, label="grow", precision=0): "Pixels by which the hole grows to each side.",
            gr.Checkbox(detail, label="detail"): "Take the fill's detail from the photograph.",
        }
        for component, words in inputs.items():
            info = {**component.api_info_as_input(), "additional_description": words}
            component.api_info_as_input = partial(dict, info)  # type: ignore[method-assign]
        for file, example in {image: "photo.jpg", mask: "mask.png"}.items():
            _take_no_addresses(file)
            payload = {"path": example, "url": example, "meta": {"_type": "gradio.FileData"}}
            file.example_payload = partial(dict, payload)  # type: ignore[method-assign]  # Gradio's is an address
        answers = [gr.File(label="completed"), gr.Textbox(label="message")]
        gr.Button("Complete files").click(complete, [*inputs], answers, api_name="complete", **options)


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
        max_file_size=f"{MAX_MEGABYTES}mb",
        footer_links=["api"],
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
    WORKER.shutdown(wait=False, cancel_futures=True)


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
        # These speak of what is not on the page.
        text = re.split("; if black marks|, or pass a float array", first_line(error))[0]
        # What files are called on this machine is none of a visitor's business.
        text = re.sub(r"\S*[/\\]\S*[/\\](\S+)", r"\1", text) if "://" not in text else text
        raise gr.Error(text[:1].upper() + text[1:] + ".", print_exception=False) from None

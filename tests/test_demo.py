"""The demo: by its functions, by Gradio's client, in a real browser, and as an attacker would."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
from gradio_client import Client, handle_file
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Browser, Page

from glcic_hub import GLCICPipeline
from glcic_hub.demo import edits
from glcic_hub.demo.app import make_demo
from glcic_hub.demo.files import (
    KEPT_SECONDS,
    MAX_PIXELS,
    PREVIEW_SIDE,
    complete_file,
    make_preview,
    new_folder,
    open_photo,
    remove_old,
    snap,
)
from glcic_hub.images.masks import dilate
from glcic_hub.images.samples import load_sample
from tests.conftest import ENVIRONMENT, ROOT, free_port, make_photo, wait_for_answer
from tests.local_hub import LocalHub, serve_hub


@pytest.fixture(scope="module")
def hub() -> Iterator[LocalHub]:
    """With a model, one that is too large, one that is none, and one that is private."""
    folder = ROOT / "glcic_hub" / "pretrained" / "compact"
    files = {name: (folder / name).read_bytes() for name in ("config.json", "model.safetensors")}
    with serve_hub() as served:
        served.add("user/model", files)
        served.add("user/private", files, private=True)
        served.add("user/large", {**files, "model.safetensors": bytes(70_000_000)})
        served.add("user/broken", {**files, "config.json": b"{}"})
        yield served


@pytest.fixture(scope="module")
def temporary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What all demos here take for the system's temporary folder."""
    return tmp_path_factory.mktemp("temporary")


CONNECTED: list[Client] = []
"""Clients that go on listening while their server ends."""


class Demo:
    """The demo as users start it; it answers after `wait`."""

    def __init__(self, temporary: Path, log: Path, **environment: str) -> None:
        self.address = f"http://127.0.0.1:{(port := free_port())}"
        environment = {**ENVIRONMENT, "GRADIO_SERVER_PORT": str(port), "TMPDIR": str(temporary), **environment}
        with log.open("w") as out:
            self.process = subprocess.Popen(
                [sys.executable, "app.py"], env=environment, cwd=ROOT, stdout=out, stderr=out
            )

    def wait(self) -> str:
        assert json.loads(wait_for_answer(f"{self.address}/health", self.process))["status"] == "ok"
        return self.address

    def stop(self, number: int = signal.SIGINT) -> int:
        self.process.send_signal(number)
        return self.process.wait(30)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, temporary: Path, hub: LocalHub) -> Iterator[str]:
    """A demo for all tests that do not end it; its address."""
    folder = tmp_path_factory.mktemp("server")
    environment = {"HF_ENDPOINT": hub.address, "HF_HOME": str(folder / "hf"), "HF_HUB_DISABLE_XET": "1"}
    demo = Demo(temporary, folder / "log", **environment)
    yield demo.wait()
    demo.stop()
    assert not list(temporary.iterdir())
    assert 'glcic_hub/demo/app.py", line' not in (folder / "log").read_text()  # Gradio logs what it refuses


@pytest.fixture(autouse=True)
def results_of_this_test(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "gradio"))


@pytest.fixture(scope="module")
def pretrained() -> GLCICPipeline:
    return GLCICPipeline.from_pretrained(device="cpu")


def blue_photo(height: int, width: int) -> NDArray[np.uint8]:
    """Noise of a blue that nothing else on the page has."""
    photo = make_photo(height, width) // 8
    photo[..., 2] += 180
    return photo


def preview_of(path: Path) -> Image.Image:
    return make_preview(open_photo(str(path))[1])


def test_the_copy_that_is_painted_on(tmp_path: Path) -> None:
    """Upright, at most so large, with its alpha; whatever the photograph is."""
    exif = Image.Exif()
    exif[274] = 6
    photo = blue_photo(400, 4000)
    assert preview_of(save(photo, tmp_path / "a.jpg", exif=exif)).size == (160, PREVIEW_SIDE)
    clear = np.dstack([photo, np.zeros((400, 4000), np.uint8)])
    preview = preview_of(save(clear, tmp_path / "b.png"))
    assert preview.mode == "RGBA" and not np.asarray(preview)[..., 3].any()
    Image.fromarray(photo).quantize(200).save(tmp_path / "c.png")
    smoothed = np.asarray(preview_of(tmp_path / "c.png")).astype(int)
    assert abs(smoothed - np.asarray(Image.fromarray(photo).resize((1600, 160))).astype(int)).mean() < 12
    grey = np.linspace(0, 65535, 400 * 4000).reshape(400, 4000).astype(np.uint16)
    Image.fromarray(grey).save(tmp_path / "d.png")
    preview = preview_of(tmp_path / "d.png")
    assert preview.mode == "RGB" and np.ptp(np.asarray(preview)) > 250


def test_what_no_photograph_is_is_named(tmp_path: Path) -> None:
    """Each refusal says what the file is, and the way out."""
    cv2.imwrite(str(tmp_path / "deep.png"), np.zeros((40, 40, 3), np.uint16))
    tifffile.imwrite(tmp_path / "float.tif", np.zeros((40, 40, 3), np.float32), photometric="rgb")
    contents = {
        b"": "this file is empty",
        b"\0\0\0\x18ftypheic\0": "a HEIC photograph.*save it as JPEG",
        b"\0\0\0\x18ftypjxl_": "a video",
        b"%PDF-1.4\n": "a PDF document.*export its page",
        b"<svg xmlns=": "a drawing",
        b"8BPS": "a Photoshop document.*export it",
        b"PK\x03\x04": "an archive.*unpack it",
        b"\0\0\0\x0cJXL ": "JPEG XL",
        b"hello": "JPEG, PNG, WEBP.* are taken",
        (tmp_path / "deep.png").read_bytes(): "16 bits a channel",
        (tmp_path / "float.tif").read_bytes(): r"3 × 32 float bits",
        encode(make_photo(300, 300))[:20_000]: "cannot read",
    }
    for content, message in contents.items():
        (tmp_path / "file").write_bytes(content)
        with pytest.raises(ValueError, match=message):
            open_photo(str(tmp_path / "file"))


def test_a_mask_grows(pretrained: GLCICPipeline, tmp_path: Path) -> None:
    path = save(blue_photo(120, 160), tmp_path / "photo.png")
    mask = square(120, 160, 10, 20)
    marked = save(mask.astype(np.uint8) * 255, tmp_path / "mask.png")
    difference = changed(path, complete_file(pretrained, str(path), str(marked), grow=2).path)
    assert np.array_equal(difference, difference & dilate(mask, 2)) and difference[dilate(mask, 2)].mean() > 0.9
    other = save(np.zeros((60, 60), np.uint8), tmp_path / "other.png")
    with pytest.raises(ValueError, match="the mask has 60×60 pixels, and the photograph 160×120"):
        complete_file(pretrained, str(path), str(other))


def save(photo: NDArray[np.uint8], path: Path, **options: Any) -> Path:
    Image.fromarray(photo).save(path, **options)
    return path


def pixels(path: str | Path) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def changed(before: Path, after: Path) -> NDArray[np.bool_]:
    first, second = pixels(before), pixels(after)
    assert first.shape == second.shape
    red, green, blue = np.moveaxis(first != second, 2, 0)  # any(axis=2) takes ten times as long
    return np.asarray(red | green | blue)


def square(height: int, width: int, begin: int, side: int) -> NDArray[np.bool_]:
    hole = np.zeros((height, width), bool)
    hole[begin : begin + side, begin : begin + side] = True
    return hole


def test_full_size(pretrained: GLCICPipeline, tmp_path: Path) -> None:
    """24 megapixels, painted on a small copy: size and all that is not painted stay, bit for bit."""
    path = save(np.kron(blue_photo(40, 60), np.ones((100, 100, 1), np.uint8)), tmp_path / "large.jpg", quality=90)
    strokes = np.zeros((1067, PREVIEW_SIDE), bool)
    strokes[400:428, 400:428] = True
    step = edits.remove(pretrained, str(path), [], strokes, margin=3)
    result = edits.save(str(path), [step.name])
    assert result.name == "large_completed.png"
    difference = changed(path, result)
    assert difference.sum() > 5000 and not difference[: 1500 - 18].any() and not difference[1605 + 18 :].any()
    assert sum(np.prod(image.size) for _, _, image in step.parts) < 60**2


def test_step_after_step(pretrained: GLCICPipeline, tmp_path: Path) -> None:
    """Each goes on from those before, a step that is left out is undone, and what the page shows is what is saved."""
    path = save(blue_photo(300, 400), tmp_path / "photo.png")
    first, second = square(300, 400, 40, 50), square(300, 400, 60, 50)
    steps = [edits.remove(pretrained, str(path), [], first)]
    steps.append(edits.remove(pretrained, str(path), [steps[0].name], second))
    saved = [edits.save(str(path), [step.name for step in steps[:number]]) for number in range(3)]
    assert np.array_equal(pixels(saved[0]), pixels(path))
    assert np.array_equal(pixels(saved[1]), pretrained(pixels(path), first))
    assert np.array_equal(pixels(saved[2]), pretrained(pixels(saved[1]), second))
    shown = Image.open(path).convert("RGB")
    for step in steps:
        for top, left, image in step.parts:
            shown.paste(image, (left, top), image)
    assert np.array_equal(np.asarray(shown), pixels(saved[2]))
    mask = edits.save_mask(str(path), [steps[0].name], second, 0)
    assert np.array_equal(pixels(mask)[..., 0] > 0, first | second)
    other = save(blue_photo(200, 200), tmp_path / "other.png")
    for name in (steps[0].name, "../step", "glcic-result-none", ""):
        with pytest.raises(ValueError, match="choose the photograph again"):
            edits.save(str(other), [name])
    with pytest.raises(ValueError, match="the strokes are for 400×300 pixels, not 200×200"):
        edits.remove(pretrained, str(other), [], first)


def test_what_was_transparent_becomes_opaque(pretrained: GLCICPipeline, tmp_path: Path) -> None:
    photo, mask = blue_photo(90, 2000), np.zeros((90, 2000), bool)
    mask[20:50, 500:540] = True
    path = save(np.dstack([photo, ~mask * np.uint8(255)]), tmp_path / "cut-out.png")
    strokes = cv2.resize(mask.astype(np.uint8), (1600, 72), interpolation=cv2.INTER_NEAREST) > 0
    step = edits.remove(pretrained, str(path), [], strokes)
    with Image.open(edits.save(str(path), [step.name])) as image:
        result = np.asarray(image)
    assert (result[..., 3] == 255).all() and not np.array_equal(result[mask][:, :3], photo[mask])
    far = ~(cv2.dilate(mask.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0)
    assert np.array_equal(result[far][:, :3], photo[far])


def test_what_is_old_is_removed(tmp_path: Path) -> None:
    old, new = new_folder(), new_folder()
    long_ago = time.time() - KEPT_SECONDS - 1
    os.utime(old, (long_ago, long_ago))
    remove_old()
    assert new.exists() and not old.exists()


def test_a_photograph_that_exif_turns(pretrained: GLCICPipeline, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6  # stored on its side
    path = save(blue_photo(60, 90), tmp_path / "phone.jpg", exif=exif, quality=95)
    mask = square(90, 60, 20, 15)  # as it is displayed
    step = edits.remove(pretrained, str(path), [], mask)
    results = [edits.save(str(path), [step.name], keep_format=keep) for keep in (True, False)]
    assert [result.suffix for result in results] == [".jpg", ".png"]
    for result in results:
        with Image.open(result) as completed:
            assert completed.size == (90, 60) and completed.getexif()[274] == 6
    difference = np.rot90(changed(path, results[1]), -1)
    assert difference.any() and not (difference & ~square(90, 60, 19, 17)).any()


def test_snap_finds_the_object() -> None:
    """Rough strokes over a disc on a plain ground become the disc."""
    y, x = np.mgrid[:200, :300]
    disc = (y - 100) ** 2 + (x - 150) ** 2 < 40**2
    photo = np.where(disc[..., None], np.array([200, 60, 40]), np.array([90, 110, 120]))
    photo = (photo + np.random.default_rng(0).integers(-9, 9, photo.shape)).astype(np.uint8)
    strokes = (abs(y - 100) < 25) & (abs(x - 150) < 34)
    found = snap(Image.fromarray(photo), strokes)
    assert (found & disc).sum() / (found | disc).sum() > 0.95
    assert np.array_equal(snap(Image.fromarray(photo), strokes & False), strokes & False)


def test_by_gradios_client(server: str, pretrained: GLCICPipeline, tmp_path: Path) -> None:
    photo, mask = blue_photo(60, 80), square(60, 80, 15, 20)
    paths = [save(photo, tmp_path / "photo.png"), save(mask.astype(np.uint8) * 255, tmp_path / "mask.png")]
    client = Client(server, verbose=False, download_files=tmp_path)
    files = [handle_file(path) for path in paths]
    expected = {
        (): pretrained(photo, mask),
        (False, 0): pretrained(photo, mask),
        (True, 0, False): pretrained(photo, mask, detail="none", blend="poisson"),
    }
    for settings, image in expected.items():
        completed, message = client.predict(*files, *settings, api_name="/complete")
        assert "80×60 pixels" in message
        assert np.array_equal(pixels(completed), image), settings
    endpoints = client.view_api(return_format="dict")["named_endpoints"]
    assert list(endpoints) == ["/complete"]
    parameters = endpoints["/complete"]["parameters"]
    assert [(one["parameter_name"], one["parameter_default"]) for one in parameters[2:]] == [
        ("blend", False), ("grow", 0), ("detail", True)
    ]  # fmt: skip


def test_many_clients_at_once(server: str, tmp_path: Path) -> None:
    """Each gets its own image back."""

    def work(number: int) -> bool:
        photo, mask = blue_photo(64 + number, 80), square(64 + number, 80, 10 + number, 20)
        photo[..., 0] = number * 10
        paths = [
            save(photo, tmp_path / f"{number}.png"),
            save(mask.astype(np.uint8) * 255, tmp_path / f"m{number}.png"),
        ]
        client = Client(server, verbose=False, download_files=tmp_path)
        for _ in range(3):
            completed, _ = client.predict(*map(handle_file, paths), False, 0, False, api_name="/complete")
            if changed(paths[0], Path(completed))[~mask].any():
                return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))


def ask(server: str, path: str, payload: Any = None) -> tuple[int, bytes]:
    data = None if payload is None else json.dumps(payload).encode()
    request = urllib.request.Request(server + path, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def call(server: str, name: str, data: list[Any]) -> str:
    """Calls an endpoint by plain HTTP, as the README says; what it answers, errors included."""
    status, body = ask(server, f"/gradio_api/call/{name}", {"data": data})
    if status != 200:
        return f"{status} {body.decode(errors='replace')}"
    with urllib.request.urlopen(
        f"{server}/gradio_api/call/{name}/{json.loads(body)['event_id']}", timeout=60
    ) as answer:
        text: str = answer.read().decode()
        return text


def file_data(path: str | Path, **more: Any) -> dict[str, Any]:
    return {"path": str(path), "meta": {"_type": "gradio.FileData"}, **more}


def upload(server: str, content: bytes, name: str) -> str:
    """Uploads a file by plain HTTP; its path on the server."""
    path: str = json.loads(send_file(f"{server}/gradio_api/upload", "files", content, name))[0]
    return path


def send_file(address: str, field: str, content: bytes, name: str) -> bytes:
    """Sends a file as a form does; what is answered."""
    boundary = "----boundary"
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n\r\n'.encode()
    request = urllib.request.Request(
        address,
        head + content + f"\r\n--{boundary}--\r\n".encode(),
        {"Content-Type": f"multipart/form-data; boundary={boundary}"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        body: bytes = answer.read()
        return body


def uploads(server: str, photo: NDArray[np.uint8], mask: NDArray[np.bool_]) -> list[dict[str, Any]]:
    """A photograph and its mask, uploaded, as `/complete` takes them."""
    files = {"a.png": encode(photo), "m.png": encode(mask.astype(np.uint8) * 255)}
    return [file_data(upload(server, content, name)) for name, content in files.items()]


def encode(photo: NDArray[np.uint8], kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(photo).save(buffer, kind)
    return buffer.getvalue()


def test_plain_http(server: str) -> None:
    """Also with the four values that there were before there was a fifth."""
    files = uploads(server, blue_photo(40, 50), square(40, 50, 9, 12))
    for settings in ([False, 2], [True, 2, False]):
        answer = call(server, "complete", [*files, *settings])
        assert answer.startswith("event: complete") and "50×40 pixels" in json.loads(answer.split("data: ")[1])[1]


def test_attacks(server: str, tmp_path: Path) -> None:
    """Each is refused, and the server goes on answering."""
    secret = tmp_path / "secret.png"
    secret.write_bytes(encode(blue_photo(30, 30)))
    for path in ("/etc/passwd", str(secret), "../../../etc/passwd", str(ROOT / "pyproject.toml"), "app.py"):
        status, body = ask(server, f"/gradio_api/file={path}")
        assert status in (403, 404) and b"root:" not in body
    good = upload(server, encode(blue_photo(30, 30)), "a.png")
    mask = upload(server, encode(square(30, 30, 5, 9).astype(np.uint8) * 255), "m.png")
    (Path(good).parent / "link.png").symlink_to(secret)
    link = file_data(Path(good).parent / "link.png")
    bomb = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(bomb, "PNG")
    svg = b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>'
    polyglot = b"%PDF-1.4\n" + encode(blue_photo(30, 30))
    loopback = file_data(f"{server}/gradio_api/info", url=f"{server}/gradio_api/info")
    refused: list[list[Any]] = [
        [file_data(secret), file_data(mask), True, 0],
        [link, file_data(mask), True, 0],
        [file_data(good), file_data("/etc/passwd"), True, 0],
        [file_data(good), loopback, True, 0],
        [file_data(good), file_data("http://169.254.169.254/latest", url="http://169.254.169.254/latest"), True, 0],
        [file_data(upload(server, bomb.getvalue(), "b.png")), file_data(mask), True, 0],
        [file_data(upload(server, svg, "v.svg")), file_data(mask), True, 0],
        [file_data(upload(server, polyglot, "p.jpg")), file_data(mask), True, 0],
        [file_data(upload(server, b"hello", "t.png")), file_data(mask), True, 0],
        [None, None, True, 0],
        ["/etc/passwd", {"path": []}, "x", "y"],
        [],
    ]
    for data in refused:
        answer = call(server, "complete", data)
        assert "event: error" in answer or answer.startswith(("4", "500")), (data, answer)
        assert str(ROOT) not in answer and "Traceback" not in answer
    Path(link["path"]).unlink()
    large = uploads(server, blue_photo(300, 300), square(300, 300, 5, 9))
    for grow in (10**9, None, -3):
        assert "event: complete" in call(server, "complete", [*large, True, grow])
    assert ask(server, "/health")[0] == 200


def leave_files(server: str, folder: Path) -> Path:
    """Has a server write uploads, a result and a recording, for a client that stays; the folder they are in."""
    photo, mask = save(blue_photo(60, 80), folder / "a.png"), folder / "m.png"
    save(square(60, 80, 9, 20).astype(np.uint8) * 255, mask)
    CONNECTED.append(Client(server, verbose=False, download_files=folder))
    CONNECTED[-1].predict(handle_file(photo), handle_file(mask), True, 0, api_name="/complete")
    assert send_file(f"{server}/gradio_api/process_recording", "video", b"a film", "a.mp4")
    own = Path(upload(server, photo.read_bytes(), "b.png")).parents[2]
    assert len([path for path in own.rglob("*") if path.is_file()]) >= 5
    return own


def files_beside(own: Path) -> set[Path]:
    """The files of other demos in the temporary folder: all but a demo's folder and its lock."""
    return {path for path in own.parent.rglob("*") if not str(path).startswith(str(own))}


def test_nothing_is_left_after_an_interrupt(server: str, temporary: Path, tmp_path: Path) -> None:
    """Also while a client is connected; and what another demo has stays."""
    upload(server, encode(blue_photo(30, 30)), "a.png")
    demo = Demo(temporary, tmp_path / "log")
    others = files_beside(leave_files(demo.wait(), tmp_path))
    assert others and demo.stop(signal.SIGINT) == 0
    assert set(temporary.rglob("*")) == others


@pytest.fixture(scope="module")
def after_a_kill(temporary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, set[Path], Demo]]:
    """The folder of a demo that was killed, the files of others, and the demo that was started next."""
    folder = tmp_path_factory.mktemp("killed")
    demo = Demo(temporary, folder / "log")
    own = leave_files(demo.wait(), folder)
    demo.stop(signal.SIGKILL)
    assert own.exists()
    others = files_beside(own)
    following = Demo(temporary, folder / "log")
    following.wait()
    yield own, others, following
    following.stop()


def test_the_next_demo_removes_what_a_killed_one_left(
    server: str, temporary: Path, after_a_kill: tuple[Path, set[Path], Demo]
) -> None:
    """And nothing of a demo that runs."""
    own, others, _ = after_a_kill
    assert others and others < set(temporary.rglob("*"))
    assert not list(temporary.glob(f"{own.name}*"))


def wait_until(true: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not come to be"
        time.sleep(0.05)


def test_nothing_is_left_after_sigterm(
    server: str, temporary: Path, tmp_path: Path, after_a_kill: tuple[Path, set[Path], Demo]
) -> None:
    """At once, while a photograph is being completed still."""
    demo = after_a_kill[-1]
    others = files_beside(leave_files(demo.address, tmp_path))
    slow = uploads(demo.address, blue_photo(600, 600), square(600, 600, 50, 500))
    assert ask(demo.address, "/gradio_api/call/complete", {"data": [*slow, False, 0]})[0] == 200
    time.sleep(0.3)
    demo.process.send_signal(signal.SIGTERM)
    wait_until(lambda: set(temporary.rglob("*")) == others)
    assert demo.process.poll() is None and demo.process.wait(60) == 0
    assert set(temporary.rglob("*")) == others


class Session:
    """What a visitor's browser sends, or an attacker: the page's own functions by their names."""

    def __init__(self, server: str) -> None:
        self.server = server
        self.name = f"session{time.monotonic_ns()}"
        functions = json.loads(ask(server, "/config")[1])["dependencies"]
        self.numbers = {function["api_name"]: function["id"] for function in functions}

    def call(self, name: str, asked: Any) -> str:
        """Calls a function; what it answers."""
        request = {"data": [asked], "fn_index": self.numbers[name], "session_hash": self.name}
        status, body = ask(self.server, "/gradio_api/queue/join", request)
        assert status == 200, body
        with urllib.request.urlopen(
            f"{self.server}/gradio_api/queue/data?session_hash={self.name}", timeout=60
        ) as answer:
            text: str = answer.read().decode()
            return text

    def open(self, path: str | Path) -> str:
        return self.call("open_photograph", {"photo": str(path)})

    def remove(self, path: str, strokes: NDArray[np.bool_], **more: Any) -> str:
        asked = {"photo": path, "steps": [], "strokes": pack(strokes), "margin": 0, "model": ""}
        return self.call("remove", {**asked, "detail": False, "blend": False, **more})


def pack(strokes: NDArray[np.bool_]) -> str:
    return base64.b64encode(encode(strokes.astype(np.uint8) * 255)).decode()


def succeeded(answer: str) -> bool:
    events = [json.loads(line.removeprefix("data: ")) for line in answer.splitlines() if line.startswith("data: ")]
    return any(event["msg"] == "process_completed" and event["success"] for event in events)


def test_what_the_page_would_not_send(server: str, hub: LocalHub, tmp_path: Path) -> None:
    good = upload(server, encode(blue_photo(30, 30)), "a.png")
    strokes = square(30, 30, 9, 5)
    session = Session(server)
    assert succeeded(session.open(good)) and succeeded(session.remove(good, strokes))
    for name in ("../../etc", "/etc", "user/../x", "glcic_hub/pretrained"):
        answer = session.remove(good, strokes, model=name)
        assert "is not the name of a model on the Hub" in answer and not succeeded(answer)
    for name in ("user/nothing", "user/private"):
        answer = session.remove(good, strokes, model=name)
        assert f"There is no model {name} on the Hub that everybody may see." in answer
    assert "has 70 MB, and at most 64 are taken" in session.remove(good, strokes, model="user/large")
    assert not any("safetensors" in path and "large" in path for _, path in hub.requests)  # before it is downloaded
    answer = session.remove(good, strokes, model="user/broken")
    assert not succeeded(answer) and "Traceback" not in answer
    assert succeeded(session.remove(good, strokes, model="user/model"))

    secret = save(blue_photo(30, 30), tmp_path / "secret.png")
    for path in (secret, "/etc/passwd", "../../../etc/passwd", "", "\0", "http://127.0.0.1/a.png"):
        assert not succeeded(session.open(path))
        assert not succeeded(session.remove(str(path), strokes))
        assert not succeeded(session.call("read_mask", {"photo": good, "mask": str(path)}))
    bomb = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(bomb, "PNG")
    for packed in ("", "AAAA", "§", None, base64.b64encode(bomb.getvalue()).decode(), "A" * 10**7):
        assert not succeeded(session.call("remove", {"photo": good, "steps": [], "strokes": packed, "model": ""}))
    wrong: list[dict[str, Any]] = [{"margin": "x"}, {"margin": None}, {"detail": None}, {"model": 5}]
    for more in (*wrong, {"steps": 5}, {"steps": ["../x"]}, {"steps": [{}]}, {"steps": ["a"] * 10**5}):
        assert not succeeded(session.remove(good, strokes, **more))
    assert succeeded(session.remove(good, strokes, margin=3))
    assert not succeeded(session.remove(good, strokes, margin=10**9))  # which covers everything
    nonsense: list[Any] = [[], {}, None, "x", 5]
    for asked in nonsense:
        for name in ("open_photograph", "open_sample", "read_mask", "select_object", "remove", "save", "save_all"):
            answer = session.call(name, asked)
            assert not succeeded(answer) and "reload it" in answer
    assert not succeeded(session.call("open_sample", {"name": "../rocket"}))
    several: list[list[Any]] = [
        [{}],
        ["x"],
        [{"photo": "/etc/passwd", "steps": []}],
        [{"photo": good, "steps": []}] * 21,
    ]
    for photos in several:
        assert not succeeded(session.call("save_all", {"photos": photos}))
    assert ask(server, "/health")[0] == 200


def test_other_kinds_of_images(server: str, tmp_path: Path) -> None:
    """Without a mask transparent pixels are completed; the page gets them as strokes."""
    photo, mask = blue_photo(90, 90), square(90, 90, 20, 30)
    session = Session(server)
    assert succeeded(session.open(upload(server, encode(photo), "a.png")))
    assert succeeded(session.open(upload(server, encode(photo[..., 0]), "b.png")))
    path = upload(server, encode(np.dstack([photo, ~mask * np.uint8(255)])), "cut-out.png")
    opened = json.loads(session.open(path).split("data: ")[-2])["output"]["data"][0]
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(opened["strokes"])))), mask)
    completed = json.loads(call(server, "complete", [file_data(path), None, False, 9]).split("data: ")[1])[0]
    with urllib.request.urlopen(completed["url"]) as answer, Image.open(io.BytesIO(answer.read())) as image:
        result = np.asarray(image)
    assert result.shape == (90, 90, 4) and (result[..., 3] == 255).all()
    assert np.array_equal(result[~mask][:, :3], photo[~mask]) and not np.array_equal(result[mask][:, :3], photo[mask])


@pytest.mark.parametrize(("kind", "suffix"), [("GIF", ".png"), ("BMP", ".png"), ("JPEG", ".jpg"), ("TIFF", ".tif")])
def test_formats(pretrained: GLCICPipeline, tmp_path: Path, kind: str, suffix: str) -> None:
    path = tmp_path / "no suffix"
    Image.fromarray(blue_photo(40, 40)).save(path, kind)
    step = edits.remove(pretrained, str(path), [], square(40, 40, 9, 9))
    assert edits.save(str(path), [step.name], keep_format=True).name == f"no suffix_completed{suffix}"


@pytest.fixture
def page(browser: Browser, server: str) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1000, "height": 700})
    opened = context.new_page()
    failures: list[str] = []
    opened.on("pageerror", lambda error: failures.append(str(error)))
    opened.goto(server)
    opened.wait_for_selector("text=Drop a photo")
    yield opened
    context.close()
    assert not failures


def choose(page: Page, path: Path) -> None:
    """Opens a photograph; another may be open."""
    page.set_input_files("#photograph", path)
    page.wait_for_selector(f".name:has-text({json.dumps(path.name)})", state="attached", timeout=20_000)


def seen(page: Page) -> NDArray[np.int64]:
    """What the canvas shows: (H, W, 4) RGBA."""
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    address: str = page.evaluate("document.querySelector('.stage canvas').toDataURL()")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2])))).astype(int)


def place_in(image: NDArray[np.int64]) -> tuple[int, int, int, int]:
    """Where the photograph is in what the canvas shows: top, left, bottom, right."""
    opaque = image[..., 3] == 255
    rows, columns = np.flatnonzero(opaque.mean(axis=1) > 0.1), np.flatnonzero(opaque.mean(axis=0) > 0.1)
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


def find_photo(page: Page) -> tuple[int, int, int, int]:
    return place_in(seen(page))


def shown(page: Page, height: int, width: int) -> NDArray[np.uint8]:
    """The photograph as the canvas shows it, brought to its own size."""
    image = seen(page)
    top, left, bottom, right = place_in(image)
    return np.asarray(Image.fromarray(image[top:bottom, left:right, :3].astype(np.uint8)).resize((width, height)))


def at(page: Page, *shares: tuple[float, float]) -> list[tuple[float, float]]:
    """Places on the screen, by shares of the photograph's height and width."""
    box = page.locator(".stage canvas").bounding_box()
    assert box is not None
    scale = page.evaluate("devicePixelRatio")
    top, left, bottom, far = (place / scale for place in find_photo(page))
    return [(box["x"] + left + right * (far - left), box["y"] + top + down * (bottom - top)) for down, right in shares]


def stroke(page: Page, begin: tuple[float, float], end: tuple[float, float]) -> None:
    """A stroke of the mouse, from and to shares of the photograph's height and width."""
    first, last = at(page, begin, end)
    page.mouse.move(*first)
    page.mouse.down()
    page.mouse.move(*last, steps=8)
    page.mouse.up()
    page.mouse.move(5, 5)


def painted(page: Page, height: int, width: int) -> NDArray[np.bool_]:
    """What is painted, as a mask of the photograph's size: red on blue."""
    colours = shown(page, height, width)
    return np.asarray(colours[..., 0] > 100)


def press_remove(page: Page) -> str:
    """Presses Remove; what is said then."""
    page.click("[data-do=remove]")
    page.wait_for_selector(".progress", state="hidden", timeout=60_000)
    return page.inner_text(".notice")


def download(page: Page, path: Path, what: str = "PNG") -> Path:
    page.click("[data-do=download]")
    with page.expect_download(timeout=60_000) as found:
        page.click(f".panel button:has-text('{what}')")
    found.value.save_as(path.with_name(found.value.suggested_filename))
    return path.with_name(found.value.suggested_filename).replace(path)


def widened(mask: NDArray[np.bool_], by: int) -> NDArray[np.bool_]:
    return cv2.dilate(mask.astype(np.uint8), np.ones((2 * by + 1, 2 * by + 1), np.uint8)) > 0


def test_paint_remove_download(page: Page, tmp_path: Path) -> None:
    """What comes back differs from the upload under the strokes alone, and there; so does what follows from that."""
    path = save(blue_photo(400, 600), tmp_path / "photo.png")
    choose(page, path)
    before, marked = path, np.zeros((400, 600), bool)
    for number in range(2):
        begin = 0.2 + 0.4 * number
        stroke(page, (begin, 0.3), (begin + 0.05, 0.6))
        strokes = painted(page, 400, 600)
        assert 1000 < strokes.sum() < 60_000
        assert re.fullmatch(r"Removed in \d+\.\d s\. 600×400, everything else untouched\.", press_remove(page))
        assert not painted(page, 400, 600).any()
        after = download(page, tmp_path / f"{number}.png")
        difference = changed(before, after)
        assert not (difference & ~widened(strokes, 4 + 6)).any() and difference[strokes].mean() > 0.9
        assert abs(shown(page, 400, 600).astype(int) - pixels(after)).mean() < 12
        before, marked = after, marked | strokes
    mask = pixels(download(page, tmp_path / "mask.png", "Mask"))[..., 0] > 0
    assert (mask & marked).sum() > 0.98 * marked.sum() and not (mask & ~widened(marked, 10)).any()


def test_undo_redo_compare_erase(page: Page, tmp_path: Path) -> None:
    """Of strokes and completions alike; undo never takes the photograph away."""
    choose(page, save(blue_photo(400, 600), tmp_path / "photo.png"))
    first = shown(page, 400, 600)
    assert page.is_disabled("[aria-label=Undo]") and page.is_disabled("[aria-label=Redo]")
    page.keyboard.press("Control+z")
    assert np.array_equal(shown(page, 400, 600), first)
    assert "Paint over what should go" in press_remove(page)
    stroke(page, (0.4, 0.3), (0.4, 0.6))
    whole = painted(page, 400, 600)
    page.keyboard.press("e")
    stroke(page, (0.4, 0.2), (0.4, 0.45))
    assert 0 < painted(page, 400, 600).sum() < 0.8 * whole.sum()
    page.keyboard.press("Control+z")
    assert np.array_equal(painted(page, 400, 600), whole)
    press_remove(page)
    completed = shown(page, 400, 600)
    assert not np.array_equal(completed, first)
    compare = page.locator("[data-do=compare]")
    compare.hover()
    page.mouse.down()
    assert np.array_equal(shown(page, 400, 600), first)
    page.mouse.up()
    assert np.array_equal(shown(page, 400, 600), completed)
    page.click("[aria-label=Undo]")
    assert np.array_equal(painted(page, 400, 600), whole)
    page.click("[aria-label=Undo]")
    assert np.array_equal(shown(page, 400, 600), first)
    for _ in range(2):
        page.keyboard.press("Control+Shift+z")
    assert np.array_equal(shown(page, 400, 600), completed)
    page.click(".history [aria-label='As it was']")
    assert np.array_equal(shown(page, 400, 600), first)
    page.click(".history [aria-label='After removal 1']")
    assert np.array_equal(shown(page, 400, 600), completed)


def test_a_reload_loses_nothing(page: Page, server: str, tmp_path: Path) -> None:
    choose(page, save(blue_photo(400, 600), tmp_path / "photo #1?.png"))
    stroke(page, (0.4, 0.3), (0.4, 0.6))
    press_remove(page)
    stroke(page, (0.7, 0.3), (0.7, 0.6))
    before = shown(page, 400, 600)
    page.reload()
    page.wait_for_selector("text=Your photograph and what you did are back.", timeout=20_000)
    assert np.array_equal(shown(page, 400, 600), before)
    page.goto("about:blank")
    page.go_back()
    page.wait_for_selector("text=are back", timeout=20_000)
    for _ in range(2):
        page.keyboard.press("Control+z")
    assert painted(page, 400, 600)[160].any() and not painted(page, 400, 600)[280].any()
    assert "600×400" in press_remove(page)
    other = page.context.new_page()  # another tab begins anew
    other.goto(server)
    other.wait_for_selector("text=Drop a photo")


def test_a_sample_with_one_click(page: Page, tmp_path: Path) -> None:
    page.click("text=Remove the spoon")
    page.wait_for_selector("text=/Removed in .* 600×400/", timeout=60_000)
    image, mask = load_sample("coffee")
    image.save(tmp_path / "before.png")
    difference = changed(tmp_path / "before.png", download(page, tmp_path / "coffee.png"))
    assert difference.any() and not (difference & ~widened(np.asarray(mask) > 0, 5)).any()
    page.click("[aria-label=Undo]")  # its strokes can be changed
    page.click("[aria-label=Eraser]")
    stroke(page, (0.7, 0.5), (0.7, 0.7))
    assert page.is_enabled("[aria-label=Undo]")


def test_a_mask_instead_of_painting(page: Page, pretrained: GLCICPipeline, tmp_path: Path) -> None:
    """With detail, unless one has the page leave it out; with the margin of strokes; inverted."""
    photo, mask = blue_photo(400, 600), square(400, 600, 100, 60)
    path = save(photo, tmp_path / "photo.png")
    choose(page, path)
    page.click("[data-do=options]")
    page.fill("[name=margin]", "0")
    page.set_input_files("#mask", save(~mask * np.uint8(255), tmp_path / "mask.png"))
    page.wait_for_selector(".progress", state="hidden")
    page.click("text=Invert mask")
    press_remove(page)
    assert np.array_equal(pixels(download(page, tmp_path / "out.png")), pretrained(photo, mask))
    page.click("[aria-label=Undo]")
    page.click("[data-do=options]")
    page.fill("[name=margin]", "3")
    page.uncheck("text=Detail from the photograph")
    press_remove(page)
    alone = pretrained(photo, dilate(mask, 3), detail="none")
    assert np.array_equal(pixels(download(page, tmp_path / "alone.png")), alone)
    page.set_input_files("#mask", save(mask[:50].astype(np.uint8), tmp_path / "small.png"))
    page.wait_for_selector(".error:has-text('The mask has 600×50 pixels, and the photograph 600×400.')")


def test_files_that_are_refused(page: Page, tmp_path: Path) -> None:
    """With what they are; the note goes, and what was there stays."""
    refused = {
        "text.png": b"no image",
        "a.heic": b"\0\0\0\x18ftypheic",
        "empty.jpg": b"",
        "large.png": bytes(70_000_000),
    }
    side = int(MAX_PIXELS**0.5) + 8
    Image.new("1", (side, side)).save(tmp_path / "wide.png")
    messages = {
        "text.png": "This is not a photograph that can be read", "a.heic": "save it as JPEG", "empty.jpg": "is empty",
        "large.png": "large.png has 70 MB, and at most 64 are taken", "wide.png": "and at most 64 are taken",
    }  # fmt: skip
    for begun in (False, True):
        for name, message in messages.items():
            if name in refused:
                (tmp_path / name).write_bytes(refused[name])
            page.set_input_files("#photograph", tmp_path / name)
            page.wait_for_selector(f".error:has-text('{message}')", timeout=20_000)
            page.click("[aria-label=Dismiss]")
            assert not page.locator(".notice").count()
        if not begun:
            page.wait_for_selector("text=Drop a photo")
            choose(page, save(blue_photo(400, 600), tmp_path / "photo.png"))
            stroke(page, (0.4, 0.3), (0.4, 0.6))
    assert painted(page, 400, 600).any()


@pytest.mark.parametrize("scale", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_on_a_phone(browser: Browser, server: str, tmp_path: Path, scale: int) -> None:
    """390 pixels wide, by touch: one finger paints, two zoom and never paint, and all can be hit."""
    options: dict[str, Any] = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
    context = browser.new_context(**options, device_scale_factor=scale)
    page = context.new_page()
    page.goto(server)
    page.wait_for_selector("text=Drop a photo")
    path = save(blue_photo(400 * scale, 600 * scale), tmp_path / "photo.png")
    choose(page, path)
    size = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.scrollHeight]")
    assert size[0] <= 390 and size[1] <= 844
    buttons = [button.bounding_box() for button in page.locator(".editor button:visible").all()]
    assert len(buttons) > 10 and all(box and box["width"] >= 44 and box["height"] >= 44 for box in buttons)
    top, left, bottom, right = find_photo(page)
    assert right - left > 370 * scale
    touch = context.new_cdp_session(page)

    def swipe(*fingers: tuple[float, float]) -> None:
        """Each finger from a share of the photograph's width to another."""
        y = at(page, (0.5, 0))[0][1]
        for step in range(10):
            kind = ("touchStart", *["touchMove"] * 8, "touchEnd")[step]
            places = [begin + step / 8 * (end - begin) for begin, end in fingers] if step < 9 else []
            points = [{"x": x, "y": y, "id": number} for number, x in enumerate(places)]
            touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    xs = [x for x, _ in at(page, *((0, share) for share in (0.3, 0.4, 0.6, 0.7)))]
    swipe((xs[1], xs[0]), (xs[2], xs[3]))
    assert not painted(page, 40, 60).any() and find_photo(page) != (top, left, bottom, right)
    page.click("[data-do=fit]")
    assert find_photo(page) == (top, left, bottom, right)
    swipe((xs[1], xs[2]))
    strokes = painted(page, 400 * scale, 600 * scale)
    assert strokes.any() and f"{600 * scale}×{400 * scale}, everything" in press_remove(page)
    difference = changed(path, download(page, tmp_path / "out.png"))
    assert difference.any() and not (difference & ~widened(strokes, 12 * scale)).any()
    context.close()


@pytest.mark.slow
def test_large_and_turned_photographs(page: Page, tmp_path: Path) -> None:
    """24 megapixels, then a phone's photograph on its side: size, orientation and all that was not painted stay."""
    large = save(np.kron(blue_photo(400, 600), np.ones((10, 10, 1), np.uint8)), tmp_path / "large.jpg", quality=90)
    exif = Image.Exif()
    exif[274] = 6
    phone = save(blue_photo(400, 600), tmp_path / "phone.jpg", quality=95, exif=exif)
    for path, size in ((large, (4000, 6000)), (phone, (600, 400))):
        choose(page, path)
        stroke(page, (0.4, 0.3), (0.5, 0.6))
        strokes = painted(page, *size)
        assert f"{size[1]}×{size[0]}, everything else untouched" in press_remove(page)
        result = download(page, tmp_path / "out.png")
        with Image.open(result) as completed, Image.open(path) as before:
            assert completed.size == before.size
            assert completed.getexif().get(274, 1) == before.getexif().get(274, 1)
        difference = changed(path, result)
        if path == phone:
            difference = np.rot90(difference, -1)
        assert difference[strokes].mean() > 0.8
        assert not (difference & ~widened(strokes, max(size) // 50)).any()
        assert download(page, tmp_path / "out.jpg", "JPEG").stat().st_size < 0.8 * result.stat().st_size


def test_many_photographs(page: Page, tmp_path: Path) -> None:
    """One mask for all or each its own, all completed by one press, and one zip of them."""
    paths = [save(blue_photo(200, 300 + number), tmp_path / f"{number}.png") for number in range(3)]
    (tmp_path / "a.pdf").write_bytes(b"%PDF-1.4")
    page.set_input_files("#photograph", [paths[0], tmp_path / "a.pdf", *paths[1:]])
    page.wait_for_selector(".error:has-text('a.pdf: This is a PDF document')", timeout=20_000)
    assert page.locator(".photographs button").count() == 3
    stroke(page, (0.4, 0.3), (0.4, 0.6))
    page.click("text=Same strokes for all")
    page.wait_for_selector("text=All 3 photographs have these strokes.")
    page.click(".photographs button >> nth=2")
    assert painted(page, 200, 302).any()
    page.keyboard.press("Control+z")
    assert not painted(page, 200, 302).any()
    stroke(page, (0.8, 0.3), (0.8, 0.6))
    own = painted(page, 200, 302)
    page.click("text=Remove in all")
    page.wait_for_selector("text=/Removed from 3 photographs in .* s, everything else untouched/", timeout=60_000)
    assert page.locator(".photographs button[aria-label*=completed]").count() == 3
    with zipfile.ZipFile(download(page, tmp_path / "all.zip", "in one zip")) as together:
        names = together.namelist()
        together.extractall(tmp_path)
    assert names == [f"{number}_completed.png" for number in range(3)]
    differences = [changed(path, tmp_path / name) for path, name in zip(paths, names, strict=True)]
    assert all(difference.any() and not difference[150:].any() for difference in differences[:2])
    assert differences[2][own].mean() > 0.9 and not (differences[2] & ~widened(own, 10)).any()
    page.reload()
    page.wait_for_selector("text=are back", timeout=20_000)
    assert page.locator(".photographs button[aria-label*=completed]").count() == 3


def test_select_object(page: Page, tmp_path: Path) -> None:
    """A rough stroke over a disc becomes the disc, which can be undone."""
    photo = blue_photo(400, 600)
    y, x = np.mgrid[:400, :600]
    disc = (y - 200) ** 2 + (x - 300) ** 2 < 60**2
    photo[disc] = [20, 140, 150]
    choose(page, save(photo, tmp_path / "photo.png"))
    page.click("[aria-label='Select object']")
    page.wait_for_selector("text=Paint roughly over an object first")
    stroke(page, (0.42, 0.43), (0.58, 0.57))
    rough = painted(page, 400, 600)
    page.keyboard.press("s")
    page.wait_for_selector(".progress", state="hidden")
    found = painted(page, 400, 600)
    assert (rough & disc).sum() < 0.8 * disc.sum() and (found & disc).sum() / (found | disc).sum() > 0.95
    page.keyboard.press("Control+z")
    assert np.array_equal(painted(page, 400, 600), rough)


def test_cancel(page: Page, server: str, tmp_path: Path) -> None:
    """While others are served one sees one's place in line, and goes away; the strokes stay. Opening does not wait."""
    choose(page, save(blue_photo(400, 600), tmp_path / "photo.png"))
    stroke(page, (0.4, 0.3), (0.5, 0.6))
    before = painted(page, 400, 600)
    path = upload(server, encode(blue_photo(300, 300)), "a.png")
    slow = uploads(server, blue_photo(700, 700), square(700, 700, 50, 600))
    with ThreadPoolExecutor() as pool:
        others = [pool.submit(call, server, "complete", [*slow, True, 0, False]) for _ in range(2)]
        page.wait_for_timeout(200)
        page.click("[data-do=remove]")
        page.wait_for_selector("text=/Waiting: \\d+ before you/", timeout=20_000)
        assert succeeded(Session(server).open(path)) and not others[-1].done()
        page.keyboard.press("Escape")
        page.wait_for_selector("text=Cancelled")
        assert all("event: complete" in other.result() for other in others)
    assert np.array_equal(painted(page, 400, 600), before)
    assert "600×400" in press_remove(page)


def test_by_keyboard_and_screen_reader(page: Page, tmp_path: Path) -> None:
    """All that can be pressed has a name of its own and is reached by the tab key; keys alone paint and remove."""
    choose(page, save(blue_photo(400, 600), tmp_path / "photo.png"))
    page.click("[data-do=options]")
    page.click("text=Advanced")
    names = page.evaluate(
        """[...document.querySelectorAll('.editor :is(button, input, canvas)')].filter(e => e.offsetParent)
        .map(e => e.getAttribute('aria-label') || e.innerText || e.labels?.[0]?.innerText)"""
    )
    assert all(names) and len(set(names)) == len(names)
    page.keyboard.press("Escape")
    page.locator(".stage canvas").focus()
    for key in (*["Shift+ArrowLeft"] * 3, "Enter", *["Shift+ArrowRight"] * 5, "Enter"):
        page.keyboard.press(key)
    assert painted(page, 400, 600)[192:208, 300].all()
    for key, value in (("]", "44"), ("[", "37")):
        page.keyboard.press(key)
        assert page.inner_text(".bottom > .size output") == value
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("text=Removed in", timeout=60_000)
    page.keyboard.press("?")
    assert "Hold and drag to pan" in page.inner_text("dialog")
    page.keyboard.press("Escape")
    reached = set()
    for _ in range(50):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.dataset.do ?? ''"))
    assert {"open", "undo", "compare", "download", "help", "fit", "options", "remove"} <= reached


def test_zoom_pan_and_paste(page: Page, tmp_path: Path) -> None:
    """The wheel zooms where it is, Space drags without painting, and a photograph can be pasted or dropped."""
    content = encode(blue_photo(400, 600))
    for kind in ("paste", "drop"):
        page.evaluate(
            """([kind, content]) => {
                const given = new DataTransfer();
                const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
                given.items.add(new File([bytes], `${kind}.png`, { type: "image/png" }));
                const event = new (kind === "paste" ? ClipboardEvent : DragEvent)(
                    kind, { clipboardData: given, dataTransfer: given, bubbles: true, cancelable: true });
                document.querySelector(".stage canvas").dispatchEvent(event);
            }""",
            [kind, base64.b64encode(content).decode()],
        )
        page.wait_for_selector(f".name:has-text('{kind}.png')", timeout=20_000)
    top, left, bottom, right = find_photo(page)
    middle, lower = at(page, (0.5, 0.5), (0.7, 0.5))
    page.mouse.move(*middle)
    page.mouse.wheel(0, 500)
    smaller = find_photo(page)
    assert smaller[0] > top + 20 and abs((smaller[1] + smaller[3]) - (left + right)) < 6
    page.keyboard.down("Space")
    page.mouse.down()
    page.mouse.move(*lower, steps=3)
    page.mouse.up()
    page.keyboard.up("Space")
    page.mouse.move(5, 5)
    assert find_photo(page)[0] > smaller[0] + 40 and not painted(page, 400, 600).any()
    page.keyboard.press("0")
    assert find_photo(page) == (top, left, bottom, right)
    stroke(page, (-0.02, 0.3), (0.2, 0.3))  # begun outside the photograph
    assert painted(page, 400, 600)[:60].any()


def test_what_is_sent(page: Page, tmp_path: Path) -> None:
    """A completion is two requests, and what comes back is what was completed."""
    choose(page, save(make_photo(321, 481), tmp_path / "photo.png"))
    network = page.context.new_cdp_session(page)
    network.send("Network.enable")
    received: list[float] = []
    sent: list[Any] = []
    network.on("Network.dataReceived", lambda event: received.append(event["dataLength"]))
    network.on("Network.requestWillBeSent", lambda event: sent.append(event["request"]))
    stroke(page, (0.3, 0.3), (0.7, 0.7))
    press_remove(page)
    assert len(sent) == 2, [request["url"] for request in sent]
    assert len(sent[0]["postData"]) < 4000 and sum(received) < 100_000


@pytest.mark.slow
def test_more_requests_than_may_wait(server: str, tmp_path: Path) -> None:
    """Those over the bound are told so, the others are served."""
    slow = uploads(server, blue_photo(1500, 1500), square(1500, 1500, 100, 1300))
    quick = uploads(server, blue_photo(40, 40), square(40, 40, 9, 12))
    with ThreadPoolExecutor(100) as pool:
        first = pool.submit(call, server, "complete", [*slow, True, 0, False])
        time.sleep(0.5)
        answers = list(pool.map(lambda _: call(server, "complete", [*quick, False, 0]), range(90)))
    assert "event: complete" in first.result()
    served = sum("event: complete" in answer for answer in answers)
    told = sum("Queue is full" in answer for answer in answers)
    assert served >= 60 and told >= 10 and served + told == 90, (served, told, answers[-1])


def test_a_model_for_faces_is_offered_a_face_and_completes_by_its_network_alone() -> None:
    pages = {model: json.dumps(make_demo(model).get_config_file()) for model in ("faces", None)}
    assert re.findall(r'data-sample=\\"(\w+)', pages["faces"]) == ["face"]
    assert re.findall(r'data-sample=\\"(\w+)', pages[None]) == ["coffee", "chelsea", "astronaut", "rocket"]
    for model, asked in (("faces", "blend"), (None, "detail")):
        assert re.findall(r'name=\\"(detail|blend)\\" checked', pages[model]) == [asked]

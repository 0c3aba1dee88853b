"""The demo: by its functions, by Gradio's client, in a real browser, and as an attacker would."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
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
from glcic_hub.demo.files import MAX_PIXELS, PREVIEW_SIDE, complete_file, dilate, make_preview, snap
from glcic_hub.images.samples import load_sample
from tests.conftest import ENVIRONMENT, ROOT, free_port, make_photo, wait_for_answer
from tests.local_hub import LocalHub, serve_hub


@pytest.fixture(scope="module")
def hub() -> Iterator[LocalHub]:
    """With a model, one that is too large, one that is none, and one that is private."""
    folder = ROOT / "glcic_hub" / "pretrained"
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


def test_the_copy_that_is_painted_on(tmp_path: Path) -> None:
    """Upright, RGB, at most so large, of what is visible; whatever the photograph is."""
    exif = Image.Exif()
    exif[274] = 6
    photo = blue_photo(300, 3000)
    assert make_preview(str(save(photo, tmp_path / "a.jpg", exif=exif))).size == (120, PREVIEW_SIDE)
    clear = np.dstack([photo, np.zeros((300, 3000), np.uint8)])
    preview = make_preview(str(save(clear, tmp_path / "b.png")))
    assert preview.mode == "RGB" and (np.asarray(preview) == 255).all()
    Image.fromarray(photo).quantize(200).save(tmp_path / "c.png")
    smoothed = np.asarray(make_preview(str(tmp_path / "c.png"))).astype(int)
    assert abs(smoothed - np.asarray(Image.fromarray(photo).resize((1200, 120))).astype(int)).mean() < 12
    grey = np.linspace(0, 65535, 300 * 3000).reshape(300, 3000).astype(np.uint16)
    Image.fromarray(grey).save(tmp_path / "d.png")
    preview = make_preview(str(tmp_path / "d.png"))
    assert preview.mode == "RGB" and np.ptp(np.asarray(preview)) > 250
    with pytest.raises(ValueError, match="16 bits a channel"):
        cv2.imwrite(str(tmp_path / "e.png"), np.zeros((40, 40, 3), np.uint16))
        make_preview(str(tmp_path / "e.png"))
    tifffile.imwrite(tmp_path / "f.tif", np.zeros((40, 40, 3), np.float32), photometric="rgb")
    with pytest.raises(ValueError, match=r"not a photograph that can be read: .* \(3 × 32 float bits"):
        make_preview(str(tmp_path / "f.tif"))


def test_strokes_and_a_mask_together(pretrained: GLCICPipeline, tmp_path: Path) -> None:
    """Both are completed; the growth is the mask's."""
    path = save(blue_photo(120, 160), tmp_path / "photo.png")
    mask, strokes = square(120, 160, 10, 20), square(120, 160, 70, 30)
    marked = save(mask.astype(np.uint8) * 255, tmp_path / "mask.png")
    difference = changed(path, complete_file(pretrained, str(path), str(marked), strokes=strokes, grow=2).path)
    assert np.array_equal(difference, difference & (dilate(mask, 2) | strokes))
    assert difference[dilate(mask, 2)].mean() > 0.9 and difference[strokes].mean() > 0.9
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
    # In large squares, as a PNG of noise takes six seconds more.
    path = save(np.kron(blue_photo(40, 60), np.ones((100, 100, 1), np.uint8)), tmp_path / "large.jpg", quality=90)
    result = complete_file(pretrained, str(path), strokes=dilate(square(800, PREVIEW_SIDE, 300, 20), 3))
    assert result.path.name == "large_completed.png" and "6000×4000 pixels, hole" in result.message
    difference = changed(path, result.path)
    assert difference.sum() > 5000 and not difference[: 1500 - 18].any() and not difference[1600 + 18 :].any()


def test_a_photograph_that_exif_turns(pretrained: GLCICPipeline, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6  # stored on its side
    path = save(blue_photo(60, 90), tmp_path / "phone.jpg", exif=exif, quality=95)
    mask = square(90, 60, 20, 15)  # as it is displayed
    for keep_format in (False, True):
        result = complete_file(pretrained, str(path), strokes=mask, keep_format=keep_format)
        assert result.path.suffix == (".jpg" if keep_format else ".png")
        with Image.open(result.path) as completed:
            assert completed.size == (90, 60) and completed.getexif()[274] == 6
    difference = np.rot90(changed(path, complete_file(pretrained, str(path), strokes=mask).path), -1)
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


def test_nothing_is_left_after_sigterm(
    server: str, temporary: Path, tmp_path: Path, after_a_kill: tuple[Path, set[Path], Demo]
) -> None:
    """Nor of the photograph that is being completed."""
    demo = after_a_kill[-1]
    others = files_beside(leave_files(demo.address, tmp_path))
    slow = uploads(demo.address, blue_photo(700, 700), square(700, 700, 50, 600))
    assert ask(demo.address, "/gradio_api/call/complete", {"data": [*slow, True, 0, False]})[0] == 200
    time.sleep(0.3)
    assert demo.stop(signal.SIGTERM) == 0
    assert set(temporary.rglob("*")) == others


class Session:
    """What a visitor's browser sends, or an attacker: the page's own functions by their numbers."""

    def __init__(self, server: str) -> None:
        self.server = server
        self.name = f"session{time.monotonic_ns()}"
        self.functions = json.loads(ask(server, "/config")[1])["dependencies"]

    def call(self, inputs: int, data: list[Any]) -> str:
        """Calls the first function that takes so many inputs; what it answers."""
        function = next(f for f in self.functions if len(f["inputs"]) == inputs and f["backend_fn"])
        request = {"data": data, "fn_index": function["id"], "session_hash": self.name}
        status, body = ask(self.server, "/gradio_api/queue/join", request)
        assert status == 200, body
        with urllib.request.urlopen(
            f"{self.server}/gradio_api/queue/data?session_hash={self.name}", timeout=60
        ) as answer:
            text: str = answer.read().decode()
            return text

    def begin(self, path: str | Path, **more: Any) -> str:
        return self.call(1, [file_data(path, **more)])

    def run(self, drawing: Any, mask: Any = None, model: str = "") -> str:
        return self.call(9, [None, drawing, mask, True, False, 0, False, False, model])


def succeeded(answer: str) -> bool:
    events = [json.loads(line.removeprefix("data: ")) for line in answer.splitlines() if line.startswith("data: ")]
    return any(event["msg"] == "process_completed" and event["success"] for event in events)


def test_what_the_page_would_not_send(server: str, hub: LocalHub, tmp_path: Path) -> None:
    good = upload(server, encode(blue_photo(30, 30)), "a.png")
    session = Session(server)
    assert succeeded(session.begin(good))
    drawing = {"background": file_data(good), "layers": [file_data(good)] * 1000, "composite": None, "id": None}
    assert "1000 layers, and at most 8 are taken" in session.run(drawing)
    layer = np.dstack([blue_photo(30, 30), square(30, 30, 9, 5).astype(np.uint8) * 255])
    painted = {**drawing, "layers": [file_data(upload(server, encode(layer), "l.png"))]}
    mask = upload(server, encode(square(30, 30, 5, 9).astype(np.uint8) * 255), "m.png")
    assert succeeded(session.run(painted, file_data(mask)))
    for name in ("../../etc", "/etc", "user/../x", "glcic_hub/pretrained"):
        answer = session.run(painted, None, name)
        assert "is not the name of a model on the Hub" in answer and not succeeded(answer)
    for name in ("user/nothing", "user/private"):
        assert f"There is no model {name} on the Hub that everybody may see." in session.run(painted, None, name)
    assert "has 70 MB, and at most 64 are taken" in session.run(painted, None, "user/large")
    assert not any("safetensors" in path and "large" in path for _, path in hub.requests)  # before it is downloaded
    assert not succeeded(answer := session.run(painted, None, "user/broken")) and "Traceback" not in answer
    assert succeeded(session.run(painted, None, "user/model"))

    secret = save(blue_photo(30, 30), tmp_path / "secret.png")
    for path in ({"path": str(secret)}, file_data(secret), {"path": str(secret), "url": str(secret)}):
        assert not succeeded(session.call(1, [path]))
        assert not succeeded(session.run(painted, path))
    for number in (10**9, -1, "x"):
        part = {"type": "layer", "index": str(number), "id": "y"}
        assert ask(server, "/gradio_api/component_server", {"data": part, "fn_name": "accept_blobs"})[0] >= 400
    assert ask(server, "/health")[0] == 200


def test_other_kinds_of_images(server: str, tmp_path: Path) -> None:
    """The second photograph of a visitor is taken as it is, too; without a mask transparent pixels are completed."""
    photo, mask = blue_photo(90, 90), square(90, 90, 20, 30)
    session = Session(server)
    assert succeeded(session.begin(upload(server, encode(photo), "a.png")))
    assert succeeded(session.begin(upload(server, encode(photo[..., 0]), "b.png")))
    buffer = io.BytesIO()
    Image.fromarray(np.dstack([photo, ~mask * np.uint8(255)])).save(buffer, "PNG")
    path = upload(server, buffer.getvalue(), "cut-out.png")
    completed = json.loads(call(server, "complete", [file_data(path), None, False, 9]).split("data: ")[1])[0]
    with urllib.request.urlopen(completed["url"]) as answer, Image.open(io.BytesIO(answer.read())) as image:
        result = np.asarray(image)
    assert result.shape == (90, 90, 4) and (result[..., 3] == 255).all()
    assert np.array_equal(result[~mask][:, :3], photo[~mask]) and not np.array_equal(result[mask][:, :3], photo[mask])


@pytest.mark.parametrize(("kind", "suffix"), [("GIF", ".png"), ("BMP", ".png"), ("JPEG", ".jpg"), ("TIFF", ".tif")])
def test_formats(pretrained: GLCICPipeline, tmp_path: Path, kind: str, suffix: str) -> None:
    path = tmp_path / "no suffix"
    Image.fromarray(blue_photo(40, 40)).save(path, kind)
    result = complete_file(pretrained, str(path), strokes=square(40, 40, 9, 9), keep_format=True)
    assert result.path.name == f"no suffix_completed{suffix}"


@pytest.fixture
def page(browser: Browser, server: str) -> Iterator[Page]:
    opened = browser.new_page(viewport={"width": 1280, "height": 900})
    opened.goto(server)
    opened.wait_for_selector("#complete")
    yield opened
    opened.close()


def choose(page: Page, path: Path) -> None:
    page.set_input_files("#photograph input[type=file]", path)
    page.wait_for_selector("#canvas canvas", timeout=20_000)
    wait_until(lambda: find_photo(page) is not None)


def wait_until(true: Any, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not come to be"
        time.sleep(0.1)


def screen(page: Page) -> NDArray[np.int64]:
    return np.asarray(Image.open(io.BytesIO(page.screenshot(scale="css"))).convert("RGB")).astype(int)


def find_photo(page: Page) -> tuple[int, int, int, int] | None:
    """Where the photograph is on the screen, strokes included: top, left, bottom, right."""
    box = page.locator("#canvas").bounding_box() if page.locator("#canvas").count() else None
    if box is None:
        return None
    seen = screen(page)
    blue = (seen[..., 2] > 140) & (seen[..., 2] - seen[..., 0] > 90)
    blue[:, : int(box["x"])] = blue[:, int(box["x"] + box["width"]) :] = False
    rows, columns = np.flatnonzero(blue.sum(axis=1) > 50), np.flatnonzero(blue.sum(axis=0) > 50)
    if not len(rows) or not len(columns):
        return None
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


def stroke(page: Page, begin: tuple[float, float], end: tuple[float, float]) -> None:
    """A stroke of the mouse, from and to shares of the photograph's height and width."""
    found = find_photo(page)
    assert found is not None
    top, left, bottom, right = found
    places = [(left + share[1] * (right - left), top + share[0] * (bottom - top)) for share in (begin, end)]
    page.mouse.move(*places[0])
    page.mouse.down()
    page.mouse.move(*places[1], steps=8)
    page.mouse.up()
    page.wait_for_timeout(400)


def strokes_on_screen(page: Page, height: int, width: int) -> NDArray[np.bool_]:
    """What is painted, as a mask of the photograph's size; all of it while there is no photograph."""
    found = find_photo(page)
    if found is None:
        return np.ones((height, width), bool)
    top, left, bottom, right = found
    seen = screen(page)[top:bottom, left:right]
    red = (seen[..., 0] > 200) & (seen[..., 2] < 120)
    red = cv2.morphologyEx(red.astype(np.uint8), cv2.MORPH_OPEN, np.ones((9, 9), np.uint8)) > 0  # the tools have icons
    return np.asarray(Image.fromarray(red).resize((width, height), Image.Resampling.NEAREST))


def press_complete(page: Page) -> str:
    page.evaluate("document.querySelector('#message textarea').value = ''")
    page.click("#complete")
    page.wait_for_function("document.querySelector('#message textarea').value != ''", timeout=60_000)
    return page.input_value("#message textarea")


def download(page: Page, path: Path) -> Path:
    page.wait_for_selector("#download:not([disabled])")
    with page.expect_download() as found:
        page.click("#download")
    found.value.save_as(path)
    return path


def widened(mask: NDArray[np.bool_], by: int) -> NDArray[np.bool_]:
    return cv2.dilate(mask.astype(np.uint8), np.ones((2 * by + 1, 2 * by + 1), np.uint8)) > 0


def test_paint_complete_download(page: Page, tmp_path: Path) -> None:
    """What comes back differs from the upload under the strokes alone, and there."""
    path = save(blue_photo(400, 600), tmp_path / "photo.png")
    choose(page, path)
    stroke(page, (0.4, 0.3), (0.5, 0.6))
    painted = strokes_on_screen(page, 400, 600)
    assert 1000 < painted.sum() < 60_000
    assert "600×400 pixels" in press_complete(page)
    first = download(page, tmp_path / "first.png")
    difference = changed(path, first)
    assert not (difference & ~widened(painted, 4 + 6)).any()
    assert difference[painted].mean() > 0.9

    before = first
    for number in range(2):  # on from the result, twice
        page.click("#again")
        wait_until(lambda: not strokes_on_screen(page, 400, 600).any())
        page.wait_for_timeout(2500)  # the canvas is built anew
        wait_until(lambda: find_photo(page) is not None)
        begin = 0.15 + 0.6 * number
        stroke(page, (begin, 0.2), (begin, 0.4))
        painted = strokes_on_screen(page, 400, 600)
        press_complete(page)
        page.wait_for_timeout(500)
        after = download(page, tmp_path / f"{number}.png")
        difference = changed(before, after)
        assert difference.any() and not (difference & ~widened(painted, 4 + 6)).any()
        before = after


def test_undo_and_erase(page: Page, tmp_path: Path) -> None:
    choose(page, save(blue_photo(400, 600), tmp_path / "photo.png"))
    stroke(page, (0.4, 0.3), (0.4, 0.6))
    assert strokes_on_screen(page, 400, 600).any()
    page.click("#canvas button[aria-label=Undo]")
    wait_until(lambda: not strokes_on_screen(page, 400, 600).any())
    page.click("#complete")
    page.wait_for_selector("text=Paint over what should go, then press the button", timeout=20_000)
    stroke(page, (0.4, 0.3), (0.4, 0.6))
    painted = strokes_on_screen(page, 400, 600).sum()
    page.click("#canvas button[aria-label=Erase]")
    stroke(page, (0.4, 0.2), (0.4, 0.45))
    assert 0 < strokes_on_screen(page, 400, 600).sum() < 0.8 * painted


def largest_red(page: Page, box: Any) -> NDArray[np.bool_]:
    """Where the largest spot of the strokes' colour is, within the columns of a box."""
    seen = screen(page)[:, int(box["x"]) : int(box["x"] + box["width"])]
    red = (abs(seen - np.array([255, 64, 64])) < 3).all(axis=2)
    _, labels, statistics, _ = cv2.connectedComponentsWithStats(red.astype(np.uint8))
    return np.asarray(labels == 1 + np.argmax(statistics[1:, cv2.CC_STAT_AREA]))


def test_a_sample_with_one_click(page: Page, tmp_path: Path) -> None:
    page.click("text=Remove the spoon")
    page.wait_for_function("document.querySelector('#message textarea').value != ''", timeout=60_000)
    assert "600×400 pixels" in page.input_value("#message textarea")
    page.wait_for_timeout(1500)  # marks of progress go
    image, mask = load_sample("coffee")
    box = page.locator("#canvas").bounding_box()
    assert box is not None
    painted = np.argwhere(largest_red(page, box))
    height, width = np.ptp(painted, axis=0) + 1
    left, top, right, bottom = mask.getbbox() or (0, 0, 0, 0)
    assert abs(height / (bottom - top) - width / (right - left)) < 0.05 * height / (bottom - top)
    scale = height / (bottom - top)  # of the photograph on the screen, whose middle is the canvas's
    middle = (painted.max(axis=0) + painted.min(axis=0)) / 2
    expected = [(top + bottom) / 2 - image.height / 2, (left + right) / 2 - image.width / 2]
    place = [box["y"] + box["height"] / 2, box["width"] / 2]
    assert np.abs(middle - place - scale * np.array(expected)).max() < 25  # the tools take some room

    result = download(page, tmp_path / "coffee.png")
    image.save(tmp_path / "before.png")
    difference = changed(tmp_path / "before.png", result)
    assert difference.any() and not (difference & ~widened(np.asarray(mask) > 0, 5)).any()
    page.click("#canvas button[aria-label=Erase]")  # it can be changed
    page.mouse.move(box["x"] + middle[1], middle[0])
    page.mouse.down()
    page.mouse.move(box["x"] + middle[1], middle[0] + 60, steps=8)
    page.mouse.up()
    page.wait_for_timeout(500)
    assert largest_red(page, box).sum() < 0.95 * len(painted)


def test_a_mask_instead_of_painting(page: Page, pretrained: GLCICPipeline, tmp_path: Path) -> None:
    """With detail, unless one has the page leave it out."""
    photo, mask = blue_photo(400, 600), square(400, 600, 100, 60)
    path = save(photo, tmp_path / "photo.png")
    choose(page, path)
    page.click("text=Options")
    page.set_input_files("#mask input[type=file]", save(mask.astype(np.uint8) * 255, tmp_path / "mask.png"))
    page.wait_for_selector("#mask img")
    assert page.is_checked("text=Detail from the photograph") and not page.is_checked("text=Blend the fill")
    press_complete(page)
    assert np.array_equal(pixels(download(page, tmp_path / "out.png")), pretrained(photo, mask))
    page.uncheck("text=Detail from the photograph")
    press_complete(page)
    page.wait_for_timeout(500)
    alone = pretrained(photo, mask, detail="none")
    assert np.array_equal(pixels(download(page, tmp_path / "alone.png")), alone)


def test_files_that_are_refused_with_a_toast(page: Page, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("not an image")
    page.set_input_files("#photograph input[type=file]", tmp_path / "text.png")
    page.wait_for_selector("text=This is not a photograph that can be read", timeout=20_000)
    page.reload()
    page.wait_for_selector("#complete")
    side = int(MAX_PIXELS**0.5) + 8
    Image.new("1", (side, side)).save(tmp_path / "large.png")
    page.set_input_files("#photograph input[type=file]", tmp_path / "large.png")
    page.wait_for_selector("text=and at most 64 are taken", timeout=20_000)


@pytest.mark.parametrize("scale", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_on_a_phone(browser: Browser, server: str, tmp_path: Path, scale: int) -> None:
    """390 pixels wide, by touch, on a screen of ordinary and of threefold density."""
    options: dict[str, Any] = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
    context = browser.new_context(**options, device_scale_factor=scale)
    page = context.new_page()
    page.goto(server)
    page.wait_for_selector("#complete")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    path = save(blue_photo(400 * scale, 600 * scale), tmp_path / "photo.png")
    choose(page, path)
    found = find_photo(page)
    assert found is not None
    top, left, bottom, right = found
    touch = context.new_cdp_session(page)
    y = (top + bottom) / 2
    for kind, x in (
        ("touchStart", 0.4),
        *(("touchMove", 0.4 + 0.02 * step) for step in range(10)),
        ("touchEnd", None),
    ):
        points = [] if x is None else [{"x": left + x * (right - left), "y": y}]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    page.wait_for_timeout(500)
    painted = strokes_on_screen(page, 400 * scale, 600 * scale)
    assert painted.any()
    assert f"{600 * scale}×{400 * scale} pixels" in press_complete(page)
    difference = changed(path, download(page, tmp_path / "out.png"))
    assert difference.any() and not (difference & ~widened(painted, 12 * scale)).any()
    context.close()


@pytest.mark.slow
def test_large_and_turned_photographs(page: Page, tmp_path: Path) -> None:
    """24 megapixels, then a phone's photograph on its side: size, orientation and all that was not painted stay."""
    large = save(np.kron(blue_photo(400, 600), np.ones((10, 10, 1), np.uint8)), tmp_path / "large.jpg", quality=90)
    exif = Image.Exif()
    exif[274] = 6
    phone = save(blue_photo(400, 600), tmp_path / "phone.jpg", quality=95, exif=exif)
    for path, shown in ((large, (4000, 6000)), (phone, (600, 400))):
        choose(page, path)
        stroke(page, (0.4, 0.3), (0.5, 0.6))
        painted = strokes_on_screen(page, *shown)
        assert f"{shown[1]}×{shown[0]} pixels" in press_complete(page)
        page.wait_for_timeout(500)
        result = download(page, tmp_path / "out.png")
        with Image.open(result) as completed, Image.open(path) as before:
            assert completed.size == before.size
            assert completed.getexif().get(274, 1) == before.getexif().get(274, 1)
        difference = changed(path, result)
        if path == phone:
            difference = np.rot90(difference, -1)
        assert difference[painted].mean() > 0.8
        assert not (difference & ~widened(painted, max(shown) // 50)).any()
        page.click("#other")
        page.wait_for_selector("#photograph input[type=file]", state="attached")


def test_snap_in_the_page(page: Page, tmp_path: Path) -> None:
    """A rough stroke over a disc completes the disc."""
    photo = blue_photo(400, 600)
    y, x = np.mgrid[:400, :600]
    disc = (y - 200) ** 2 + (x - 300) ** 2 < 60**2
    photo[disc] = [20, 140, 150]
    path = save(photo, tmp_path / "photo.png")
    choose(page, path)
    page.click("text=Options")
    page.check("text=Snap to the object under the strokes")
    stroke(page, (0.49, 0.475), (0.51, 0.525))
    painted = strokes_on_screen(page, 400, 600)
    press_complete(page)
    difference = changed(path, download(page, tmp_path / "out.png"))
    assert (painted & disc).sum() < 0.8 * disc.sum()
    assert difference[disc].mean() > 0.95 and not (difference & ~widened(disc | painted, 12)).any()


def test_cancel(page: Page, server: str, tmp_path: Path) -> None:
    """While others are served, a visitor goes away; nothing comes, and the page goes on working."""
    choose(page, save(blue_photo(400, 600), tmp_path / "photo.png"))
    stroke(page, (0.4, 0.3), (0.5, 0.6))
    slow = uploads(server, blue_photo(900, 900), square(900, 900, 50, 800))
    with ThreadPoolExecutor() as pool:
        others = [pool.submit(call, server, "complete", [*slow, True, 0, False]) for _ in range(3)]
        page.wait_for_timeout(500)
        page.click("#complete")
        page.wait_for_selector("text=/queue: \\d+\\/\\d+/", timeout=20_000)  # the place in line
        page.click("#cancel")
        assert all("event: complete" in other.result() for other in others)
    page.wait_for_timeout(1500)
    assert page.input_value("#message textarea") == ""
    assert "600×400 pixels" in press_complete(page)


def test_by_keyboard_and_screen_reader(page: Page, tmp_path: Path) -> None:
    """All that can be pressed has a name and is reached by the tab key; a sample is completed by keys alone."""
    choose(page, save(blue_photo(400, 600), tmp_path / "photo.png"))
    page.click("text=Options")
    nameless = page.evaluate(
        """[...document.querySelectorAll('button, input:not([type=file]), textarea')].filter(e => e.offsetParent
        && !(e.getAttribute('aria-label') || e.title || e.innerText || e.labels?.[0]?.innerText || e.placeholder))
        .map(e => e.outerHTML)"""
    )
    assert nameless == []
    page.reload()
    page.wait_for_selector("#complete")
    reached = []
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.innerText"))
        if reached[-1] == "Remove the tower":
            break
    assert "Complete" in reached
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelector('#message textarea').value != ''", timeout=60_000)


def test_a_file_that_is_too_large(page: Page, tmp_path: Path) -> None:
    (tmp_path / "large.png").write_bytes(bytes(70_000_000))
    page.set_input_files("#photograph input[type=file]", tmp_path / "large.png")
    page.wait_for_selector("text=exceed the maximum allowed size", timeout=20_000)
    assert page.locator("#complete").is_enabled()


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

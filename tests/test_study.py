"""The user study: by its functions, and by real browsers at once against a real server that is killed."""

from __future__ import annotations

import hashlib
import io
import json
import signal
import sqlite3
import subprocess
import sys
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Browser, Page
from scipy.stats import binomtest

from glcic_hub import GLCICPipeline
from glcic_hub.cli.main import main
from glcic_hub.data.photographs import open_photographs
from glcic_hub.evaluation.methods import Method
from glcic_hub.evaluation.protocol import Protocol, case_opener
from glcic_hub.evaluation.study import Study, prepare_study
from glcic_hub.evaluation.study_results import Share, results, results_as_markdown, write_results
from tests.conftest import ENVIRONMENT, ROOT, free_port, make_photo, wait_for_answer

PROTOCOL = Protocol(size=64, hole_size=(20, 30))


def painted(red: int) -> Method:
    """A method that paints its hole, so that an image tells which one made it."""
    return lambda image, mask: np.where(mask[..., None] > 0, np.array([red, 0, 255], np.uint8), image)


METHODS: dict[str, Method] = {"a": painted(10), "b": painted(20)}


def kind_of(image: NDArray[np.uint8]) -> str:
    for name, red in (("a", 10), ("b", 20)):
        if (image == [red, 0, 255]).all(axis=2).any():
            return name
    return "real"


@pytest.fixture
def study(tmp_path: Path) -> Study:
    (tmp_path / "photographs").mkdir()
    for index in range(12):
        Image.fromarray(make_photo(70, 90, seed=index)).save(tmp_path / "photographs" / f"{index}.png")
    photographs = open_photographs(tmp_path / "photographs")
    assert prepare_study(tmp_path / "study", photographs, METHODS, PROTOCOL, count=9) == []
    return Study(tmp_path / "study")


def trials(study: Study, rater: str) -> list[tuple[int, str, str]]:
    with closing(sqlite3.connect(study.file)) as database:
        return database.execute(
            "SELECT photograph, kind, image FROM trials JOIN images ON token = image WHERE rater = ? ORDER BY place",
            (rater,),
        ).fetchall()


def test_who_sees_what(study: Study) -> None:
    """Each photograph at most once, half of them real, the methods alike often, the order random."""
    seen = [trials(study, study.add_rater("")) for _ in range(20)]
    for own in seen:
        assert len(own) == 9 == len({photograph for photograph, _, _ in own})
        assert Counter(kind == "real" for _, kind, _ in own) == {True: 5, False: 4}
    kinds = Counter(kind for own in seen for _, kind, _ in own)
    assert kinds == {"real": 100, "a": 40, "b": 40}
    assert len({tuple(kind for _, kind, _ in own) for own in seen}) > 10
    times = Counter(photograph for own in seen for photograph, _, _ in own)
    assert set(times.values()) == {15}  # each of 12 alike often


def test_images_give_nothing_away(study: Study) -> None:
    """One size, mode and encoder, no names, no dates, nothing but pixels in the files."""
    files = list((study.folder / "images").iterdir())
    assert len(files) == 36
    for file in files:
        with Image.open(file) as image:
            assert (image.format, image.size, image.mode, image.info) == ("PNG", (64, 64), "RGB", {})
        content = file.read_bytes()
        assert content.count(b"IHDR") == 1 and b"tEXt" not in content and b"eXIf" not in content
        assert len(file.stem) == 24 and set(file.stem) <= set("0123456789abcdef")


def test_votes(study: Study) -> None:
    rater = study.add_rater("Ann")
    first = study.next_trial(rater)
    assert first is not None and (first.place, first.total) == (0, 9) and study.next_trial(rater) == first
    later = trials(study, rater)[3][2]
    with pytest.raises(KeyError):
        study.vote(rater, later, "real")  # it was not shown yet
    with pytest.raises(ValueError, match="real or completed, not maybe"):
        study.vote(rater, first.image, "maybe")
    study.vote(rater, first.image, "completed")
    study.vote(rater, first.image, "real")  # sent again; the first counts
    assert [vote[4] for vote in study.votes()] == ["completed"]
    second = study.next_trial(rater)
    assert second is not None and second.place == 1 and second.image != first.image
    for unknown in ("nobody", ""):
        with pytest.raises(KeyError):
            study.next_trial(unknown)


def answer_all(study: Study, name: str, answer: Any) -> None:
    rater = study.add_rater(name)
    while trial := study.next_trial(rater):
        with Image.open(study.image(trial.image)) as image:
            study.vote(rater, trial.image, answer(kind_of(np.asarray(image))))


def test_results(study: Study) -> None:
    """Recounted by hand from the database; a rater who always says the same shows as such."""
    answer_all(study, "sees all", lambda kind: "real" if kind == "real" else "completed")
    answer_all(study, "believes all", lambda kind: "real")
    answer_all(study, "<b>believes a", lambda kind: "completed" if kind == "b" else "real")
    for _ in range(9):
        answer_all(study, "", lambda kind: "real" if kind == "real" else "completed")
    found = results(study)
    votes = study.votes()
    for kind in ("real", "a", "b"):
        own = [vote for vote in votes if vote[2] == kind]
        assert found.kinds[kind] == (sum(vote[4] == "real" for vote in own), len(own))
    assert found.kinds["real"].value == 1 and list(found.kinds) == ["real", "a", "b", "all completed"]
    assert found.kinds["all completed"] == (sum(v[4] == "real" for v in votes if v[2] != "real"), 12 * 4)
    assert [(row.name, row.remark) for row in found.raters][:3] == [
        ("sees all", ""),
        ("believes all", "always said real"),
        ("<b>believes a", ""),
    ]
    assert found.raters[0].completed == (0, 4) and found.raters[1].completed == (4, 4)
    times = Counter(vote[3] for vote in votes if vote[2] != "real")
    called = {vote[3] for vote in votes if vote[4] == "real"}
    judged = {token for token, count in times.items() if count >= 3}
    assert found.judged == len(judged) and {row[1] for row in found.fooled_nobody} == judged - called
    write_results(study, results(study))
    page = (study.folder / "results.html").read_text()
    assert "&lt;b&gt;believes a" in page and page.count("<figure>") == len(found.fooled_nobody)
    assert "| believes all | 100.0% [" in (study.folder / "results.md").read_text()


def test_what_cannot_be_in_a_study(study: Study, tmp_path: Path) -> None:
    """Another name for the real images, another size, changes outside the hole."""
    photographs = open_photographs(tmp_path / "photographs")
    with pytest.raises(ValueError, match="cannot be called real"):
        prepare_study(tmp_path / "new", photographs, {"real": painted(1)}, PROTOCOL)
    with pytest.raises(ValueError, match="a made an image of another size"):
        prepare_study(tmp_path / "new", photographs, {"a": lambda image, mask: image[:50]}, PROTOCOL)
    spoiling: dict[str, Method] = {"a": lambda image, mask: 255 - image}
    prepare_study(tmp_path / "new", photographs, spoiling, PROTOCOL)
    with closing(sqlite3.connect(tmp_path / "new" / "study.sqlite3")) as database:
        tokens = dict(database.execute("SELECT kind, token FROM images WHERE photograph = 0").fetchall())
    real, completed = (
        np.asarray(Image.open(tmp_path / "new" / "images" / f"{tokens[kind]}.png")) for kind in ("real", "a")
    )
    assert 400 <= (real != completed).any(axis=2).sum() <= 900
    with pytest.raises(FileExistsError, match="omit --photographs to continue it"):
        prepare_study(tmp_path / "new", photographs, METHODS, PROTOCOL)
    rater = study.add_rater("\x1b[2J a | b\n" + "x" * 500)
    study.vote(rater, study.next_trial(rater).image, "real")  # type: ignore[union-attr]
    assert "| [2J a / bxxx" in results_as_markdown(study, results(study))


def test_results_of_other_tools_are_shown(study: Study, tmp_path: Path) -> None:
    """Of their images the hole alone, as a change elsewhere would give them away."""
    photographs, masks, completed = (tmp_path / name for name in ("photographs", "masks", "completed"))
    mask = np.zeros((70, 90), np.uint8)
    mask[20:40, 30:60] = 255
    for folder in (masks, completed):
        folder.mkdir()
    for index in range(12):
        Image.fromarray(mask).save(masks / f"{index}.png")
        Image.fromarray(255 - make_photo(70, 90, seed=index)).save(completed / f"{index}.png")
    arguments: dict[str, Any] = {"protocol": Protocol(str(masks)), "completed": {"LaMa": completed}}
    assert prepare_study(tmp_path / "new", open_photographs(photographs), {}, **arguments) == []
    with closing(sqlite3.connect(tmp_path / "new" / "study.sqlite3")) as database:
        rows = database.execute("SELECT name, kind, token FROM images").fetchall()
    for name, kind, token in rows:
        seed = int(Path(name).stem)
        photo = make_photo(70, 90, seed=seed)
        expected = photo if kind == "real" else np.where(mask[..., None] > 0, 255 - photo, photo)
        assert np.array_equal(np.asarray(Image.open(tmp_path / "new" / "images" / f"{token}.png")), expected)
    assert Study(tmp_path / "new").kinds() == ["real", "LaMa"]
    with pytest.raises(ValueError, match="cannot be called real"):
        prepare_study(
            tmp_path / "other", open_photographs(photographs), {}, Protocol(str(masks)), completed={"real": completed}
        )


def test_shares_and_their_intervals() -> None:
    share = Share(77, 100)
    expected = binomtest(77, 100).proportion_ci(method="wilson")
    assert share.interval == (expected.low, expected.high) and share.show() == "77.0% [67.8%, 84.2%] of 100"
    assert Share(0, 0).show() == "no votes"


def test_an_empty_study_has_results(study: Study) -> None:
    assert "| real | no votes |" in results_as_markdown(study, results(study))
    write_results(study, results(study))


def test_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "study"
    (tmp_path / "file").mkdir()
    (tmp_path / "file" / "study.sqlite3").write_bytes(b"no database" * 100)
    for arguments, message in (
        (["study", str(folder)], "no study in"),
        (["study", str(folder), "--photographs", str(tmp_path / "nowhere")], "no folder"),
        (["study", str(tmp_path), "--photographs", str(ROOT / "docs")], "exists and is kept"),
        (["study", str(tmp_path / "file"), "--results"], "file is not a database"),
        (["study", str(folder), "--photographs", str(ROOT / "docs"), "--count", "1"], "at least 2 images a rater"),
    ):
        assert main(arguments) == 1
        assert message in capsys.readouterr().err and not folder.exists()
    for command in ("study", "demo"):
        with pytest.raises(SystemExit):
            main([command, *([str(folder)] if command == "study" else []), "--port", "70000"])
        assert "a port is a number from 1 to 65535, not '70000'" in capsys.readouterr().err
    (tmp_path / "one").mkdir()
    Image.fromarray(make_photo(70, 90)).save(tmp_path / "one" / "a.png")
    (tmp_path / "one" / "b.png").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"1 photographs can be used, and a study takes at least 2; .*b\.png"):
        prepare_study(folder, open_photographs(tmp_path / "one"), METHODS, PROTOCOL)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "one"]


def test_raters_see_what_people_get(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model_folder: Path, pipe: GLCICPipeline
) -> None:
    """Of a model one image, with detail, under the model's name; the network alone is not shown."""
    monkeypatch.setattr("uvicorn.run", lambda *_, **__: None)
    folder, photographs = tmp_path / "study", tmp_path / "photographs"
    photographs.mkdir()
    for index in range(2):
        Image.fromarray(make_photo(64, 64, seed=index)).save(photographs / f"{index}.png")
    options = ["--size", "64", "--hole-size", "20", "30", "--model", str(model_folder), "--dtype", "float32"]
    command = ["study", str(folder), "--photographs", str(photographs), *options, "--device", "cpu"]
    assert main([*command, "--baselines", "Telea"]) == 0
    with closing(sqlite3.connect(Study(folder).file)) as database:
        shown = dict(database.execute("SELECT kind, token FROM images WHERE photograph = 0"))
    assert set(shown) == {"real", "glcic", "Telea"}
    case = case_opener(PROTOCOL, open_photographs(photographs))(0)
    with Image.open(folder / "images" / f"{shown['glcic']}.png") as image:
        assert np.array_equal(np.asarray(image), pipe(case.image, case.mask))


@contextmanager
def serve(folder: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "glcic_hub", "study", str(folder), "--port", str(port)]
    with subprocess.Popen(command, env=ENVIRONMENT, cwd=ROOT) as process:
        wait_for_answer(f"http://127.0.0.1:{port}/", process)
        try:
            yield process
        finally:
            process.send_signal(signal.SIGINT)


def request(address: str, body: Any = None) -> tuple[int, bytes]:
    data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(address, data), timeout=20) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def test_what_the_page_would_not_send(study: Study) -> None:
    with serve(study.folder, port := free_port()):
        address = f"http://127.0.0.1:{port}"
        for path in ("images/..%2Fstudy.sqlite3", "images/../study.sqlite3", "images/x", "raters/x", "nothing"):
            assert request(f"{address}/{path}")[0] == 404
        for body in (b"", b"[]", b"nothing", {"name": 1}, {"nom": "a"}, {"name": "\ud800"}, b"[" * 9000):
            assert request(f"{address}/raters", body)[0] == 400
        assert request(f"{address}/raters", b"x" * 20_000)[0] == 413
        rater = json.loads(request(f"{address}/raters", {"name": "'); DROP TABLE trials; --" + "x" * 500})[1])["rater"]
        image = json.loads(request(f"{address}/raters/{rater}")[1])["image"]
        for body, status in (
            ({"image": "x", "answer": "real"}, 404),
            ({"image": image, "answer": "x"}, 400),
            ({"image": image, "answer": "real"}, 200),
        ):
            assert request(f"{address}/raters/{rater}/votes", body)[0] == status
        with urllib.request.urlopen(f"{address}/images/{image}") as answer:
            assert set(map(str.lower, answer.headers)) <= {
                "content-type", "content-length", "cache-control", "date", "server", "connection"
            }  # fmt: skip


def test_three_browsers_at_once_and_a_killed_server(study: Study, browser: Browser) -> None:
    """One rater by mouse, one by keys, one on a phone; the server is killed in between, and nothing is lost."""
    port = free_port()
    phone: dict[str, Any] = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
    pages = [browser.new_context(**options).new_page() for options in ({}, {}, phone)]
    answered: list[list[tuple[str, str]]] = [[], [], []]

    def step(number: int, page: Page) -> None:
        """Answers what is on the page: truly, except that the third always says real."""
        page.wait_for_selector("#real:not([disabled])")
        content = page.request.get(page.evaluate("document.getElementById('image').src")).body()
        with Image.open(io.BytesIO(content)) as image:
            kind = kind_of(np.asarray(image))
        answer = "real" if kind == "real" or number == 2 else "completed"
        answered[number].append((hashlib.sha1(content).hexdigest(), answer))
        progress = page.inner_text("#progress")
        if number == 0:
            page.click(f"#{answer}")
        elif number == 1:
            page.keyboard.press("r" if answer == "real" else "ArrowRight")
        else:
            page.tap(f"#{answer}")
        page.wait_for_function(
            f"document.getElementById('progress').textContent !== '{progress}' "
            "|| document.getElementById('trial').hidden",
            timeout=20_000,
        )

    with serve(study.folder, port) as process:
        for number, page in enumerate(pages):
            page.goto(f"http://127.0.0.1:{port}")
            assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]  # type: ignore[index]
            page.fill("#name", f"rater {number}")
            page.click("#begin")
            page.wait_for_selector("#trial:not([hidden])")
        for _ in range(4):
            for number, page in enumerate(pages):
                step(number, page)
        process.send_signal(signal.SIGKILL)
        process.wait()
        pages[0].click("#real, #completed >> nth=0")  # while the server is gone: it is sent again
        pages[0].wait_for_selector("text=The study cannot be reached")
        lost = pages[0].evaluate("document.getElementById('image').src")
    with serve(study.folder, port):
        pages[0].wait_for_function("document.getElementById('progress').textContent === '6 of 9'", timeout=30_000)
        content = pages[0].request.get(lost).body()
        answered[0].append((hashlib.sha1(content).hexdigest(), "real"))
        for page in pages[1:]:
            page.reload()  # the page knows who one is
            page.wait_for_selector("#trial:not([hidden])")
            assert page.inner_text("#progress") == "5 of 9"
        for _ in range(5):
            for number, page in enumerate(pages):
                if len(answered[number]) < 9:
                    step(number, page)
        for page in pages:
            page.wait_for_selector("text=Thank you")
    kept: dict[str, list[tuple[str, str]]] = {}
    for _, name, _, token, answer in study.votes():
        digest = hashlib.sha1((study.folder / "images" / f"{token}.png").read_bytes()).hexdigest()
        kept.setdefault(name, []).append((digest, answer))
    assert [kept[f"rater {number}"] for number in range(3)] == answered
    found = results(study)
    assert [row.remark for row in found.raters] == ["", "", "always said real"]
    assert found.raters[1].real.value == 1 and found.raters[1].completed.value == 0
    for page in pages:
        page.context.close()

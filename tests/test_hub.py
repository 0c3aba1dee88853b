"""The Hub, both ways, with its real client, over HTTP: another process, faults and hostile files included."""

from __future__ import annotations

import json
import os
import pickle
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from safetensors.torch import load_file, save_file

from glcic_hub import GLCICPipeline
from glcic_hub.cli.main import main
from glcic_hub.completion import _exemplars
from glcic_hub.demo.space import write_space
from glcic_hub.hub.model_files import load_model
from tests.conftest import ENVIRONMENT, PRETRAINED, ROOT, free_port, wait_for_answer
from tests.hub_client import digests
from tests.local_hub import TOKEN, LocalHub, serve_hub

Ask = Callable[..., dict[str, str]]


class Client:
    """A process that talks to the Hub, with a cache of its own."""

    def __init__(self, hub: LocalHub, home: Path, **environment: str) -> None:
        fixed = {"HF_ENDPOINT": hub.address, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "HF_TOKEN": TOKEN}
        self.home = home
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.hub_client"],
            env={**ENVIRONMENT, **fixed, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def __call__(self, **request: Any) -> dict[str, str]:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        answer: dict[str, str] = json.loads(self.process.stdout.readline())
        return answer

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def hub() -> Iterator[LocalHub]:
    with serve_hub() as served:
        yield served


@pytest.fixture
def start(hub: LocalHub, tmp_path: Path) -> Iterator[Callable[..., Client]]:
    clients: list[Client] = []

    def start_client(home: str = "home", **environment: str) -> Client:
        clients.append(Client(hub, tmp_path / home, **environment))
        return clients[-1]

    yield start_client
    for client in clients:
        client.close()


def model_files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_there_and_back(hub: LocalHub, start: Callable[..., Client], model_folder: Path, pipe: GLCICPipeline) -> None:
    """Pushed by one process, loaded by others: the same bits; the second time only the etag is asked for."""
    pushed = start()(model=str(model_folder), push_to="user/model", push_options={"private": True})
    assert pushed["address"].startswith(f"{hub.address}/user/model/commit/")
    repository = hub.repositories["user/model"]
    assert repository.titles == ["Model of glcic-hub"] and repository.private
    files = hub.files("user/model")
    assert set(files) == {"config.json", "model.safetensors", "README.md", "before-after.jpg"}
    assert any(method == "PUT" for method, _ in hub.requests)  # the weights went through the large file storage
    check_card(files["README.md"].decode(), "user/model")

    packaged = ModelCard((PRETRAINED / "README.md").read_text()).data.to_dict()  # type: ignore[no-untyped-call]
    assert packaged["license"] == "other" and packaged["model-index"][0]["results"][0]["metrics"][0]["type"] == "psnr"
    hub.add("user/model", {**files, "global_discriminator.safetensors": b"large", "recipe.yaml": b""}, private=True)
    hub.requests.clear()
    second = start("elsewhere")
    assert second(model="user/model") == digests(pipe)
    paths = [path for method, path in hub.requests if method == "GET" and "/resolve/" in path]
    assert {path.split("/")[-1] for path in paths} <= {"config.json", "model.safetensors"}
    hub.requests.clear()
    assert second(model="user/model") == digests(pipe)
    assert [method for method, _ in hub.requests] == ["HEAD"] and "config.json" in hub.requests[0][1]
    hub.requests.clear()
    assert second(model="user/model", local_files_only=True) == digests(pipe)
    offline = start("elsewhere", HF_HUB_OFFLINE="1")
    assert offline(model="user/model") == digests(pipe)
    assert not hub.requests
    assert "not in the cache, and downloads are switched off" in offline(model="user/other")["error"]


def test_a_push_leaves_nothing_of_the_model_before(
    hub: LocalHub, start: Callable[..., Client], model_folder: Path
) -> None:
    others = {"fusion.safetensors": b"old", "recipe.yaml": b"old", "notes.md": b"mine"}
    hub.add("user/model", {**model_files(model_folder), **others})
    start()(model=str(PRETRAINED), push_to="user/model")
    files = hub.files("user/model")
    assert set(files) == {"config.json", "model.safetensors", "README.md", "LICENSE", "before-after.jpg", "notes.md"}
    assert files["LICENSE"] == (PRETRAINED / "LICENSE").read_bytes()
    data = ModelCard(files["README.md"].decode()).data.to_dict()  # type: ignore[no-untyped-call]
    assert data["model-index"][0]["name"] == "user/model" and data["license"] == "other"
    assert "4,763 photographs" in files["README.md"].decode()


def test_the_packaged_weights_are_pushed_whole(hub: LocalHub, start: Callable[..., Client]) -> None:
    """With license and recipes, and under the model's name; a license that was put there by hand stays."""
    hub.add("user/model", {"LICENSE.md": b"mine"})
    start()(push_folder=str(PRETRAINED), push_to="user/model")
    files = hub.files("user/model")
    expected = {"config.json", "model.safetensors", "README.md", "before-after.jpg", "LICENSE", "LICENSE.md"}
    assert set(files) == expected | {f"recipe-{number}.yaml" for number in range(1, 9)}
    card = files["README.md"].decode()
    check_card(card, "user/model")
    assert "--model user/model" in card and "license_link: LICENSE\n" in card and "from_pretrained()" not in card
    assert ModelCard(card).data.to_dict()["model-index"][0]["name"] == "user/model"  # type: ignore[no-untyped-call]


def test_a_card_that_the_hub_refuses_leaves_nothing_behind(
    hub: LocalHub, start: Callable[..., Client], model_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(model_folder, folder)
    config = json.loads((folder / "config.json").read_text())
    license_ = {"license": "other", "license_name": "my license", "license_link": "LICENSE"}
    (folder / "config.json").write_text(json.dumps(config | {"training": {"license": license_}}))
    client = start()
    sentence = 'ValueError: the Hub refuses the metadata of README.md: - Error: "license_name" must be lower case'
    assert client(model=str(folder), push_to="user/new")["error"].startswith(sentence)
    for card, wrong in (
        ("license: mit\nlicense_link: README.md", '"license_link" must be one of [LICENSE, LICENSE.md]'),
        ("license: free", '"license" must be one of ['),
        ("base_model: a folder", '"base_model" with value "a folder" is not valid'),
        ("license: [mit", "while parsing a flow sequence"),
    ):
        (folder / "README.md").write_text(f"---\n{card}\n---\n# A model\n")
        error = client(push_folder=str(folder), push_to="user/new")["error"]
        assert error.startswith("ValueError: the Hub refuses the metadata of README.md: ") and wrong in error
        assert "\n" not in error
    assert not hub.repositories


def test_folders_have_no_revisions_and_tokens_are_not_printed(model_folder: Path) -> None:
    with pytest.raises(ValueError, match="is a folder here, which has no revisions"):
        GLCICPipeline.from_pretrained(model_folder, revision="v1")
    with pytest.raises(ValueError, match="the token is empty, or has characters in it") as caught:
        GLCICPipeline.from_pretrained("user/model", token="hf_secret\nline")
    assert "secret" not in str(caught.value)


def check_card(text: str, name: str) -> None:
    """By huggingface_hub's own classes, and by what readers look for."""
    data = ModelCard(text).data.to_dict()  # type: ignore[no-untyped-call]
    assert data["library_name"] == "glcic-hub" and data["pipeline_tag"] == "image-to-image"
    assert "inpainting" in data["tags"]
    assert f'from_pretrained("{name}")' in text and "before-after.jpg" in text
    assert "## Limits and bias" in text and "10.1145/3072959.3073659" in text and "$" not in text


def test_revisions_and_proposals(
    hub: LocalHub, start: Callable[..., Client], model_folder: Path, pipe: GLCICPipeline
) -> None:
    files = model_files(model_folder)
    repository = hub.add("user/model", files)
    repository.references["v1"] = repository.references["main"]
    repository.commit("second", model_files(PRETRAINED))
    client = start()
    assert client(model="user/model", revision="v1") == digests(pipe)
    packaged = digests(GLCICPipeline.from_pretrained(device="cpu"))["weights"]
    assert client(model="user/model")["weights"] == packaged
    assert client(model="user/model", revision=repository.references["v1"]) == digests(pipe)
    assert "no such revision" in client(model="user/model", revision="v9")["error"]
    proposal = client(model=str(model_folder), push_to="user/model", push_options={"create_pr": True})
    assert proposal["address"] == f"{hub.address}/user/model/discussions/1"
    assert client(model="user/model")["weights"] == packaged
    assert client(model="user/model", force_download=True)["weights"] == packaged


def test_branches_and_subfolders(
    hub: LocalHub, start: Callable[..., Client], model_folder: Path, tmp_path: Path, pipe: GLCICPipeline
) -> None:
    below = {f"sizes/small/{name}": content for name, content in model_files(model_folder).items()}
    hub.add("user/model", {**model_files(PRETRAINED), **below})
    client = start()
    assert client(model="user/model", subfolder="sizes/small") == digests(pipe)
    assert (
        "it lacks sizes/config.json, sizes/model.safetensors" in client(model="user/model", subfolder="sizes")["error"]
    )
    assert client(model=str(model_folder.parent), subfolder=model_folder.name) == digests(pipe)

    for _ in range(2):  # makes the branch, and commits to it
        client(model=str(model_folder), push_to="user/model", push_options={"revision": "v2"})
    assert client(model="user/model", revision="v2") == digests(pipe)
    assert hub.files("user/model")["model.safetensors"] == (PRETRAINED / "model.safetensors").read_bytes()

    tagged = {"revision": "v2", "tag": "v2.1"}
    assert "commit" in client(model=str(PRETRAINED), push_to="user/model", push_options=tagged)["address"]
    client(model=str(model_folder), push_to="user/model", push_options={"revision": "v2"})
    assert client(model="user/model", revision="v2.1")["weights"] == client(model="user/model")["weights"]
    assert client(model="user/model", revision="v2") == digests(pipe)
    count = len(hub.repositories["user/model"].commits)
    for options, sentence in (
        ({"tag": "v2.1"}, "ValueError: user/model has the tag v2.1 already, and tags stay; give another"),
        ({"tag": "v3", "create_pr": True}, "ValueError: a pull request is not tagged; merge it"),
    ):
        answer = client(model=str(model_folder), push_to="user/model", push_options=options)
        assert answer["error"].startswith(sentence) and len(hub.repositories["user/model"].commits) == count

    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "README.md").write_text("my words about path/of/this/folder")
    (folder / "secret.txt").write_text("x")
    answer = client(model=str(model_folder), save_to=str(folder), push_options={"private": True})
    assert answer["address"].startswith(f"{hub.address}/user/mine/commit/") and hub.repositories["user/mine"].private
    assert hub.files("user/mine")["README.md"] == b"my words about user/mine"
    assert (folder / "README.md").read_text() == "my words about path/of/this/folder"
    assert set(hub.files("user/mine")) == {"config.json", "model.safetensors", "README.md"}


def test_what_goes_wrong_is_said_in_a_sentence(
    hub: LocalHub, start: Callable[..., Client], model_folder: Path
) -> None:
    files = model_files(model_folder)
    hub.add("user/model", files)
    hub.add("user/private", files, private=True)
    hub.add("user/gated", files, gated=True)
    hub.add("user/pickle", {"config.json": files["config.json"], "pytorch_model.bin": pickle.dumps([1])})
    hub.add("user/data", {"data.csv": b""})
    hub.add("user/other", {**files, "config.json": b'{"model_type": "bert"}'})
    hub.add("user/newer", {**files, "config.json": files["config.json"].replace(b'_version": 1', b'_version": 2')})
    hub.add("user/truncated", {**files, "model.safetensors": files["model.safetensors"][:-100]})
    client, stranger, forger = start(), start("a", HF_TOKEN=""), start("b", HF_TOKEN="hf_wrong")
    for asked, model, sentence in (
        (client, "user/nothing", "FileNotFoundError: cannot load user/nothing: there is no folder of that name here"),
        (stranger, "user/private", "if it is private, log in"),
        (
            client,
            "user/gated",
            f"PermissionError: cannot load user/gated: it is gated; ask for access at {hub.address[:9]}",
        ),
        (forger, "user/model", "PermissionError: cannot load user/model: the Hub refuses the token (401: "),
        (
            client,
            "user/pickle",
            "ValueError: user/pickle has no model.safetensors but pytorch_model.bin, which",
        ),
        (client, "user/data", "FileNotFoundError: user/data is no model of this kind: it lacks config.json, model.s"),
        (client, "user/other", 'it lacks "model_type": "glcic"'),
        (client, "user/newer", "config has format_version 2, and this release reads 1: a newer glcic-hub may read it"),
        (client, "user/truncated", "not a whole safetensors file"),
        (client, "user/a b", "ValueError: cannot load user/a b: "),
        (client, "../../etc", "FileNotFoundError: no model in"),
    ):
        error = asked(model=model)["error"]
        assert sentence in error and "\n" not in error, error
    pushed = forger(model=str(model_folder), push_to="user/model")["error"]
    assert pushed.startswith("PermissionError: cannot push to user/model: the Hub refuses the token (401: ")
    assert "log in" in stranger(model=str(model_folder), push_to="user/model")["error"]


def test_faults_of_the_hub(model_folder: Path, tmp_path: Path) -> None:
    """Side by side, as the client tries each again for half a minute before it gives up."""

    def load_and_push(fault: int | None) -> list[str]:
        with serve_hub() as hub:
            hub.add("user/model", model_files(model_folder))
            hub.faults += [("/user/model/", fault)] if fault else []
            client = Client(hub, tmp_path / f"{fault}", **({} if fault else {"HF_ENDPOINT": "http://127.0.0.1:9"}))
            answers = [client(model="user/model")]
            if fault:
                hub.faults.clear()
                answers.append(client(model="user/model"))
            else:
                answers.append(client(model=str(model_folder), push_to="user/model"))
            client.close()
            return [answer.get("error", "good") for answer in answers]

    faults = (429, 403, 500, None)
    with ThreadPoolExecutor() as pool:
        busy, refused, broken, absent = pool.map(load_and_push, faults)
    what = "cannot load user/model: "
    assert busy[0].startswith(f"OSError: {what}Hub rate limit reached (429)")
    assert refused[0].startswith(f"PermissionError: {what}the Hub refuses the token (403: ")
    assert broken[0].startswith(f"OSError: {what}the Hub has a fault (500)")
    assert absent[0].startswith(f"OSError: {what}it is not in the cache, and the Hub cannot be reached")
    assert "cannot push to user/model: the connection to the Hub failed" in absent[1]
    assert [busy[1], refused[1], broken[1]] == ["good"] * 3
    assert not any("\n" in error for error in (*busy, *refused, *broken, *absent))


def test_a_download_that_breaks_off_leaves_nothing_to_trust(
    hub: LocalHub, start: Callable[..., Client], model_folder: Path, pipe: GLCICPipeline
) -> None:
    hub.add("user/model", model_files(model_folder))
    hub.faults += [("/large/", 0)] * 50
    client = start()
    assert "error" in client(model="user/model")
    assert not list(client.home.rglob("model.safetensors"))
    hub.faults.clear()
    assert client(model="user/model") == digests(pipe)


def test_a_full_disk(hub: LocalHub, model_folder: Path, tmp_path: Path) -> None:
    """Stands for a full disk: the process must not write a file of over 10 kB."""
    hub.add("user/model", model_files(model_folder))
    environment = {"HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1"}
    command = ["complete", "--sample", "coffee", "--model", "user/model", "-o", str(tmp_path / "out.png")]
    done = subprocess.run(
        [sys.executable, "-m", "glcic_hub", *command],
        env={**ENVIRONMENT, **environment},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000)),
    )
    assert done.returncode == 1
    assert (
        "glcic: error: cannot load user/model: the disk is full, or takes no file as large" in done.stderr
        and "Traceback" not in done.stderr
    )


def hostile_models(folder: Path, where: Path) -> dict[Path, str]:
    """Copies of a model, each with something in it that would harm; and what the refusal says."""
    config = json.loads((folder / "config.json").read_text())
    weights = (folder / "model.safetensors").read_bytes()
    length = int.from_bytes(weights[:8], "little")
    header = json.loads(weights[8 : 8 + length])
    expected = {}

    def copy(name: str, message: str) -> Path:
        shutil.copytree(folder, where / name)
        expected[where / name] = message
        return where / name

    def with_header(changed: Any) -> bytes:
        text = json.dumps(changed).encode()
        return len(text).to_bytes(8, "little") + text + weights[8 + length :]

    harm = f"__import__('os').mkdir({str(where / 'harm')!r})"
    code = b"cbuiltins\neval\n(S" + repr(harm).encode() + b"\ntR."
    (copy("pickle", "not a whole safetensors file") / "model.safetensors").write_bytes(code)
    huge = (10**12).to_bytes(8, "little") + weights[8:]
    (copy("lying length", "not a whole safetensors file") / "model.safetensors").write_bytes(huge)
    first = "layers.0.conv.weight"
    beyond = header | {first: header[first] | {"data_offsets": [0, 10**12]}}
    (copy("lying offsets", "not a whole safetensors file") / "model.safetensors").write_bytes(with_header(beyond))
    large = header | {first: header[first] | {"shape": [10**9, 10**9, 5, 5]}}
    (copy("huge shape", "not a whole safetensors file") / "model.safetensors").write_bytes(with_header(large))
    path = json.dumps(config | {"weights": "../../x"})
    (copy("path", "config has unknown entries: weights") / "config.json").write_text(path)
    (copy("wide", "width must be an even number from 2 to 1024") / "config.json").write_text(
        json.dumps(config | {"width": 10**9})
    )
    (copy("widest", "layers.0.conv.weight is .4, 4, 5, 5., the config says .1024") / "config.json").write_text(
        json.dumps(config | {"width": 1024})
    )
    with (copy("2 GB", "config.json: it has more than 1048576 bytes") / "config.json").open("wb") as file:
        file.truncate(2_000_000_000)
    (copy("deep", "config is not JSON") / "config.json").write_text("[" * 500_000)
    (copy("many names", "lists its tensors in") / "model.safetensors").write_bytes(
        with_header(header | {f"x{n}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for n in range(50_000)})
    )
    tensors = load_file(folder / "model.safetensors")
    whole = {name: tensor.to(torch.int8) for name, tensor in tensors.items()}
    save_file(whole, copy("whole numbers", "as I8, not as one of BF16, F16, F32, F64") / "model.safetensors")
    name = "layers.3.norm.running_var"
    save_file(tensors | {name: -tensors[name]}, copy("variance", "a variance below 0 in") / "model.safetensors")
    for case, training in {
        "no validation": {"figures": [{"phase": 1, "step": 1, "psnr": 1, "ssim": 1, "texture": 1}]},
        "text as figures": {"figures": "abc"},
        "more in the license": {"license": {"license": "mit", "gated": True}},
        "a line more": {"title": "a\n# b"},
        "deep recipe": {"recipe": {"a": {"b": {}}}},
        "unknown": {"harm": 1},
    }.items():
        (copy(case, "training") / "config.json").write_text(json.dumps(config | {"training": training}))
    (copy("mean", "mean_pixel must be three numbers") / "config.json").write_text(
        json.dumps(config | {"mean_pixel": [10**400, 0, 0]})
    )
    return expected


def test_hostile_models(tmp_path: Path, model_folder: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for folder, message in hostile_models(model_folder, tmp_path).items():
        with pytest.raises(ValueError, match=message):
            load_model(folder)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # kB
    assert not (tmp_path / "harm").exists()


def test_glcic_push(
    hub: LocalHub, model_folder: Path, tmp_path: Path, pipe: GLCICPipeline, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder as training leaves it: its card gets the model's name, files of others stay behind."""
    folder = tmp_path / "model"
    shutil.copytree(model_folder, folder)
    (folder / "README.md").write_text('from_pretrained("path/of/this/folder")')
    (folder / "secret.txt").write_text("x")
    environment = {"HF_ENDPOINT": hub.address, "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "glcic_hub", "push", str(folder), "model", "-m", "mine", "--tag", "v1"],
        env={**ENVIRONMENT, **environment}, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"uploaded: {hub.address}/user/model/commit/" in done.stdout
    assert hub.repositories["user/model"].titles == ["mine"]
    assert hub.repositories["user/model"].tags == {"v1": hub.repositories["user/model"].references["main"]}
    files = hub.files("user/model")
    assert set(files) == {"config.json", "model.safetensors", "README.md", "before-after.jpg"}
    assert files["README.md"] == b'from_pretrained("user/model")'
    (folder / "model.safetensors").write_bytes(b"junk")
    assert main(["push", str(folder), "user/model"]) == 1
    assert "not a whole safetensors file" in capsys.readouterr().err
    assert main(["push", str(tmp_path / "nothing"), "user/model"]) == 1
    assert "not a directory" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["push", "user/model"])
    with pytest.raises(SystemExit):
        main(["push", "--space", "user/demo", "--tag", "v1"])
    assert "--revision and --tag are for a model" in capsys.readouterr().err


def test_a_space_in_one_command(hub: LocalHub, tmp_path: Path) -> None:
    """What is uploaded is what a Gradio Space needs, and runs; what an older one had goes."""
    hub.add("spaces/user/demo", {"glcic_hub/old.py": b""}, details={"sdk": "gradio"}).titles.clear()
    environment = {"HF_ENDPOINT": hub.address, "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "glcic_hub", "push", "--space", "user/demo", "-m", "mine"],
        env={**ENVIRONMENT, **environment}, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert hub.repositories["spaces/user/demo"].details["sdk"] == "gradio"
    assert hub.repositories["spaces/user/demo"].titles == ["mine"] and "glcic_hub/old.py" not in hub.files(
        "spaces/user/demo"
    )
    files = hub.files("spaces/user/demo")
    named = {"README.md", "requirements.txt", "packages.txt", "app.py", "setup.py", "LICENSE", "glcic_hub"}
    assert {path.split("/")[0] for path in files} == named
    assert {"glcic_hub/pretrained/compact/model.safetensors", "glcic_hub/completion/_exemplars.cpp"} <= set(files)
    assert not any("__pycache__" in path or path.endswith((".so", ".pyd")) for path in files)
    readme = files["README.md"].decode()
    details = yaml.safe_load(readme.split("---")[1])
    assert details["sdk"] == "gradio" and details["app_file"] == "app.py"
    assert details["license_link"] == "LICENSE" and files["LICENSE"] == (PRETRAINED / "LICENSE").read_bytes()
    requirements = files["requirements.txt"].decode()
    check_space_versions(details, requirements)
    assert f"Python {details['python_version']}, PyTorch 2.8.0 and Gradio {details['sdk_version']} are" in readme
    for name in ("app.py", "setup.py"):
        assert files[name] == (ROOT / name).read_bytes()
    build_system = re.search(r"\[build-system\]\nrequires = (.*)", (ROOT / "pyproject.toml").read_text())
    assert build_system and requirements.endswith("\n".join(json.loads(build_system[1])) + "\n")
    for path, content in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(content)
    shutil.copy(_exemplars.__file__, tmp_path / "glcic_hub" / "completion")  # as if it had been started before
    run_space(tmp_path)


def check_space_versions(details: dict[str, str], requirements: str) -> None:
    """Python and PyTorch are of those that ZeroGPU offers (hub-docs, spaces-zerogpu.md), and all else runs on them."""
    assert details["python_version"] == "3.10.13"
    pins = {pin.name: pin.specifier for pin in map(Requirement, requirements.splitlines())}
    assert str(pins["torch"]) in {f"=={version}" for version in ("2.6.0", "2.7.1", "2.8.0")}
    assert "pytest" not in pins
    for line in metadata.requires("glcic-hub") or ():
        needed = Requirement(line)
        if needed.marker is None:
            installed = metadata.version(needed.name).partition("+")[0]
            assert needed.name == "torch" or pins[needed.name].contains(installed)
            exact = str(pins[needed.name]).startswith("==")
            runs = SpecifierSet(metadata.metadata(needed.name)["Requires-Python"]).contains("3.10.13")
            assert runs == exact, needed.name
            assert not exact or needed.specifier.contains(str(pins[needed.name]).removeprefix("=="))


def run_space(folder: Path) -> None:
    """Starts a Space as the Hub does, and waits until it answers."""
    command = [sys.executable, "app.py", "--port", str(port := free_port())]
    with subprocess.Popen(command, env={**os.environ, "PYTHONDONTWRITEBYTECODE": ""}, cwd=folder) as process:
        try:
            answer = wait_for_answer(f"http://127.0.0.1:{port}/health", process, 120)
            assert json.loads(answer)["status"] == "ok"
            # Loaded from the Space's own folder, and not from what is installed.
            assert list((folder / "glcic_hub" / "demo" / "__pycache__").glob("app.*.pyc"))
        finally:
            process.terminate()


@pytest.mark.slow
def test_a_space_compiles_what_it_needs_at_its_first_start(tmp_path: Path) -> None:
    """Nothing compiled is uploaded, and a Space does not install the package."""
    write_space(tmp_path)
    assert not list(tmp_path.rglob("*.so"))
    run_space(tmp_path)
    (compiled,) = (tmp_path / "glcic_hub" / "completion").glob("_exemplars.*.so")
    before = compiled.stat().st_mtime_ns
    done = subprocess.run(
        [sys.executable, "-c", "from glcic_hub.completion import exemplars, _exemplars; print(_exemplars.__file__)"],
        cwd=tmp_path, capture_output=True, text=True, timeout=100, check=True,
    )  # fmt: skip
    assert Path(done.stdout.strip()).samefile(compiled)
    run_space(tmp_path)
    assert compiled.stat().st_mtime_ns == before


def test_a_space_without_a_compiler_says_so(tmp_path: Path) -> None:
    write_space(tmp_path)
    done = subprocess.run(
        [sys.executable, "app.py"], env={**os.environ, "PATH": str(tmp_path)},
        cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "needs a compiler for C++17" in done.stderr.splitlines()[-1]

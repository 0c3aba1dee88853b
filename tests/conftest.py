"""Small real parts: a narrow network with random weights, photographs made of noise and gradients."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Browser, sync_playwright

from glcic_hub import GLCICConfig, GLCICPipeline
from glcic_hub.hub.model_files import DEFAULT_MODEL, PACKAGED
from glcic_hub.networks import CompletionNetwork

ROOT = Path(__file__).parent.parent
PRETRAINED = PACKAGED / DEFAULT_MODEL

# A suite in the background starts with SIGINT ignored; so would the servers that tests stop by it, and run for ever.
signal.signal(signal.SIGINT, signal.default_int_handler)

# With `--cpu --num_processes 2` Accelerate starts a single process, unless there is MPI.
LAUNCH_TWO = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
LAUNCH_TWO += ["--num_machines", "1", "--dynamo_backend", "no"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "ACCELERATE_USE_CPU": "true"}
TWO_PROCESSES = {**ENVIRONMENT, "OMP_NUM_THREADS": "1"}

MEAN_PIXEL = (0.5, 0.4, 0.3)
CONFIG = GLCICConfig(width=4, mean_pixel=MEAN_PIXEL, image_size=32, patch_size=16)


def make_network(width: int = 4, seed: int = 0) -> CompletionNetwork:
    """A completion network in evaluation mode whose batch normalisation does not happen to be the identity."""
    generator = torch.Generator().manual_seed(seed)
    network = CompletionNetwork(width, MEAN_PIXEL).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.2, 1.5, generator=generator)
            module.weight.data.uniform_(0.5, 1.5, generator=generator)
            module.bias.data.normal_(0, 0.3, generator=generator)
        elif isinstance(module, (torch.nn.Conv2d, torch.nn.ConvTranspose2d)):
            module.weight.data.normal_(0, module.weight[0].numel() ** -0.5, generator=generator)
            if module.bias is not None:
                module.bias.data.zero_()
    return network


@pytest.fixture(scope="session")
def pipe() -> GLCICPipeline:
    return GLCICPipeline(CONFIG, make_network(), device="cpu", dtype=torch.float32)


def equal(first: object, second: object) -> bool:
    """Whether two images, arrays or PIL images, have the same pixels."""
    return np.array_equal(np.asarray(first), np.asarray(second))


def make_photo(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    random = np.random.default_rng(seed)
    ramp = np.linspace(0, 200, width)[None, :, None] * np.linspace(0.2, 1, height)[:, None, None]
    return (ramp + random.integers(0, 55, (height, width, 3))).astype(np.uint8)


def make_hole(height: int, width: int) -> NDArray[np.uint8]:
    """Two holes of 0 and 255: one inside, one in the corner."""
    mask = np.zeros((height, width), np.uint8)
    mask[height // 4 : height // 2, width // 3 : width // 2] = 255
    mask[-3:, -5:] = 255
    return mask


@pytest.fixture
def photo() -> NDArray[np.uint8]:
    return make_photo(46, 61)


@pytest.fixture
def mask() -> NDArray[np.uint8]:
    return make_hole(46, 61)


@pytest.fixture
def photo_file(tmp_path: Path, photo: NDArray[np.uint8]) -> Path:
    path = tmp_path / "photo.png"
    Image.fromarray(photo).save(path)
    return path


@pytest.fixture
def mask_file(tmp_path: Path, mask: NDArray[np.uint8]) -> Path:
    path = tmp_path / "mask.png"
    Image.fromarray(mask).save(path)
    return path


def make_unreadable(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes folders in one another until the path is too long for the system, which keeps root out, too."""
    monkeypatch.chdir(folder)
    for _ in range(17):
        Path("x" * 255).mkdir()
        os.chdir("x" * 255)
    os.chdir(folder)


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory, pipe: GLCICPipeline) -> Path:
    folder = tmp_path_factory.mktemp("model")
    pipe.save_pretrained(folder)
    return folder


def in_a_fork(function: Callable[[], Any]) -> Any:
    """What a function returns in a forked process, which must not hang."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=lambda: sender.send(function()))
    child.start()
    try:
        assert receiver.poll(60), "the fork hangs"
        return receiver.recv()
    finally:
        child.kill()
        child.join()


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def wait_for_answer(address: str, process: subprocess.Popen[Any], seconds: float = 60) -> bytes:
    """What a server that was just started answers, as soon as it does."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(address) as answer:
                content: bytes = answer.read()
                return content
        except OSError:
            assert process.poll() is None and time.monotonic() < deadline, f"nothing at {address}"
            time.sleep(0.2)


NO_BROWSER = "Chromium is not installed"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium, without a window."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip(NO_BROWSER)
    with sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        started = playwright.chromium.launch(executable_path=path, args=flags)
        yield started
        started.close()


@pytest.hookimpl(wrapper=True, tryfirst=True)  # after the list of what was skipped
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> Iterator[None]:
    """Says in the end what was not tested for want of a browser, and how to get one."""
    yield
    skipped = [report for report in terminalreporter.stats.get("skipped", []) if NO_BROWSER in str(report.longrepr)]
    if skipped:
        terminalreporter.write_line(
            f"{len(skipped)} tests in a browser were skipped: there is no Chromium. `make browser` installs it "
            "(Debian, as root); elsewhere take the system's package manager."
        )

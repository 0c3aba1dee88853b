"""The demo under load: clients at once, each checking that it gets its own image back; times, memory, and the page.

python benchmarks/demo.py [--clients 16] [--requests 200]

Needs the extra `dev` and Chromium.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

import numpy as np
from gradio_client import Client, handle_file
from PIL import Image
from playwright.sync_api import sync_playwright

PORT = 7989
SIDE = 512


def main() -> None:
    """Starts the demo in a process of its own, sends requests, and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=16, metavar="N", help="at once (default: 16)")
    parser.add_argument("--requests", type=int, default=200, metavar="N", help="in all (default: 200)")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    environment = {**os.environ, "TMPDIR": str(folder), "GRADIO_SERVER_PORT": str(PORT)}
    begin = time.perf_counter()
    with subprocess.Popen([sys.executable, "-m", "glcic_hub", "demo"], env=environment) as process:
        try:
            while not is_up() and process.poll() is None:
                time.sleep(0.1)
            print(f"from a cold start to the page: {time.perf_counter() - begin:.1f} s")
            clients = [Visitor(number, folder) for number in range(options.clients)]
            for client in clients:
                client.complete()
            before = resident(process.pid)
            begin = time.perf_counter()
            with ThreadPoolExecutor(options.clients) as pool:
                numbers = [number % options.clients for number in range(options.requests)]
                seconds = list(pool.map(lambda number: clients[number].complete(), numbers))
            wall = time.perf_counter() - begin
            print(f"{options.requests} requests by {options.clients} clients at once: {wall:.0f} s, all right")
            print(f"median {median(seconds):.1f} s, longest {max(seconds):.1f} s")
            time.sleep(5)
            print(f"memory: {before:.0f} MiB before, {resident(process.pid):.0f} MiB after")
            time_the_page(folder)
        finally:
            process.terminate()


class Visitor:
    """A client with a photograph of its own."""

    def __init__(self, number: int, folder: Path) -> None:
        random = np.random.default_rng(number)
        self.photo = random.integers(0, 256, (SIDE + number, SIDE, 3), np.uint8)
        self.hole = np.zeros(self.photo.shape[:2], bool)
        self.hole[100 + number : 164 + number, 200:264] = True
        self.paths = [folder / f"{number}-{kind}.png" for kind in ("photo", "mask")]
        Image.fromarray(self.photo).save(self.paths[0])
        Image.fromarray(self.hole).save(self.paths[1])
        self.client = Client(f"http://127.0.0.1:{PORT}", verbose=False)

    def complete(self) -> float:
        """Seconds until the completed photograph was here; fails if it is another's."""
        begin = time.perf_counter()
        path, _ = self.client.predict(*map(handle_file, self.paths), False, 0, api_name="/complete")
        seconds = time.perf_counter() - begin
        with Image.open(path) as image:
            completed = np.asarray(image)
        assert np.array_equal(completed[~self.hole], self.photo[~self.hole])
        assert not np.array_equal(completed[self.hole], self.photo[self.hole])
        return seconds


def time_the_page(folder: Path) -> None:
    """Completes a photograph in a browser, five times: from the press to the result on the page."""
    visitor = Visitor(0, folder)
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=flags)
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{PORT}")
        page.wait_for_selector("text=Drop a photo")
        page.set_input_files("#photograph", visitor.paths[0])
        page.wait_for_selector("[data-do=remove]:enabled")
        page.set_input_files("#mask", visitor.paths[1])
        page.wait_for_selector("[data-do=undo]:enabled")
        for _ in range(5):
            begin = time.perf_counter()
            page.click("[data-do=remove]")
            page.wait_for_selector(".notice")
            print(f"in the page: {time.perf_counter() - begin:.2f} s; {page.inner_text('.notice')}")
            page.click("[data-do=undo]")
        browser.close()


def is_up() -> bool:
    """Whether the page can be had."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/") as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def resident(process: int) -> float:
    """MiB of memory that a process holds (Linux)."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


if __name__ == "__main__":
    main()

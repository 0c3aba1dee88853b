"""Takes the README's screenshots of the demo: light, dark, and on a phone.

python docs/screenshots.py [--output docs]

Needs the extra `dev` and Chromium.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

from glcic_hub.demo.app import CSS, make_demo

SAMPLE = "Remove the tower"


def main() -> None:
    """Starts the demo, completes a sample in it, and takes screenshots of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("docs"), metavar="FOLDER")
    options = parser.parse_args()
    demo = make_demo()
    _, address, _ = demo.launch(prevent_thread_lock=True, quiet=True, footer_links=["api"], css=CSS)
    with sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=flags)
        for name, theme, width, height in (
            ("demo-light", "light", 1280, 860),
            ("demo-dark", "dark", 1280, 860),
            ("demo-phone", "light", 390, 1500),
        ):
            shoot(browser, f"{address}?__theme={theme}", options.output / f"{name}.jpg", width, height)
        browser.close()
    demo.close()


def shoot(browser: Browser, address: str, path: Path, width: int, height: int) -> None:
    """Completes the sample in a window of a size, and takes a screenshot of it."""
    page = browser.new_page(viewport={"width": width, "height": height})
    page.goto(address)
    page.click(f"text={SAMPLE}")
    page.wait_for_function("document.querySelector('#message textarea').value != ''", timeout=60_000)
    page.wait_for_timeout(2500)  # images come in, marks of progress go
    page.evaluate("window.scrollTo(0, 0)")
    page.screenshot(path=path, quality=88)
    page.close()


if __name__ == "__main__":
    main()

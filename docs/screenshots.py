"""Takes the README's screenshots of the demo: empty, painting, done, comparing, dark, and on a phone.

python docs/screenshots.py [--output docs] [--samples glcic_hub/demo/samples]

Needs the extra `dev` and Chromium. With --samples it makes the thumbnails of the page's samples anew, first.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps
from playwright.sync_api import Page, sync_playwright

from glcic_hub import GLCICPipeline
from glcic_hub.demo.app import SAMPLE_TITLES, make_demo, sample_of

SAMPLE = "Remove the tower"
DESKTOP: dict[str, Any] = {"viewport": {"width": 1120, "height": 720}}
PHONE: dict[str, Any] = {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 2, "has_touch": True}


def main() -> None:
    """Starts the demo, and takes screenshots of what a visitor does with it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("docs"), metavar="FOLDER")
    parser.add_argument("--samples", type=Path, metavar="FOLDER")
    options = parser.parse_args()
    if options.samples:
        make_thumbnails(options.samples)
    demo = make_demo()
    _, address, _ = demo.launch(prevent_thread_lock=True, quiet=True, footer_links=["api"])
    with sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=flags)
        for theme, window, stages in (
            ("light", DESKTOP, {stage: stage for stage in ("empty", "painting", "done", "comparing")}),
            ("dark", DESKTOP, {"painting": "dark"}),
            ("light", PHONE, {"done": "phone"}),
        ):
            page = browser.new_page(**window)
            page.goto(f"{address}?__theme={theme}")
            page.wait_for_selector("text=Drop a photo")
            for stage in go_through(page):
                if stage in stages:
                    page.wait_for_timeout(500)
                    page.screenshot(path=options.output / f"demo-{stages[stage]}.jpg", quality=88, scale="css")
            page.close()
        browser.close()
    demo.close()


def go_through(page: Page) -> Iterator[str]:
    """Completes the sample, and names each stage when it is reached."""
    yield "empty"
    page.click(f"text={SAMPLE}")
    page.wait_for_selector(".notice", timeout=60_000)
    yield "done"
    page.click("[aria-label=Undo]")
    yield "painting"
    page.click("[aria-label=Redo]")
    page.locator("[data-do=compare]").dispatch_event("pointerdown")
    yield "comparing"


def make_thumbnails(folder: Path) -> None:
    """Completes the samples; each as a small image, before and after, of what is around the hole."""
    folder.mkdir(exist_ok=True)
    for name in SAMPLE_TITLES:
        pipe = GLCICPipeline.from_pretrained("faces" if name == "face" else None)
        before, mask = sample_of(name)
        left, top, right, bottom = mask.getbbox() or (0, 0, *mask.size)
        side = min(max(right - left, bottom - top) * 3 // 2, *before.size)
        x = min(max((left + right - side) // 2, 0), before.width - side)
        y = min(max((top + bottom - side) // 2, 0), before.height - side)
        both = Image.new("RGB", (324, 160), "white")
        for place, image in ((0, before), (164, pipe(before, mask))):
            both.paste(ImageOps.fit(image.crop((x, y, x + side, y + side)), (160, 160)), (place, 0))
        both.save(folder / f"{name}.webp", quality=82)


if __name__ == "__main__":
    main()

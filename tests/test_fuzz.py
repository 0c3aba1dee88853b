"""Broken files of every format: each is completed, or refused in a sentence, and nothing else happens."""

from __future__ import annotations

import io
import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, features

from glcic_hub.cli.main import main
from glcic_hub.demo.files import open_photo
from tests.conftest import make_hole, make_photo

HEIGHT, WIDTH = 46, 61
COUNT = 2000
SECONDS, MEGABYTES = 20, 2000
"""The longest that a file may take, and how far memory may grow."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # of what is broken, some thousand times
]


def originals() -> Iterator[tuple[str, bytes]]:
    """Whole files, with suffixes: each format with the modes and blocks that are read in ways of their own."""
    rgb = Image.fromarray(make_photo(HEIGHT, WIDTH))
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "Camera"
    orientation = Image.Exif()
    orientation[0x0112] = 6
    exif[0x8769] = {0x9003: "2020:01:01 00:00:00"}
    alpha = rgb.copy()
    alpha.putalpha(200)
    grey16 = Image.fromarray(np.asarray(rgb)[..., 1].astype(np.uint16) * 257)
    images: dict[str, list[tuple[Image.Image, dict[str, Any]]]] = {
        ".jpg": [(rgb, {"exif": exif, "dpi": (300, 300)}), (rgb.convert("CMYK"), {}), (rgb, {"progressive": True})],
        ".png": [(alpha, {"exif": exif}), (rgb.quantize(40), {}), (grey16, {}), (rgb.convert("1"), {})],
        ".tif": [(rgb, {"exif": orientation, "compression": "tiff_adobe_deflate"}),
                 (alpha, {"compression": "tiff_lzw"}),
                 (rgb.convert("F").point(lambda level: level / 255), {}), (rgb, {})],
        ".webp": [(rgb, {"exif": exif}), (alpha, {"lossless": True})],
        ".gif": [(rgb, {})],
        ".bmp": [(rgb, {}), (rgb.quantize(10), {})],
    }  # fmt: skip
    if features.check("avif"):
        images[".avif"] = [(rgb, {"exif": exif})]
    formats = {".jpg": "JPEG", ".tif": "TIFF"}
    for suffix, variants in images.items():
        for image, options in variants:
            buffer = io.BytesIO()
            image.save(buffer, formats.get(suffix, suffix[1:].upper()), **options)
            yield suffix, buffer.getvalue()


def mutate(content: bytes, random: np.random.Generator) -> bytes:
    """Changes, drops or repeats bytes, most often near the beginning, where the headers are."""
    mutated = bytearray(content)
    for _ in range(random.integers(1, 5)):
        place = int(random.integers(min(len(mutated), 400) if random.random() < 0.7 else len(mutated)))
        length = int(random.integers(1, 40))
        kind = random.integers(6)
        if kind == 0:
            mutated[place] = random.integers(256)
        elif kind == 1:
            mutated[place : place + 4] = random.choice([b"\xff" * 4, b"\x7f\xff\xff\xff", b"\0" * 4, b"\0\0\xff\xff"])
        elif kind == 2:
            del mutated[place : place + length]
        elif kind == 3:
            mutated[place:place] = mutated[place : place + length]
        elif kind == 4:
            mutated[place : place + length] = random.bytes(length)
        elif random.random() < 0.3:
            del mutated[max(place, 8) :]
    return bytes(mutated) or content


def test_mutated_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    random = np.random.default_rng(0)
    folder, results = tmp_path / "images", tmp_path / "results"
    folder.mkdir()
    whole = list(originals())
    for number in range(COUNT):
        suffix, content = whole[number % len(whole)]
        (folder / f"{number:04}{suffix}").write_bytes(mutate(content, random))
    for turned, name in ((False, "mask.png"), (True, "turned.png")):
        hole = make_hole(WIDTH, HEIGHT) if turned else make_hole(HEIGHT, WIDTH)
        Image.fromarray(hole.astype(np.uint8) * 255).save(tmp_path / name)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    # All at once through the command line, with masks of either orientation.
    completed = 0
    for mask in ("mask.png", "turned.png"):
        arguments = ["complete", folder, tmp_path / mask, "-o", results / mask, "--detail", "none"]
        assert main(list(map(str, arguments))) in (0, 1)
        out, err = capsys.readouterr()
        written = [path for path in (results / mask).rglob("*") if path.is_file()]
        failed = [line for line in err.splitlines() if line.startswith("glcic: error: ")]
        assert f"completed {len(written)} images" in out and "Traceback" not in err
        assert len(written) + len(failed) >= COUNT, err[-2000:]
        for path in written:
            with Image.open(path) as image:
                image.load()
        completed += len(written)
    assert COUNT / 10 < completed < COUNT  # else what is tried is too broken, or not broken

    # One by one through the demo's reader.
    slowest = 0.0
    for path in sorted(folder.iterdir()):
        begin = time.perf_counter()
        try:
            open_photo(str(path))
        except ValueError as error:
            assert "\n" not in str(error) and str(folder) not in str(error), error
        slowest = max(slowest, time.perf_counter() - begin)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert slowest < SECONDS and grown < MEGABYTES, (slowest, grown)
    assert {path.name for path in tmp_path.iterdir()} == {"images", "mask.png", "turned.png", "results"}
    with capsys.disabled():
        print(f"\n{completed} of {COUNT} mutated files completed, slowest {slowest:.1f} s, {grown:.0f} MB more")

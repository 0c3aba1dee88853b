"""The command line as users meet it: what it writes, what it says, and its exit codes."""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from glcic_hub import GLCICPipeline
from glcic_hub.cli.main import main, make_parser
from glcic_hub.images.masks import dilate
from tests.conftest import LAUNCH_TWO, TWO_PROCESSES, make_hole, make_photo, make_unreadable

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(model_folder: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs `glcic complete` with the small model; gives exit code, standard output and standard error."""

    def complete(*arguments: str | Path) -> tuple[int, str, str]:
        fixed = ["--model", str(model_folder), "--device", "cpu", "--dtype", "float32"]
        code = main(["complete", *map(str, arguments), *fixed])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return complete


def pixels(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        return np.array(image)


def test_one_image(run: Run, pipe: GLCICPipeline, tmp_path: Path, photo_file: Path, mask_file: Path) -> None:
    out = tmp_path / "out.png"
    assert run(photo_file, mask_file, "-o", out) == (0, f"wrote {out}\n", "")
    assert np.array_equal(pixels(out), pipe(pixels(photo_file), pixels(mask_file)))


def test_blending_and_inverted_mask(run: Run, pipe: GLCICPipeline, photo_file: Path, mask_file: Path) -> None:
    mask = pixels(mask_file)
    inverted = mask_file.with_name("inverted.png")
    Image.fromarray(255 - mask).save(inverted)
    out = photo_file.with_name("out.png")
    code, _, _ = run(photo_file, inverted, "-o", out, "--invert-mask", "--blend", "poisson")
    assert code == 0
    assert np.array_equal(pixels(out), pipe(pixels(photo_file), mask, blend="poisson"))


def test_holes_grow(run: Run, pipe: GLCICPipeline, tmp_path: Path, photo_file: Path, mask_file: Path) -> None:
    """By all pixels within the distance, in a file and in a folder, after the mask was inverted."""
    grown = dilate(pixels(mask_file) > 0, 3)
    expected = pipe(pixels(photo_file), grown)
    inverted = mask_file.with_name("inverted.png")
    Image.fromarray(255 - pixels(mask_file)).save(inverted)
    row = tmp_path / "row.png"
    options = ["--grow", "3", "--invert-mask"]
    assert run(photo_file, inverted, "-o", tmp_path / "out.png", "--comparison", row, *options)[0] == 0
    assert np.array_equal(pixels(tmp_path / "out.png"), expected)
    assert (pixels(row)[:, : grown.shape[1]][grown] == 255).all()
    (tmp_path / "images").mkdir()
    shutil.copy(photo_file, tmp_path / "images" / "a.png")
    assert run(tmp_path / "images", inverted, "-o", tmp_path / "results", *options)[0] == 0
    assert np.array_equal(pixels(tmp_path / "results" / "a.png"), expected)
    code, _, err = run(photo_file, mask_file, "-o", tmp_path / "other.png", "--grow", "-1")
    assert code == 1 and "a hole grows by 0 pixels or more, not by -1" in err
    with pytest.raises(SystemExit):
        run(photo_file, "--mask-from-alpha", "--grow", "3", "-o", tmp_path / "other.png")


def test_standard_input_and_output(
    model_folder: Path,
    pipe: GLCICPipeline,
    photo_file: Path,
    mask_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsysbinary: pytest.CaptureFixture[bytes],
) -> None:
    """Through a pipe, in which nothing can be looked for twice; nothing but the image is on standard output."""

    def complete(content: bytes, *arguments: str | Path) -> tuple[int, bytes, str]:
        reader, writer = os.pipe()
        os.write(writer, content)
        os.close(writer)
        fixed = ["--model", str(model_folder), "--device", "cpu", "--dtype", "float32"]
        with os.fdopen(reader) as pipe_in:
            monkeypatch.setattr("sys.stdin", pipe_in)
            code = main(["complete", "-", *map(str, arguments), *fixed])
        captured = capsysbinary.readouterr()
        return code, captured.out, captured.err.decode()

    row = photo_file.with_name("row.png")
    expected = pipe(pixels(photo_file), pixels(mask_file))
    code, out, err = complete(photo_file.read_bytes(), mask_file, "-o", "-", "--comparison", row)
    assert (code, err) == (0, f"wrote {row}\n") and row.exists()
    with Image.open(io.BytesIO(out)) as image:
        assert image.format == "PNG" and np.array_equal(np.asarray(image), expected)
    to_file = photo_file.with_name("out.png")
    assert complete(photo_file.read_bytes(), mask_file, "-o", to_file) == (0, f"wrote {to_file}\n".encode(), "")
    assert np.array_equal(pixels(to_file), expected)
    code, out, err = complete(b"nothing", mask_file, "-o", "-")
    assert (code, out) == (1, b"") and err.startswith("glcic: error: cannot read ") and "not an image" in err
    with pytest.raises(SystemExit):
        main(["complete", str(photo_file.parent), str(mask_file), "-o", "-"])


def test_without_detail(run: Run, pipe: GLCICPipeline, photo_file: Path, mask_file: Path) -> None:
    out = photo_file.with_name("out.png")
    assert run(photo_file, mask_file, "-o", out, "--detail", "none")[0] == 0
    assert np.array_equal(pixels(out), pipe(pixels(photo_file), pixels(mask_file), detail="none"))


def test_mask_from_alpha(run: Run, tmp_path: Path) -> None:
    image = Image.fromarray(make_photo(46, 61)).convert("RGBA")
    image.putalpha(Image.fromarray(255 - make_hole(46, 61)))
    image.save(tmp_path / "photo.png")
    code, _, _ = run(tmp_path / "photo.png", "--mask-from-alpha", "-o", tmp_path / "out.png")
    assert code == 0
    assert (pixels(tmp_path / "out.png")[..., 3] == 255).all()


@pytest.mark.parametrize("name", ["coffee", "chelsea", "astronaut", "rocket"])
def test_samples(run: Run, tmp_path: Path, name: str) -> None:
    code, out, _ = run("--sample", name, "-o", tmp_path / "out.png", "--comparison", tmp_path / "row.png")
    assert (code, out) == (0, f"wrote {tmp_path / 'out.png'}\nwrote {tmp_path / 'row.png'}\n")
    completed, row = pixels(tmp_path / "out.png"), pixels(tmp_path / "row.png")
    height, width = completed.shape[:2]
    assert row.shape == (height, 3 * width + 16, 3)
    hole, middle, original = row[:, :width], row[:, width + 8 : 2 * width + 8], row[:, 2 * width + 16 :]
    changed = (completed != original).any(axis=2)
    assert np.array_equal(middle, completed)
    assert 0.01 < changed.mean() < 0.15
    assert (hole[changed] == 255).all()
    assert (hole == original)[~changed].mean() > 0.99  # but for hole pixels whose fill is the original by chance


def test_jpeg_output_says_that_it_is_lossy(run: Run, tmp_path: Path, photo_file: Path, mask_file: Path) -> None:
    code, _, err = run(photo_file, mask_file, "-o", tmp_path / "out.jpg")
    assert code == 0 and err.count("\n") == 1 and "JPEG changes pixels outside the hole" in err


def test_marks_that_are_too_dark_are_a_warning(run: Run, tmp_path: Path, photo_file: Path) -> None:
    """Once, whatever else is made of the mask."""
    labels = make_hole(46, 61)
    labels[30:36, 10:20] = 1
    Image.fromarray(labels).save(tmp_path / "labels.png")
    outputs = ["-o", tmp_path / "out.png", "--comparison", tmp_path / "row.png"]
    code, _, err = run(photo_file, tmp_path / "labels.png", *outputs)
    assert code == 0 and err.count("\n") == 1
    assert err.startswith("glcic: warning: 60 pixels of the mask are marked by values of up to 1 of 255")


def test_an_empty_mask_is_a_warning(run: Run, tmp_path: Path, photo_file: Path) -> None:
    Image.new("L", (61, 46)).save(tmp_path / "empty.png")
    code, _, err = run(photo_file, tmp_path / "empty.png", "-o", tmp_path / "out.png")
    assert code == 0
    assert err.startswith("glcic: warning: the mask is empty") and err.count("\n") == 1
    assert np.array_equal(pixels(tmp_path / "out.png"), pixels(photo_file))


def bad_inputs(folder: Path) -> dict[str, tuple[list[str | Path], str]]:
    """Arguments that cannot be completed, and what the error must say."""
    photo, mask = folder / "photo.png", folder / "mask.png"
    image = Image.fromarray(make_photo(46, 61))
    image.save(photo)
    Image.fromarray(make_hole(46, 61)).save(mask)
    out = folder / "out.png"
    (folder / "text.png").write_text("not an image")
    image.save(folder / "whole.jpg")
    (folder / "truncated.jpg").write_bytes((folder / "whole.jpg").read_bytes()[:-300])
    (folder / "truncated.png").write_bytes(photo.read_bytes()[:-900])
    (folder / "empty.png").write_bytes(b"")
    Image.new("L", (30, 20)).save(folder / "small mask.png")
    Image.new("L", (61, 46), 255).save(folder / "full mask.png")
    Image.new("RGB", (3, 9)).save(folder / "tiny.png")
    Image.new("L", (3, 9)).save(folder / "tiny mask.png")
    Image.new("1", (14_000, 14_000)).save(folder / "bomb.png")
    cv2.imwrite(str(folder / "deep.png"), np.full((46, 61, 3), 30_000, np.uint16))
    image.save(folder / "animated.gif", save_all=True, append_images=[Image.new("RGB", (61, 46))])
    Image.fromarray(np.full((46, 61), np.nan, np.float32)).save(folder / "nan.tif")
    image.save(folder / "existing.png")
    return {
        "missing image": ([folder / "no.png", mask, "-o", out], "no file"),
        "missing images": ([folder / "no", mask, "-o", folder / "results"], "no file or folder"),
        "missing mask": ([photo, folder / "no.png", "-o", out], "no file"),
        "text as image": ([folder / "text.png", mask, "-o", out], "not an image"),
        "text as mask": ([photo, folder / "text.png", "-o", out], "not an image"),
        "empty file": ([folder / "empty.png", mask, "-o", out], "not an image"),
        "truncated JPEG": ([folder / "truncated.jpg", mask, "-o", out], "cannot read"),
        "truncated PNG": ([folder / "truncated.png", mask, "-o", out], "cannot read"),
        "other size": ([photo, folder / "small mask.png", "-o", out], "61x46 pixels as displayed and the mask 30x20"),
        "full mask": ([photo, folder / "full mask.png", "-o", out], "covers the whole image"),
        "tiny image": ([folder / "tiny.png", folder / "tiny mask.png", "-o", out], "3x9 pixels; the least is 4x4"),
        "bomb": ([folder / "bomb.png", mask, "-o", out], "14000x14000 pixels, and at most 178956970 are read"),
        "pixels": ([photo, mask, "-o", out, "--max-pixels", "2805"], "it is 61x46 pixels, and at most 2805 are read"),
        "16-bit colour": ([folder / "deep.png", mask, "-o", out], "deep.png: it has 16 bits a channel"),
        "animation": ([folder / "animated.gif", mask, "-o", out], "2 frames"),
        "NaN": ([folder / "nan.tif", mask, "-o", out.with_suffix(".tif")], "NaN"),
        "no alpha": ([photo, "--mask-from-alpha", "-o", out], "no transparent pixels"),
        "no folder": ([photo, mask, "-o", folder / "no" / "out.png"], "does not exist"),
        "unwritable folder": ([photo, mask, "-o", "/proc/out.png"], "cannot write /proc/out.png"),
        "folder as output": ([photo, mask, "-o", folder], "suffix must be one of"),
        "unknown format": ([photo, mask, "-o", folder / "out.xyz"], "suffix must be one of"),
        "comparison on standard output": ([photo, mask, "-o", out, "--comparison", "-"], "suffix must be one of"),
        "existing output": ([photo, mask, "-o", folder / "existing.png"], "exists and is kept"),
        "existing row": ([photo, mask, "-o", out, "--comparison", folder / "existing.png"], "exists and is kept"),
        "one file for both": ([photo, mask, "-o", out, "--comparison", folder / "." / "out.png"], "cannot hold both"),
        "inverted alpha": ([photo, "--mask-from-alpha", "--invert-mask", "-o", out], "no mask to invert"),
        "unknown sample": (["--sample", "cat", "-o", out], "coffee, chelsea, astronaut, rocket"),
        "folder as mask": ([photo, folder, "-o", out], "is a folder"),
        "a file as output folder": ([folder, mask, "-o", photo], "cannot make the output folder"),
        "images' folder as output": ([folder, mask, "-o", folder], "is that of the images"),
    }  # fmt: skip


def test_bad_input_gives_one_line_and_writes_nothing(run: Run, tmp_path: Path) -> None:
    def snapshot() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    cases = bad_inputs(tmp_path)
    before = snapshot()
    for name, (arguments, message) in cases.items():
        code, out, err = run(*arguments)
        errors = [line for line in err.splitlines() if "warning" not in line]
        assert (code, out, len(errors)) == (1, "", 1), (name, err)
        assert errors[0].startswith("glcic: error: ") and message in errors[0], (name, err)
        assert snapshot() == before, name


def test_overwrite(run: Run, photo_file: Path, mask_file: Path) -> None:
    """Also the input itself, which is replaced only once the result is whole."""
    before = pixels(photo_file)
    code, _, _ = run(photo_file, mask_file, "-o", photo_file, "--overwrite")
    assert code == 0
    assert np.array_equal(pixels(photo_file)[pixels(mask_file) == 0], before[pixels(mask_file) == 0])


def test_comparison_of_a_image_that_is_overwritten(run: Run, photo_file: Path, mask_file: Path) -> None:
    before = pixels(photo_file)
    row = photo_file.with_name("row.png")
    code, _, _ = run(photo_file, mask_file, "-o", photo_file, "--overwrite", "--comparison", row)
    assert code == 0
    assert np.array_equal(pixels(row)[:, -before.shape[1] :], before)


def test_folders_that_overlap(run: Run, tmp_path: Path, mask_file: Path) -> None:
    """Results of an earlier run and masks are no input; masks are not overwritten; hidden folders are passed over."""
    images, masks = tmp_path / "images", tmp_path / "images" / "masks"
    for folder in (images / ".trash", masks):
        folder.mkdir(parents=True)
    Image.fromarray(make_photo(46, 61)).save(images / "a.png")
    shutil.copy(images / "a.png", images / ".trash" / "b.png")
    shutil.copy(mask_file, masks / "a.png")
    for _ in range(2):
        assert run(images, masks, "-o", images / "out", "--overwrite")[0] == 0
    assert [path.name for path in (images / "out").rglob("*")] == ["a.png"]
    code, _, err = run(images, masks, "-o", masks, "--overwrite")
    assert code == 1 and "is that of the masks" in err
    assert (masks / "a.png").read_bytes() == mask_file.read_bytes()
    shutil.copy(mask_file, images / "mask.png")
    shutil.rmtree(masks)
    shutil.rmtree(images / "out")
    assert run(images, images / "mask.png", "-o", tmp_path / "deep" / "out")[0] == 0
    assert [path.name for path in (tmp_path / "deep" / "out").iterdir()] == ["a.png"]
    shutil.copy(mask_file, tmp_path / "a.png")
    (images / "mask.png").unlink()
    assert run(images, tmp_path, "-o", tmp_path / "other")[0] == 0  # the images lie within the folder of the masks
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["a.png"]


def test_folders(run: Run, pipe: GLCICPipeline, tmp_path: Path) -> None:
    """Masks by name, subfolders, one that fails and the rest that goes on, exit code 1."""
    images, masks, results = (tmp_path / name for name in ("images", "masks", "results"))
    for folder in (images / "deep", masks / "deep"):
        folder.mkdir(parents=True)
    for index, name in enumerate(["a.png", "b.webp", "deep/c.jpg", "d.png", "e.bmp"]):
        Image.fromarray(make_photo(46, 61, seed=index)).save(images / name, quality=100, lossless=True)
        Image.fromarray(make_hole(46, 61)).save((masks / name).with_suffix(".png"))
    (images / "b.webp").rename(images / "b.webp.txt")  # no image: passed over
    (masks / "d.png").unlink()
    (images / "e.bmp").write_text("broken")
    code, out, err = run(images, masks, "-o", results)
    assert code == 1
    lines = [line for line in err.splitlines() if line.startswith("glcic")]
    assert len(lines) == 3 and re.search(r"^completed 2 images in [\d.]+ s, [\d.]+ a second$", out, re.MULTILINE)
    assert "d.png" in lines[0] and "no mask called d" in lines[0]
    assert "e.bmp" in lines[1] and "not an image" in lines[1]
    assert lines[2] == "glcic: 2 images failed"
    assert sorted(str(path.relative_to(results)) for path in results.rglob("*.*")) == ["a.png", "deep/c.png"]
    expected = pipe(images / "deep" / "c.jpg", masks / "deep" / "c.png")
    assert np.array_equal(pixels(results / "deep" / "c.png"), np.asarray(expected))

    (images / "e.bmp").unlink()
    Image.fromarray(make_hole(46, 61)).save(masks / "d.png")
    kept = (results / "a.png").stat()
    code, out, err = run(images, masks, "-o", results)
    assert code == 0 and "completed 1 images" in out and "kept 2 that" in out
    assert (results / "a.png").stat() == kept and (results / "d.png").exists()


def test_a_folder_of_phones_and_browsers(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that Pillow reads is completed, links are followed, and what is left is named."""
    images, disk, results = tmp_path / "images", tmp_path / "disk", tmp_path / "out"
    images.mkdir()
    disk.mkdir()
    photo = Image.fromarray(make_photo(46, 61))
    for name in ("a.jfif", "b.jpe", "c.avif"):
        photo.save(images / name, None if name != "b.jpe" else "JPEG")
    photo.save(disk / "d.jpg")
    (images / "more").symlink_to(disk)
    (disk / "back").symlink_to(images)
    (images / "e.heic").touch()
    (images / "gone.jpg").symlink_to(tmp_path / "gone.jpg")
    make_unreadable(images, monkeypatch)
    Image.fromarray(make_hole(46, 61)).save(tmp_path / "mask.png")
    code, out, err = run(images, tmp_path / "mask.png", "-o", results)
    assert code == 1 and "completed 4 images" in out
    lines = [line for line in err.splitlines() if line.startswith("glcic")]
    assert lines[0] == "glcic: warning: left out 1 files that look like images of other formats: e.heic"
    assert lines[-1] == "glcic: 2 images failed" and len(lines) == 4
    assert any(line == f"glcic: error: {images / 'gone.jpg'}: the link leads nowhere" for line in lines)
    assert any(line.endswith("xxx: cannot be read: File name too long") for line in lines)
    found = sorted(str(path.relative_to(results)) for path in results.rglob("*.*"))
    assert found == ["a.png", "b.png", "c.png", "more/d.png"]


def test_masks_beside_their_images(run: Run, pipe: GLCICPipeline, tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for name in ("a.png", "b.jpg"):
        Image.fromarray(make_photo(46, 61)).save(images / name)
    for name in ("a_mask001.png", "b.jpg.png"):
        Image.fromarray(make_hole(46, 61)).save(images / name)
    code, out, _ = run(images, images, "-o", tmp_path / "out")
    assert code == 0 and "completed 2 images" in out
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.png", "b.png"]
    assert np.array_equal(pixels(tmp_path / "out" / "a.png"), pipe(pixels(images / "a.png"), make_hole(46, 61)))


@pytest.mark.parametrize(
    ("size", "output", "row", "message"),
    [
        ((16_384, 4), "out.webp", None, "WEBP takes at most 16383 pixels a side, and it would have 16384x4"),
        ((4, 65_501), "out.jpg", None, "JPEG takes at most 65500 pixels a side, and it would have 4x65501"),
        ((5_500, 4), "out.png", "row.webp", "WEBP takes at most 16383 pixels a side, and it would have 16516x4"),
    ],
)  # fmt: skip
def test_limits_of_formats_before_the_work(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    size: tuple[int, int],
    output: str,
    row: str | None,
    message: str,
) -> None:
    """Even the model, which does not exist, is not looked for."""
    Image.new("L", size).save(tmp_path / "photo.png")
    Image.new("L", size, 255).save(tmp_path / "mask.png")
    arguments = [str(tmp_path / "photo.png"), str(tmp_path / "mask.png"), "-o", str(tmp_path / output)]
    arguments += ["--comparison", str(tmp_path / row)] if row else []
    assert main(["complete", *arguments, "--model", str(tmp_path / "nothing")]) == 1
    assert message in capsys.readouterr().err


def test_what_a_format_lacks_is_said_before_the_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exif = Image.Exif()
    exif[0x010E] = "x" * 66_000
    Image.fromarray(make_photo(46, 61)).save(tmp_path / "long.png", exif=exif)
    Image.new("RGBA", (61, 46)).save(tmp_path / "alpha.png")
    for name, message in (("long.png", "at most 65533 bytes of EXIF"), ("alpha.png", "JPEG cannot hold transparency")):
        arguments = [str(tmp_path / name), "--mask-from-alpha", "-o", str(tmp_path / "out.jpg")]
        assert main(["complete", *arguments, "--model", str(tmp_path / "nothing")]) == 1
        assert message in capsys.readouterr().err


def test_a_folder_on_two_processes(tmp_path: Path, mask_file: Path, model_folder: Path) -> None:
    """Each completes its share of what is left, one that fails is told of once, the figures are those of both."""
    (tmp_path / "images").mkdir()
    (tmp_path / "out").mkdir()
    for index in range(7):
        Image.fromarray(make_photo(46, 61, seed=index)).save(tmp_path / "images" / f"{index}.png")
    (tmp_path / "images" / "5.png").write_text("broken")
    (tmp_path / "out" / "0.png").write_text("of an earlier run")
    command = ["-m", "glcic_hub", "complete", tmp_path / "images", mask_file, "-o", tmp_path / "out"]
    done = subprocess.run(
        [*LAUNCH_TWO, "--mixed_precision", "no", *map(str, [*command, "--model", model_folder])],
        capture_output=True, text=True, timeout=300, check=False, env=TWO_PROCESSES,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stdout.count("completed 5 images in") == 1 and done.stdout.count("kept 1 that") == 1
    assert "3/3" in done.stderr  # the main process's share of the six that are left
    assert done.stderr.count("not an image") == 1 and "glcic: 1 images failed" in done.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        f"{index}.png" for index in (0, 1, 2, 3, 4, 6)
    ]
    assert (tmp_path / "out" / "0.png").read_text() == "of an earlier run"


def test_processes_that_cannot_join(
    run: Run, tmp_path: Path, mask_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each would complete the whole folder."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("ACCELERATE_USE_CPU", raising=False)
    (tmp_path / "images").mkdir()
    Image.fromarray(make_photo(46, 61)).save(tmp_path / "images" / "a.png")
    code, _, err = run(tmp_path / "images", mask_file, "-o", tmp_path / "out")
    assert code == 1 and "with ACCELERATE_USE_CPU=true they share the CPU" in err


def test_folder_with_one_mask_for_all(run: Run, tmp_path: Path, mask_file: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "out").mkdir()
    for index in range(2):
        Image.fromarray(make_photo(46, 61, seed=index)).save(tmp_path / "images" / f"{index}.png")
    code, _, err = run(tmp_path / "images", mask_file, "-o", tmp_path / "out")
    assert code == 0 and "glcic:" not in err
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["0.png", "1.png"]

    code, _, err = run(tmp_path / "images", mask_file, "-o", tmp_path / "out", "--overwrite", "--max-pixels", "2805")
    assert code == 1 and err.count("--max-pixels 2806") == 2

    Image.new("L", (61, 46)).save(mask_file)
    code, _, err = run(tmp_path / "images", mask_file, "-o", tmp_path / "out", "--overwrite")
    assert code == 0 and err.count("warning") == 2
    assert f"glcic: warning: {tmp_path / 'images' / '1.png'}: the mask is empty" in err


def test_images_that_would_become_one_file(run: Run, tmp_path: Path, mask_file: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "out").mkdir()
    for suffix in ("png", "jpg"):
        Image.fromarray(make_photo(46, 61)).save(tmp_path / "images" / f"a.{suffix}")
    code, _, err = run(tmp_path / "images", mask_file, "-o", tmp_path / "out", "--overwrite")
    assert code == 1 and err.count("several images would become") == 2
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["complete"],
        ["complete", "a.png", "-o", "b.png"],
        ["complete", "a.png", "m.png"],
        ["complete", "a.png", "m.png", "--mask-from-alpha", "-o", "b.png"],
        ["complete", "a.png", "--sample", "coffee", "-o", "b.png"],
        ["complete", "--sample", "coffee", "--mask-from-alpha", "-o", "b.png"],
        ["complete", "a.png", "m.png", "-o", "b.png", "--blend", "feather"],
        ["complete", "a.png", "m.png", "-o", "b.png", "--detail", "fine"],
    ],
)
def test_wrong_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert "usage: glcic" in capsys.readouterr().err


def test_wrong_device_and_model(tmp_path: Path, capsys: pytest.CaptureFixture[str], model_folder: Path) -> None:
    shutil.copytree(model_folder, tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").write_bytes(b"junk")
    base = ["complete", "--sample", "coffee", "-o", str(tmp_path / "out.png")]
    for options, message in (
        (["--model", str(tmp_path / "model")], "not a whole safetensors file"),
        (["--model", str(tmp_path / "nothing")], "no model in"),
        (["--model", str(model_folder), "--device", "abacus"], "cannot use the device 'abacus'"),
    ):
        assert main([*base, *options]) == 1
        err = capsys.readouterr().err
        assert message in err and err.count("\n") == 1
    assert not (tmp_path / "out.png").exists()


def test_in_a_process_of_its_own(tmp_path: Path, photo_file: Path, mask_file: Path, model_folder: Path) -> None:
    """No traceback, no warning, exit codes that a script sees."""
    glcic = [sys.executable, "-m", "glcic_hub", "complete"]
    options = [str(mask_file), "-o", str(tmp_path / "out.png"), "--model", str(model_folder)]
    good = subprocess.run([*glcic, str(photo_file), *options], capture_output=True, text=True, check=False)
    assert (good.returncode, good.stdout, good.stderr) == (0, f"wrote {tmp_path / 'out.png'}\n", "")
    bad = subprocess.run([*glcic, str(photo_file), *options], capture_output=True, text=True, check=False)
    assert bad.returncode == 1 and bad.stderr.count("\n") == 1 and "Traceback" not in bad.stderr


def test_train(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Flags override the recipe; a resumed run takes its own; errors from a worker process come in one line."""
    (tmp_path / "photographs").mkdir()
    photograph = tmp_path / "photographs" / "a.png"
    Image.fromarray(make_photo(40, 40)).save(photograph)
    (tmp_path / "recipe.yaml").write_text(
        "{width: 4, image_size: 32, patch_size: 16, resize: [32, 40], hole_size: [8, 16], batch_size: 2, "
        "completion_steps: 9, discriminator_steps: 0, total_steps: 9, optimizer: adamw, learning_rate: 0.01}"
    )
    arguments = ["train", "--data", str(photograph.parent), "--output", str(tmp_path / "run"), "--save-every", "1"]
    overrides = ["--recipe", str(tmp_path / "recipe.yaml"), "--completion-steps", "2", "--total-steps", "2"]
    assert main([*arguments, *overrides]) == 0
    assert capsys.readouterr().out == f"wrote {tmp_path / 'run' / 'model'}\n"

    shutil.rmtree(tmp_path / "run" / "checkpoint-00000002")
    photograph.write_bytes(photograph.read_bytes()[:1000])
    assert main([*arguments, "--resume", "--alpha", "0.5"]) == 1
    assert "begun with another recipe: alpha 0.0004 and 0.5" in capsys.readouterr().err
    assert main([*arguments, "--resume"]) == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if "glcic" in line]
    assert len(errors) == 1 and re.search(r"none of the 1 photographs can be read, .*a\.png for one", errors[0])


def test_flags_of_train_in_both_spellings(capsys: pytest.CaptureFixture[str]) -> None:
    """And as diffusers' example scripts have them; the help lists one."""
    parser = make_parser(["train"])
    needed = ["train", "--data", "x", "--output", "y"]
    for ours, others, value in (
        ("--mixed-precision", ["--mixed_precision"], "bf16"),
        ("--save-every", ["--save_every", "--checkpointing_steps", "--checkpointing-steps"], "7"),
        ("--keep", ["--checkpoints_total_limit"], "7"),
        ("--resume", ["--resume_from_checkpoint"], "latest"),
        ("--trackers", ["--report_to"], "wandb"),
        ("--validate-every", ["--validate_every", "--validation_steps"], "7"),
        ("--accumulation", ["--gradient_accumulation_steps"], "2"),
        ("--learning-rate", ["--learning_rate"], "0.1"),
        ("--schedule", ["--lr_scheduler"], "cosine"),
        ("--hole-size", ["--hole_size"], "8 16"),
        ("--from", ["--pretrained_model_name_or_path"], "user/model"),
        ("--mean-pixel", ["--mean_pixel"], "0.1 0.2 0.3"),
        ("--push-to-hub", ["--push_to_hub"], ""),
        ("--hub-model-id", ["--hub_model_id"], "user/model"),
        ("--private", ["--hub_private_repo"], ""),
        ("--max-train-steps", ["--max_train_steps"], "9"),
        ("--no-flip", ["--no-random_flip"], ""),
        ("--ema", ["--use_ema"], ""),
    ):
        expected = parser.parse_args([*needed, ours, *value.split()])
        assert expected != parser.parse_args(needed)
        for other in others:
            assert parser.parse_args([*needed, other, *value.split()]) == expected
    theirs = ["train", "--train_data_dir", "x", "--output_dir", "y"]
    assert parser.parse_args(theirs) == parser.parse_args(needed)
    for wrong, message in (
        (["train", "--output", "y"], "--data is required"),
        ([*needed, "--data_dir", "z"], "--data_dir"),
    ):
        with pytest.raises(SystemExit):
            parser.parse_args(wrong)
        assert message in capsys.readouterr().err
    with pytest.raises(SystemExit):
        parser.parse_args(["train", "--help"])
    listed = capsys.readouterr().out
    assert "--mixed-precision" in listed and "--mixed_precision" not in listed
    for twice, message in (
        (["--hub_model_id", "user/model"], "goes with --push-to-hub without a name"),
        (["--batch-size", "8", "--train_batch_size", "4"], "give batch_size or train_batch_size, and not both"),
    ):
        assert main([*needed, *twice]) == 1
        assert message in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--version"], ["--help"]])
def test_what_asks_for_little_imports_little(arguments: list[str]) -> None:
    code = f"""
import sys
from glcic_hub.cli.main import main
try:
    main({arguments})
except SystemExit:
    pass
print({{"torch", "numpy", "cv2", "gradio", "huggingface_hub", "scipy"}} & set(sys.modules), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() and done.stderr.strip() == "set()"


def test_options_are_not_abbreviated(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["complete", "image.png", "--mask", "mask.png", "-o", "out.png"])
    assert stopped.value.code == 2
    assert "--mask" in capsys.readouterr().err

"""Photographs, samples and batches."""

from __future__ import annotations

import dataclasses
import io
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from glcic_hub.data.photographs import (
    Folder,
    Photograph,
    Stream,
    Table,
    UnreadableError,
    contents_digest,
    hold_out,
    measure_mean_pixel,
    open_photographs,
    open_rgb,
)
from glcic_hub.training.data import NumberedSamples, load_batches
from tests.conftest import ROOT
from tests.training_parts import SMALL, make_photographs

KEYS = ("image", "mask", "hole", "other_hole")


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    return Folder(make_photographs(tmp_path_factory.mktemp("photographs")))


def image_bytes(level: int, file_format: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (40, 44), (level, level, level)).save(buffer, file_format)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four tar shards of six photographs each, of the levels 0, 10, ..., 230; that of 70 is broken."""
    folder = tmp_path_factory.mktemp("shards")
    for shard in range(4):
        with tarfile.open(folder / f"{shard}.tar", "w") as tar:
            for level in range(60 * shard, 60 * (shard + 1), 10):
                content = b"not an image" if level == 70 else image_bytes(level)
                entry = tarfile.TarInfo(f"{level:03}.png")
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
    return folder


def levels_of(batch: dict[str, Any]) -> list[int]:
    return [round(image.float().mean().item()) for image in batch["image"]]


def test_samples_follow_the_recipe(photographs: Folder) -> None:
    samples = NumberedSamples(photographs, dataclasses.replace(SMALL, strokes=0.0))
    sizes = set()
    for number in range(24):
        sample = samples[number]
        assert sample["image"].shape == (32, 32, 3) and sample["image"].dtype == np.uint8
        assert sample["hole"] != sample["other_hole"]
        assert np.array_equal(sample["mask"], sample["hole"].mask(32, 32))
        for hole in (sample["hole"], sample["other_hole"]):
            assert 8 <= hole.height <= 16 and 8 <= hole.width <= 16
            assert 0 <= hole.top <= 32 - hole.height and 0 <= hole.left <= 32 - hole.width
            sizes.add((hole.height, hole.width))
    assert len(sizes) > 20  # each sample has holes of its own


def test_the_hole_in_the_centre(photographs: Folder) -> None:
    centred = dataclasses.replace(SMALL, hole_position="centre", hole_size=(16, 16), strokes=0.0)
    assert NumberedSamples(photographs, centred)[5]["hole"] == (8, 8, 16, 16)


def test_a_share_of_the_holes_are_strokes(photographs: Folder) -> None:
    """The local discriminator's patch is then centred on one of their pixels."""
    samples = NumberedSamples(photographs, dataclasses.replace(SMALL, strokes=0.5))
    strokes = [sample for sample in map(samples.__getitem__, range(100)) if sample["hole"][2:] == (1, 1)]
    assert 30 <= len(strokes) <= 70
    for sample in strokes:
        assert 0.05 <= sample["mask"].mean() <= 0.25
        assert sample["mask"][sample["hole"].top, sample["hole"].left] == 1
    assert len({sample["hole"] for sample in strokes}) > 20


def test_every_photograph_is_seen_once_an_epoch(tmp_path: Path) -> None:
    for level in range(8):
        (tmp_path / f"{level}.png").write_bytes(image_bytes(level * 30))
    samples = NumberedSamples(Folder(tmp_path), SMALL)
    levels = [round(samples[index]["image"].mean()) // 30 for index in range(24)]
    epochs = [levels[start : start + 8] for start in (0, 8, 16)]
    assert all(sorted(epoch) == list(range(8)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_batches_do_not_depend_on_workers_processes_or_resumption(photographs: Folder) -> None:
    """Two processes see the halves of one process's batches: together all of it, nothing twice."""
    whole = list(load_batches(photographs, SMALL))
    assert len(whole) == 10
    with_workers = list(load_batches(photographs, SMALL, workers=2, first_step=3))
    halves = [list(load_batches(photographs, SMALL, process=rank, processes=2)) for rank in (0, 1)]
    for step, batch in enumerate(whole):
        for key in KEYS:
            assert torch.equal(batch[key], torch.cat([halves[rank][step][key] for rank in (0, 1)]))
            if step >= 3:
                assert torch.equal(batch[key], with_workers[step - 3][key])


def test_workers_end_when_the_process_does_however_it_ends(photographs: Folder) -> None:
    """With a loader half read, as an exception or a notebook leaves it; and a stranger's SIGTERM does not end them."""
    script = """
import multiprocessing, subprocess, sys
from pathlib import Path
from glcic_hub.training.data import load_batches
from glcic_hub.data.photographs import Folder
from tests.conftest import ROOT
from tests.training_parts import SMALL
photographs = Folder(Path(sys.argv[1]))
loader = load_batches(photographs, SMALL, workers=1)
next(loader)
workers = multiprocessing.active_children()
for worker in workers:
    subprocess.run(f"kill {worker.pid}", shell=True, check=True)
print(len(workers), len(list(loader)))
loader = load_batches(photographs, SMALL, workers=1)
next(loader)
"""
    command = [sys.executable, "-c", script, str(photographs.folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=ROOT)
    assert (done.returncode, done.stdout) == (0, "1 9\n"), done.stderr


def test_photographs_that_cannot_be_read_are_named_and_the_next_stands_in(tmp_path: Path) -> None:
    folder = make_photographs(tmp_path / "photographs", 6)
    (folder / "03.png").write_text("not an image")
    (folder / "04.png").write_bytes((folder / "05.png").read_bytes()[:200])
    samples = NumberedSamples(Folder(folder), SMALL)
    epoch = [samples[number] for number in range(6)]
    named = {Path(name).name for sample in epoch for name in sample["unreadable"]}
    assert named == {"03.png", "04.png"}
    assert sum(not sample["unreadable"] for sample in epoch) == 4
    for path in folder.iterdir():
        path.write_text("not an image")
    with pytest.raises(ValueError, match=r"none of the 6 photographs can be read, .*\.png for one"):
        samples[0]


def test_small_photographs_are_enlarged(tmp_path: Path) -> None:
    Image.new("RGB", (5, 3), "red").save(tmp_path / "tiny.png")
    batch = next(load_batches(Folder(tmp_path), SMALL))  # and there are fewer than a batch
    assert batch["image"].shape == (4, 3, 32, 32)
    assert torch.equal(batch["image"][:, 0], torch.full((4, 32, 32), 255, dtype=torch.uint8))


def test_photographs_are_turned_upright(tmp_path: Path) -> None:
    """The reader sees what a viewer shows; a JPEG may be decoded smaller, but not below what is asked for."""
    pixels = np.zeros((400, 600, 3), np.uint8)
    pixels[:, :300, 0] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90° clockwise
    Image.fromarray(pixels).save(tmp_path / "a.jpg", exif=exif, quality=95)
    for short_side, size in ((100, (100, 150)), (300, (400, 600))):
        image = open_rgb(Photograph("a", tmp_path / "a.jpg"), short_side)
        assert image.size == size
        assert np.asarray(image)[5, 50, 0] > 200 and np.asarray(image)[-5, 50, 0] < 50


def test_photographs_of_every_mode_and_place(tmp_path: Path) -> None:
    """16 bits and floats keep their brightness; a streamed dataset of plain files names them by address."""
    levels = np.full((8, 8), 30000, np.uint16)
    Image.fromarray(levels).save(tmp_path / "deep.png")
    Image.fromarray(np.full((8, 8), 0.25, np.float32)).save(tmp_path / "float.tif")
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "red.tif")
    for name, expected in (("deep.png", (117,) * 3), ("float.tif", (64,) * 3), ("red.tif", (255, 0, 0))):
        for file in (tmp_path / name, (tmp_path / name).read_bytes(), (tmp_path / name).as_uri()):
            pixels = np.asarray(open_rgb(Photograph(name, file), 8))
            assert np.abs(pixels[4, 4].astype(int) - expected).max() <= 1
    Image.new("RGB", (8, 8)).save(tmp_path / "script.eps")  # a program, which Pillow would have Ghostscript run
    with pytest.raises(UnreadableError, match="cannot identify image file"):
        open_rgb(Photograph("script", (tmp_path / "script.eps").read_bytes()), 8)
    with pytest.raises(UnreadableError, match="cannot read the photograph gone"):
        open_rgb(Photograph("gone", (tmp_path / "gone.png").as_uri()), 8)


def test_mean_pixel_is_that_of_rgb(tmp_path: Path) -> None:
    Image.new("RGB", (40, 50), (255, 0, 51)).save(tmp_path / "a.png")
    Image.new("L", (80, 30), 102).save(tmp_path / "b.png")
    (tmp_path / "c.png").write_text("not an image")
    assert measure_mean_pixel(Folder(tmp_path)) == (0.7, 0.2, 0.3)
    for name in ("a.png", "b.png"):
        (tmp_path / name).unlink()
    with pytest.raises(ValueError, match=r"none of the photographs can be read; the last: .*c\.png"):
        measure_mean_pixel(Folder(tmp_path))


def test_held_out_photographs_are_not_trained_on(photographs: Folder) -> None:
    kept, held_out = hold_out(photographs, 3, seed=0)
    assert (len(kept), len(held_out)) == (9, 3)
    assert sorted([*kept, *held_out]) == list(photographs)
    assert list(hold_out(photographs, 3, seed=0)[1]) == list(held_out) != list(hold_out(photographs, 3, seed=1)[1])


def test_tar_shards_and_parquet_files(shards: Path, tmp_path: Path) -> None:
    """Indexed or streamed, the same images come out."""
    rows = [{"bytes": image_bytes(level), "path": None} for level in range(0, 240, 10)]
    features = datasets.Features({"label": datasets.Value("int64"), "photo": datasets.Image()})
    table = datasets.Dataset.from_dict({"label": [0] * 24, "photo": rows}, features=features)
    table.to_parquet(str(tmp_path / "validation-0.parquet"))
    expected = list(range(0, 240, 10))
    for where, broken in ((str(shards), [70]), (f"{tmp_path}:validation", [])):
        indexed, streamed = open_photographs(where), open_photographs(where, stream=True)
        assert isinstance(indexed, Table) and isinstance(streamed, Stream) and len(indexed) == 24
        for photographs in (indexed, streamed):
            levels = []
            for level, photograph in zip(expected, photographs, strict=True):
                try:
                    levels.append(open_rgb(photograph, 32).getpixel((0, 0))[0])  # type: ignore[index]
                except UnreadableError as error:
                    assert f"{level:03}.png" in str(error)
            assert levels == [level for level in expected if level not in broken]


@pytest.mark.parametrize("workers", [0, 2, 9])
def test_streams_are_split_and_resumed(shards: Path, workers: int) -> None:
    """In each epoch every process reads its share alone, and a resumed run reads on where it was, with broken ones."""
    photographs = open_photographs(str(shards), stream=True)
    recipe = dataclasses.replace(SMALL, resize=(40, 40), completion_steps=10, total_steps=20)  # about three epochs
    seen = []
    for rank in (0, 1):
        arguments: dict[str, Any] = {"process": rank, "processes": 2, "workers": workers}
        batches = list(load_batches(photographs, recipe, **arguments))
        assert len(batches) == 20 and all(len(batch["image"]) == 2 for batch in batches)
        first_epoch, names = batches[:6], [name for batch in batches for name in batch["unreadable"]]
        seen.append({level for batch in first_epoch for level in levels_of(batch)})
        assert set(names) == {"070.png"}
        for first in (1, 7, 12):
            resumed = list(load_batches(photographs, recipe, first_step=first, **arguments))
            assert len(resumed) == 20 - first
            for one, other in zip(batches[first:], resumed, strict=True):
                assert all(torch.equal(one[key], other[key]) for key in KEYS)
    assert not seen[0] & seen[1]
    assert seen[0] | seen[1] == set(range(0, 240, 10)) - {70}


def test_folders_that_name_masks(tmp_path: Path) -> None:
    """As `datasets` defines it, the masks are no photographs; a folder of captions stays a folder."""
    lines = []
    for index in range(3):
        for kind in ("images", "masks"):
            (tmp_path / kind).mkdir(exist_ok=True)
            (tmp_path / kind / f"{index}.png").write_bytes(image_bytes(10 * index))
        lines.append(f'{{"file_name": "images/{index}.png", "mask_file_name": "masks/{index}.png"}}\n')
    (tmp_path / "metadata.jsonl").write_text("".join(lines))
    indexed, streamed = open_photographs(tmp_path), open_photographs(tmp_path, stream=True)
    assert isinstance(indexed, Table) and isinstance(streamed, Stream) and indexed.has_masks
    assert [photograph.file for photograph in indexed] == [tmp_path / "images" / f"{index}.png" for index in range(3)]
    assert [photograph.mask for photograph in indexed] == [tmp_path / "masks" / f"{index}.png" for index in range(3)]
    assert [Path(photograph.name) for photograph in streamed] == [photograph.file for photograph in indexed]
    before = contents_digest(tmp_path, indexed)
    (tmp_path / "masks" / "1.png").write_bytes(b"other")
    assert contents_digest(tmp_path, indexed) != before
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "images/0.png", "text": "a mask"}\n')
    assert isinstance(open_photographs(tmp_path), Folder)


def test_wrong_places_are_refused(tmp_path: Path, photographs: Folder, shards: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no folder .*nothing; a dataset on the Hub is called user/name"):
        open_photographs(tmp_path / "nothing")
    with pytest.raises(ValueError, match="holds no images"):
        open_photographs(tmp_path)
    assert isinstance(open_photographs(photographs.folder, stream=True), Folder)  # is read as it comes anyway
    with pytest.raises(FileNotFoundError, match="is a file, not a folder of photographs"):
        open_photographs(photographs.paths[0])
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "0.tar").write_bytes(b"not an archive" * 100)
    with pytest.raises(OSError, match=r"cannot open the dataset .*broken: |cannot read on in the dataset: "):
        list(open_photographs(tmp_path / "broken", stream=True))
    with pytest.raises(ValueError, match=r"cannot open the dataset .*Unknown split"):
        open_photographs(f"{shards}:nonsense")
    table = datasets.Dataset.from_dict({"label": [0]})
    table.to_parquet(str(tmp_path / "train.parquet"))
    with pytest.raises(ValueError, match="has no column of images: label"):
        open_photographs(tmp_path)

"""What of EXIF is broken costs neither the orientation nor the rest."""

from __future__ import annotations

import struct
import warnings
from pathlib import Path

import pytest
from PIL import Image, ImageOps

from glcic_hub import GLCICPipeline
from glcic_hub.data.photographs import Photograph, open_rgb
from glcic_hub.demo.files import make_preview, open_photo
from glcic_hub.images.exif import orientation_of, read_exif, sort_exif
from glcic_hub.images.files import save_image
from tests.conftest import make_hole, make_photo

Entry = tuple[int, int, int, bytes]
"""A tag, its type and count, and its value."""

HEIGHT, WIDTH = 46, 61
RGB = Image.fromarray(make_photo(HEIGHT, WIDTH))
SHORT, ASCII, LONG, FLOAT, UNDEFINED = 3, 2, 4, 11, 7
EXIF_AT, GPS_AT = 400, 800


def directory(entries: list[Entry], offset: int) -> bytes:
    head, values = struct.pack("<H", len(entries)), b""
    for tag, kind, count, value in sorted(entries):
        if len(value) > 4:
            value, place = struct.pack("<I", offset + 6 + 12 * len(entries) + len(values)), value
            values += place + bytes(len(place) % 2)
        head += struct.pack("<HHI", tag, kind, count) + value.ljust(4, b"\0")
    return head + bytes(4) + values


def exif(main: list[Entry], exif_block: list[Entry], gps_block: list[Entry]) -> bytes:
    pointers = [(0x8769, LONG, 1, struct.pack("<I", EXIF_AT)), (0x8825, LONG, 1, struct.pack("<I", GPS_AT))]
    whole = b"II*\0\x08\0\0\0" + directory(main + pointers, 8)
    whole = whole.ljust(EXIF_AT, b"\0") + directory(exif_block, EXIF_AT)
    return b"Exif\0\0" + whole.ljust(GPS_AT, b"\0") + directory(gps_block, GPS_AT)


MAIN: list[Entry] = [(0x010F, ASCII, 7, b"Camera\0"), (0x0112, SHORT, 1, b"\6\0")]
EXPOSURE: list[Entry] = [(0x9003, ASCII, 20, b"2020:01:01 00:00:00\0")]
NORTH: list[Entry] = [(1, ASCII, 2, b"N\0")]


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (exif(MAIN, [*EXPOSURE, (0x9000, FLOAT, 1, b"\0\0\0\0")], NORTH), "ExifVersion (0x9000)"),
        (exif(MAIN, EXPOSURE, [*NORTH, (2, ASCII, 4, b"100\0")]), "GPSLatitude (0x0002)"),
        (exif([*MAIN, (0x013B, FLOAT, 1, b"\0\0\0\0")], EXPOSURE, NORTH), "Artist (0x013b)"),
    ],
)
def test_only_what_is_broken_goes(pipe: GLCICPipeline, tmp_path: Path, content: bytes, named: str) -> None:
    RGB.save(tmp_path / "photo.jpg", exif=content)
    with pytest.warns(UserWarning) as caught:
        result = pipe(tmp_path / "photo.jpg", make_hole(WIDTH, HEIGHT), detail="none")  # as it is displayed
    assert [str(warning.message) for warning in caught] == [f"not kept of the EXIF, as it is broken: {named}"]
    for suffix in (".png", ".jpg", ".webp", ".tif"):
        save_image(result, tmp_path / f"result{suffix}")
        with Image.open(tmp_path / f"result{suffix}") as saved:
            saved.load()
            assert saved.getexif()[0x010F] == "Camera"
            assert ImageOps.exif_transpose(saved).size == (HEIGHT, WIDTH)
            if suffix != ".tif":
                assert saved.getexif().get_ifd(0x8769)[0x9003] == "2020:01:01 00:00:00"
                assert saved.getexif().get_ifd(0x8825)[1] == "N"
    # Training and the demo see it so, too.
    assert open_rgb(Photograph("photo", tmp_path / "photo.jpg"), HEIGHT).size == (HEIGHT, WIDTH)
    assert make_preview(open_photo(str(tmp_path / "photo.jpg"))[1]).size == (HEIGHT, WIDTH)


def test_a_block_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    content = bytearray(exif(MAIN, EXPOSURE, NORTH))
    place = content.index(struct.pack("<I", EXIF_AT))
    content[place : place + 4] = struct.pack("<I", 100_000)
    RGB.save(tmp_path / "photo.jpg", exif=bytes(content))
    with Image.open(tmp_path / "photo.jpg") as image, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        kept = read_exif(image)
    assert kept[0x0112] == 6 and kept[0x8825] == {1: "N"} and 0x8769 not in kept
    assert "the block Exif" in str(caught[-1].message)


@pytest.mark.parametrize("length", range(6, 900, 29))
def test_truncated_exif(tmp_path: Path, length: int) -> None:
    """It may tell the orientation or not; never is there an error."""
    content = exif(MAIN, EXPOSURE, NORTH)
    RGB.save(tmp_path / "photo.png", exif=content[:length])
    with Image.open(tmp_path / "photo.png") as image, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image.load()
        assert orientation_of(image) == (6 if length >= 6 + 8 + 2 + 24 else 1)
        save_image(image, tmp_path / "result.png")


def test_exif_that_pillow_takes_for_none(pipe: GLCICPipeline, tmp_path: Path) -> None:
    """Whether the orientation counts or not, it does so in the work and in the result."""
    RGB.save(tmp_path / "photo.jpg", exif=exif(MAIN, EXPOSURE, NORTH).replace(b"II*", b"IIx"))
    with Image.open(tmp_path / "photo.jpg") as image:
        orientation = orientation_of(image)
    size = (WIDTH, HEIGHT) if orientation == 6 else (HEIGHT, WIDTH)
    save_image(pipe(tmp_path / "photo.jpg", make_hole(*size), detail="none"), tmp_path / "result.png")
    with Image.open(tmp_path / "result.png") as saved:
        assert orientation_of(saved) == orientation


@pytest.mark.parametrize(
    ("kind", "value", "orientation"),
    [
        (SHORT, b"\6\0", 6),
        (LONG, b"\6\0\0\0", 6),
        (FLOAT, struct.pack("<f", 6), 6),
        (SHORT, b"\0\0", 1),
        (SHORT, b"\x09\0", 1),
        (ASCII, b"6\0", 1),
        (UNDEFINED, b"\6", 1),
        (FLOAT, struct.pack("<f", float("nan")), 1),
    ],
)
def test_odd_orientations(pipe: GLCICPipeline, tmp_path: Path, kind: int, value: bytes, orientation: int) -> None:
    """The result lies as the file does, whatever the type that the number has."""
    RGB.save(tmp_path / "photo.jpg", exif=exif([(0x0112, kind, 1, value)], EXPOSURE, NORTH))
    size = (WIDTH, HEIGHT) if orientation == 6 else (HEIGHT, WIDTH)
    save_image(pipe(tmp_path / "photo.jpg", make_hole(*size), detail="none"), tmp_path / "result.png")
    with Image.open(tmp_path / "result.png") as saved:
        assert saved.size == RGB.size
        assert orientation_of(saved) == orientation


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
def test_letters_beyond_ascii(tmp_path: Path, suffix: str) -> None:
    """Cameras and programs write them as UTF-8; Pillow alone would make question marks of them."""
    artist = "José Núñez".encode()
    owner = (0xA430, ASCII, len(artist) + 1, artist + b"\0")
    content = exif([*MAIN, (0x013B, ASCII, len(artist) + 1, artist + b"\0")], [*EXPOSURE, owner], NORTH)
    RGB.save(tmp_path / "photo.jpg", exif=content)
    with Image.open(tmp_path / "photo.jpg") as image:
        save_image(image, tmp_path / f"result{suffix}")
    with Image.open(tmp_path / f"result{suffix}") as saved:
        assert saved.getexif()[0x013B].encode("latin-1") == artist
        if suffix != ".tif":
            assert saved.getexif().get_ifd(0x8769)[0xA430].encode("latin-1") == artist


def test_all_types_of_all_tags() -> None:
    """What Pillow reads and cannot write is dropped, by whatever error, and nothing else is."""
    sizes = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}
    dropped = 0
    for kind, size in sizes.items():
        for fill in (b"\0", b"\xff"):
            main, block, gps = (
                [(tag, kind, 3, fill * (3 * size)) for tag in tags]
                for tags in [(0x010E, 0x4746, 0x8298), (0x8827, 0x9000, 0x927C, 0xA430), (0, 2, 6, 29)]
            )
            image = Image.new("RGB", (4, 4))
            image.info["exif"] = exif([(0x0112, SHORT, 1, b"\6\0"), *main], block, gps)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Pillow's own of too many values
                kept, broken = sort_exif(image)
                written = Image.Exif()
                written.load(kept.tobytes())
            assert written[0x0112] == 6
            found = [set(written) - {0x0112, 0x8769, 0x8825}, written.get_ifd(0x8769), written.get_ifd(0x8825)]
            assert sum(map(len, found)) + len(broken) == 11
            dropped += len(broken)
    assert 0 < dropped < 100

"""Which images a folder holds, and which masks belong to them."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pytest
from PIL import Image

from glcic_hub.images.files import IMAGE_SUFFIXES, load_image
from glcic_hub.images.folders import find_images, masks_by_name, split_masks
from tests.conftest import make_unreadable

SMALL = Image.new("RGB", (8, 8), "olive")


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def found(folder: Path) -> list[str]:
    return [str(path.relative_to(folder)) for path in find_images(folder)]


def test_every_suffix_that_is_found_is_read(tmp_path: Path) -> None:
    for suffix in IMAGE_SUFFIXES:
        SMALL.save(tmp_path / f"a{suffix.upper()}", None if suffix != ".jpe" else "JPEG")
    assert {Path(name).suffix.lower() for name in found(tmp_path)} == IMAGE_SUFFIXES
    assert all(load_image(path).size == (8, 8) for path in find_images(tmp_path))
    assert {".jfif", ".jpe", ".avif"} <= IMAGE_SUFFIXES


def test_what_looks_like_an_image_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "b.HEIC", "deep/c.dng", "d.psd", "notes.txt", ".hidden.heic", ".hidden/e.svg")
    with pytest.warns(UserWarning, match=r"left out 3 files .*: b\.HEIC, d\.psd, deep/c\.dng$"):
        assert found(tmp_path) == ["a.jpg"]
    (tmp_path / "a.jpg").unlink()
    with pytest.raises(ValueError, match=r"holds no images .*; left out 3 files"):
        find_images(tmp_path)


def test_a_pipe_is_no_image(tmp_path: Path) -> None:
    """Opening it would wait for ever."""
    touch(tmp_path, "a.jpg")
    os.mkfifo(tmp_path / "b.jpg")
    with pytest.warns(UserWarning, match=r"left out 1 files .*: b\.jpg"):
        assert found(tmp_path) == ["a.jpg"]


def test_links_are_followed_once(tmp_path: Path) -> None:
    touch(tmp_path, "images/z/a.jpg", "disk/b.jpg", "disk/deep/c.jpg")
    images = tmp_path / "images"
    (images / "more").symlink_to(tmp_path / "disk")
    (images / "again").symlink_to(images / "z")  # the folder itself counts, whatever the order of the names
    (images / "file.jpg").symlink_to(tmp_path / "disk" / "b.jpg")
    (tmp_path / "disk" / "circle").symlink_to(images)
    (tmp_path / "disk" / "itself").symlink_to(tmp_path / "disk")
    assert found(images) == ["file.jpg", "more/b.jpg", "more/deep/c.jpg", "z/a.jpg"]
    (tmp_path / "entrance").symlink_to(images)
    assert len(find_images(tmp_path / "entrance")) == 4


def test_links_that_lead_nowhere_are_named(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg")
    (tmp_path / "b.jpg").symlink_to(tmp_path / "gone.jpg")
    (tmp_path / "folder").symlink_to(tmp_path / "gone")
    (tmp_path / "notes.txt").symlink_to(tmp_path / "gone.txt")
    (tmp_path / "readme").symlink_to(tmp_path / "a.jpg")
    with pytest.warns(UserWarning) as caught:
        assert found(tmp_path) == ["a.jpg"]
    assert [str(warning.message) for warning in caught] == [
        f"{tmp_path / name} is left out: the link leads nowhere" for name in ("b.jpg", "folder")
    ]
    (tmp_path / "a.jpg").unlink()
    with pytest.raises(ValueError, match=r"holds no images .*b\.jpg: the link leads nowhere; .*folder: the link"):
        find_images(tmp_path)


def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "a.jpg", "z/b.jpg")
    make_unreadable(tmp_path, monkeypatch)
    with pytest.warns(UserWarning, match=r"xxx is left out: cannot be read: File name too long"):
        assert found(tmp_path) == ["a.jpg", "z/b.jpg"]


@pytest.mark.parametrize(
    "mask",
    [
        *("x.png", "x.jpg.png", "x_mask.png", "x-mask.PNG", "x.mask.gif", "x_mask001.png", "x_Mask_2.png"),
        *("x.jpg_mask.png", "mask_x.png", "x_masks.tif"),
    ],
)
def test_names_of_masks(tmp_path: Path, mask: str) -> None:
    touch(tmp_path, f"deep/{mask}", mask.replace("x", "y", 1), "deep/xx_mask.png", "deep/unmask.png")
    assert masks_by_name(tmp_path)(Path("deep/x.jpg")) == tmp_path / "deep" / mask
    assert masks_by_name(tmp_path)(Path("deep/unmask.jpg")) == tmp_path / "deep/unmask.png"
    with pytest.raises(ValueError, match=f"{tmp_path} holds no mask called deep/y"):
        masks_by_name(tmp_path)(Path("deep/y.jpg"))


def test_two_masks_are_an_error_that_names_both(tmp_path: Path) -> None:
    touch(tmp_path, "x_mask001.png", "x_mask002.png")
    with pytest.raises(ValueError, match=r"several masks for x\.jpg: x_mask001\.png and x_mask002\.png"):
        masks_by_name(tmp_path)(Path("x.jpg"))


def test_unicode_forms(tmp_path: Path) -> None:
    """Names are equal when they read the same; one of the same form comes first."""
    apart, composed = (unicodedata.normalize(form, "Café/Ångström") for form in ("NFD", "NFC"))
    touch(tmp_path, f"{apart}.png")
    for name in (apart, composed):
        assert masks_by_name(tmp_path)(Path(f"{name}.jpg")) == tmp_path / f"{apart}.png"
    touch(tmp_path, f"{composed}_mask.png")
    assert masks_by_name(tmp_path)(Path(f"{composed}.jpg")) == tmp_path / f"{composed}_mask.png"
    assert masks_by_name(tmp_path)(Path(f"{apart}.jpg")) == tmp_path / f"{apart}.png"


def test_masks_beside_their_images() -> None:
    names = ["a.jpg", "a_mask.png", "b.jpg", "b.jpg.png", "c_mask.png", "deep/a.jpg", "deep/a_mask001.png", "e.png"]
    images, masks = split_masks([Path(name) for name in names])
    assert list(map(str, masks)) == ["a_mask.png", "b.jpg.png", "deep/a_mask001.png"]
    assert list(map(str, images)) == ["a.jpg", "b.jpg", "c_mask.png", "deep/a.jpg", "e.png"]

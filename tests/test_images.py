"""What comes back has the input's kind, mode, alpha, profile and orientation, and its pixels outside the hole."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps, PngImagePlugin

from glcic_hub import GLCICPipeline
from glcic_hub.images.before_after import side_by_side
from glcic_hub.images.files import load_image, save_image
from glcic_hub.images.processing import open_image
from glcic_hub.pipeline import Blend, Detail
from tests.conftest import equal, make_hole, make_photo

PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
HEIGHT, WIDTH = 46, 61


def with_alpha() -> Image.Image:
    image = Image.fromarray(make_photo(HEIGHT, WIDTH)).convert("RGBA")
    image.putalpha(Image.fromarray(make_photo(HEIGHT, WIDTH, seed=1)[..., 0]))
    return image


def grey_16_bit() -> Image.Image:
    values = np.random.default_rng(0).integers(0, 65536, (HEIGHT, WIDTH)).astype(np.uint16)
    return Image.fromarray(values)


def transparent_palette() -> Image.Image:
    image = Image.fromarray(make_photo(HEIGHT, WIDTH)).quantize(40)
    image.info["transparency"] = bytes([0, 128, 255])
    return image


RGB = Image.fromarray(make_photo(HEIGHT, WIDTH))
FILES = {
    "rgb": (RGB, ".png"),
    "alpha": (with_alpha(), ".png"),
    "grey with alpha": (with_alpha().convert("LA"), ".png"),
    "palette": (RGB.quantize(40), ".png"),
    "palette with transparency": (transparent_palette(), ".png"),
    "grey": (RGB.convert("L"), ".png"),
    "black and white": (RGB.convert("1"), ".png"),
    "16-bit grey": (grey_16_bit(), ".png"),
    "16-bit grey TIFF": (grey_16_bit(), ".tif"),
    "float TIFF": (Image.fromarray(np.random.default_rng(0).random((HEIGHT, WIDTH), np.float32)), ".tif"),
    "CMYK JPEG": (RGB.convert("CMYK"), ".jpg"),
    "CMYK TIFF": (RGB.convert("CMYK"), ".tif"),
    "JPEG": (RGB, ".jpg"),
    "lossy WebP": (RGB, ".webp"),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(("detail", "blend"), [("none", "none"), ("none", "poisson"), ("exemplars", "none")])
def test_outside_the_hole_nothing_changes(
    pipe: GLCICPipeline, tmp_path: Path, name: str, detail: Detail, blend: Blend
) -> None:
    image, suffix = FILES[name]
    path = tmp_path / f"photo{suffix}"
    image.save(path, icc_profile=PROFILE)
    mask = make_hole(HEIGHT, WIDTH)

    result = pipe(path, mask, detail=detail, blend=blend)
    # The file that is written holds what the pipeline returned, whatever the input's file was.
    target = tmp_path / ("result.tif" if image.mode in ("CMYK", "F") else "result.png")
    save_image(result, target)
    with Image.open(path) as before, Image.open(target) as after:
        assert (after.mode, after.size) == (before.mode, before.size)
        assert after.info["icc_profile"] == PROFILE
        assert after.has_transparency_data == before.has_transparency_data
        old, new = np.array(before), np.array(after)
        assert np.array_equal(old[mask == 0], new[mask == 0])
        assert not np.array_equal(old[mask > 0], new[mask > 0])
        if before.mode == "P":
            assert after.getpalette() == before.getpalette()
        if before.mode in ("LA", "RGBA"):
            assert np.array_equal(old[..., -1], new[..., -1])


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_exif_orientation(pipe: GLCICPipeline, tmp_path: Path, orientation: int, suffix: str) -> None:
    """The mask lies on the image as it is displayed; the result is stored as the input was."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"photo{suffix}"
    RGB.save(path, exif=exif)
    with Image.open(path) as image:
        upright = ImageOps.exif_transpose(image).convert("RGB")
    mask = make_hole(upright.height, upright.width)

    result = pipe(path, mask)
    save_image(result, tmp_path / "result.png")
    with Image.open(tmp_path / "result.png") as saved:
        assert saved.size == RGB.size
        assert saved.getexif()[0x0112] == orientation
        displayed = ImageOps.exif_transpose(saved)
    assert np.array_equal(np.asarray(displayed), pipe(np.array(upright), mask))


def exif_with_thumbnail() -> bytes:
    """EXIF with orientation 6, ISO 400 in the Exif block, and a thumbnail."""
    directory = struct.pack("<HHHIHHHHIII", 2, 0x0112, 3, 1, 6, 0, 0x8769, 4, 1, 38, 56)
    exif_block = struct.pack("<HHHIHHI", 1, 0x8827, 3, 1, 400, 0, 0)
    thumbnail_directory = struct.pack("<HHHIIHHIII", 2, 0x0201, 4, 1, 86, 0x0202, 4, 1, 9, 0)
    return b"Exif\0\0II*\0" + struct.pack("<I", 8) + directory + exif_block + thumbnail_directory + b"THUMBNAIL"


def test_the_thumbnail_does_not_show_what_was_removed(pipe: GLCICPipeline, tmp_path: Path) -> None:
    RGB.save(tmp_path / "photo.jpg", exif=exif_with_thumbnail())
    assert b"THUMBNAIL" in (tmp_path / "photo.jpg").read_bytes()
    save_image(pipe(tmp_path / "photo.jpg", make_hole(WIDTH, HEIGHT)), tmp_path / "result.jpg")
    assert b"THUMBNAIL" not in (tmp_path / "result.jpg").read_bytes()
    with Image.open(tmp_path / "result.jpg") as saved:
        assert saved.getexif()[0x0112] == 6
        assert saved.getexif().get_ifd(0x8769)[0x8827] == 400


def test_rotated_mask_file_is_turned_too(pipe: GLCICPipeline, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    mask = make_hole(WIDTH, HEIGHT)
    Image.fromarray(mask).save(tmp_path / "mask.png", exif=exif)
    upright = np.rot90(mask, 3)
    assert equal(pipe(RGB, tmp_path / "mask.png"), pipe(RGB, upright))


def test_transparent_pixels_are_the_hole_and_come_back_opaque(pipe: GLCICPipeline) -> None:
    mask = make_hole(HEIGHT, WIDTH)
    image = RGB.convert("RGBA")
    alpha = 255 - mask
    alpha[20, 20], alpha[22, 22] = 250, 3
    image.putalpha(Image.fromarray(alpha))
    result = np.array(pipe(image))
    expected = pipe(np.array(RGB), alpha < 255)
    assert np.array_equal(result[..., :3], expected)
    assert (result[..., 3] == 255).all()


def test_one_transparent_colour(pipe: GLCICPipeline, tmp_path: Path) -> None:
    """tRNS without alpha channel: the fill could have that colour by chance, so alpha becomes a channel."""
    pixels = np.array(RGB)
    mask = make_hole(HEIGHT, WIDTH) > 0
    pixels[mask] = (255, 0, 255)
    Image.fromarray(pixels).save(tmp_path / "photo.png", transparency=(255, 0, 255))
    result = pipe(tmp_path / "photo.png")
    assert result.mode == "RGBA"
    assert (np.array(result)[..., 3] == 255).all()
    assert np.array_equal(np.array(result)[~mask][:, :3], pixels[~mask])


@pytest.mark.parametrize("image", [transparent_palette(), with_alpha().quantize(40)], ids=["tRNS", "RGBA palette"])
def test_palette_fill_is_made_of_the_most_opaque_colours(pipe: GLCICPipeline, image: Image.Image) -> None:
    mask = make_hole(HEIGHT, WIDTH)
    swatch = image.resize((40, 1))
    swatch.putdata(range(40))
    opacity = np.asarray(swatch.convert("RGBA"))[0, :, 3]
    assert opacity.min() < opacity.max()
    assert (np.array(pipe(image, mask).convert("RGBA"))[mask > 0][:, 3] == opacity.max()).all()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_float_arrays(pipe: GLCICPipeline, photo: NDArray[np.uint8], mask: NDArray[np.uint8], dtype: type) -> None:
    image: NDArray[Any] = (photo / 255).astype(dtype)
    before = image.copy()
    result = pipe(image, mask > 0)
    assert result.dtype == dtype
    assert np.array_equal(result[mask == 0], image[mask == 0])
    assert np.array_equal(image, before)
    np.testing.assert_allclose(result[mask > 0], pipe(photo, mask)[mask > 0] / 255, atol=3e-3)


def test_arrays_are_not_touched(pipe: GLCICPipeline, photo: NDArray[np.uint8], mask: NDArray[np.uint8]) -> None:
    image, image_before, mask_before = photo, photo.copy(), mask.copy()
    result = pipe(image, mask)
    assert result.dtype == np.uint8 and not np.shares_memory(result, image)
    assert np.array_equal(image, image_before) and np.array_equal(mask, mask_before)


def test_strided_and_read_only_arrays(pipe: GLCICPipeline, photo: NDArray[np.uint8], mask: NDArray[np.uint8]) -> None:
    flipped = photo[:, ::-1]
    flipped.flags.writeable = False
    assert np.array_equal(pipe(flipped, mask), pipe(flipped.copy(), mask))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_tensors(pipe: GLCICPipeline, photo: NDArray[np.uint8], mask: NDArray[np.uint8], dtype: torch.dtype) -> None:
    image = torch.from_numpy(photo).permute(2, 0, 1).to(dtype) / 255
    image.requires_grad_()
    hole = torch.from_numpy(mask > 0)
    result = pipe(image, hole[None])
    assert result.dtype == dtype and result.shape == image.shape and not result.requires_grad
    assert torch.equal(result[:, ~hole], image[:, ~hole])
    assert not torch.equal(result[:, hole], image[:, hole])


def test_paths_images_and_arrays_agree(
    pipe: GLCICPipeline, photo: NDArray[np.uint8], mask: NDArray[np.uint8], photo_file: Path, mask_file: Path
) -> None:
    expected = pipe(photo, mask)
    assert equal(pipe(photo_file, mask_file), expected)
    assert equal(pipe(str(photo_file), str(mask_file)), expected)
    assert equal(pipe(Image.fromarray(photo), Image.fromarray(mask)), expected)


PHOTO, HOLE = make_photo(HEIGHT, WIDTH), make_hole(HEIGHT, WIDTH) > 0
GREY = np.asarray(RGB.convert("L"))
KINDS = {
    "grey": GREY,
    "grey, one channel": GREY[..., None],
    "RGB": PHOTO,
    "RGB and alpha": np.dstack([PHOTO, np.where(HOLE, np.uint8(7), np.uint8(255))]),
}


def as_tensor(array: NDArray[Any]) -> torch.Tensor:
    """(H, W) as it is, (..., H, W, C) as (..., C, H, W)."""
    return torch.from_numpy((array if array.ndim == 2 else np.moveaxis(array, -1, -3)).copy())


def as_array(image: Any) -> NDArray[Any]:
    """The opposite of `as_tensor`, of a tensor."""
    array = np.asarray(image)
    return array if isinstance(image, np.ndarray) or array.ndim == 2 else np.moveaxis(array, -3, -1)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("tensor", [False, True])
@pytest.mark.parametrize("name", KINDS)
def test_kinds_of_arrays_and_tensors(pipe: GLCICPipeline, name: str, tensor: bool, dtype: type) -> None:
    """The result has the image's shape and dtype, and what a PIL image of the same colours gets."""
    array = KINDS[name] if dtype == np.uint8 else (KINDS[name] / 255).astype(dtype)
    image: Any = as_tensor(array) if tensor else array
    result = pipe(image, HOLE, detail="none")
    assert type(result) is type(image) and (result.shape, result.dtype) == (image.shape, image.dtype)
    completed = as_array(result)
    assert np.array_equal(completed[~HOLE], array[~HOLE])
    expected = np.asarray(pipe(Image.fromarray(KINDS[name].squeeze()), HOLE, detail="none")).reshape(array.shape)
    levels = completed if dtype == np.uint8 else np.rint(completed * 255)
    assert np.abs(levels - expected.astype(int)).max() <= 1
    if name == "RGB and alpha":
        opaque = as_array(pipe(image, detail="none"))  # completes what is transparent
        assert np.array_equal(opaque[..., :3], completed[..., :3])
        assert (opaque[..., 3] == (255 if dtype == np.uint8 else 1)).all()


@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")
def test_subclasses_of_arrays(pipe: GLCICPipeline) -> None:
    assert equal(pipe(GREY.view(np.matrix), HOLE.view(np.matrix)), pipe(GREY, HOLE))


@pytest.mark.parametrize("tensor", [False, True])
@pytest.mark.parametrize("name", ["RGB", "RGB and alpha"])
def test_batches(pipe: GLCICPipeline, name: str, tensor: bool) -> None:
    """Each image of a batch is completed as it is alone, whatever form the masks have."""
    arrays, holes = np.stack([KINDS[name], KINDS[name][::-1]]), np.stack([HOLE, HOLE[::-1]])
    batch: Any = as_tensor(arrays) if tensor else arrays
    alone = [pipe(image, hole, detail="none") for image, hole in zip(batch, holes, strict=True)]
    channels: Any = as_tensor(holes[..., None]) if tensor else holes[..., None]
    for masks in (holes, channels, list(holes), torch.from_numpy(holes)):
        result = pipe(batch, masks, detail="none")
        assert type(result) is type(batch) and result.shape == batch.shape
        assert all(equal(*pair) for pair in zip(result, alone, strict=True))
    for one_for_all in (HOLE, HOLE[None], HOLE[..., None], np.dstack([HOLE] * 3), channels[:1]):
        assert equal(pipe(batch, one_for_all, detail="none")[0], alone[0])
    assert equal(pipe(batch[:1], channels[:1], detail="none"), alone[0][None])
    assert equal(pipe(list(batch), channels, detail="none")[1], alone[1])
    for three in (channels[[0, 1, 1]], holes[[0, 1, 1]], torch.from_numpy(holes[[0, 1, 1]])):
        with pytest.raises(ValueError, match="2 images and 3 masks"):
            pipe(batch, three)


def test_opened_files(pipe: GLCICPipeline, photo_file: Path, mask_file: Path) -> None:
    image, mask = (io.BytesIO(file.read_bytes()) for file in (photo_file, mask_file))
    expected = pipe(photo_file, mask_file)
    for _ in range(2):  # wherever reading has come to
        assert equal(pipe(image, mask), expected)
    with mask_file.open("rb") as opened, pytest.raises(ValueError, match="cannot read the file: it is not an image"):
        pipe(io.BytesIO(b"text"), opened)


def test_urls_are_not_downloaded(pipe: GLCICPipeline) -> None:
    line = r'PIL\.Image\.open\(urllib\.request\.urlopen\("https://example\.com/a\.png"\)\)'
    with pytest.raises(ValueError, match=line):
        pipe("https://example.com/a.png", HOLE)
    with pytest.raises(ValueError, match=line):
        pipe(RGB, "https://example.com/a.png")


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg"])
def test_files_of_many_pixels(
    pipe: GLCICPipeline, tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Our limit is an argument, and Pillow's, which is a global of all that use it, does not count."""
    with_alpha().convert("LA" if suffix == ".tif" else "RGB").save(tmp_path / f"photo{suffix}")
    Image.fromarray(HOLE).save(tmp_path / "mask.png")
    files = tmp_path / f"photo{suffix}", tmp_path / "mask.png"
    message = rf"photo{suffix}: it is 61x46 pixels, and at most 2805 are read .*max_pixels=2806, --max-pixels 2806"
    with pytest.raises(ValueError, match=message):
        pipe(*files, max_pixels=HEIGHT * WIDTH - 1)
    with pytest.raises(ValueError, match=r"mask\.png: it is 61x46 pixels"):
        pipe(RGB, files[1], max_pixels=HEIGHT * WIDTH - 1)
    expected = pipe(*files, max_pixels=HEIGHT * WIDTH)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # a fourteenth of what Pillow would open
    assert equal(pipe(*files), expected)
    assert side_by_side(*files, expected).height == HEIGHT
    assert Image.MAX_IMAGE_PIXELS == 100


def test_colours_are_not_swapped(photo_file: Path, photo: NDArray[np.uint8]) -> None:
    np.testing.assert_array_equal(open_image(photo_file).whole(), photo)


@pytest.mark.parametrize(
    ("mode", "suffix", "becomes"),
    [("CMYK", ".png", "RGB"), ("1", ".webp", "RGB"), ("P", ".jpg", "RGB"), ("LA", ".webp", "RGBA")],
)
def test_a_mode_that_the_format_lacks(tmp_path: Path, mode: str, suffix: str, becomes: str) -> None:
    save_image((with_alpha() if mode == "LA" else RGB).convert(mode), tmp_path / f"result{suffix}")
    with Image.open(tmp_path / f"result{suffix}") as saved:
        assert saved.mode == becomes


def test_a_cmyk_profile_does_not_stay_with_rgb(tmp_path: Path) -> None:
    image = RGB.convert("CMYK")
    image.info["icc_profile"] = PROFILE
    save_image(image, tmp_path / "result.png")
    with Image.open(tmp_path / "result.png") as saved:
        assert "icc_profile" not in saved.info


@pytest.mark.parametrize(
    ("image", "suffix", "message"),
    [(with_alpha(), ".jpg", "transparency"), (grey_16_bit(), ".jpg", "I;16"), (RGB, ".xyz", "suffix must be one of")],
)
def test_what_would_be_lost_is_refused(tmp_path: Path, image: Image.Image, suffix: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        save_image(image, tmp_path / f"result{suffix}")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((8, 8, 2), np.uint8), r"must be \(H, W\), or \(H, W, C\) with 1, 3 or 4 channels, got \(8, 8, 2\)"),
        (np.zeros((3, 8, 8), np.uint8), r"got \(3, 8, 8\)"),
        (np.zeros((8, 8, 3), np.int32), r"uint8, or float in \[0, 1\], not int32"),
        (np.full((8, 8, 3), np.nan), "NaN"),
        (np.full((8, 8, 3), np.inf, np.float32), "infinity"),
        (np.full((8, 8, 3), 255.0), r"must be in \[0, 1\], and is in \[255, 255\]"),
        (np.full((8, 8, 3), -0.1), r"\[-0.1, -0.1\]"),
        (np.zeros((3, 8, 3), np.uint8), "image is 8x3 pixels; the least is 4x4"),
        (np.zeros((0, 8, 3)), "image is 8x0 pixels"),
        (torch.zeros(8, 8, 3), r"must be \(H, W\), or \(C, H, W\) with 1, 3 or 4 channels, got \(8, 8, 3\)"),
        (torch.zeros(3, 8, 8, dtype=torch.int16), "not torch.int16"),
        (torch.full((3, 8, 8), torch.nan), "NaN"),
        (Image.new("LAB", (8, 8)), "mode LAB"),
        (Image.fromarray(np.full((8, 8), 300, np.float32)), r"must be in \[0, 1\]"),
        (3, "not int"),
        (None, "not NoneType"),
    ],
)
def test_wrong_images_are_refused(pipe: GLCICPipeline, image: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pipe(image, np.eye(8, dtype=bool))  # type: ignore[call-overload]


@pytest.mark.parametrize("dtype", [">u2", "<i4"])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bit_grey_of_other_byte_orders_and_modes(
    pipe: GLCICPipeline, tmp_path: Path, dtype: str, suffix: str
) -> None:
    """Modes I;16B and I, as big-endian and 32-bit TIFF files give them, come back as I;16 with every bit."""
    values = np.random.default_rng(0).integers(0, 65536, (HEIGHT, WIDTH)).astype(dtype)
    Image.fromarray(values).save(tmp_path / "photo.tif")
    mask = make_hole(HEIGHT, WIDTH)
    save_image(pipe(tmp_path / "photo.tif", mask), tmp_path / f"result{suffix}")
    with Image.open(tmp_path / f"result{suffix}") as saved:
        assert saved.mode == "I;16"
        assert np.array_equal(np.asarray(saved)[mask == 0], values[mask == 0])
    np.testing.assert_array_equal(
        np.asarray(pipe(tmp_path / "photo.tif", mask)), pipe(Image.fromarray(values.astype("<u2")), mask)
    )


def test_32_bit_grey_beyond_16_bits_is_refused(pipe: GLCICPipeline) -> None:
    with pytest.raises(ValueError, match=r"mode I.* must be in \[0, 65535\], and is in \[0, 70000\]"):
        pipe(Image.fromarray(np.diag([70_000] * 8).astype(np.int32)), np.eye(8))


@pytest.mark.parametrize("suffix", [".tif", ".png", ".jpg", ".webp"])
def test_a_cameras_exif(pipe: GLCICPipeline, tmp_path: Path, suffix: str) -> None:
    """What speaks of the photograph stays; what speaks of the old file would break the new one."""
    exif = Image.Exif()
    exif.update({0x010F: "Camera", 0x0112: 6, 0x0100: 9999, 0x0101: 9999, 0x0106: 6, 0x0115: 1, 0x0152: 2})
    exif[0x9C9B] = "A field\0".encode("utf-16-le")  # the title, as Windows writes it
    exif[0x8769] = {0x9003: "2020:01:01 00:00:00"}
    RGB.save(tmp_path / "photo.png", exif=exif)
    mask = make_hole(WIDTH, HEIGHT)
    result = pipe(tmp_path / "photo.png", mask)
    save_image(result, tmp_path / f"result{suffix}")
    with Image.open(tmp_path / f"result{suffix}") as saved:
        assert saved.getexif()[0x010F] == "Camera" and 0x0152 not in saved.getexif()
        assert bytes(saved.getexif()[0x9C9B]).decode("utf-16-le") == "A field\0"
        if suffix != ".tif":
            assert saved.getexif().get_ifd(0x8769)[0x9003] == "2020:01:01 00:00:00"
        if suffix != ".jpg":
            displayed = ImageOps.exif_transpose(saved)
            assert np.array_equal(np.asarray(displayed), np.asarray(ImageOps.exif_transpose(result)))


def test_lazily_opened_tiff_is_turned_once(pipe: GLCICPipeline, tmp_path: Path) -> None:
    """Pillow turns a TIFF upright when it loads it."""
    exif = Image.Exif()
    exif[0x0112] = 3
    for name, image in (("photo", RGB), ("mask", Image.fromarray(make_hole(HEIGHT, WIDTH)))):
        image.save(tmp_path / f"{name}.tif", exif=exif)
    expected = pipe(np.array(RGB)[::-1, ::-1], make_hole(HEIGHT, WIDTH)[::-1, ::-1])
    lazy = pipe(Image.open(tmp_path / "photo.tif"), Image.open(tmp_path / "mask.tif"))
    assert equal(lazy, expected)
    assert equal(pipe(tmp_path / "photo.tif", tmp_path / "mask.tif"), expected)


def test_orientation_that_stands_only_in_xmp_or_memory(pipe: GLCICPipeline, tmp_path: Path) -> None:
    RGB.save(tmp_path / "xmp.jpg", xmp=b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>')
    in_memory = RGB.copy()
    in_memory.getexif()[0x0112] = 6
    images: list[Path | Image.Image] = [tmp_path / "xmp.jpg", in_memory]
    for index, image in enumerate(images):
        save_image(pipe(image, make_hole(WIDTH, HEIGHT)), tmp_path / f"{index}.png")
        with Image.open(tmp_path / f"{index}.png") as saved:
            assert ImageOps.exif_transpose(saved).size == (HEIGHT, WIDTH)


def test_broken_exif_and_resolution_are_dropped(pipe: GLCICPipeline, tmp_path: Path) -> None:
    RGB.save(tmp_path / "photo.jpg", exif=b"Exif\0\0garbage!!")
    image = Image.open(tmp_path / "photo.jpg")
    image.info["dpi"] = (float("nan"), 72)
    result = pipe(image, make_hole(HEIGHT, WIDTH))
    for suffix in (".png", ".tif", ".jpg", ".webp"):
        save_image(result, tmp_path / f"result{suffix}")
        with Image.open(tmp_path / f"result{suffix}") as saved:
            assert saved.size == RGB.size


def test_planar_16_bit_colour_is_refused(pipe: GLCICPipeline, tmp_path: Path) -> None:
    colour = np.zeros((3, 46, 61), np.uint16)
    tifffile.imwrite(tmp_path / "photo.tif", colour, photometric="rgb", planarconfig="separate")
    with pytest.raises(ValueError, match=r"photo\.tif: it has 16 bits a channel|cannot read .*photo\.tif"):
        pipe(tmp_path / "photo.tif", make_hole(HEIGHT, WIDTH))


BANDS = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 6), np.uint8)


@pytest.mark.parametrize(
    ("values", "photometric", "extra", "message"),
    [
        (BANDS[..., :4], "rgb", ["unspecified"], "4 bands, of which 1 would be lost; save it with those of RGB"),
        (BANDS[..., :5], "rgb", ["unassalpha", "unspecified"], "5 bands, of which 1 would be lost"),
        (BANDS, "separated", ["unspecified", "unspecified"], "6 bands, of which 2 would be lost"),
        (BANDS[..., :2], "minisblack", ["unspecified"], r"TIFF of a kind that is not read \(2 × 8 bits"),
        (BANDS[..., :3] / np.float32(255), "rgb", [], r"TIFF of a kind that is not read \(3 × 32 float bits"),
        (BANDS[..., 0] / 255, "minisblack", [], r"TIFF of a kind that is not read \(1 × 64 float bits"),
    ],
)
@pytest.mark.parametrize("big", [False, True])
def test_tiffs_of_other_bands_are_refused(
    pipe: GLCICPipeline,
    tmp_path: Path,
    values: NDArray[Any],
    photometric: Any,
    extra: list[Any],
    message: str,
    big: bool,
) -> None:
    path = tmp_path / "photo.tif"
    layout: Any = {"planarconfig": "contig"} if values.ndim == 3 else {}
    tifffile.imwrite(path, values, photometric=photometric, extrasamples=extra, bigtiff=big, **layout)
    with pytest.raises(ValueError, match=rf"cannot read .*photo\.tif: .*{message}"):
        pipe(path, make_hole(HEIGHT, WIDTH))


def test_planes_that_pillow_leaves_out(pipe: GLCICPipeline, tmp_path: Path) -> None:
    planes = np.moveaxis(BANDS[..., :4], 2, 0)
    options: Any = {"planarconfig": "separate", "extrasamples": ["unspecified"], "compression": "zlib"}
    tifffile.imwrite(tmp_path / "photo.tif", planes, photometric="rgb", **options)
    with pytest.raises(ValueError, match="4 bands, of which 1 would be lost"):
        pipe(tmp_path / "photo.tif", make_hole(HEIGHT, WIDTH))


def test_tags_of_a_tiff_that_are_not_kept_are_named(pipe: GLCICPipeline, tmp_path: Path) -> None:
    tags: Any = [(33550, 12, 3, (1.0, 1.0, 0.0), True), (34735, 3, 4, (1, 1, 0, 0), True), (65000, 3, 1, 7, True)]
    tifffile.imwrite(tmp_path / "photo.tif", np.array(RGB), description="A field", metadata=None, extratags=tags)
    with pytest.warns(UserWarning) as caught:
        result = pipe(tmp_path / "photo.tif", make_hole(HEIGHT, WIDTH))
    expected = "not kept of the TIFF's tags: ModelPixelScaleTag (33550), GeoKeyDirectoryTag (34735), unknown (65000)"
    assert [str(warning.message) for warning in caught] == [expected]
    assert result.getexif()[0x010E] == "A field"


def test_an_unknown_compression_is_said(pipe: GLCICPipeline, tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "photo.tif", np.array(RGB))
    content = (tmp_path / "photo.tif").read_bytes()
    entry = struct.pack("<HHIH", 259, 3, 1, 1)
    assert content.count(entry) == 1
    (tmp_path / "photo.tif").write_bytes(content.replace(entry, struct.pack("<HHIH", 259, 3, 1, 34712)))
    with pytest.raises(ValueError, match=r"TIFF of a kind that is not read \(3 × 8 bits, compression 34712\)"):
        pipe(tmp_path / "photo.tif", make_hole(HEIGHT, WIDTH))


@pytest.mark.parametrize(("kind", "value"), [(2, "<x:xmpmeta/>"), (3, (7, 8, 9))])
def test_xmp_of_another_type(pipe: GLCICPipeline, tmp_path: Path, kind: int, value: Any) -> None:
    tifffile.imwrite(tmp_path / "photo.tif", np.array(RGB), extratags=[(700, kind, len(value), value, True)])
    with pytest.warns(UserWarning, match=r"XMP \(700\)"):
        assert pipe(tmp_path / "photo.tif", make_hole(HEIGHT, WIDTH), detail="none").size == RGB.size


def test_a_tiff_of_too_few_strips_is_refused(pipe: GLCICPipeline, tmp_path: Path) -> None:
    """Pillow would make the rest black."""
    tifffile.imwrite(tmp_path / "photo.tif", np.array(RGB), rowsperstrip=16)
    assert load_image(tmp_path / "photo.tif").size == (WIDTH, HEIGHT)
    content = bytearray((tmp_path / "photo.tif").read_bytes())
    content[content.index(struct.pack("<HHI", 257, 4, 1)) + 8] = 120  # rows
    (tmp_path / "photo.tif").write_bytes(content)
    with pytest.raises(ValueError, match=r"photo\.tif: it is truncated"):
        load_image(tmp_path / "photo.tif")


def test_bits_that_pillow_would_lose(tmp_path: Path) -> None:
    """AVIF of 10 bits a channel, grey TIFF of 12; of a BMP 16 bits are those of all channels together."""
    RGB.save(tmp_path / "photo.avif")
    content = bytearray((tmp_path / "photo.avif").read_bytes())
    assert load_image(tmp_path / "photo.avif").size == RGB.size
    content[content.index(b"av1C") + 6] |= 0x40
    depths = content.index(b"pixi") + 9
    content[depths : depths + 3] = b"\x0a\x0a\x0a"
    (tmp_path / "photo.avif").write_bytes(content)
    with pytest.raises(ValueError, match="10 bits a channel, of which 2 would be lost"):
        load_image(tmp_path / "photo.avif")

    head = struct.pack("<IiiHHIIiiII3I", 40, 8, 4, 1, 16, 3, 64, 0, 0, 0, 0, 0xF800, 0x07E0, 0x001F)
    (tmp_path / "photo.bmp").write_bytes(b"BM" + struct.pack("<IHHI", 130, 0, 0, 66) + head + b"\xe0\x07" * 32)
    assert load_image(tmp_path / "photo.bmp").getpixel((0, 0)) == (0, 255, 0)

    tifffile.imwrite(tmp_path / "photo.tif", np.zeros((8, 8), np.uint16))
    content = bytearray((tmp_path / "photo.tif").read_bytes())
    place = content.index(struct.pack("<HHIH", 258, 3, 1, 16))
    content[place + 8] = 12
    (tmp_path / "photo.tif").write_bytes(content)
    with pytest.raises(ValueError, match="12 bits a channel; save it with 8 or 16"):
        load_image(tmp_path / "photo.tif")


COLOUR_CHUNKS = {
    b"cICP": bytes([12, 13, 0, 1]),
    b"gAMA": struct.pack(">I", 45455),
    b"cHRM": struct.pack(">8I", 31270, 32900, 68000, 32000, 26500, 69000, 15000, 6001),
    b"sRGB": b"\1",
}


@pytest.mark.parametrize("names", [[name] for name in COLOUR_CHUNKS] + [list(COLOUR_CHUNKS)])
@pytest.mark.parametrize("opened", [False, True])
def test_what_a_png_says_of_its_colours(pipe: GLCICPipeline, tmp_path: Path, names: list[bytes], opened: bool) -> None:
    """It goes from PNG to PNG byte for byte; other formats do not hold it, which is said."""
    chunks = PngImagePlugin.PngInfo()
    for name in names:
        chunks.add(name, COLOUR_CHUNKS[name])
    path = tmp_path / "photo.png"
    RGB.save(path, pnginfo=chunks)
    with Image.open(path) as image:
        result = pipe(image if opened else path, make_hole(HEIGHT, WIDTH), detail="none")
    save_image(result, tmp_path / "result.png")
    content = (tmp_path / "result.png").read_bytes()
    for name, expected in COLOUR_CHUNKS.items():
        begin = content.find(name) + 4
        assert (content[begin : begin + len(expected)] == expected) == (name in names)
    with pytest.warns(UserWarning, match=rf"result\.webp: WEBP does not hold the image's .*{names[-1].decode()}"):
        save_image(result, tmp_path / "result.webp")


def test_the_colours_of_an_avif_go_to_png(pipe: GLCICPipeline, tmp_path: Path) -> None:
    RGB.save(tmp_path / "photo.avif", quality=100)
    content = bytearray((tmp_path / "photo.avif").read_bytes())
    for primaries, chunks in ((1, 0), (12, 1)):  # sRGB and Display P3
        content[content.index(b"colrnclx") + 9] = primaries
        (tmp_path / "photo.avif").write_bytes(content)
        result = pipe(tmp_path / "photo.avif", make_hole(HEIGHT, WIDTH), detail="none")
        save_image(result, tmp_path / "result.png", overwrite=True)
        assert (tmp_path / "result.png").read_bytes().count(b"cICP" + bytes([primaries, 13, 0, 1])) == chunks


@pytest.mark.parametrize("dpi", [(70_000, 70_000), (0.1, 0.1)])
def test_a_resolution_that_jpeg_would_turn_into_another(tmp_path: Path, dpi: tuple[float, float]) -> None:
    image = RGB.copy()
    image.info["dpi"] = dpi
    save_image(image, tmp_path / "result.jpg")
    with Image.open(tmp_path / "result.jpg") as saved:
        assert "dpi" not in saved.info


@pytest.mark.parametrize("transparency", [200, bytes([254] * 8), bytes(100)])
def test_odd_transparency_of_palettes(pipe: GLCICPipeline, transparency: int | bytes) -> None:
    image = RGB.quantize(8)
    image.info["transparency"] = transparency
    mask = make_hole(HEIGHT, WIDTH)
    result = pipe(image, mask)
    assert result.mode == "P"
    assert np.array_equal(np.array(result)[mask == 0], np.array(image)[mask == 0])


def test_broken_and_closed_pil_images(pipe: GLCICPipeline, tmp_path: Path) -> None:
    RGB.save(tmp_path / "photo.jpg")
    (tmp_path / "short.jpg").write_bytes((tmp_path / "photo.jpg").read_bytes()[:-200])
    with (
        Image.open(tmp_path / "short.jpg") as short,
        pytest.raises(ValueError, match=r"cannot read image: .*truncated"),
    ):
        pipe(short, make_hole(HEIGHT, WIDTH))
    closed = Image.open(tmp_path / "photo.jpg")
    closed.close()
    with pytest.raises(ValueError, match="cannot read image"):
        pipe(closed, make_hole(HEIGHT, WIDTH))

from __future__ import annotations

import json
import multiprocessing
import pickle
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file, save_file

from glcic_hub import GLCICConfig, GLCICPipeline
from glcic_hub.hub.model_files import save_model
from glcic_hub.images.processing import to_uint8
from glcic_hub.pipeline import Blend, Detail
from tests.conftest import MEAN_PIXEL, equal, make_hole, make_network, make_photo

WAYS: list[tuple[Detail, Blend]] = [("none", "none"), ("none", "poisson"), ("exemplars", "none")]


@pytest.mark.parametrize(("detail", "blend"), WAYS)
@pytest.mark.parametrize("size", [(4, 4), (5, 7), (33, 50), (130, 63), (64, 64)])
def test_any_size(pipe: GLCICPipeline, size: tuple[int, int], detail: Detail, blend: Blend) -> None:
    photo = make_photo(*size)
    mask = np.zeros(size, bool)
    mask[1 : size[0] // 2 + 1, 2 : size[1] // 2 + 1] = True
    result = pipe(photo, mask, detail=detail, blend=blend)
    assert result.shape == photo.shape
    assert np.array_equal(result[~mask], photo[~mask])
    assert not np.array_equal(result[mask], photo[mask])


@pytest.mark.parametrize(("detail", "blend"), WAYS)
def test_what_is_under_the_hole_has_no_influence(pipe: GLCICPipeline, detail: Detail, blend: Blend) -> None:
    """Also at a width that is padded, with holes at the padded border."""
    photo, mask = make_photo(46, 61), make_hole(46, 61) > 0
    damaged = np.where(mask[..., None], make_photo(46, 61, seed=7), photo)
    first, second = (pipe(image, mask, detail=detail, blend=blend) for image in (photo, damaged))
    assert np.array_equal(first, second)


@pytest.mark.parametrize(("detail", "blend"), WAYS)
@pytest.mark.parametrize("kind", ["array", "tensor", "PIL image"])
@pytest.mark.parametrize("value", [np.nan, -np.inf, -1.8e308, 255])
def test_no_value_matters_under_the_hole(
    pipe: GLCICPipeline, kind: str, value: float, detail: Detail, blend: Blend
) -> None:
    """Such as NaN, or the number that a sensor writes where it has no data."""
    mask = make_hole(46, 61) > 0
    grey = make_photo(46, 61)[..., 0] / 255
    damaged = np.where(mask, value, grey)

    def complete(values: NDArray[np.float64]) -> NDArray[Any]:
        if kind == "PIL image":
            with np.errstate(over="ignore"):
                image = Image.fromarray(values.astype(np.float32))
            return np.asarray(pipe(image, mask, detail=detail, blend=blend))
        colour = values[..., None].repeat(3, 2)
        if kind == "tensor":
            return pipe(torch.from_numpy(colour.transpose(2, 0, 1)), mask, detail=detail, blend=blend).numpy()
        return pipe(colour, mask, detail=detail, blend=blend)

    assert equal(complete(damaged), complete(grey))
    damaged[0, 0] = value
    with pytest.raises(ValueError, match=r"NaN or infinity|must be in \[0, 1\]"):
        complete(damaged)


def test_padding_keeps_the_image_in_place(pipe: GLCICPipeline) -> None:
    """A size that needs no padding gives the same as the network alone."""
    photo, mask = make_photo(48, 64), make_hole(48, 64) > 0
    image = torch.from_numpy(photo).permute(2, 0, 1)[None] / 255
    hole = torch.from_numpy(mask)[None, None].float()
    expected = torch.where(hole > 0, make_network()(image, hole), image)[0].permute(1, 2, 0).detach().numpy()
    completed = pipe((photo / 255).astype(np.float32), mask, detail="none")
    np.testing.assert_allclose(completed, expected, atol=1e-5)


def test_padding_is_that_of_the_edge(pipe: GLCICPipeline, photo: NDArray[np.uint8], mask: NDArray[np.uint8]) -> None:
    """46×61 gives what 48×64 gives whose last rows and columns are repeated, in the same place."""
    padded_photo = np.pad(photo, ((0, 2), (0, 3), (0, 0)), mode="edge")
    padded_mask = np.pad(mask, ((0, 2), (0, 3)), mode="edge")
    padded, plain = (pipe(*pair, detail="none") for pair in ((padded_photo, padded_mask), (photo, mask)))
    assert np.abs(padded[:46, :61].astype(int) - plain).max() <= 1


@pytest.mark.parametrize("detail", ["none", "exemplars"])
def test_lists(
    pipe: GLCICPipeline, photo: NDArray[np.uint8], mask: NDArray[np.uint8], photo_file: Path, detail: Detail
) -> None:
    expected = pipe(photo, mask, detail=detail)
    one_mask = pipe([photo, photo_file], mask, detail=detail)
    assert isinstance(one_mask, list) and isinstance(one_mask[1], Image.Image)
    assert all(equal(result, expected) for result in one_mask)
    two_masks = pipe([photo, photo], [255 - mask, 255 - mask[::-1]], detail=detail, invert_mask=True)
    assert equal(two_masks[0], expected)
    assert equal(two_masks[1], pipe(photo, mask[::-1], detail=detail))
    assert pipe([], []) == []
    with pytest.raises(ValueError, match="2 images and 1 masks"):
        pipe([photo, photo], [mask])


def test_an_empty_mask_changes_nothing_and_warns(pipe: GLCICPipeline, photo: NDArray[np.uint8]) -> None:
    with pytest.warns(UserWarning, match="mask is empty") as caught:
        result = pipe(photo, np.zeros((46, 61)))
    assert np.array_equal(result, photo) and not np.shares_memory(result, photo)
    assert caught[0].filename == __file__  # the warning points at the caller


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.ones((46, 61)), "covers the whole image.*invert"),
        (np.eye(8), "image is 61x46 pixels as displayed and the mask 8x8"),
        (None, "no mask was given, and the image has no transparent pixels"),
    ],
)
def test_masks_that_do_not_fit(pipe: GLCICPipeline, photo: NDArray[np.uint8], mask: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pipe(photo, mask)


def test_no_mask_to_invert(pipe: GLCICPipeline, photo: NDArray[np.uint8]) -> None:
    with pytest.raises(ValueError, match="no mask to invert"):
        pipe(photo, invert_mask=True)


def test_unknown_blending(pipe: GLCICPipeline, photo: NDArray[np.uint8], mask: NDArray[np.uint8]) -> None:
    with pytest.raises(ValueError, match="not 'feather'"):
        pipe(photo, mask, blend="feather")  # type: ignore[call-overload]


def test_unknown_detail(pipe: GLCICPipeline, photo: NDArray[np.uint8], mask: NDArray[np.uint8]) -> None:
    with pytest.raises(ValueError, match='detail must be "exemplars" or "none", not \'fine\''):
        pipe(photo, mask, detail="fine")  # type: ignore[call-overload]


def test_detail_comes_from_the_image(pipe: GLCICPipeline, photo: NDArray[np.uint8], mask: NDArray[np.uint8]) -> None:
    """Without being asked for; the network's fill has none of stripes whose rows repeat, and is one argument away."""
    stripes = np.repeat(np.resize([40, 40, 200, 200], 80).astype(np.uint8)[:, None], 80, axis=1)[..., None].repeat(
        3, 2
    )
    hole = np.zeros((80, 80), bool)
    hole[30:50, 25:55] = True
    assert np.array_equal(pipe(stripes, hole), stripes)
    alone = pipe(stripes, hole, detail="none")
    (patch,) = pipe._completer.complete([(stripes, hole)])[0]
    expected = stripes.copy()
    expected[patch.box.slices][patch.hole] = to_uint8(patch.fill)[patch.hole]
    assert np.array_equal(alone, expected) and not np.array_equal(alone, stripes)


def test_nothing_to_copy_from_is_a_warning(pipe: GLCICPipeline) -> None:
    photo, hole = make_photo(40, 40), np.ones((40, 40), bool)
    hole[0, :] = False
    with pytest.warns(UserWarning, match="nothing around the hole at row 1, column 0 can be copied") as caught:
        result = pipe(photo, hole)
    assert caught[0].filename == __file__  # the warning points at the caller
    assert np.array_equal(result[0], photo[0]) and not np.array_equal(result[1:], photo[1:])


def test_lower_precision_stays_near(pipe: GLCICPipeline, photo: NDArray[np.uint8], mask: NDArray[np.uint8]) -> None:
    expected = pipe(photo, mask, detail="none")
    for dtype in (torch.bfloat16, torch.float16):
        low = GLCICPipeline(pipe.config, pipe.network, device="cpu", dtype=dtype)
        result = low(photo, mask, detail="none")
        assert np.array_equal(result[mask == 0], photo[mask == 0])
        assert np.abs(result.astype(int) - expected).mean() < 2


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # Python 3.12 warns of every fork with threads
def test_a_forked_process_completes(pipe: GLCICPipeline) -> None:
    """The parent's threads, which its completions have started, are not in the fork."""
    photo, hole = make_photo(300, 300), np.zeros((300, 300), bool)
    hole[80:180, 80:180] = True
    expected = pipe(photo, hole)
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=lambda: sender.send(pipe(photo, hole)))
    child.start()
    try:
        assert receiver.poll(30), "the fork hangs"
        assert np.abs(receiver.recv().astype(int) - expected).max() <= 1  # one thread adds in another order
    finally:
        child.kill()
        child.join()


@pytest.mark.parametrize("device", ["cuda:99", "gpu", "meta", "hpu"])
def test_a_device_that_is_not_there(pipe: GLCICPipeline, device: str) -> None:
    with pytest.raises(ValueError, match="cannot use the device"):
        GLCICPipeline(pipe.config, pipe.network, device=device)


def test_auto_takes_half_precision_only_where_the_processor_has_it(pipe: GLCICPipeline) -> None:
    has_it = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    auto = GLCICPipeline(pipe.config, pipe.network, device="cpu")
    assert auto.dtype == (torch.bfloat16 if has_it else torch.float32)
    assert pipe.dtype == torch.float32


def test_a_dtype_that_is_none(pipe: GLCICPipeline) -> None:
    with pytest.raises(ValueError, match="dtype must be"):
        GLCICPipeline(pipe.config, pipe.network, dtype=torch.int8)


def test_save_and_load(
    pipe: GLCICPipeline, model_folder: Path, photo: NDArray[np.uint8], mask: NDArray[np.uint8]
) -> None:
    loaded = GLCICPipeline.from_pretrained(model_folder, device="cpu", dtype=torch.float32)
    assert loaded.config == pipe.config
    assert np.array_equal(loaded(photo, mask), pipe(photo, mask))
    assert {path.name for path in model_folder.iterdir()} == {"config.json", "model.safetensors"}


@pytest.mark.parametrize("default", ["bfloat16", "float64", "meta"])
def test_pytorchs_defaults_do_not_matter(
    tmp_path: Path, pipe: GLCICPipeline, photo: NDArray[np.uint8], mask: NDArray[np.uint8], default: str
) -> None:
    """What is loaded is the file's float32 on the CPU, and saved so."""
    pipe.save_pretrained(tmp_path / "model")
    try:
        if default == "meta":
            torch.set_default_device("meta")
        else:
            torch.set_default_dtype(getattr(torch, default))
        loaded = GLCICPipeline.from_pretrained(tmp_path / "model", device="cpu", dtype=torch.float32)
        loaded.save_pretrained(tmp_path / "again")
        assert equal(loaded(photo, mask), pipe(photo, mask))
    finally:
        torch.set_default_device(None)
        torch.set_default_dtype(torch.float32)
    assert torch.equal(loaded.network.mean_pixel, pipe.network.mean_pixel)
    first, second = (load_file(tmp_path / folder / "model.safetensors") for folder in ("model", "again"))
    assert all(torch.equal(second[name], tensor) for name, tensor in first.items())


def test_half_precision_on_disk(
    tmp_path: Path, pipe: GLCICPipeline, photo: NDArray[np.uint8], mask: NDArray[np.uint8]
) -> None:
    save_model(tmp_path, pipe.config, pipe.network, dtype=torch.float16)
    loaded = GLCICPipeline.from_pretrained(tmp_path, device="cpu")
    half, whole = (one(photo, mask, detail="none") for one in (loaded, pipe))
    assert np.abs(half.astype(int) - whole).max() <= 2


def broken_models(folder: Path) -> dict[str, str]:
    """Breaks copies of the model in `folder`; gives the folder of each and what the error says."""
    weights = (folder / "model.safetensors").read_bytes()
    tensors = load_file(folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    expected = {}

    def broken(name: str, message: str) -> Path:
        expected[name] = message
        copy = folder.parent / name
        shutil.copytree(folder, copy)
        return copy

    (broken("truncated", "not a whole safetensors file") / "model.safetensors").write_bytes(weights[:-100])
    (broken("empty", "not a whole safetensors file") / "model.safetensors").write_bytes(b"")
    pickled = pickle.dumps({"model": [1, 2, 3]})
    (broken("pickle", "not a whole safetensors file") / "model.safetensors").write_bytes(pickled)
    wider = GLCICConfig(width=8, mean_pixel=MEAN_PIXEL).to_json()
    (broken("of another width", "layers.0.conv.weight is .4, 4, 5, 5., the config says .8, 4, 5, 5.")
     / "config.json").write_text(wider)  # fmt: skip
    missing = {name: tensor for name, tensor in tensors.items() if name != "layers.3.conv.weight"}
    save_file(missing, broken("with a tensor missing", "lacks layers.3.conv.weight") / "model.safetensors")
    more = tensors | {"layers.17.conv.weight": torch.zeros(2)}
    save_file(more, broken("with a tensor too many", "too many, layers.17.conv.weight") / "model.safetensors")
    nan = tensors | {"layers.0.conv.weight": tensors["layers.0.conv.weight"] * torch.nan}
    save_file(nan, broken("with NaN", "NaN or infinity in layers.0.conv.weight") / "model.safetensors")
    (broken("without config", "config.json does not exist") / "config.json").unlink()
    (broken("without weights", "model.safetensors does not exist") / "model.safetensors").unlink()
    (broken("of a newer format", "format_version 9") / "config.json").write_text(
        json.dumps(config | {"format_version": 9})
    )
    (broken("with a config in Latin-1", "config.json") / "config.json").write_bytes(b'{"a": "\xe9"}')
    return expected


def test_broken_models_are_refused(tmp_path: Path, pipe: GLCICPipeline) -> None:
    pipe.save_pretrained(tmp_path / "model")
    for name, message in broken_models(tmp_path / "model").items():
        with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
            GLCICPipeline.from_pretrained(tmp_path / name)
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_model_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no model in"):
        GLCICPipeline.from_pretrained(tmp_path / "nothing")

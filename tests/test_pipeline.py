from __future__ import annotations

import copy
import dataclasses
import json
import pickle
import re
import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file, save_file

from glcic_hub import GLCICConfig, GLCICPipeline
from glcic_hub.completion.completer import best_dtype
from glcic_hub.hub.model_files import save_model
from glcic_hub.images.processing import to_uint8
from glcic_hub.networks import CompletionNetwork
from glcic_hub.pipeline import Blend, Detail
from tests.conftest import CONFIG, MEAN_PIXEL, equal, in_a_fork, make_hole, make_network, make_photo

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


def test_a_model_says_how_it_completes_best(pipe: GLCICPipeline) -> None:
    """And whoever asks otherwise gets that."""
    photo, mask = make_photo(46, 61), make_hole(46, 61)
    assert np.array_equal(pipe(photo, mask), pipe(photo, mask, detail="exemplars", blend="none"))
    config = dataclasses.replace(pipe.config, detail="none", blend="poisson")
    other = GLCICPipeline(config, pipe.network, device="cpu", dtype=pipe.dtype)
    assert np.array_equal(other(photo, mask), pipe(photo, mask, detail="none", blend="poisson"))
    assert np.array_equal(other(photo, mask, detail="exemplars", blend="none"), pipe(photo, mask))
    assert not np.array_equal(other(photo, mask), pipe(photo, mask))


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
    assert pipe(photo[None][:0], mask).shape == (0, 46, 61, 3)
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
    assert np.abs(in_a_fork(lambda: pipe(photo, hole)).astype(int) - expected).max() <= 1  # sums in another order


def new_pipe() -> GLCICPipeline:
    return GLCICPipeline(CONFIG, make_network(), device="cpu", dtype=torch.float32)


@pytest.mark.parametrize("name", ["config", "network", "device", "dtype"])
def test_what_is_read_only_says_so(pipe: GLCICPipeline, name: str) -> None:
    with pytest.raises(AttributeError, match=name):
        setattr(pipe, name, getattr(pipe, name))


# What users of diffusers, transformers and Pillow type, and what is true of the result.
IDIOMS = [
    ('pipe.to("cpu")', "result is pipe and pipe.dtype == torch.float32"),
    ("pipe.to(torch.float16)", "result is pipe and pipe.dtype == torch.float16"),
    ('pipe.to("cpu", torch.bfloat16)', "pipe.dtype == torch.bfloat16 and pipe.device.type == 'cpu'"),
    ('pipe.to(torch.device("cpu"), dtype="float16")', "pipe.dtype == torch.float16"),
    ('pipe.to(dtype="float16").to("auto")', "pipe.dtype == best_dtype(pipe.device)"),
    ("pipe.to(torch.float16)(image, mask)", "isinstance(result, Image.Image)"),
    ("pipe.device", "result == torch.device('cpu')"),
    ("pipe.dtype", "result == torch.float32"),
    ("repr(pipe)", "result == \"GLCICPipeline(weights='given', width=4, device='cpu', dtype=torch.float32)\""),
    ("repr(load(folder, subfolder='.'))", "result.startswith(f\"GLCICPipeline(weights='{folder}/.', width=4, \")"),
    ("repr(load())", "result.startswith(\"GLCICPipeline(weights='compact', width=32, \")"),
    ("load(folder, torch_dtype=torch.float16)", "result.dtype == torch.float16"),
    ('load(folder, torch_dtype="auto")', "result.dtype == best_dtype(result.device)"),
    ('load(folder, dtype="bfloat16")', "result.dtype == torch.bfloat16"),
    ("load(str(folder.parent), subfolder=folder.name)", "result.config == pipe.config"),
    ("pipe(image=image, mask_image=mask)", "result.size == image.size and equal(result, pipe(image, mask))"),
    ("pipe(image, mask_image=mask.convert('RGB'))", "equal(result, pipe(image, mask))"),
    ("pipe(image, mask, output_type='pil')", "equal(result, pipe(image, mask))"),
    ("pipe(image, mask, output_type='np')", "equal(result, np.float32(pipe(image, mask)) / np.float32(255))"),
    ("pipe(image, mask, output_type='pt')", "(result.shape, result.dtype) == ((3, 24, 32), torch.float32)"),
    ("pipe(image.convert('RGBA'), mask, output_type='np')", "result.shape == (24, 32, 4)"),
    ("pipe(arrays[0], mask, output_type='pil')", "equal(result, pipe(arrays[0], mask))"),
    ("pipe(tensors[0], mask, output_type='pil')", "result.mode == 'RGB' and result.size == image.size"),
    ("pipe([image, image], mask)", "[type(one) for one in result] == [Image.Image] * 2"),
    ("pipe([image, image], [mask, mask], output_type='np')", "[one.shape for one in result] == [(24, 32, 3)] * 2"),
    ("pipe(arrays, mask)", "(result.shape, result.dtype) == ((2, 24, 32, 3), np.uint8)"),
    ("pipe(tensors, mask)", "(result.shape, result.dtype) == ((2, 3, 24, 32), torch.float32)"),
    ("pipe((255 * tensors).byte(), mask)", "(result.shape, result.dtype) == ((2, 3, 24, 32), torch.uint8)"),
    ("pipe(arrays, mask, output_type='pil')", "[one.size for one in result] == [(32, 24)] * 2"),
    ("pipe(tensors, mask, output_type='np')", "(result.shape, result.dtype) == ((2, 24, 32, 3), np.float32)"),
]


@pytest.mark.parametrize(("typed", "true"), IDIOMS)
def test_idioms(model_folder: Path, typed: str, true: str) -> None:
    arrays = np.stack([make_photo(24, 32, seed=seed) for seed in (0, 1)])
    names = {
        **{"torch": torch, "np": np, "Image": Image, "equal": equal, "best_dtype": best_dtype},
        "pipe": new_pipe(),
        "load": partial(GLCICPipeline.from_pretrained, device="cpu"),
        "folder": model_folder,
        "image": Image.fromarray(arrays[0]),
        "mask": Image.fromarray(make_hole(24, 32)),
        "arrays": arrays,
        "tensors": torch.from_numpy(arrays).permute(0, 3, 1, 2) / 255,
    }
    names["result"] = eval(typed, names)
    assert eval(true, names), names["result"]


# What has no meaning here, and what the refusal says to do.
REFUSED = [
    (
        "load(folder, variant='fp16')",
        "no variant: there is one file of weights.*choose the precision with dtype=",
    ),
    ("load(folder, use_safetensors=True)", "takes no use_safetensors: weights are always safetensors; omit it"),
    ("load(folder, device_map='auto')", 'takes no device_map: .*pass device="cuda" or call .to'),
    ("load(folder, safety_checker=None)", "takes no safety_checker: .*omit it"),
    ("load(folder, use_auth_token=True)", "takes no use_auth_token: pass token="),
    ("load(folder, dtype='float16', torch_dtype='float16')", "torch_dtype is another name of dtype; pass one of them"),
    ("load(folder, torch_dtype='int8')", "dtype must be \"auto\", torch.float32, .*, not 'int8'"),
    ("pipe.to(torch.int8)", "dtype must be"),
    ("pipe.to('tpu')", "cannot use the device 'tpu'"),
    ("pipe(image, mask, prompt='a cat')", "takes no prompt: nothing is made from text.*omit it"),
    ("pipe(image, mask, num_inference_steps=20)", "takes no num_inference_steps: .*in one pass"),
    ("pipe(image, mask, generator=torch.Generator())", "takes no generator: the same image and mask always give"),
    ("pipe(image, mask, seed=0)", "takes no seed: the same image and mask always give the same result"),
    ("pipe(image, mask, height=512)", "takes no height: the result has the image's size"),
    ("pipe(image, mask, return_dict=False)", "takes no return_dict: the result is the image itself"),
    ("pipe(image, mask, mask_image=mask)", "mask_image is another name of mask; pass one of them"),
    ("pipe(image, mask, output_type='latent')", 'output_type must be "pil", "np", "pt" or None, not \'latent\''),
    (
        "pipe('https://example.com/a.png', mask)",
        r'Image.open\(urllib.request.urlopen\("https://example.com/a.png"\)\)',
    ),
    ("pipe.save_pretrained(folder, safe_serialization=True)", "takes no safe_serialization: .*omit it"),
    ("pipe.save_pretrained(folder, repo_id='a/b')", "repo_id is of use with push_to_hub=True alone"),
    ("pipe.push_to_hub('a/b', variant='fp16')", "takes no variant"),
]


@pytest.mark.parametrize(("typed", "message"), REFUSED)
def test_what_has_no_meaning_here(
    pipe: GLCICPipeline, model_folder: Path, photo: NDArray[np.uint8], typed: str, message: str
) -> None:
    load = partial(GLCICPipeline.from_pretrained, device="cpu")
    image, mask = Image.fromarray(photo), Image.fromarray(make_hole(46, 61))
    with pytest.raises(ValueError, match=message):
        eval(typed, {"torch": torch, "pipe": pipe, "load": load, "folder": model_folder, "image": image, "mask": mask})


def test_other_arguments_are_unexpected(pipe: GLCICPipeline, photo: NDArray[np.uint8]) -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'invertmask'"):
        pipe(photo, photo, invertmask=True)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="unexpected keyword argument 'devcie'"):
        GLCICPipeline.from_pretrained(devcie="cuda")  # type: ignore[arg-type]


@pytest.mark.parametrize("detail", ["none", "exemplars"])
def test_callback(pipe: GLCICPipeline, photo: NDArray[np.uint8], mask: NDArray[np.uint8], detail: Detail) -> None:
    """It sees each image as soon as it is there, and may stop the others."""
    seen: list[tuple[int, Any]] = []
    completed = pipe([photo, photo], mask, detail=detail, callback=lambda *what: seen.append(what))
    assert [number for number, _ in seen] == [0, 1] and all(seen[i][1] is completed[i] for i in (0, 1))

    def stop(number: int, image: Any) -> None:
        raise KeyboardInterrupt(number)

    with pytest.raises(KeyboardInterrupt, match="0"):
        pipe(np.stack([photo, photo]), mask, detail=detail, callback=stop)


def test_progress_bar(photo: NDArray[np.uint8], mask: NDArray[np.uint8], capsys: pytest.CaptureFixture[str]) -> None:
    pipe = new_pipe()
    pipe([photo, photo], mask, detail="none")
    assert capsys.readouterr().err == ""
    pipe.set_progress_bar_config(desc="photographs")
    pipe(photo, mask, detail="none")
    assert capsys.readouterr().err == ""
    pipe(np.stack([photo, photo]), mask, detail="none")
    assert re.search(r"photographs: 100%.* 2/2 ", capsys.readouterr().err)
    pipe.set_progress_bar_config(disable=True)
    pipe([photo, photo], mask, detail="none")
    assert capsys.readouterr().err == ""


def test_a_card_that_is_there_is_kept(tmp_path: Path, pipe: GLCICPipeline, model_folder: Path) -> None:
    assert "glcic-hub" in (model_folder / "README.md").read_text()
    (tmp_path / "README.md").write_text("mine")
    assert pipe.save_pretrained(tmp_path) is None
    assert (tmp_path / "README.md").read_text() == "mine" and not (tmp_path / "before-after.jpg").exists()


EDITS: dict[str, Callable[[CompletionNetwork], object]] = {
    "load_state_dict": lambda network: network.load_state_dict(make_network(seed=1).state_dict()),
    "in place": lambda network: next(network.parameters()).data.mul_(-1),
    "another tensor": lambda network: setattr(next(network.parameters()), "data", torch.zeros(4, 4, 5, 5)),
    "mean pixel": lambda network: network.mean_pixel.fill_(0),
}


@pytest.mark.parametrize("name", EDITS)
def test_edits_of_the_network_count(
    model_folder: Path, photo: NDArray[np.uint8], mask: NDArray[np.uint8], name: str
) -> None:
    """Also when it is in use, whether it was loaded or given."""
    given = new_pipe()
    loaded = GLCICPipeline.from_pretrained(model_folder, device="cpu", dtype=torch.float32)
    before = given(photo, mask, detail="none")
    assert equal(loaded(photo, mask, detail="none"), before)
    for changed in (given, loaded):
        EDITS[name](changed.network)
    after = given(photo, mask, detail="none")
    assert equal(loaded(photo, mask, detail="none"), after) and not equal(after, before)
    edited = GLCICPipeline(CONFIG, given.network, device="cpu", dtype=torch.float32)
    assert equal(edited(photo, mask, detail="none"), after)


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")  # of torch's own calls of itself
def test_a_compiled_pipeline_is_pickled_uncompiled(photo: NDArray[np.uint8], mask: NDArray[np.uint8]) -> None:
    compiled = new_pipe()
    compiled.set_progress_bar_config(desc="photographs")
    compiled.compile()
    for copied in (pickle.loads(pickle.dumps(compiled)), copy.deepcopy(compiled)):
        assert repr(copied) == repr(compiled)
        assert equal(copied(photo, mask, detail="none"), new_pipe()(photo, mask, detail="none"))


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
    names = {"config.json", "model.safetensors", "README.md", "before-after.jpg"}
    assert {path.name for path in model_folder.iterdir()} == names


@pytest.mark.parametrize("default", ["bfloat16", "float64", "meta"])
def test_pytorchs_defaults_do_not_matter(
    tmp_path: Path,
    pipe: GLCICPipeline,
    model_folder: Path,
    photo: NDArray[np.uint8],
    mask: NDArray[np.uint8],
    default: str,
) -> None:
    """What is loaded is the file's float32 on the CPU, and saved so."""
    (tmp_path / "README.md").touch()  # no card is made
    try:
        if default == "meta":
            torch.set_default_device("meta")
        else:
            torch.set_default_dtype(getattr(torch, default))
        loaded = GLCICPipeline.from_pretrained(model_folder, device="cpu", dtype=torch.float32)
        loaded.save_pretrained(tmp_path)
        assert equal(loaded(photo, mask), pipe(photo, mask))
    finally:
        torch.set_default_device(None)
        torch.set_default_dtype(torch.float32)
    assert torch.equal(loaded.network.mean_pixel, pipe.network.mean_pixel)
    first, second = (load_file(folder / "model.safetensors") for folder in (model_folder, tmp_path))
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

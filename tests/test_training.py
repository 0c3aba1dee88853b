from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from glcic_hub import GLCICPipeline
from glcic_hub.networks import CompletionNetwork
from glcic_hub.training import Recipe, train
from glcic_hub.training.data import TrainingSamples, measure_mean_pixel
from glcic_hub.training.initialisation import initialise_spreading
from glcic_hub.training.losses import completion_loss, gradient_loss, tint_loss
from glcic_hub.training.trainer import learning_rate_at
from tests.conftest import MEAN_PIXEL, make_hole, make_photo

ROOT = Path(__file__).parents[1]
SMALL = Recipe(
    width=4,
    image_size=32,
    patch_size=16,
    resize=(32, 40),
    hole_size=(8, 16),
    flip=True,
    batch_size=4,
    completion_steps=5,
    optimizer="adamw",
    learning_rate=0.01,
    initialisation="spreading",
    tint_weight=6.0,
    gradient_weight=10.0,
)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photographs")
    for index in range(12):
        Image.fromarray(make_photo(40 + index, 60 - index, seed=index)).save(folder / f"{index:02}.png")
    return folder


def test_losses_against_numpy() -> None:
    """Eq. 2 averaged over each hole, whatever its size; its tint; its differences, those across the edge included."""
    random = np.random.default_rng(0)
    completed, image = random.random((2, 3, 3, 8, 9))
    mask = np.zeros((3, 1, 8, 9))
    mask[0, :, 2:5, 3:4], mask[1, :, :, 1:8], mask[2, :, 7, 8] = 1, 1, 1
    squares, tints, gradients = [], [], []
    for sample in range(3):
        error = (completed - image)[sample][:, mask[sample, 0] > 0]
        squares.append((error**2).mean())
        tints.append(((error - error.mean(axis=0)) ** 2).mean())
        whole = (completed - image)[sample] * mask[sample]
        differences = [np.diff(whole, axis=axis) ** 2 for axis in (1, 2)]
        gradients.append(sum(map(np.sum, differences)) / (3 * mask[sample].sum()))
    tensors = [torch.from_numpy(array) for array in (completed, image, mask)]
    assert completion_loss(*tensors).item() == pytest.approx(np.mean(squares), abs=1e-12)
    assert tint_loss(*tensors).item() == pytest.approx(np.mean(tints), abs=1e-12)
    assert gradient_loss(*tensors).item() == pytest.approx(np.mean(gradients), abs=1e-12)


def test_losses_ignore_what_is_outside_the_hole() -> None:
    completed = torch.rand(2, 3, 8, 8, requires_grad=True)
    mask = torch.zeros(2, 1, 8, 8)
    mask[..., 2:6, 3:7] = 1
    image = torch.rand(2, 3, 8, 8)
    losses = [function(completed, image, mask) for function in (completion_loss, tint_loss, gradient_loss)]
    torch.stack(losses).sum().backward()  # type: ignore[no-untyped-call]
    assert completed.grad is not None
    assert torch.equal(completed.grad != 0, mask.expand_as(completed) > 0)


def test_the_papers_recipe() -> None:
    recipe = Recipe.load("places2")
    assert recipe == Recipe()
    assert (recipe.batch_size, recipe.completion_steps) == (96, 90_000)
    assert (recipe.resize, recipe.image_size, recipe.hole_size) == ((256, 384), 256, (96, 128))
    assert (recipe.optimizer, recipe.initialisation) == ("adadelta", "pytorch")
    assert (recipe.tint_weight, recipe.gradient_weight) == (0, 0)


def test_recipes_are_saved_and_loaded(tmp_path: Path) -> None:
    SMALL.save(tmp_path / "recipe.yaml")
    assert Recipe.load(str(tmp_path / "recipe.yaml")) == SMALL
    assert Recipe.load("compact", seed=7).seed == 7


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("widht: 3", "unknown entries: widht"),
        ("learning_rate: 1e-3", "learning_rate must be of type float, not '1e-3'"),  # YAML wants 1.0e-3
        ("batch_size: 0", "batch_size must be at least 1"),
        ("optimizer: sgd", "optimizer must be one of adadelta, adamw"),
        ("hole_size: [96]", "hole_size must be two whole numbers"),
        ("hole_size: [96, 256]", "hole_size .96, 256. must be a range below image_size 256"),
        ("resize: [128, 256]", "resize"),
        ("image_size: 254", "multiple of 4"),
        ("learning_rate: -1.0", "above 0"),
        ("learning_rate: .nan", "finite, not nan"),
        ("gradient_weight: -1", "gradient_weight must be at least 0"),
        ("width: 3", "width must be an even number"),
        ("flip: 1", "flip must be of type bool"),
        ("- a", "key: value"),
        ("a: [", "not YAML"),
    ],
)
def test_wrong_recipes_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "recipe.yaml").write_text(text)
    with pytest.raises(ValueError, match=message):
        Recipe.load(str(tmp_path / "recipe.yaml"))
    with pytest.raises(ValueError, match=r"no recipe and no file.*compact, places2"):
        Recipe.load("resnet")


def test_samples_are_the_same_wherever_a_run_is_resumed(photographs: Path) -> None:
    paths = sorted(photographs.iterdir())
    whole = TrainingSamples(paths, SMALL, 0, 30)
    rest = TrainingSamples(paths, SMALL, 17, 30)
    assert (len(whole), len(rest)) == (30, 13)
    for index in range(len(rest)):
        first, second = whole[17 + index], rest[index]
        assert all(torch.equal(first[key], second[key]) for key in ("image", "mask"))


def test_samples_follow_the_recipe(photographs: Path) -> None:
    paths = sorted(photographs.iterdir())
    samples = TrainingSamples(paths, SMALL, 0, 24)
    sizes = set()
    for index in range(24):
        image, mask = samples[index]["image"], samples[index]["mask"]
        assert image.shape == (3, 32, 32) and mask.shape == (1, 32, 32)
        assert image.min() >= 0 and 0.3 < image.max() <= 1
        height, width = (int(mask[0].any(axis).sum()) for axis in (1, 0))
        assert mask.sum() == height * width and 8 <= height <= 16 and 8 <= width <= 16
        sizes.add((height, width))
    assert len(sizes) > 10  # each sample has a hole of its own


def test_every_photograph_is_seen_once_an_epoch(tmp_path: Path) -> None:
    for level in range(8):
        Image.new("RGB", (40, 40), (level * 30,) * 3).save(tmp_path / f"{level}.png")
    samples = TrainingSamples(sorted(tmp_path.iterdir()), SMALL, 0, 24)
    levels = [round(samples[index]["image"].mean().item() * 255) // 30 for index in range(24)]
    epochs = [levels[start : start + 8] for start in (0, 8, 16)]
    assert all(sorted(epoch) == list(range(8)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_mean_pixel_is_that_of_rgb(tmp_path: Path) -> None:
    Image.new("RGB", (40, 50), (255, 0, 51)).save(tmp_path / "a.png")
    Image.new("L", (80, 30), 102).save(tmp_path / "b.png")
    assert measure_mean_pixel(sorted(tmp_path.iterdir())) == (0.7, 0.2, 0.3)


def test_spreading_initialisation_carries_the_rim_into_the_hole() -> None:
    """With no noise, a dilated layer of the same width is the mean of its nine taps, the others leave all as it is."""
    torch.manual_seed(0)
    network = CompletionNetwork(32, MEAN_PIXEL)
    initialise_spreading(network)
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    for convolution in convolutions:
        weight = convolution.weight.detach()
        if weight.shape[0] != weight.shape[1]:
            continue
        diagonal = weight.diagonal(dim1=0, dim2=1).mean(-1)  # (3, 3), the noise averaged out
        expected = torch.full((3, 3), 1 / 9) if convolution.dilation[0] > 1 else torch.zeros(3, 3)
        expected[1, 1] = 1 / 9 if convolution.dilation[0] > 1 else 1
        assert (diagonal - expected).abs().max() < 0.05


def test_learning_rate() -> None:
    recipe = Recipe(schedule="cosine", learning_rate=0.5, completion_steps=1000)
    rates = [learning_rate_at(step, recipe) for step in range(1000)]
    assert rates[0] < 0.01 and max(rates) == pytest.approx(0.5, rel=0.1) and rates[-1] < 1e-5
    assert learning_rate_at(999, Recipe()) == 1


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path: Path, photographs: Path) -> None:
    whole = train(SMALL, photographs, tmp_path / "whole", workers=0, save_every=2)
    assert sorted(path.name for path in (tmp_path / "whole").glob("checkpoint-*")) == [
        "checkpoint-00000004",
        "checkpoint-00000005",
    ]
    # A run that was killed after its checkpoint at step 4.
    (tmp_path / "whole" / "checkpoint-00000005").rename(tmp_path / "last")
    resumed = train(SMALL, photographs, tmp_path / "whole", workers=0, resume=True)
    first, second = (load_file(folder / "model.safetensors") for folder in (tmp_path / "last", tmp_path / "whole"
                     / "checkpoint-00000005"))  # fmt: skip
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert resumed == whole


def test_a_run_starts_from_a_model(tmp_path: Path, photographs: Path, model_folder: Path) -> None:
    """With a learning rate of next to nothing, what comes out is what went in, mean pixel included."""
    slow = dataclasses.replace(SMALL, learning_rate=1e-12, completion_steps=1, image_size=28, resize=(28, 40))
    model = train(slow, photographs, tmp_path / "run", workers=0, start_from=model_folder)
    before, after = (load_file(folder / "model.safetensors") for folder in (model_folder, model))
    weights = [name for name in before if "running" not in name]
    assert weights and all(torch.allclose(before[name], after[name].float(), atol=1e-3) for name in weights)
    assert GLCICPipeline.from_pretrained(model).config.mean_pixel == MEAN_PIXEL
    with pytest.raises(ValueError, match="has the width 4, and the recipe says 8"):
        train(dataclasses.replace(slow, width=8), photographs, tmp_path / "other", start_from=model_folder)


def test_every_parameter_learns(photographs: Path, tmp_path: Path) -> None:
    train(SMALL, photographs, tmp_path / "run", workers=0, save_every=1)
    before, after = (load_file(path / "model.safetensors") for path in sorted((tmp_path / "run").glob("checkpoint-*")))
    assert before.keys() == after.keys()
    assert not [name for name in before if torch.equal(before[name], after[name])]


def test_bad_runs_are_refused(tmp_path: Path, photographs: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no folder"):
        train(SMALL, tmp_path / "nothing", tmp_path / "run")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no pictures"):
        train(SMALL, tmp_path / "empty", tmp_path / "run")
    (tmp_path / "empty" / "a.png").write_text("not a picture")
    with pytest.raises(ValueError, match=r"cannot read the photograph .*a\.png"):
        train(SMALL, tmp_path / "empty", tmp_path / "run")
    with pytest.raises(FileNotFoundError, match="no run to resume"):
        train(SMALL, photographs, tmp_path / "other", resume=True)
    with pytest.raises(ValueError, match="workers must be at least 0 and save_every at least 1, not -1 and 0"):
        train(SMALL, photographs, tmp_path / "other", workers=-1, save_every=0)
    assert not (tmp_path / "other").exists()


def test_a_run_that_never_saved_can_be_started_again(tmp_path: Path, photographs: Path) -> None:
    recipe = dataclasses.replace(SMALL, completion_steps=1)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{}")
    model = train(recipe, photographs, tmp_path / "run", workers=0)
    assert GLCICPipeline.from_pretrained(model).config.width == 4

    checkpoint = tmp_path / "run" / "checkpoint-00000001"
    (checkpoint / "model.safetensors").write_bytes(b"junk")
    with pytest.raises(ValueError, match=rf"cannot resume from {checkpoint}"):
        train(recipe, photographs, tmp_path / "run", workers=0, resume=True)
    with pytest.raises(ValueError, match="begun with another recipe"):
        train(SMALL, photographs, tmp_path / "run", workers=0, resume=True)


def test_the_script_as_users_launch_it(tmp_path: Path, photographs: Path) -> None:
    """`accelerate launch train_accelerate.py` on two processes; what it saves completes a picture."""
    SMALL.save(tmp_path / "recipe.yaml")
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2", "--mixed_precision"]
    script = ["bf16", str(ROOT / "train_accelerate.py"), "--data", str(photographs), "--output", str(tmp_path / "run")]
    options = ["--recipe", str(tmp_path / "recipe.yaml"), "--completion-steps", "3", "--seed", "5"]
    command = [*launch, *script, *options]
    first = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert first.returncode == 0, first.stderr
    assert f"wrote {tmp_path / 'run' / 'model'}" in first.stdout

    assert (tmp_path / "run" / "checkpoint-00000003").is_dir()
    saved = yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text())
    assert (saved["completion_steps"], saved["seed"]) == (3, 5)
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert log[-1]["step"] == 3 and 0 < log[-1]["mse"] < 1
    pipe = GLCICPipeline.from_pretrained(tmp_path / "run" / "model")
    assert pipe.config.width == 4
    photo, mask = make_photo(40, 44), make_hole(40, 44)
    assert not np.array_equal(pipe(photo, mask), photo)

    again = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert again.returncode != 0
    assert "holds a run already" in again.stderr

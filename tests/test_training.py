"""Whole runs: resumed, killed, on two processes, with bad input."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file

from glcic_hub import GLCICPipeline
from glcic_hub.cli.main import main
from glcic_hub.evaluation.metrics import METRICS
from glcic_hub.hub.model_files import load_discriminator
from glcic_hub.training.options import TrainingOptions
from glcic_hub.training.recipe import Recipe
from glcic_hub.training.trainer import train
from tests.conftest import ENVIRONMENT, LAUNCH_TWO, MEAN_PIXEL, ROOT, TWO_PROCESSES, make_hole, make_photo
from tests.local_hub import TOKEN, serve_hub
from tests.ranks import step_once_in_evaluation_mode
from tests.training_parts import ADVERSARIAL as SMALL
from tests.training_parts import make_photographs

SCRIPT = str(ROOT / "train_accelerate.py")
QUIET: dict[str, Any] = {"workers": 0, "trackers": ()}


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_photographs(tmp_path_factory.mktemp("photographs"))


@pytest.fixture(scope="module", autouse=True)
def small_cards() -> Iterator[None]:
    """A small sample for the cards: an image is completed with every model that is saved, and here a hundred are."""
    sample = Image.fromarray(make_photo(46, 61)), Image.fromarray(make_hole(46, 61))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("glcic_hub.pipeline.load_sample", lambda _: sample)
        yield


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, photographs: Path) -> Path:
    """A whole run of 10 steps, all checkpoints kept; not to be changed."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    train(SMALL, photographs, folder, TrainingOptions(workers=0, save_every=1, validate_every=2, keep=99))
    return folder


def weights_of(checkpoint: Path) -> dict[str, torch.Tensor]:
    """Of all networks."""
    files = sorted(checkpoint.glob("*.safetensors"))
    assert files
    return {f"{path.stem} {name}": tensor for path in files for name, tensor in load_file(path).items()}


def assert_same_weights(first: Path, second: Path) -> None:
    one, other = weights_of(first), weights_of(second)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def read_log(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def run_script(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, SCRIPT, *map(str, arguments)]
    settings: dict[str, Any] = {"env": ENVIRONMENT, "timeout": 300, **options}
    return subprocess.run(command, capture_output=True, text=True, check=False, **settings)


def test_what_a_run_leaves(trained: Path) -> None:
    checkpoints = sorted(path.name for path in trained.glob("checkpoint-*"))
    assert checkpoints == [f"checkpoint-{step:08}" for step in range(1, 11)]
    assert not list(trained.glob(".*"))
    for phase, end in enumerate(SMALL.phase_ends[:2], start=1):  # the model at the end of each phase stays
        kept = load_file(trained / f"phase-{phase}" / "model.safetensors")
        then = weights_of(trained / f"checkpoint-{end:08}")
        floats = {name: tensor for name, tensor in kept.items() if tensor.is_floating_point()}
        assert all(
            torch.allclose(then[f"completion {name}"], t.float(), rtol=1e-3, atol=1e-6) for name, t in floats.items()
        )
    assert not (trained / "phase-3").exists()
    assert Recipe.load(str(trained / "recipe.yaml")) == SMALL
    facts = json.loads((trained / "run.json").read_text())
    assert facts["photographs"] == 12
    log = read_log(trained)
    keys = {phase: {key for entry in log if entry["phase"] == phase for key in entry} for phase in (1, 2, 3)}
    losses = {"step", "phase", "images_per_s"}
    figures = set(METRICS)
    assert keys[1] == losses | figures | {"mse"}
    assert keys[2] == losses | {"discriminator", "real", "fake"}  # the completion network stays as it is
    assert keys[3] == losses | figures | {"mse", "discriminator", "real", "fake", "adversarial", "alpha"}
    alphas = [entry["alpha"] for entry in log if "alpha" in entry]
    assert alphas[0] > 0.01 and alphas[1:] == pytest.approx([0.0004] * 2)  # balanced for one step
    grids = sorted(path.name for path in (trained / "grids").iterdir())
    assert grids == [f"step-{step:08}.png" for step in (2, 4, 8, 10)]
    with Image.open(trained / "grids" / "step-00000010.png") as grid, Image.open(trained / "losses.png") as plot:
        assert grid.size == (4 * 32 + 3 * 8, 32)  # hole, fill, blended, original
        assert min(plot.size) > 500
    assert list((trained / "trackers").rglob("events.out.tfevents.*"))


def test_the_result_completes_and_can_be_trained_further(trained: Path, photographs: Path, tmp_path: Path) -> None:
    model = trained / "model"
    assert {path.name for path in model.iterdir()} == {
        "README.md", "before-after.jpg", "config.json", "fusion.safetensors", "global_discriminator.safetensors",
        "local_discriminator.safetensors", "model.safetensors", "recipe.yaml",
    }  # fmt: skip
    pipe = GLCICPipeline.from_pretrained(model)
    photo, mask = make_photo(40, 44), make_hole(40, 44)
    assert not np.array_equal(pipe(photo, mask), photo)
    last = weights_of(trained / "checkpoint-00000010")
    for name, tensor in pipe.network.state_dict().items():
        if tensor.is_floating_point():
            assert torch.allclose(tensor, last[f"completion {name}"], rtol=1e-3, atol=1e-6)
    card = (model / "README.md").read_text()
    assert (
        "12 photographs, of which" in card and "| 3 | 10 | " in card and "total_steps: 10" in card and "$" not in card
    )
    assert str(photographs) not in card

    without_pretraining = dataclasses.replace(
        SMALL, completion_steps=0, discriminator_steps=0, total_steps=1, joint_learning_rate=1e-12,
        discriminator_learning_rate=1e-12,
    )  # fmt: skip
    tuned = train(without_pretraining, photographs, tmp_path / "tuned", TrainingOptions(start_from=model, **QUIET))
    before, after = (load_discriminator(folder, pipe.config) for folder in (model, tuned))
    assert before is not None and after is not None
    old, new = dict(before.named_parameters()), dict(after.named_parameters())
    assert old.keys() == new.keys() and all(torch.allclose(old[name], new[name], atol=1e-4) for name in old)


def test_the_best_model_is_that_of_the_last_phase_with_the_greatest_ssim(trained: Path) -> None:
    log = read_log(trained)
    validated = [entry for entry in log if "ssim" in entry]
    best = max(validated, key=lambda entry: (entry["phase"], entry["ssim"]))
    assert best["phase"] == 3
    assert f"| 3 | {best['step']} | " in (trained / "best" / "README.md").read_text()


def test_a_resumed_run_equals_an_uninterrupted_one(trained: Path, photographs: Path, tmp_path: Path) -> None:
    """From a checkpoint in each phase; what was logged after it is logged once."""
    for step in (2, 5, 8):
        run = tmp_path / f"run-{step}"
        shutil.copytree(trained, run)
        for checkpoint in sorted(run.glob("checkpoint-*"))[step:]:
            shutil.rmtree(checkpoint)
        train(SMALL, photographs, run, TrainingOptions(resume=True, save_every=1, validate_every=2, **QUIET))
        assert_same_weights(run / "checkpoint-00000010", trained / "checkpoint-00000010")
        logs = read_log(run), read_log(trained)
        for entry in [*logs[0], *logs[1]]:
            entry.pop("images_per_s", None)
        assert logs[0] == logs[1]


def test_a_run_goes_on_with_more_steps_from_a_chosen_checkpoint_and_a_renamed_folder(
    trained: Path, photographs: Path, tmp_path: Path
) -> None:
    """As if it had had as many from the start; later checkpoints are kept under another name."""
    run, renamed = tmp_path / "run", tmp_path / "renamed"
    shutil.copytree(trained, run)
    shutil.copytree(photographs, renamed)
    dataclasses.replace(SMALL, total_steps=9).save(run / "recipe.yaml")
    options = TrainingOptions(resume="checkpoint-00000008", save_every=1, validate_every=2, **QUIET)
    with pytest.warns(UserWarning, match=r"of later steps, and kept as .*: checkpoint-00000009, checkpoint-0"):
        train(SMALL, renamed, run, options)
    assert_same_weights(run / "checkpoint-00000010", trained / "checkpoint-00000010")
    assert (run / "set-aside-checkpoint-00000009").is_dir()
    assert Recipe.load(str(run / "recipe.yaml")) == SMALL
    logs = [[entry["step"] for entry in read_log(folder)] for folder in (run, trained)]
    assert logs[0] == logs[1]

    (renamed / "00.png").write_bytes((renamed / "01.png").read_bytes())
    with pytest.raises(ValueError, match=rf"was begun otherwise: data {photographs.name} and renamed$"):
        train(SMALL, renamed, run, TrainingOptions(resume=True, **QUIET))
    for missing in ("checkpoint-7", "nothing", tmp_path / "other" / "checkpoint-00000010"):
        with pytest.raises(FileNotFoundError, match="there is checkpoint-00000009, checkpoint-00000010, or latest"):
            train(SMALL, photographs, run, TrainingOptions(resume=missing, **QUIET))


def test_an_average_of_the_weights_is_saved_and_resumed(photographs: Path, tmp_path: Path) -> None:
    """As diffusers' EMAModel weighs them; not in phase 2, and training itself is the same as without."""
    recipe = dataclasses.replace(SMALL, ema=True, completion_steps=3, discriminator_steps=1, total_steps=5)
    run = tmp_path / "run"
    train(recipe, photographs, run, TrainingOptions(save_every=1, keep=9, **QUIET))
    expected: dict[str, torch.Tensor] = {}
    for step, count in ((1, 0), (2, 1), (3, 2), (5, 3)):
        for name, tensor in load_file(run / f"checkpoint-0000000{step}" / "completion.safetensors").items():
            decay = (1 + count) / (10 + count) if count else 0
            expected[name] = expected.get(name, tensor) * decay + tensor * (1 - decay)
    average = load_file(run / "checkpoint-00000005" / "average.safetensors")
    model, trained = (
        load_file(run / "model" / "model.safetensors"),
        load_file(run / "checkpoint-00000005" / "completion.safetensors"),
    )
    assert average["n_averaged"] == 4
    for name, tensor in model.items():
        assert torch.allclose(average[f"module.{name}"], expected[name], atol=1e-6)
        assert torch.allclose(tensor.float(), expected[name], atol=1e-3)
    assert any(not torch.allclose(model[name].float(), trained[name], atol=1e-3) for name in model)

    whole = weights_of(run / "checkpoint-00000005")
    for step in (2, 3, 4, 5):
        shutil.rmtree(run / f"checkpoint-0000000{step}")
    train(recipe, photographs, run, TrainingOptions(resume=True, **QUIET))
    again = weights_of(run / "checkpoint-00000005")
    assert whole.keys() == again.keys() and all(torch.equal(whole[name], again[name]) for name in whole)


def test_a_killed_run_equals_an_uninterrupted_one(photographs: Path, tmp_path: Path) -> None:
    """SIGKILL at a random moment of each phase, then the end; on two threads, in single precision."""
    longer = dataclasses.replace(SMALL, completion_steps=25, discriminator_steps=25, total_steps=75)
    train(longer, photographs, tmp_path / "whole", TrainingOptions(save_every=5, **QUIET))
    longer.save(tmp_path / "recipe.yaml")
    run = tmp_path / "killed"
    arguments = ["--data", photographs, "--output", run, "--recipe", tmp_path / "recipe.yaml", "--save-every", 5]
    settings = ["--trackers", "--workers", 1]
    moments = random.Random(0)
    for phase in (1, 2, 3):
        resume = ["--resume"] if phase > 1 else []
        command = [sys.executable, SCRIPT, *map(str, [*arguments, *settings, *resume])]
        wanted = 25 * phase - moments.randint(9, 21)
        with subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
            deadline = time.monotonic() + 120
            while process.poll() is None and time.monotonic() < deadline:
                if any(int(path.name[-8:]) >= wanted for path in run.glob("checkpoint-*")):
                    time.sleep(moments.uniform(0, 0.05))
                    break
                time.sleep(0.005)
            process.kill()
            assert process.wait() == -signal.SIGKILL, process.stderr.read().decode()  # type: ignore[union-attr]
        newest = int(max(run.glob("checkpoint-*")).name[-8:])
        assert wanted <= newest < 75
    train(longer, photographs, run, TrainingOptions(resume=True, save_every=5, **QUIET))
    assert_same_weights(run / "checkpoint-00000075", tmp_path / "whole" / "checkpoint-00000075")
    assert_same_weights(run / "model", tmp_path / "whole" / "model")


@pytest.mark.parametrize("processes", [1, 2])
def test_sigterm_saves_and_leaves_with_its_own_code(photographs: Path, tmp_path: Path, processes: int) -> None:
    """One process: its whole group is signalled, as clusters do. Two: their launcher, which passes it on."""
    endless = dataclasses.replace(SMALL, completion_steps=100_000, total_steps=100_003)
    endless.save(tmp_path / "recipe.yaml")
    run = tmp_path / "run"
    options = ["--data", photographs, "--output", run, "--recipe", tmp_path / "recipe.yaml", "--workers", 1]
    launcher = [sys.executable] if processes == 1 else [*LAUNCH_TWO, "--mixed_precision", "no"]
    command = [*launcher, SCRIPT, *map(str, [*options, "--save-every", 100_000, "--trackers"])]
    with subprocess.Popen(
        command, env=TWO_PROCESSES, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        while not (run / "log.jsonl").exists() and process.poll() is None:
            time.sleep(0.01)
        (os.killpg if processes == 1 else os.kill)(process.pid, signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
    (checkpoint,) = run.glob("checkpoint-*")
    step = int(checkpoint.name[-8:])
    assert step < 100_000
    assert errors.count(f"stopped after step {step} of 100003 and saved; resume it") == processes
    assert GLCICPipeline.from_pretrained(run / "model").config.width == 4
    if processes == 1:
        assert process.returncode == 75


def test_two_processes(photographs: Path, tmp_path: Path) -> None:
    """The ranks hold the same weights after each step, see other images, and only the main one writes."""
    script = [str(ROOT / "tests" / "ranks.py"), str(photographs), str(tmp_path / "run")]
    command = [*LAUNCH_TWO, "--mixed_precision", "no", *script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=TWO_PROCESSES)
    assert done.returncode == 0, done.stderr
    reports = [json.loads((tmp_path / "run" / f"report-{rank}.json").read_text()) for rank in (0, 1)]
    steps = reports[0]["steps"]
    assert len(steps) == 10
    for (c0, d0, images0), (c1, d1, images1) in steps:
        assert c0 == c1 and d0 == d1
        assert images0 != images1
    assert len({step[0][0] for step in steps}) == 7  # 4 steps of phase 1, none of phase 2, 3 of phase 3
    assert len({step[0][1] for step in steps}) == 7  # as it began in phase 1, 3 steps of phase 2, 3 of phase 3
    main, other = (report["written"] for report in reports)
    assert len(main) > 10
    # Accelerate has each process add its random state to a checkpoint, and make the folder if it comes first.
    assert all(".unfinished-checkpoint" in path for path in other)

    # Together they do what one process does with the whole batch; it takes their run on, too.
    networks = step_once_in_evaluation_mode(photographs, process=0, processes=1)
    for name, network in (("completion", networks.completion), ("discriminator", networks.discriminator)):
        together = load_file(tmp_path / "run" / f"step-{name}.safetensors")
        assert all(torch.allclose(tensor, together[key], atol=1e-5) for key, tensor in network.state_dict().items())
    shutil.rmtree(tmp_path / "run" / "checkpoint-00000010")
    train(SMALL, photographs, tmp_path / "run", TrainingOptions(resume=True, **QUIET))


def test_the_script_as_users_launch_it(tmp_path: Path, photographs: Path) -> None:
    """`accelerate launch train_accelerate.py` through all phases in bfloat16; what it saves completes an image."""
    options = ["--data", photographs, "--output", tmp_path / "run", "--recipe", "small", "--width", 4]
    steps = ["--completion-steps", 3, "--discriminator-steps", 2, "--total-steps", 8, "--batch-size", 4, "--seed", 5]
    rest = ["--no-flip", "--discriminators", "local", "--hole-size", 16, 24, "--accumulation", 2]
    command = [*LAUNCH_TWO, "--mixed_precision", "bf16", SCRIPT, *map(str, [*options, *steps, *rest])]
    first = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=TWO_PROCESSES)
    assert first.returncode == 0, first.stderr
    assert f"wrote {tmp_path / 'run' / 'model'}" in first.stdout
    saved = yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text())
    overridden = {"width": 4, "total_steps": 8, "seed": 5, "flip": False, "discriminators": "local"}
    assert {name: saved[name] for name in overridden} == overridden and saved["hole_size"] == [16, 24]
    log = read_log(tmp_path / "run")
    assert [entry["phase"] for entry in log if "psnr" not in entry] == [1, 2, 3]
    model = tmp_path / "run" / "model"
    assert not (model / "global_discriminator.safetensors").exists()
    photo, mask = make_photo(40, 44), make_hole(40, 44)
    assert not np.array_equal(GLCICPipeline.from_pretrained(model)(photo, mask), photo)

    again = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=TWO_PROCESSES)
    assert again.returncode != 0
    assert "holds a run already" in again.stderr


def test_a_command_line_as_of_diffusers_trains(photographs: Path, tmp_path: Path) -> None:
    """Flags of its example scripts, in their spelling; a recipe of narrow networks, so that it does not take long."""
    run = tmp_path / "run"
    dataclasses.replace(SMALL, completion_steps=40, discriminator_steps=10, total_steps=100).save(
        tmp_path / "tiny.yaml"
    )
    words = f"""train --dataset_name={photographs} --resolution=32 --random_flip --output_dir={run}
        --train_batch_size=2 --gradient_accumulation_steps=2 --max_train_steps=4 --learning_rate=1e-2
        --lr_scheduler=constant --use_ema --mixed_precision=no --checkpointing_steps=3 --checkpoints_total_limit=1
        --validation_steps=100 --report_to=tensorboard --seed=3 --dataloader_num_workers=0
        --recipe={tmp_path / "tiny.yaml"}""".split()
    assert main(words) == 0
    recipe = Recipe.load(str(run / "recipe.yaml"))
    steps = {"completion_steps": 2, "discriminator_steps": 1, "total_steps": 4}
    assert recipe == dataclasses.replace(SMALL, **cast(Any, steps), batch_size=4, ema=True, seed=3)
    assert [path.name for path in run.glob("checkpoint-*")] == ["checkpoint-00000004"]
    assert list((run / "trackers").rglob("events.out.tfevents.*"))
    assert main([*words, "--resume_from_checkpoint", "latest", "--max_train_steps=5"]) == 0
    assert Recipe.load(str(run / "recipe.yaml")) == dataclasses.replace(recipe, total_steps=5)
    assert [path.name for path in run.glob("checkpoint-*")] == ["checkpoint-00000005"]


def test_a_run_is_resumed_without_the_model_that_it_started_from(
    photographs: Path, model_folder: Path, tmp_path: Path
) -> None:
    """What it takes over from that model is kept with the run."""
    start = tmp_path / "start"
    shutil.copytree(model_folder, start)
    config = json.loads((start / "config.json").read_text())
    license_ = {"license": "other", "license_name": "mine", "license_link": "LICENSE"}
    config["training"] = {"title": "Faces", "data": "12 faces", "license": license_, "terms": "Ask me."}
    (start / "config.json").write_text(json.dumps(config))
    (start / "LICENSE").write_text("by hand")
    tuning = dataclasses.replace(SMALL, completion_steps=0, discriminator_steps=2, total_steps=4)
    train(tuning, photographs, tmp_path / "run", TrainingOptions(start_from=start, **QUIET))
    whole = weights_of(tmp_path / "run" / "checkpoint-00000004")
    shutil.rmtree(tmp_path / "run" / "checkpoint-00000004")
    shutil.rmtree(start)
    shutil.rmtree(tmp_path / "run" / "model")
    train(tuning, photographs, tmp_path / "run", TrainingOptions(resume=True, **QUIET))
    again = weights_of(tmp_path / "run" / "checkpoint-00000004")
    assert all(torch.equal(whole[name], again[name]) for name in whole)
    assert (tmp_path / "run" / "model" / "LICENSE").read_text() == "by hand"
    card = (tmp_path / "run" / "model" / "README.md").read_text()
    assert "license_name: mine\n" in card and "| started from | start (Faces) |\n" in card
    assert "| trained before on | 12 faces |" in card and "it was trained from, start (Faces): Ask me." in card


def test_without_discriminators_all_is_phase_1(photographs: Path, tmp_path: Path) -> None:
    model = train(
        dataclasses.replace(SMALL, discriminators="none"), photographs, tmp_path / "run", TrainingOptions(**QUIET)
    )
    assert (tmp_path / "run" / "checkpoint-00000007").is_dir()  # as many as the completion network has otherwise
    assert not list(model.glob("*discriminator*"))


def test_pushed_to_the_hub_and_trained_further_from_there(photographs: Path, tmp_path: Path) -> None:
    SMALL.save(tmp_path / "recipe.yaml")
    options = ["--data", photographs, "--recipe", tmp_path / "recipe.yaml", "--workers", 0, "--trackers"]
    with serve_hub() as hub:
        environment = {**ENVIRONMENT, "HF_ENDPOINT": hub.address, "HF_TOKEN": TOKEN, "HF_HOME": str(tmp_path / "home")}
        environment["HF_HUB_DISABLE_XET"] = "1"
        pushed = run_script(
            *options, "--output", tmp_path / "run", "--push_to_hub", "--hub_model_id", "model", "--hub_private_repo",
            "--push-every", 4, env=environment,
        )  # fmt: skip
        assert pushed.returncode == 0, pushed.stderr
        assert hub.repositories["user/model"].titles == ["Step 4", "Step 8", "Trained model"]
        assert hub.repositories["user/model"].private
        assert set(hub.files("user/model")) == {path.name for path in (tmp_path / "run" / "model").iterdir()}
        card = hub.files("user/model")["README.md"].decode()
        assert 'from_pretrained("user/model")' in card

        steps = ["--completion-steps", 0, "--discriminator-steps", 0, "--total-steps", 1]
        tuned = run_script(*options, "--output", tmp_path / "tuned", "--from", "user/model", *steps, env=environment)
        assert tuned.returncode == 0, tuned.stderr
        assert json.loads((tmp_path / "tuned" / "run.json").read_text())["start"] == "user/model"
        assert "\nbase_model: user/model\n" in (tmp_path / "tuned" / "model" / "README.md").read_text()

        missing = run_script(*options, "--output", tmp_path / "other", "--from", "user/nothing", env=environment)
        assert missing.returncode == 1
        assert "cannot load user/nothing: there is no folder of that name here, and nothing on" in missing.stderr
        stranger = {**environment, "HF_TOKEN": "x"}
        refused = run_script(*options, "--output", tmp_path / "other", "--push-to-hub", "user/model", env=stranger)
        assert refused.returncode == 1
        assert "cannot push to user/model" in refused.stderr and "Traceback" not in refused.stderr
        assert not list((tmp_path / "other").glob("checkpoint-*"))


def test_a_run_starts_from_a_model(tmp_path: Path, photographs: Path, model_folder: Path) -> None:
    """With a learning rate of next to nothing, what comes out is what went in, mean pixel included."""
    slow = dataclasses.replace(SMALL, learning_rate=1e-12, completion_steps=1, discriminator_steps=0, total_steps=1)
    slow = dataclasses.replace(slow, image_size=28, resize=(28, 40))
    model = train(slow, photographs, tmp_path / "run", TrainingOptions(start_from=model_folder, **QUIET))
    before, after = (load_file(folder / "model.safetensors") for folder in (model_folder, model))
    weights = [name for name in before if "running" not in name]
    assert weights and all(torch.allclose(before[name], after[name].float(), atol=1e-3) for name in weights)
    assert GLCICPipeline.from_pretrained(model).config.mean_pixel == MEAN_PIXEL
    given = train(
        slow,
        photographs,
        tmp_path / "given",
        TrainingOptions(start_from=model_folder, mean_pixel=(0.1, 0.2, 0.3), **QUIET),
    )
    assert GLCICPipeline.from_pretrained(given).config.mean_pixel == (0.1, 0.2, 0.3)

    with pytest.raises(ValueError, match="has the width 4, and the recipe says 8"):
        train(
            dataclasses.replace(slow, width=8),
            photographs,
            tmp_path / "other",
            TrainingOptions(start_from=model_folder),
        )
    jointly = dataclasses.replace(SMALL, discriminator_steps=0)
    with pytest.raises(ValueError, match=r"no phase 2.*has not the discriminators to start from: both"):
        train(jointly, photographs, tmp_path / "other", TrainingOptions(start_from=model_folder, **QUIET))
    for name, phase in (("completion_steps", 1), ("discriminator_steps", 2)):
        with pytest.raises(ValueError, match=rf"no phase {phase} \({name} is 0\), so it needs a trained model"):
            train(
                dataclasses.replace(SMALL, **cast(Any, {name: 0})),
                photographs,
                tmp_path / "other",
                TrainingOptions(**QUIET),
            )


def test_a_run_that_diverges_stops_and_keeps_its_last_good_checkpoint(photographs: Path, tmp_path: Path) -> None:
    wild = dataclasses.replace(SMALL, learning_rate=1e30)
    with pytest.raises(FloatingPointError, match=r"training diverged: .*; there is no checkpoint yet"):
        train(wild, photographs, tmp_path / "first", TrainingOptions(**QUIET))
    wild = dataclasses.replace(SMALL, joint_learning_rate=1e30, adversarial_loss="non-saturating")
    with pytest.raises(FloatingPointError, match=r"the last good checkpoint is .*checkpoint-0000000[78]; try a lower"):
        train(wild, photographs, tmp_path / "run", TrainingOptions(save_every=1, **QUIET))
    newest = max((tmp_path / "run").glob("checkpoint-*"))
    assert all(tensor.isfinite().all() for tensor in weights_of(newest).values())


def test_a_full_disk_stops_a_run_and_keeps_its_last_good_checkpoint(
    photographs: Path, trained: Path, tmp_path: Path
) -> None:
    """Stands for a full disk: the process must not write a file of over 100 kB, and a checkpoint is larger."""
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    for checkpoint in sorted(run.glob("checkpoint-*"))[6:]:
        shutil.rmtree(checkpoint)
    options = ["--data", photographs, "--output", run, "--resume", "--workers", 0, "--save-every", 1, "--trackers"]
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))  # noqa: E731
    stopped = run_script(*options, preexec_fn=limit)
    assert stopped.returncode == 1
    assert "Traceback" not in stopped.stderr
    assert f"cannot write {run}" in stopped.stderr
    assert f"the last good checkpoint is {run / 'checkpoint-00000006'}" in stopped.stderr
    assert not list(run.glob(".*"))
    assert max(run.glob("checkpoint-*")).name == "checkpoint-00000006"
    train(SMALL, photographs, run, TrainingOptions(resume=True, save_every=1, **QUIET))
    assert_same_weights(run / "checkpoint-00000010", trained / "checkpoint-00000010")


def test_unreadable_photographs_are_counted_named_and_skipped(tmp_path: Path) -> None:
    folder = make_photographs(tmp_path / "photographs", 8)
    (folder / "03.png").write_text("not an image")
    with pytest.warns(UserWarning, match=r"cannot read .*03\.png, skipped; 1 so far"):
        train(SMALL, folder, tmp_path / "run", TrainingOptions(**QUIET))
    assert (tmp_path / "run" / "unreadable.txt").read_text() == f"{folder / '03.png'}\n"


def test_names_that_no_text_can_hold(tmp_path: Path) -> None:
    """Folders and files may have names that are not Unicode, or not one line."""
    folder = make_photographs(tmp_path / "My\u00a0photo\ngraphs", 8)
    (folder / "03.png").write_text("not an image")
    odd = os.fsdecode(b"b\x0b\xe9.png")
    (folder / "03.png").rename(folder / odd)
    with pytest.warns(UserWarning, match="cannot read"):
        train(dataclasses.replace(SMALL, total_steps=16), folder, tmp_path / "run", TrainingOptions(**QUIET))
    assert [Path(line).name for line in (tmp_path / "run" / "unreadable.txt").read_text().split("\n")] == [
        "b??.png",
        "",
    ]
    assert "My?photo?graphs, 8 photographs" in (tmp_path / "run" / "model" / "README.md").read_text()


def test_accelerates_setting_accumulates(photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the flag does, and not by dividing losses alone, which ADADELTA would show."""
    once = dataclasses.replace(SMALL, optimizer="adadelta", completion_steps=1, discriminator_steps=0, total_steps=1)
    train(once, photographs, tmp_path / "flag", TrainingOptions(accumulation=2, **QUIET))
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "2")
    train(once, photographs, tmp_path / "setting", TrainingOptions(**QUIET))
    assert_same_weights(*(tmp_path / run / "checkpoint-00000001" for run in ("flag", "setting")))

    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "auto")
    with pytest.raises(ValueError, match="STEPS must be a number from 1 on, not 'auto'"):
        train(once, photographs, tmp_path / "other", TrainingOptions(**QUIET))
    monkeypatch.delenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS")
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    with pytest.raises(ValueError, match="DeepSpeed splits networks over devices"):
        train(once, photographs, tmp_path / "other", TrainingOptions(**QUIET))
    assert not (tmp_path / "other").exists()


def test_bad_runs_are_refused(tmp_path: Path, photographs: Path, trained: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no folder"):
        train(SMALL, tmp_path / "nothing", tmp_path / "run", TrainingOptions(**QUIET))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no images"):
        train(SMALL, tmp_path / "empty", tmp_path / "run", TrainingOptions(**QUIET))
    (tmp_path / "empty" / "a.png").write_text("not an image")
    with pytest.raises(ValueError, match=r"none of the photographs can be read; the last: .*a\.png"):
        train(SMALL, tmp_path / "empty", tmp_path / "run", TrainingOptions(**QUIET))
    with pytest.raises(FileNotFoundError, match="no run to resume"):
        train(SMALL, photographs, tmp_path / "other", TrainingOptions(resume=True, **QUIET))
    for option in ("accumulation", "save_every", "keep", "validate_every", "push_every"):
        with pytest.raises(ValueError, match=f"{option} must be at least 1, not 0"):
            train(SMALL, photographs, tmp_path / "other", TrainingOptions(**{**QUIET, option: 0}))
    with pytest.raises(ValueError, match="batch_size 4 cannot be split over 1 processes and 3 parts"):
        train(SMALL, photographs, tmp_path / "other", TrainingOptions(accumulation=3, **QUIET))
    with pytest.raises(ValueError, match="workers must be at least 0, not -1"):
        train(SMALL, photographs, tmp_path / "other", TrainingOptions(workers=-1))
    with pytest.raises(ValueError, match="no tracker nonsense: it is not installed, or"):
        train(SMALL, photographs, tmp_path / "other", TrainingOptions(trackers=("nonsense",)))
    with pytest.raises(ValueError, match="push_to_hub must say where"):
        train(SMALL, photographs, tmp_path / "other", TrainingOptions(push_every=2, **QUIET))
    with pytest.raises(ValueError, match="none of the photographs to validate on can be read"):
        train(SMALL, photographs, tmp_path / "other", TrainingOptions(validation=tmp_path / "empty", **QUIET))
    with pytest.raises(FileNotFoundError, match=r"a\.png is a file, not a folder"):
        train(SMALL, tmp_path / "empty" / "a.png", tmp_path / "other", TrainingOptions(**QUIET))
    assert not (tmp_path / "other").exists()
    with pytest.raises(ValueError, match="mean_pixel must be three numbers in"):
        train(SMALL, photographs, tmp_path / "other", TrainingOptions(mean_pixel=(127.0, 127.0, 127.0), **QUIET))
    assert not list((tmp_path / "other").iterdir())

    with pytest.raises(FileExistsError, match="holds a run already"):
        train(SMALL, photographs, trained, TrainingOptions(**QUIET))
    other = dataclasses.replace(SMALL, alpha=0.001, seed=3)
    with pytest.raises(ValueError, match=r"begun with another recipe: alpha 0.0004 and 0.001, seed 0 and 3"):
        train(other, photographs, trained, TrainingOptions(resume=True, **QUIET))
    fewer = make_photographs(tmp_path / "fewer" / photographs.name, 11)
    with pytest.raises(ValueError, match=r"was begun otherwise: photographs 12 and 11, digest .* and "):
        train(SMALL, fewer, trained, TrainingOptions(resume=True, **QUIET))
    with pytest.raises(ValueError, match=rf"was begun otherwise: validation None and {fewer.name}"):
        train(SMALL, photographs, trained, TrainingOptions(resume=True, validation=fewer, **QUIET))
    with pytest.raises(ValueError, match=r"was begun otherwise: mean_pixel .* and \(0.5, 0.5, 0.5\)"):
        train(SMALL, photographs, trained, TrainingOptions(resume=True, mean_pixel=(0.5, 0.5, 0.5), **QUIET))


def test_a_broken_checkpoint_is_named(tmp_path: Path, photographs: Path, trained: Path) -> None:
    shutil.copytree(trained, tmp_path / "run")
    newest = tmp_path / "run" / "checkpoint-00000010"
    (newest / "completion.safetensors").write_bytes(b"junk")
    with pytest.raises(ValueError, match=rf"cannot resume from {newest}: .*; if it is broken, remove it"):
        train(SMALL, photographs, tmp_path / "run", TrainingOptions(resume=True, **QUIET))


def test_a_run_that_never_saved_can_be_started_again(tmp_path: Path, photographs: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{}")
    (tmp_path / "run" / "log.jsonl").write_text('{"step": 1, "phase": 1, "ssim": 1}\n')
    once = dataclasses.replace(SMALL, completion_steps=1, discriminator_steps=0, total_steps=1)
    model = train(once, photographs, tmp_path / "run", TrainingOptions(**QUIET))
    assert GLCICPipeline.from_pretrained(model).config.width == 4
    assert (tmp_path / "run" / "best").is_dir()

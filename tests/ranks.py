"""Run by `accelerate launch` on two processes: steps of all phases, then a run; prints what the test looks at."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

from accelerate.state import PartialState
from accelerate.utils import gather_object
from safetensors.torch import save_file
from torch import nn

from glcic_hub.data.photographs import Folder
from glcic_hub.training import steps, trainer
from glcic_hub.training.data import load_batches
from glcic_hub.training.options import TrainingOptions
from tests.training_parts import ADVERSARIAL as SMALL
from tests.training_parts import make_networks


def digest(network: nn.Module) -> str:
    """Of the parameters; the statistics of each process are those of its own images."""
    content = b"".join(parameter.detach().numpy().tobytes() for parameter in network.parameters())
    return hashlib.sha256(content).hexdigest()


def step_through_the_phases(photographs: Path) -> list[Any]:
    networks = make_networks()
    accelerator = networks.accelerator
    batches = load_batches(Folder(photographs), SMALL, process=accelerator.process_index, processes=2)
    report = []
    for step, loaded in enumerate(batches):
        batch = steps.Batch.from_loader(loaded, accelerator.device)
        function = (steps.completion_step, steps.discriminator_step, steps.joint_step)[SMALL.phase_of(step) - 1]
        function(networks, batch.split(2 if step % 2 else 1))
        digests = [digest(network) for network in (networks.completion, networks.discriminator)]
        report.append(gather_object([(*digests, hashlib.sha256(loaded["image"].numpy().tobytes()).hexdigest())]))
    return report


def step_once_in_evaluation_mode(photographs: Path, process: int, processes: int) -> steps.Networks:
    """A step of phase 3 by plain gradient descent, where batch normalisation does not depend on who sees what."""
    networks = make_networks(rate=1.0, adaptive=False)
    networks.completion.eval()
    networks.discriminator.eval()
    loaded = next(load_batches(Folder(photographs), SMALL, process=process, processes=processes))
    steps.joint_step(networks, [steps.Batch.from_loader(loaded, networks.accelerator.device)])
    return networks


def train_and_watch(photographs: Path, output: Path) -> list[str]:
    """Trains, and returns what this process opened to write in the output folder, or changed there otherwise."""
    written: list[str] = []

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        path = str(arguments[0]) if arguments else ""
        writes = event in ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree") or (
            event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wxa+")
        )
        if writes and path.startswith(str(output)):
            written.append(path)

    sys.addaudithook(watch)
    trainer.train(SMALL, photographs, output, TrainingOptions(workers=0, save_every=5, validate_every=5, keep=9))
    return sorted(set(written))


if __name__ == "__main__":
    photographs, output = map(Path, sys.argv[1:])
    rank = PartialState(cpu=True).process_index
    networks = step_once_in_evaluation_mode(photographs, rank, 2)
    pair = {"completion": networks.completion, "discriminator": networks.discriminator}
    stepped = {name: networks.unwrap(network).state_dict() for name, network in pair.items()}
    report = {"steps": step_through_the_phases(photographs), "written": train_and_watch(photographs, output)}
    (output / f"report-{rank}.json").write_text(json.dumps(report))
    if rank == 0:
        for name, tensors in stepped.items():
            save_file(tensors, output / f"step-{name}.safetensors")

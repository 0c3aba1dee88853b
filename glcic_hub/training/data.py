"""Photographs to training batches: random patches and random holes (sec. 3.4)."""

from __future__ import annotations

import itertools
import os
import signal
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info

from glcic_hub.data.photographs import Photograph, Stream, UnreadableError, open_rgb
from glcic_hub.images.masks import Rectangle, random_rectangle, random_strokes
from glcic_hub.training.recipe import Recipe

STREAM_PATIENCE = 1_000

# What draws what, so that no two generators start from the same numbers.
_ORDER, _SAMPLE, _STREAM = 0, 1, 2


class Sample(TypedDict):
    """A sample as a worker makes it from a photograph."""

    image: NDArray[np.uint8]  # (size, size, 3)
    mask: NDArray[np.uint8]  # M_c, (size, size) of 0 and 1; 1 = to be completed
    hole: Rectangle  # what the local discriminator's patch is centred on: M_c, or one pixel of its strokes
    other_hole: Rectangle  # M_d: the same for the real image
    colour: NDArray[np.float32]  # (3,) in [0, 1], by which `steps.shift_colours` changes the completed image
    other_colour: NDArray[np.float32]  # the same for the real image
    unreadable: list[str]  # names of photographs that this one stands in for


def make_sample(image: NDArray[np.uint8], recipe: Recipe, random: np.random.Generator) -> Sample:
    """Draws the two holes for a patch (algorithm 1, lines 3 and 7), and how discriminators see its colours."""
    mask, hole = draw_hole(recipe, random)
    _, other_hole = draw_hole(recipe, random)
    colour, other_colour = random.random((2, 3), np.float32)
    return {
        "image": image,
        "mask": mask,
        "hole": hole,
        "other_hole": other_hole,
        "colour": colour,
        "other_colour": other_colour,
        "unreadable": [],
    }


def draw_hole(recipe: Recipe, random: np.random.Generator) -> tuple[NDArray[np.uint8], Rectangle]:
    """Draws a hole as the recipe says: its (size, size) mask, and the rectangle or, of strokes, one of its pixels."""
    size = recipe.image_size
    if recipe.strokes and random.random() < recipe.strokes:
        mask = random_strokes(random, size, size)
        top, left = random.choice(np.argwhere(mask))
        return mask, Rectangle(int(top), int(left), 1, 1)
    hole = random_rectangle(random, size, size, recipe.hole_size)
    if recipe.hole_position == "centre":
        hole = hole._replace(top=(size - hole.height) // 2, left=(size - hole.width) // 2)
    return hole.mask(size, size), hole


def cut_patch(photograph: Photograph, recipe: Recipe, random: np.random.Generator) -> NDArray[np.uint8]:
    """Cuts a random (image_size, image_size, 3) patch of a photograph at a random scale.

    A photograph that is smaller is enlarged.

    Raises:
        UnreadableError: As `open_rgb`.
    """
    size = recipe.image_size
    short_side = int(random.integers(recipe.resize[0], recipe.resize[1] + 1))
    image = open_rgb(photograph, short_side)
    # Resizing the patch alone is the same as cutting it from the resized photograph, and takes less time.
    side = min(image.size) * size / short_side
    left, top = (random.uniform(0, length - side) for length in image.size)
    patch = image.resize((size, size), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side))
    if recipe.flip and random.random() < 0.5:
        patch = ImageOps.mirror(patch)
    return np.asarray(patch)


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    """Draws the order of the photographs in an epoch."""
    return np.random.default_rng([seed, _ORDER, epoch]).permutation(count)


class NumberedSamples(Dataset[Sample]):
    """The samples of a whole run, by number.

    Sample `i` is the same whichever process or worker makes it and wherever a run was resumed: its photograph comes
    from a permutation of its own for each epoch, its patch and holes from a generator seeded with its number. For a
    photograph that cannot be read, the next in the permutation stands in.
    """

    def __init__(self, photographs: Sequence[Photograph], recipe: Recipe) -> None:
        self.photographs = photographs
        self.recipe = recipe

    def __getitem__(self, number: int) -> Sample:
        """Makes the sample of a number from 0 on.

        Raises:
            ValueError: Not one of the photographs can be read.
        """
        count = len(self.photographs)
        epoch, place = divmod(number, count)
        order = _order(self.recipe.seed, epoch, count)
        unreadable = []
        for offset in range(count):
            random = np.random.default_rng([self.recipe.seed, _SAMPLE, number])
            photograph = self.photographs[order[(place + offset) % count]]
            try:
                sample = make_sample(cut_patch(photograph, self.recipe, random), self.recipe, random)
            except UnreadableError:
                unreadable.append(photograph.name)
                continue
            return {**sample, "unreadable": unreadable}
        raise ValueError(f"none of the {count} photographs can be read, {unreadable[0]} for one")


class StreamedSamples(IterableDataset[Sample]):
    """The samples of one process, without end, from a stream.

    Each worker reads shards of its own. A resumed run reads again what each worker had read before, without decoding
    it, and continues after that.

    Args:
        stream: The photographs of all processes.
        recipe: Patch, holes and seed.
        process: Number of this process.
        processes: How many there are.
        done: Samples that each worker has made before.
    """

    def __init__(self, stream: Stream, recipe: Recipe, process: int, processes: int, done: int) -> None:
        self.stream = stream
        self.recipe = recipe
        self.process = process
        self.processes = processes
        self.done = done

    def __iter__(self) -> Iterator[Sample]:
        """Yields samples; for a photograph that cannot be read, the next one stands in.

        Raises:
            ValueError: 1,000 photographs in a row cannot be read.
        """
        info = get_worker_info()
        worker = info.id if info else 0
        photographs = itertools.islice(self._epochs(), self.done, None)
        ahead: deque[Photograph] = deque()
        for number in itertools.count(self.done):
            unreadable: list[str] = []
            while True:
                if len(unreadable) == len(ahead):
                    ahead.extend(itertools.islice(photographs, 1))
                if len(unreadable) in (len(ahead), STREAM_PATIENCE):
                    raise ValueError(
                        f"{len(unreadable)} photographs in a row cannot be read, {unreadable[:1]} for one"
                    )
                photograph = ahead[len(unreadable)]
                random = np.random.default_rng([self.recipe.seed, _STREAM, self.process, worker, number])
                try:
                    sample = make_sample(cut_patch(photograph, self.recipe, random), self.recipe, random)
                    break
                except UnreadableError:
                    unreadable.append(photograph.name)
            ahead.popleft()
            yield {**sample, "unreadable": unreadable}

    def _epochs(self) -> Iterator[Photograph]:
        for epoch in itertools.count():
            photograph = None
            for photograph in self.stream.share(self.recipe.seed, epoch, self.process, self.processes):
                yield photograph
            if photograph is None:
                return


def collate(samples: Sequence[Sample]) -> dict[str, Any]:
    """Stacks samples.

    Returns:
        `image` (B, 3, size, size) uint8, `mask` (B, 1, size, size) uint8, `hole` and `other_hole` (B, 4) int64,
        `colour` and `other_colour` (B, 3) float32, `unreadable` names.
    """
    return {
        "image": torch.from_numpy(np.stack([sample["image"] for sample in samples])).permute(0, 3, 1, 2),
        "mask": torch.from_numpy(np.stack([sample["mask"] for sample in samples]))[:, None],
        "hole": torch.tensor([sample["hole"] for sample in samples]),
        "other_hole": torch.tensor([sample["other_hole"] for sample in samples]),
        "colour": torch.from_numpy(np.stack([sample["colour"] for sample in samples])),
        "other_colour": torch.from_numpy(np.stack([sample["other_colour"] for sample in samples])),
        "unreadable": [name for sample in samples for name in sample["unreadable"]],
    }


def load_batches(
    photographs: Sequence[Photograph] | Stream,
    recipe: Recipe,
    *,
    first_step: int = 0,
    process: int = 0,
    processes: int = 1,
    workers: int = 0,
) -> Iterator[dict[str, Any]]:
    """Makes the batches of one process, from a step of the run on, to its end.

    Args:
        photographs: Of a stream each process reads a part; of others each takes its part of every batch.
        recipe: What the batches are like.
        first_step: The step of the first batch.
        process: Number of this process.
        processes: How many there are; together they take `recipe.batch_size` samples a step.
        workers: Operating-system processes that read photographs; 0 reads them in this one.

    Yields:
        What `collate` makes, with `recipe.batch_size // processes` samples.

    Raises:
        ValueError: The photographs cannot be read.
    """
    size = recipe.batch_size // processes
    options: dict[str, Any] = {"collate_fn": collate, "pin_memory": torch.cuda.is_available()}
    last_step = recipe.phase_ends[-1]
    if not isinstance(photographs, Stream):
        starts = (step * recipe.batch_size + process * size for step in range(first_step, last_step))
        numbers = (list(range(start, start + size)) for start in starts)
        samples = NumberedSamples(photographs, recipe)
        yield from DataLoader(
            samples, batch_sampler=numbers, num_workers=workers, worker_init_fn=_leave_signals_to_parent, **options
        )
        return
    workers = min(workers, photographs.share(recipe.seed, 0, process, processes).dataset.num_shards)
    # Workers take turns of one batch. What goes beyond whole rounds is made again and dropped.
    rounds, rest = divmod(first_step, max(1, workers))
    stream = StreamedSamples(photographs, recipe, process, processes, rounds * size)
    loader = DataLoader(stream, size, num_workers=workers, worker_init_fn=_leave_signals_to_parent, **options)
    yield from itertools.islice(loader, rest, rest + last_step - first_step)


def _leave_signals_to_parent(worker: int) -> None:
    """Ignores signals, which clusters and terminals send to every process: workers end when the trainer says so."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # Linux
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_obey, args=(os.getppid(),), daemon=True).start()


def _obey(parent: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)

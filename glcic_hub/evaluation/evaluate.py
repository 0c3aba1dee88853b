"""Runs methods over photographs; resumes where it stopped, reports and skips failures."""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from accelerate.utils import broadcast_object_list, gather_object
from numpy.typing import NDArray
from PIL import Image
from tqdm.auto import tqdm

from glcic_hub.data.photographs import Folder, Photograph
from glcic_hub.distributed import join_processes
from glcic_hub.evaluation import perceptual
from glcic_hub.evaluation.methods import Completion, Method, make_completions
from glcic_hub.evaluation.metrics import METRICS, Metric, hole_metrics
from glcic_hub.evaluation.protocol import GIVEN, HOLES, Case, Protocol, case_opener, short_name
from glcic_hub.files import first_line, printable, write_text, write_whole
from glcic_hub.images.folders import find_images

SETTINGS_FILE = "evaluation.json"
PANEL_SIDE = 192
"""Pixels a side, at most, of the images that are kept for the report."""

HOLE_COLOUR = (128, 128, 128)

ALL_METRICS = {**METRICS, **perceptual.PERCEPTUAL_METRICS}
"""Of them an evaluation without the extra "perceptual" has `METRICS` alone."""


@dataclass(frozen=True)
class Evaluation:
    """The results of a run.

    Attributes:
        protocol: What was measured on.
        photographs: How many there were.
        methods: Names in the order of tables, without those that failed on more than half of what others completed.
        records: One for each photograph that a method completed: `photograph` (name), `index`, `method`, `seconds`,
            and the metrics of `hole_metrics`; `seconds` is NaN for what another tool has completed. With the extra
            "perceptual" also what `perceptual.compare` gives: `efficientnet`, its distance, and the vectors of the
            original (`original_vectors`) and of the completed image (`completed_vectors`), as text.
        failures: One for each that it did not: `photograph`, `index`, `method` (empty if the photograph or its mask
            cannot be used), and `error`.
    """

    protocol: Protocol
    photographs: int
    methods: tuple[str, ...]
    records: tuple[dict[str, Any], ...]
    failures: tuple[dict[str, Any], ...]

    @property
    def metrics(self) -> dict[str, Metric]:
        """Lists the measurements of each photograph."""
        return {name: metric for name, metric in ALL_METRICS.items() if name in self.records[0]}

    def values(self, method: str, entry: str) -> dict[int, Any]:
        """Looks up a record's entry by photograph's index, where all methods completed it, so that means compare."""
        counts: dict[int, int] = {}
        for record in self.records:
            counts[record["index"]] = counts.get(record["index"], 0) + (record["method"] in self.methods)
        return {
            record["index"]: record[entry]
            for record in self.records
            if record["method"] == method and counts[record["index"]] == len(self.methods)
        }


def evaluate(
    photographs: Sequence[Photograph],
    methods: Mapping[str, Method],
    protocol: Protocol,
    output: Path | None = None,
    settings: Mapping[str, Any] | None = None,
    completed: Mapping[str, Path] | None = None,
) -> Evaluation:
    """Completes each photograph's hole by each method, and measures.

    Processes started by `accelerate launch` share the photographs. A rerun resumes from what is in `output`.

    Args:
        photographs: What to measure on.
        methods: What to measure.
        protocol: Which part of each photograph, and where its hole is.
        output: A folder for the records, JSON lines, and for images; made if it does not exist. None keeps nothing.
        settings: What else tells one run from another, such as the models' names; JSON.
        completed: What other tools have completed, by name: folders of images of the photographs' names and sizes.
            The holes must be given or those of a folder.

    Raises:
        FileNotFoundError: No such folder.
        ValueError: `output` holds another evaluation, not a single photograph could be used, or a folder of
            `completed` cannot be.
        ModuleNotFoundError: scikit-image is not installed.
        OSError: `output` cannot be written.
    """
    accelerator = join_processes()
    completed = completed or {}
    completions = make_completions(methods, completed, photographs, protocol)
    open_case = case_opener(protocol, photographs)
    done: list[dict[str, Any]] = []
    if output is not None:
        identity = _identity(photographs, list(completions), completed, protocol, settings or {})
        if isinstance(photographs, Folder) and output.resolve().is_relative_to(photographs.folder.resolve()):
            raise ValueError(f"{output} is in the photographs' folder, and its images would be among them")
        if accelerator.is_main_process:
            _begin(output, identity)
            _drop_unfinished_lines(output)
        accelerator.wait_for_everyone()
        # The main process's view counts for all: another's may have changed by what the first have measured.
        (done,) = broadcast_object_list([_read_records(output)])
        (output / "images").mkdir(exist_ok=True)

    # Measure this process's share of the photographs that lack a measurement by any method.
    have = {(record["index"], record["method"]) for record in done if "error" not in record}
    left = [index for index in range(len(photographs)) if any((index, name) not in have for name in completions)]
    share = left[accelerator.process_index :: accelerator.num_processes]
    own: list[dict[str, Any]] = []
    file = output / f"records-{accelerator.process_index}.jsonl" if output else Path(os.devnull)
    try:
        with file.open("a", encoding="utf-8") as lines:
            for index in tqdm(share, unit="photograph", disable=not accelerator.is_main_process):
                for record in _measure(open_case, index, completions, output):
                    if (index, record["method"]) in have:  # another method failed on this photograph before
                        continue
                    own.append({"photograph": printable(short_name(photographs, index)), **record})
                    lines.write(json.dumps(_without_odd_numbers(own[-1])) + "\n")
                    lines.flush()
    except OSError as error:
        raise OSError(f"cannot write to {output}: {error.strerror or error}") from None
    good, failures = _sort_out([*done, *gather_object(own)], list(completions))
    if not good:
        reason = f"{failures[0]['photograph']}: {failures[0]['error']}" if failures else "there are none"
        raise ValueError(f"not one of {len(photographs)} photographs could be measured; the first, {reason}")

    # Means are over what all methods completed; one that fails on most would leave nothing of them.
    counts = {name: sum(record["method"] == name for record in good) for name in completions}
    kept = tuple(name for name in completions if 2 * counts[name] >= max(counts.values()))
    return Evaluation(protocol, len(photographs), kept, good, failures)


def _sort_out(
    records: Sequence[dict[str, Any]], methods: Sequence[str]
) -> tuple[tuple[dict[str, Any], ...], tuple[dict[str, Any], ...]]:
    """Sorts records into measurements and failures, the latest of each; drops failures made good since."""
    order = {name: place for place, name in enumerate(methods)}

    def latest(failed: bool) -> dict[tuple[int, str], dict[str, Any]]:
        some = [record for record in records if ("error" in record) == failed]
        some.sort(key=lambda record: (record["index"], order.get(record["method"], -1)))
        return {(record["index"], record["method"]): record for record in some}

    measured = latest(failed=False)
    tried_again = {index for index, _ in measured}
    failures = tuple(
        record
        for (index, method), record in latest(failed=True).items()
        if (index, method) not in measured and (method or index not in tried_again)
    )
    return tuple(measured.values()), failures


def _measure(
    open_case: Any, index: int, completions: Mapping[str, Completion], output: Path | None
) -> Iterator[dict[str, Any]]:
    """Measures one photograph; writes its images before it yields the records."""
    try:
        case: Case = open_case(index)
    except Exception as error:  # of Pillow's plugins, and of whatever a dataset is read by
        yield {"index": index, "method": "", "error": printable(first_line(error))}
        return
    panels = [np.where(case.mask[..., None] > 0, np.array(HOLE_COLOUR, np.uint8), case.image)]
    records = []
    for name, completion in completions.items():
        begin = time.perf_counter()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # of large holes, at each of them
                completed = completion.complete(index, case)
            seconds = time.perf_counter() - begin if completion.is_timed else math.nan
            figures = {**hole_metrics(case.image, completed, case.mask), **_compare(case, completed)}
            records.append({"index": index, "method": name, "seconds": seconds, **figures})
        except Exception as error:  # whatever a method of others raises
            completed = panels[0]
            records.append({"index": index, "method": name, "error": printable(first_line(error))})
        panels.append(completed)
    if output is not None:
        _save_panels([*panels, case.image], output / "images" / f"{index}.jpg")
    yield from records


def _compare(case: Case, completed: NDArray[np.uint8]) -> dict[str, Any]:
    """Measures a record's entries of the extra "perceptual"; none without it.

    The Fréchet distance is of a whole set, so records keep the vectors: a resumed run, or one of several processes,
    has them as it has the metrics.
    """
    if not perceptual.installed():
        return {}
    found = perceptual.compare(case.image, completed, case.mask)
    return {
        "efficientnet": found.distance,
        "original_vectors": perceptual.as_text(found.original),
        "completed_vectors": perceptual.as_text(found.completed),
    }


def _save_panels(panels: Sequence[NDArray[np.uint8]], path: Path) -> None:
    """Saves hole, completed images and original in a row, small."""
    height, width = panels[0].shape[:2]
    scale = min(1, PANEL_SIDE / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    strip = Image.new("RGB", (size[0] * len(panels), size[1]))
    for place, panel in enumerate(panels):
        strip.paste(Image.fromarray(panel).resize(size, Image.Resampling.LANCZOS), (place * size[0], 0))
    write_whole(path, lambda temporary: strip.save(temporary, quality=85))


def _identity(
    photographs: Sequence[Photograph],
    names: list[str],
    completed: Mapping[str, Path],
    protocol: Protocol,
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    masks: Sequence[Path] = ()
    if protocol.holes == GIVEN:
        masks = [file for each in photographs for file in (each.file, each.mask) if isinstance(file, Path)]
    elif protocol.holes not in HOLES:
        masks = find_images(Path(protocol.holes))
    identity = {
        "protocol": asdict(protocol),
        "methods": names,
        "metrics": list(ALL_METRICS if perceptual.installed() else METRICS),
        "photographs": len(photographs),
        "files": _digest(photographs.paths) if isinstance(photographs, Folder) else "",
        "masks": _digest(masks) if masks else "",
        **settings,
    }
    if completed:
        identity["completed"] = {name: _digest(find_images(folder)) for name, folder in completed.items()}
    as_read: dict[str, Any] = json.loads(json.dumps(identity))
    return as_read


def _digest(paths: Sequence[Path]) -> str:
    """Digests names and sizes of files, to tell whether they are still the same; some may be missing."""
    listing = "\n".join(f"{path.name} {path.stat().st_size}" if path.exists() else path.name for path in paths)
    return hashlib.sha256(listing.encode(errors="surrogateescape")).hexdigest()[:16]


def _without_odd_numbers(record: dict[str, Any]) -> dict[str, Any]:
    """Replaces NaN, which JSON does not have, by null."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in record.items()
    }


def _begin(output: Path, identity: dict[str, Any]) -> None:
    output.mkdir(parents=True, exist_ok=True)
    file = output / SETTINGS_FILE
    if not file.exists():
        if any(output.glob("records-*.jsonl")):
            raise ValueError(f"{output} holds records of something else; give another folder")
        write_text(file, json.dumps(identity, indent=2) + "\n")
        return
    try:
        before = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"cannot read {file}: {first_line(error)}") from None
    other = [key for key in identity if before.get(key) != identity[key]] if isinstance(before, dict) else ["all"]
    if other:
        raise ValueError(f"{output} holds another evaluation (other {', '.join(other)}); give another folder")


def _drop_unfinished_lines(output: Path) -> None:
    """Drops the last line of a file whose process was killed while writing it."""
    for file in output.glob("records-*.jsonl"):
        content = file.read_text(encoding="utf-8")
        if content and not content.endswith("\n"):
            whole = content[: content.rfind("\n") + 1]
            write_text(file, whole)


def _read_records(output: Path) -> list[dict[str, Any]]:
    """Reads the measurements of an earlier run."""
    records = []
    for file in sorted(output.glob("records-*.jsonl")):
        for line in file.read_text(encoding="utf-8").splitlines():
            try:
                record = json.loads(line)
                record["index"], record["method"]
                record.update({key: math.nan for key, value in record.items() if value is None})
            except (ValueError, TypeError, KeyError):
                raise ValueError(f"{file} is broken; delete it to measure anew") from None
            records.append(record)
    return records

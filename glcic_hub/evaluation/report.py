"""The report of an evaluation: means with intervals, tables, plots, and a page that shows the images."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from markupsafe import Markup
from scipy.stats import bootstrap

from glcic_hub.evaluation.evaluate import ALL_METRICS, Evaluation
from glcic_hub.evaluation.metrics import mean_of_defined
from glcic_hub.evaluation.pages import PAGES
from glcic_hub.evaluation.perceptual import frechet_distance, from_text
from glcic_hub.files import write_text

IN_HOLE = ("psnr", "ssim", "texture", "efficientnet", "l1", "seam", "lightness", "a", "b")
WHOLE = ("psnr_whole", "ssim_whole", "l1_whole")
COMPARED = ("psnr", "ssim", "texture", "efficientnet", "l1", "seam", "a", "b")
PLOTTED = ("psnr", "ssim", "texture", "efficientnet", "seam")
RESAMPLES = 2000


class Estimate(NamedTuple):
    """A mean over photographs with its bootstrap 95 % interval; the ends are NaN where none can be had."""

    mean: float
    low: float
    high: float

    def show(self, digits: int, sign: str = "") -> str:
        """Formats the mean, and the interval in brackets; a dash for what is not defined."""
        if math.isnan(self.mean):
            return "-"
        mean = f"{self.mean:{sign}.{digits}f}"
        if math.isnan(self.low):
            return mean
        return f"{mean} [{self.low:{sign}.{digits}f}, {self.high:{sign}.{digits}f}]"


def estimate(values: list[float]) -> Estimate:
    """Averages the values that are defined, with a percentile bootstrap interval; the same each time."""
    defined = [value for value in values if not math.isnan(value)]
    if len(defined) < 2:
        return Estimate(mean_of_defined(defined), math.nan, math.nan)
    interval = bootstrap(
        (defined,), np.mean, n_resamples=RESAMPLES, batch=100, method="percentile", random_state=0
    ).confidence_interval
    return Estimate(float(np.mean(defined)), float(interval.low), float(interval.high))


def means(evaluation: Evaluation) -> dict[str, dict[str, Estimate]]:
    """Averages each metric, and `seconds`, for each method over the photographs that all methods completed."""
    return {
        method: {
            metric: estimate(list(evaluation.values(method, metric).values()))
            for metric in (*evaluation.metrics, "seconds")
        }
        for method in evaluation.methods
    }


def differences(evaluation: Evaluation) -> dict[str, dict[str, Estimate]]:
    """Compares each method with the first, photograph by photograph: the mean difference of each metric."""
    first, *others = evaluation.methods
    result: dict[str, dict[str, Estimate]] = {}
    for method in others:
        result[method] = {}
        for metric in evaluation.metrics:
            reference, own = evaluation.values(first, metric), evaluation.values(method, metric)
            result[method][metric] = estimate([own[index] - reference[index] for index in reference])
    return result


class Frechet(NamedTuple):
    """A method's Fréchet distance from the originals, and how many vectors of each it is of."""

    distance: float
    vectors: int


def frechet(evaluation: Evaluation) -> dict[str, Frechet]:
    """Computes each method's Fréchet distance; empty if the evaluation ran without the extra "perceptual"."""
    if "efficientnet" not in evaluation.metrics:
        return {}
    result = {}
    for method in evaluation.methods:
        original, completed = (
            np.concatenate([from_text(text) for text in evaluation.values(method, entry).values()])
            for entry in ("original_vectors", "completed_vectors")
        )
        result[method] = Frechet(frechet_distance(original, completed), len(completed))
    return result


def as_markdown(evaluation: Evaluation) -> str:
    """Describes the data and gives the tables: in the hole, over the image, and paired differences."""
    figures = means(evaluation)
    counted = len(evaluation.values(evaluation.methods[0], "psnr"))
    measured = evaluation.metrics
    text = [
        f"{counted} photographs; {evaluation.protocol.describe()}. In brackets: bootstrap 95 % intervals over the "
        "photographs.",
        "In the hole:",
        _table(figures, (*(metric for metric in IN_HOLE if metric in measured), "seconds")),
        "Over the image:",
        _table(figures, WHOLE),
    ]
    if distances := frechet(evaluation):
        heads = f"| method | Fréchet distance of {next(iter(distances.values())).vectors} vectors |\n|---|---|"
        rows = [f"| {method} | {found.distance:.0f} |" for method, found in distances.items()]
        text += ["Over the set, by EfficientNet's features in the hole:", "\n".join([heads, *rows])]
    if len(evaluation.methods) > 1:
        text += [
            f"Difference from {evaluation.methods[0]}, photograph by photograph:",
            _table(differences(evaluation), [metric for metric in COMPARED if metric in measured], sign="+"),
        ]
    text += [_left_out(evaluation)] if _left_out(evaluation) else []
    if evaluation.failures:
        text += ["Not measured:", "\n".join(f"- {_failure(failure)}" for failure in evaluation.failures)]
    return "\n\n".join(text) + "\n"


def _left_out(evaluation: Evaluation) -> str:
    """Names the methods that are not in the tables, in a sentence; empty if all are."""
    failed = dict.fromkeys(failure["method"] for failure in evaluation.failures)
    names = [name for name in failed if name and name not in evaluation.methods]
    return f"Left out, for they failed on more than half: {', '.join(names)}." if names else ""


def _failure(failure: dict[str, str]) -> str:
    by = f" by {failure['method']}" if failure["method"] else ""
    return f"{failure['photograph']}{by}: {failure['error']}"


def _table(figures: dict[str, dict[str, Estimate]], metrics: Sequence[str], sign: str = "") -> str:
    heads = ["method", *(_label(metric) for metric in metrics)]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for method, row in figures.items():
        lines.append(
            "| " + " | ".join([method, *(row[metric].show(_digits(metric), sign) for metric in metrics)]) + " |"
        )
    return "\n".join(lines)


def _label(metric: str) -> str:
    return "seconds" if metric == "seconds" else ALL_METRICS[metric].label


def _digits(metric: str) -> int:
    return 3 if metric == "seconds" else ALL_METRICS[metric].digits


def write_report(evaluation: Evaluation, output: Path, title: str) -> None:
    """Writes `results.md` and `report.html`, which holds all that it shows, into the evaluation's folder.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
        OSError: A file cannot be written.
    """
    # Compute means, distances, and the values of each photograph.
    figures = means(evaluation)
    measured = evaluation.metrics
    metrics = (*(metric for metric in (*IN_HOLE, *WHOLE) if metric in measured), "seconds")
    distances = frechet(evaluation)
    values = {method: {metric: evaluation.values(method, metric) for metric in measured} for method in figures}
    # Put the strips of images into the page, so that it is one file.
    images = []
    names = {record["index"]: record["photograph"] for record in evaluation.records}
    for index in values[evaluation.methods[0]]["psnr"]:
        scores = {method: {m: _plain(values[method][m][index]) for m in measured} for method in figures}
        strip = (output / "images" / f"{index}.jpg").read_bytes()
        images.append({"name": names[index], "scores": scores, "strip": base64.b64encode(strip).decode()})
    # Fill in the page, and write it beside the tables.
    page = PAGES.get_template("report.html").render(
        title=title,
        summary=f"{len(images)} photographs; {evaluation.protocol.describe()}",
        heads=[*(_label(metric) for metric in metrics), *(["Fréchet distance"] if distances else [])],
        rows=[
            (
                method,
                [(row[metric].mean, row[metric].show(_digits(metric))) for metric in metrics]
                + [(found.distance, f"{found.distance:.0f}") for name, found in distances.items() if name == method],
            )
            for method, row in figures.items()
        ],
        plots=Markup(_plots(figures, values)),
        methods=list(evaluation.methods),
        metrics=[(name, metric.label, metric.best) for name, metric in measured.items()],
        failures=[_failure(failure) for failure in evaluation.failures],
        images=images,
    )
    write_text(output / "report.html", page)
    write_text(output / "results.md", as_markdown(evaluation))


def _plain(value: float) -> float | None:
    """Replaces what is not finite by None, as JSON has no NaN."""
    return value if math.isfinite(value) else None


def _plots(figures: dict[str, dict[str, Estimate]], values: dict[str, dict[str, dict[int, float]]]) -> str:
    """Means with their intervals, over what the single photographs gave, as SVG."""
    from matplotlib.figure import Figure

    names = list(figures)[::-1]
    figure = Figure(figsize=(11, 0.9 + 0.32 * len(names)), layout="constrained")
    plotted = [metric for metric in PLOTTED if metric in figures[names[0]]]
    for axes, metric in zip(figure.subplots(1, len(plotted), sharey=True), plotted, strict=True):
        for place, name in enumerate(names):
            single = [value for value in values[name][metric].values() if math.isfinite(value)]
            low, high = np.percentile(single, [10, 90]) if single else (math.nan, math.nan)
            axes.plot([low, high], [place, place], color="#c8c8c8", linewidth=6, solid_capstyle="round")
            mean = figures[name][metric]
            axes.plot([mean.low, mean.high], [place, place], color="#333333", linewidth=1.5)
            axes.plot(mean.mean, place, "o", color="#d9480f", markersize=5)
        axes.set_title(ALL_METRICS[metric].label, fontsize=10)
        axes.set_yticks(range(len(names)), names)
        axes.spines[["top", "right", "left"]].set_visible(False)
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()[buffer.getvalue().index("<svg") :]

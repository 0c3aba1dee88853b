"""Results of a study: shares with intervals, tables, the plot and the page."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup
from scipy.stats import binomtest

from glcic_hub.evaluation.pages import PAGES
from glcic_hub.evaluation.study import ANSWERS, REAL, Study
from glcic_hub.files import write_text

LEAST_FOR_REMARK = 6
"""Equal answers by which a rater stands out; by chance half the raters' first two are."""

LEAST_TO_FOOL_NOBODY = 3
"""Votes that a completed image must have had."""


class Share(NamedTuple):
    """The number of "real" among votes, with Wilson's 95 % interval of the share."""

    real: int
    votes: int

    @property
    def value(self) -> float:
        """The share; NaN without votes."""
        return self.real / self.votes if self.votes else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """Its ends; NaN without votes."""
        if not self.votes:
            return math.nan, math.nan
        found = binomtest(self.real, self.votes).proportion_ci(method="wilson")
        return float(found.low), float(found.high)

    def show(self) -> str:
        """Formats the share in per cent."""
        if not self.votes:
            return "no votes"
        low, high = self.interval
        return f"{self.value:.1%} [{low:.1%}, {high:.1%}] of {self.votes}"


class RaterShares(NamedTuple):
    """A rater's votes on the real images and on the completed ones."""

    name: str
    real: Share
    completed: Share

    @property
    def remark(self) -> str:
        """Says why a rater's votes are not to be trusted."""
        called, votes = self.real.real + self.completed.real, self.real.votes + self.completed.votes
        if votes >= LEAST_FOR_REMARK and called in (0, votes):
            return f"always said {ANSWERS[0] if called else ANSWERS[1]}"
        return ""


class Results(NamedTuple):
    """The results of a study."""

    kinds: dict[str, Share]
    raters: list[RaterShares]
    fooled_nobody: list[tuple[str, str, int]]
    """Of the completed images with at least 3 votes those that nobody called real: method, token, votes; most votes
    first."""
    judged: int
    """Counts the completed images by their number of votes."""


def results(study: Study) -> Results:
    """Counts the votes."""
    votes = study.votes()

    def share(rows: Sequence[tuple[str, ...]]) -> Share:
        return Share(sum(row[4] == REAL for row in rows), len(rows))

    raters = []
    for rater in dict.fromkeys(row[0] for row in votes):
        own = [row for row in votes if row[0] == rater]
        real, completed = ([row for row in own if (row[2] == REAL) is is_real] for is_real in (True, False))
        raters.append(RaterShares(own[0][1] or "without a name", share(real), share(completed)))
    of_image: dict[str, list[tuple[str, ...]]] = {}
    for row in votes:
        if row[2] != REAL:
            of_image.setdefault(row[3], []).append(row)
    judged = {image: rows for image, rows in of_image.items() if len(rows) >= LEAST_TO_FOOL_NOBODY}
    fooled_nobody = [(rows[0][2], image, len(rows)) for image, rows in judged.items() if not share(rows).real]
    fooled_nobody.sort(key=lambda row: -row[2])
    kinds = {kind: share([row for row in votes if row[2] == kind]) for kind in study.kinds()}
    if len(kinds) > 2:
        kinds["all completed"] = share([row for row in votes if row[2] != REAL])
    return Results(kinds, raters, fooled_nobody, len(judged))


def results_as_markdown(study: Study, found: Results) -> str:
    """Writes the tables: share called real, by kind of image and by rater."""
    lines = [
        f"Called real; {study.description()}. In brackets: Wilson's 95 % intervals, as if all votes were independent.",
        "",
        "| images | called real |",
        "|---|---|",
        *(f"| {kind} | {share.show()} |" for kind, share in found.kinds.items()),
        "",
        "| rater | real ones called real | completed ones called real | |",
        "|---|---|---|---|",
        *(
            f"| {row.name.replace('|', '/')} | {row.real.show()} | {row.completed.show()} | {row.remark} |"
            for row in found.raters
        ),
        "",
        f"Of {found.judged} completed images with at least {LEAST_TO_FOOL_NOBODY} votes "
        f"{len(found.fooled_nobody)} fooled nobody.",
    ]
    return "\n".join(lines) + "\n"


def write_results(study: Study, found: Results) -> None:
    """Writes `results.md` and `results.html`, with plot and the images that fooled nobody, into the study's folder.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
        OSError: A file cannot be written.
    """
    page = PAGES.get_template("study_results.html").render(
        description=study.description(),
        kinds=[(kind, share.show()) for kind, share in found.kinds.items()],
        raters=[(row.name, row.real.show(), row.completed.show(), row.remark) for row in found.raters],
        plot=Markup(_plot(found)),
        judged=found.judged,
        least=LEAST_TO_FOOL_NOBODY,
        fooled_nobody=[
            (kind, votes, base64.b64encode(study.image(token).read_bytes()).decode())
            for kind, token, votes in found.fooled_nobody
        ],
    )
    text = results_as_markdown(study, found)
    write_text(study.folder / "results.html", page)
    write_text(study.folder / "results.md", text)


def _plot(found: Results) -> str:
    """Shares called real: of each kind of image; of each rater's completed ones (dots) and real ones (rings)."""
    from matplotlib.figure import Figure

    rows: list[tuple[str, Share, Share | None]] = [(kind, share, None) for kind, share in found.kinds.items()]
    rows += [(row.name, row.completed, row.real) for row in found.raters]
    figure = Figure(figsize=(7, 0.8 + 0.3 * len(rows)), layout="constrained")
    axes = figure.subplots()
    for place, (_, share, real) in enumerate(reversed(rows)):
        axes.plot(share.interval, [place, place], color="#333333", linewidth=1.5)
        axes.plot(share.value, place, "o", color="#d9480f", markersize=6)
        if real is not None:
            axes.plot(real.value, place, "o", color="#333333", markerfacecolor="none", markersize=8)
    axes.axhline(len(found.raters) - 0.5, color="#c8c8c8", linewidth=1)
    axes.set_yticks(range(len(rows)), [row[0].replace("$", r"\$") for row in rows][::-1])
    axes.set_xlim(-0.02, 1.02)
    axes.set_xlabel("share called real")
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()[buffer.getvalue().index("<svg") :]

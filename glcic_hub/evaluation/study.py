"""The user study (sec. 4.6, fig. 11): raters see one picture at a time, and say whether it is real or completed."""

from __future__ import annotations

import base64
import io
import json
import math
import secrets
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jinja2 import Environment, PackageLoader, select_autoescape
from markupsafe import Markup
from PIL import Image
from scipy.stats import binomtest
from tqdm.auto import tqdm

from glcic_hub.data.photographs import Photograph
from glcic_hub.evaluation.methods import Method
from glcic_hub.evaluation.protocol import Protocol, case_opener
from glcic_hub.files import first_line, printable, write_whole
from glcic_hub.images.processing import to_uint8

DATABASE_FILE = "study.sqlite3"
REAL = "real"
ANSWERS = (REAL, "completed")
MAX_NAME = 60

LEAST_FOR_REMARK = 6
"""Equal answers by which a rater stands out; by chance half the raters' first two are."""

LEAST_TO_FOOL_NOBODY = 3
"""Votes that a completed picture must have had."""

SCHEMA = """
CREATE TABLE settings (count INTEGER NOT NULL, description TEXT NOT NULL);
CREATE TABLE pictures (
    token TEXT PRIMARY KEY, photograph INTEGER NOT NULL, name TEXT NOT NULL, kind TEXT NOT NULL,
    UNIQUE (photograph, kind)
);
CREATE TABLE raters (token TEXT PRIMARY KEY, name TEXT NOT NULL, begun REAL NOT NULL);
CREATE TABLE trials (
    rater TEXT NOT NULL REFERENCES raters, place INTEGER NOT NULL, picture TEXT NOT NULL REFERENCES pictures,
    shown REAL, answer TEXT CHECK (answer IN ('real', 'completed')), answered REAL,
    PRIMARY KEY (rater, place), UNIQUE (rater, picture)
);
"""


class Trial(NamedTuple):
    """What a rater is to see next."""

    picture: str
    """Its token, which says nothing of what it is."""
    place: int
    """How many the rater has answered before."""
    total: int
    """How many there are for the rater."""


class Share(NamedTuple):
    """How many of some votes were "real", with Wilson's 95 % interval of the share."""

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
        """As text, in per cent."""
        if not self.votes:
            return "no votes"
        low, high = self.interval
        return f"{self.value:.1%} [{low:.1%}, {high:.1%}] of {self.votes}"


def prepare_study(
    folder: Path,
    photographs: Sequence[Photograph],
    methods: Mapping[str, Method],
    protocol: Protocol,
    count: int = 100,
) -> list[str]:
    """Completes photographs by each method, and makes the study's folder: pictures, and an SQLite database.

    All pictures are PNG files of one size and encoder, under names that say nothing.

    Args:
        folder: A new one.
        photographs: Those of which each rater sees some, each once: as it is, or completed by one of the methods.
        methods: Names and methods.
        protocol: Which part of each photograph, and where its hole is.
        count: How many pictures a rater sees at most; half of them real.

    Returns:
        What could not be used, a line each.

    Raises:
        FileExistsError: The folder exists.
        ValueError: Fewer than two photographs can be used, or there is no method.
        OSError: The folder cannot be written.
    """
    if not methods or count < 2:
        raise ValueError(f"a study takes a method and at least 2 pictures a rater, not {len(methods)} and {count}")
    if REAL in methods:
        raise ValueError(f"a method cannot be called {REAL}, as the photographs are; rename the model's folder")
    check_new(folder)
    open_case = case_opener(protocol, photographs)
    failures: list[str] = []
    rows: list[tuple[str, int, str, str]] = []
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        (temporary / "pictures").mkdir()
        for index in tqdm(range(len(photographs)), unit="photograph"):
            name = printable(photographs[index].name)  # SQLite takes Unicode alone
            try:
                case = open_case(index)
                kinds = {REAL: case.image}
                for key, method in methods.items():
                    completed = to_uint8(method(case.image, case.mask))
                    if completed.shape != case.image.shape:
                        raise ValueError(f"{key} made a picture of another size")
                    # A change outside the hole, as by a codec, would tell completed pictures from real ones.
                    kinds[key] = np.where(case.mask[..., None] > 0, completed, case.image)
            except Exception as error:  # whatever a method of others raises
                failures.append(f"{name}: {first_line(error)}")
                continue
            for kind, picture in kinds.items():
                token = secrets.token_hex(12)
                Image.fromarray(np.ascontiguousarray(picture)).save(temporary / "pictures" / f"{token}.png")
                rows.append((token, index, name, kind))
        usable = len({row[1] for row in rows})
        if usable < 2:
            raise ValueError("; ".join([f"{usable} photographs can be used, and a study takes at least 2", *failures]))
        with closing(sqlite3.connect(temporary / DATABASE_FILE)) as database, database:
            database.executescript(SCHEMA)
            database.execute("INSERT INTO settings VALUES (?, ?)", (min(count, usable), protocol.describe()))
            database.executemany("INSERT INTO pictures VALUES (?, ?, ?, ?)", rows)
        temporary.chmod(0o755)
        temporary.rename(folder)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if isinstance(error, (OSError, sqlite3.Error)):
            raise OSError(f"cannot write {folder}: {first_line(error)}") from None
        raise
    return failures


def check_new(folder: Path) -> None:
    """Raises a FileExistsError if a study's folder is there already."""
    if (folder / DATABASE_FILE).exists():
        raise FileExistsError(
            f"{folder} holds a study; leave --photographs away to go on with it, or give a new folder"
        )
    if folder.exists():
        raise FileExistsError(f"{folder} exists and is kept; give a new folder")


class Study:
    """A study's folder: who sees what, and what they said. Several threads and processes may use it at once.

    Raises:
        FileNotFoundError: There is no study in the folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / DATABASE_FILE
        if not self.file.is_file():
            raise FileNotFoundError(f"no study in {folder}: there is no {DATABASE_FILE}")

    @contextmanager
    def _database(self) -> Iterator[sqlite3.Connection]:
        """A connection; what is written is on the disk when it is closed, or not at all.

        Raises:
            OSError: The file is no study's, or the disk is full.
        """
        try:
            with closing(sqlite3.connect(self.file, timeout=30)) as database:
                database.execute("PRAGMA synchronous = FULL")
                with database:
                    yield database
        except sqlite3.Error as error:
            raise OSError(f"cannot use {self.file}: {first_line(error)}") from None

    def add_rater(self, name: str) -> str:
        """Draws a rater's pictures: each photograph at most once, half real, the methods alike often, in random order.

        Returns:
            The rater's token.
        """
        rater = secrets.token_hex(16)
        random = np.random.default_rng(secrets.randbits(128))
        with self._database() as database:
            database.execute("BEGIN IMMEDIATE")  # two raters at once would see the same counts
            (count,) = database.execute("SELECT count FROM settings").fetchone()
            pictures = {
                (photograph, kind): token
                for token, photograph, kind in database.execute("SELECT token, photograph, kind FROM pictures")
            }
            used = dict(
                database.execute(
                    "SELECT kind, count(*) FROM trials JOIN pictures ON token = picture GROUP BY kind"
                ).fetchall()
            )
            methods = sorted({kind for _, kind in pictures if kind != REAL})
            random.shuffle(methods)
            methods.sort(key=lambda method: used.get(method, 0))  # what was seen less often has the odd one
            completed = count // 2
            kinds = [REAL] * (count - completed) + [methods[place % len(methods)] for place in range(completed)]
            random.shuffle(kinds)
            shown = dict(
                database.execute(
                    "SELECT photograph, count(*) FROM trials JOIN pictures ON token = picture GROUP BY photograph"
                ).fetchall()
            )
            # Those that were seen least, so that votes gather on all alike; which of them, and their order, is random.
            candidates = random.permutation(sorted({photograph for photograph, _ in pictures})).tolist()
            chosen = sorted(candidates, key=lambda photograph: shown.get(photograph, 0))[:count]
            random.shuffle(chosen)
            printable = "".join(letter for letter in name if letter.isprintable()).strip()[:MAX_NAME]
            database.execute("INSERT INTO raters VALUES (?, ?, ?)", (rater, printable, time.time()))
            database.executemany(
                "INSERT INTO trials (rater, place, picture) VALUES (?, ?, ?)",
                [
                    (rater, place, pictures[photograph, kind])
                    for place, (photograph, kind) in enumerate(zip(chosen, kinds, strict=True))
                ],
            )
        return rater

    def next_trial(self, rater: str) -> Trial | None:
        """The picture that a rater has not answered yet; None after the last.

        Raises:
            KeyError: No such rater.
        """
        with self._database() as database:
            count, answered = database.execute(
                "SELECT count(*), count(answer) FROM trials WHERE rater = ?", (rater,)
            ).fetchone()
            if not count:
                raise KeyError(rater)
            if answered == count:
                return None
            place, picture = database.execute(
                "SELECT place, picture FROM trials WHERE rater = ? AND answer IS NULL ORDER BY place LIMIT 1", (rater,)
            ).fetchone()
            database.execute(
                "UPDATE trials SET shown = coalesce(shown, ?) WHERE rater = ? AND place = ?",
                (time.time(), rater, place),
            )
            return Trial(picture, answered, count)

    def vote(self, rater: str, picture: str, answer: str) -> None:
        """Keeps a rater's answer; the first one counts.

        Raises:
            KeyError: The rater was not shown this picture.
            ValueError: No such answer.
        """
        if answer not in ANSWERS:
            raise ValueError(f"the answer is {' or '.join(ANSWERS)}, not {answer}")
        with self._database() as database:
            known = database.execute(
                "SELECT count(*) FROM trials WHERE rater = ? AND picture = ? AND shown IS NOT NULL", (rater, picture)
            ).fetchone()[0]
            if not known:
                raise KeyError(picture)
            database.execute(
                "UPDATE trials SET answer = ?, answered = ? WHERE rater = ? AND picture = ? AND answer IS NULL",
                (answer, time.time(), rater, picture),
            )

    def picture(self, token: str) -> Path:
        """The file of a picture.

        Raises:
            KeyError: There is none of that token.
        """
        with self._database() as database:
            if database.execute("SELECT 1 FROM pictures WHERE token = ?", (token,)).fetchone() is None:
                raise KeyError(token)
        return self.folder / "pictures" / f"{token}.png"

    def votes(self) -> list[tuple[str, str, str, str, str]]:
        """All answers: rater's token and name, kind of picture, picture's token, answer."""
        with self._database() as database:
            return database.execute(
                "SELECT rater, raters.name, kind, picture, answer FROM trials JOIN raters ON raters.token = rater "
                "JOIN pictures ON pictures.token = picture WHERE answer IS NOT NULL ORDER BY begun, place"
            ).fetchall()

    def description(self) -> str:
        """What the pictures are, in words."""
        with self._database() as database:
            return str(database.execute("SELECT description FROM settings").fetchone()[0])

    def kinds(self) -> list[str]:
        """`real`, then the methods."""
        with self._database() as database:
            found = [row[0] for row in database.execute("SELECT kind FROM pictures GROUP BY kind ORDER BY min(rowid)")]
        return [REAL, *(kind for kind in found if kind != REAL)]


class RaterShares(NamedTuple):
    """What a rater said of the real pictures and of the completed ones."""

    name: str
    real: Share
    completed: Share

    @property
    def remark(self) -> str:
        """What makes a rater's votes worthless."""
        called, votes = self.real.real + self.completed.real, self.real.votes + self.completed.votes
        if votes >= LEAST_FOR_REMARK and called in (0, votes):
            return f"always said {ANSWERS[0] if called else ANSWERS[1]}"
        return ""


class Results(NamedTuple):
    """What a study gave."""

    kinds: dict[str, Share]
    raters: list[RaterShares]
    fooled_nobody: list[tuple[str, str, int]]
    """Of the completed pictures with at least 3 votes those that nobody called real: method, token, votes; most votes
    first."""
    judged: int
    """How many completed pictures have so many votes."""


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
    of_picture: dict[str, list[tuple[str, ...]]] = {}
    for row in votes:
        if row[2] != REAL:
            of_picture.setdefault(row[3], []).append(row)
    judged = {picture: rows for picture, rows in of_picture.items() if len(rows) >= LEAST_TO_FOOL_NOBODY}
    fooled_nobody = [(rows[0][2], picture, len(rows)) for picture, rows in judged.items() if not share(rows).real]
    fooled_nobody.sort(key=lambda row: -row[2])
    kinds = {kind: share([row for row in votes if row[2] == kind]) for kind in study.kinds()}
    if len(kinds) > 2:
        kinds["all completed"] = share([row for row in votes if row[2] != REAL])
    return Results(kinds, raters, fooled_nobody, len(judged))


def results_as_markdown(study: Study, found: Results) -> str:
    """The tables: called real, by kind of picture and by rater."""
    lines = [
        f"Called real; {study.description()}. In brackets: Wilson's 95 % intervals, as if all votes were independent.",
        "",
        "| pictures | called real |",
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
        f"Of {found.judged} completed pictures with at least {LEAST_TO_FOOL_NOBODY} votes "
        f"{len(found.fooled_nobody)} fooled nobody.",
    ]
    return "\n".join(lines) + "\n"


def write_results(study: Study, found: Results) -> None:
    """Writes `results.md` and `results.html`, with plot and the pictures that fooled nobody, into the study's folder.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
        OSError: A file cannot be written.
    """
    environment = Environment(loader=PackageLoader("glcic_hub.evaluation", "."), autoescape=select_autoescape())
    page = environment.get_template("study_results.html").render(
        description=study.description(),
        kinds=[(kind, share.show()) for kind, share in found.kinds.items()],
        raters=[(row.name, row.real.show(), row.completed.show(), row.remark) for row in found.raters],
        plot=Markup(_plot(found)),
        judged=found.judged,
        least=LEAST_TO_FOOL_NOBODY,
        fooled_nobody=[
            (kind, votes, base64.b64encode(study.picture(token).read_bytes()).decode())
            for kind, token, votes in found.fooled_nobody
        ],
    )
    text = results_as_markdown(study, found)
    write_whole(study.folder / "results.html", lambda path: path.write_text(page, encoding="utf-8"))
    write_whole(study.folder / "results.md", lambda path: path.write_text(text, encoding="utf-8"))


def _plot(found: Results) -> str:
    """Shares called real: of each kind of picture; of each rater's completed ones (dots) and real ones (rings)."""
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


def make_app(study: Study) -> Any:
    """The study's web application (ASGI).

    Raises:
        ModuleNotFoundError: starlette is not installed; it comes with gradio.
    """
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.exceptions import HTTPException
    from starlette.requests import Request
    from starlette.responses import HTMLResponse, JSONResponse, Response
    from starlette.routing import Route

    page = resources.files("glcic_hub.evaluation").joinpath("study.html").read_text(encoding="utf-8")

    async def entries(request: Request, *names: str) -> list[str]:
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > 10_000:
                raise HTTPException(413, "the request is too large")
        try:
            values = json.loads(body)
            found = [values[name] for name in names]
        except (ValueError, TypeError, KeyError, RecursionError):
            raise HTTPException(400, f"the request is to have {' and '.join(names)}, as JSON") from None
        if not all(isinstance(value, str) and value.isprintable() for value in found):
            raise HTTPException(400, f"{' and '.join(names)} are to be text")
        return found

    async def begin(request: Request) -> Response:
        (name,) = await entries(request, "name")
        return JSONResponse({"rater": await run_in_threadpool(study.add_rater, name)})

    def following(rater: str) -> Response:
        try:
            trial = study.next_trial(rater)
        except KeyError:
            raise HTTPException(404, "there is no such rater") from None
        return JSONResponse(trial._asdict() if trial else {"picture": None})

    def show_next(request: Request) -> Response:
        return following(request.path_params["rater"])

    async def vote(request: Request) -> Response:
        picture, answer = await entries(request, "picture", "answer")
        rater = request.path_params["rater"]
        try:
            await run_in_threadpool(study.vote, rater, picture, answer)
        except KeyError:
            raise HTTPException(404, "this rater was not shown this picture") from None
        except ValueError as error:
            raise HTTPException(400, str(error)) from None
        return await run_in_threadpool(following, rater)

    def picture(request: Request) -> Response:
        try:
            content = study.picture(request.path_params["token"]).read_bytes()
        except KeyError:
            raise HTTPException(404, "there is no such picture") from None
        # No name and no date: nothing but the content tells pictures apart.
        return Response(content, media_type="image/png", headers={"Cache-Control": "no-store"})

    def unavailable(_: Request, error: Exception) -> Response:
        return JSONResponse({"error": first_line(error)}, 503)

    return Starlette(
        exception_handlers={OSError: unavailable},
        routes=[
            Route("/", lambda _: HTMLResponse(page)),
            Route("/raters", begin, methods=["POST"]),
            Route("/raters/{rater}", show_next),
            Route("/raters/{rater}/votes", vote, methods=["POST"]),
            Route("/pictures/{token}", picture),
        ],
    )

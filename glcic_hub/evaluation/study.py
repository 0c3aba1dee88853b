"""The user study (sec. 4.6, fig. 11): raters see one image at a time, and say whether it is real or completed."""

from __future__ import annotations

import secrets
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from tqdm.auto import tqdm

from glcic_hub.data.photographs import Photograph
from glcic_hub.evaluation.methods import Method, make_completions
from glcic_hub.evaluation.protocol import Protocol, case_opener
from glcic_hub.files import first_line, printable

DATABASE_FILE = "study.sqlite3"
REAL = "real"
ANSWERS = (REAL, "completed")
MAX_NAME = 60

SCHEMA = """
CREATE TABLE settings (count INTEGER NOT NULL, description TEXT NOT NULL);
CREATE TABLE images (
    token TEXT PRIMARY KEY, photograph INTEGER NOT NULL, name TEXT NOT NULL, kind TEXT NOT NULL,
    UNIQUE (photograph, kind)
);
CREATE TABLE raters (token TEXT PRIMARY KEY, name TEXT NOT NULL, begun REAL NOT NULL);
CREATE TABLE trials (
    rater TEXT NOT NULL REFERENCES raters, place INTEGER NOT NULL, image TEXT NOT NULL REFERENCES images,
    shown REAL, answer TEXT CHECK (answer IN ('real', 'completed')), answered REAL,
    PRIMARY KEY (rater, place), UNIQUE (rater, image)
);
"""


class Trial(NamedTuple):
    """The next image for a rater."""

    image: str
    """Its token, which says nothing of what it is."""
    place: int
    """Number of answers that the rater has given."""
    total: int
    """Number of images for the rater."""


def prepare_study(
    folder: Path,
    photographs: Sequence[Photograph],
    methods: Mapping[str, Method],
    protocol: Protocol,
    count: int = 100,
    completed: Mapping[str, Path] | None = None,
) -> list[str]:
    """Completes photographs by each method, and makes the study's folder: images, and an SQLite database.

    All images are PNG files of one size and encoder, under names that say nothing.

    Args:
        folder: A new one.
        photographs: Those of which each rater sees some, each once: as it is, or completed by one of the methods.
        methods: Names and methods.
        protocol: Which part of each photograph, and where its hole is.
        count: How many images a rater sees at most; half of them real.
        completed: As for `evaluate`.

    Returns:
        The photographs that could not be used, a line each.

    Raises:
        FileExistsError: The folder exists.
        FileNotFoundError: No such folder of `completed`.
        ValueError: Fewer than two photographs can be used, there is no method, or a folder of `completed` cannot be
            used.
        OSError: The folder cannot be written.
    """
    completions = make_completions(methods, completed or {}, photographs, protocol)
    if not completions or count < 2:
        raise ValueError(f"a study takes a method and at least 2 images a rater, not {len(completions)} and {count}")
    if REAL in completions:
        raise ValueError(f"a method cannot be called {REAL}, as the photographs are; rename the model's folder")
    check_new(folder)
    open_case = case_opener(protocol, photographs)
    # Everything goes into a temporary folder, which becomes the study when it is whole.
    failures: list[str] = []
    rows: list[tuple[str, int, str, str]] = []
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        (temporary / "images").mkdir()
        for index in tqdm(range(len(photographs)), unit="photograph"):
            name = printable(photographs[index].name)  # SQLite takes Unicode alone
            try:
                case = open_case(index)
                kinds = {REAL: case.image}
                for key, completion in completions.items():
                    filled = completion.complete(index, case)
                    if filled.shape != case.image.shape:
                        raise ValueError(f"{key} made an image of another size")
                    # A change outside the hole, as by a codec, would tell completed images from real ones.
                    kinds[key] = np.where(case.mask[..., None] > 0, filled, case.image)
            except Exception as error:  # whatever a method of others raises
                failures.append(f"{name}: {first_line(error)}")
                continue
            for kind, image in kinds.items():
                token = secrets.token_hex(12)
                Image.fromarray(np.ascontiguousarray(image)).save(temporary / "images" / f"{token}.png")
                rows.append((token, index, name, kind))
        # Write down which image is what, where raters do not see it.
        usable = len({row[1] for row in rows})
        if usable < 2:
            raise ValueError("; ".join([f"{usable} photographs can be used, and a study takes at least 2", *failures]))
        with closing(sqlite3.connect(temporary / DATABASE_FILE)) as database, database:
            database.executescript(SCHEMA)
            database.execute("INSERT INTO settings VALUES (?, ?)", (min(count, usable), protocol.describe()))
            database.executemany("INSERT INTO images VALUES (?, ?, ?, ?)", rows)
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
        raise FileExistsError(f"{folder} holds a study; omit --photographs to continue it, or give a new folder")
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
        """Opens a connection; its changes are on the disk when it is closed, or none of them is.

        Raises:
            OSError: The file is not a study's, or the disk is full.
        """
        try:
            with closing(sqlite3.connect(self.file, timeout=30)) as database:
                database.execute("PRAGMA synchronous = FULL")
                with database:
                    yield database
        except sqlite3.Error as error:
            raise OSError(f"cannot use {self.file}: {first_line(error)}") from None

    def add_rater(self, name: str) -> str:
        """Draws a rater's images: each photograph at most once, half real, the methods alike often, in random order.

        Returns:
            The rater's token.
        """
        rater = secrets.token_hex(16)
        random = np.random.default_rng(secrets.randbits(128))
        with self._database() as database:
            database.execute("BEGIN IMMEDIATE")  # two raters at once would see the same counts
            (count,) = database.execute("SELECT count FROM settings").fetchone()
            # Count what others have seen, so that methods and photographs are seen alike often.
            images = {
                (photograph, kind): token
                for token, photograph, kind in database.execute("SELECT token, photograph, kind FROM images")
            }
            used = dict(
                database.execute(
                    "SELECT kind, count(*) FROM trials JOIN images ON token = image GROUP BY kind"
                ).fetchall()
            )
            methods = sorted({kind for _, kind in images if kind != REAL})
            random.shuffle(methods)
            methods.sort(key=lambda method: used.get(method, 0))  # what was seen less often has the odd one
            completed = count // 2
            kinds = [REAL] * (count - completed) + [methods[place % len(methods)] for place in range(completed)]
            random.shuffle(kinds)
            shown = dict(
                database.execute(
                    "SELECT photograph, count(*) FROM trials JOIN images ON token = image GROUP BY photograph"
                ).fetchall()
            )
            # Those that were seen least, so that votes gather on all alike; which of them, and their order, is random.
            candidates = random.permutation(sorted({photograph for photograph, _ in images})).tolist()
            chosen = sorted(candidates, key=lambda photograph: shown.get(photograph, 0))[:count]
            random.shuffle(chosen)
            printable = "".join(letter for letter in name if letter.isprintable()).strip()[:MAX_NAME]
            database.execute("INSERT INTO raters VALUES (?, ?, ?)", (rater, printable, time.time()))
            database.executemany(
                "INSERT INTO trials (rater, place, image) VALUES (?, ?, ?)",
                [
                    (rater, place, images[photograph, kind])
                    for place, (photograph, kind) in enumerate(zip(chosen, kinds, strict=True))
                ],
            )
        return rater

    def next_trial(self, rater: str) -> Trial | None:
        """Returns the rater's first image without an answer; None after the last.

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
            place, image = database.execute(
                "SELECT place, image FROM trials WHERE rater = ? AND answer IS NULL ORDER BY place LIMIT 1", (rater,)
            ).fetchone()
            database.execute(
                "UPDATE trials SET shown = coalesce(shown, ?) WHERE rater = ? AND place = ?",
                (time.time(), rater, place),
            )
            return Trial(image, answered, count)

    def vote(self, rater: str, image: str, answer: str) -> None:
        """Keeps a rater's answer; the first one counts.

        Raises:
            KeyError: The rater was not shown this image.
            ValueError: No such answer.
        """
        if answer not in ANSWERS:
            raise ValueError(f"the answer is {' or '.join(ANSWERS)}, not {answer}")
        with self._database() as database:
            known = database.execute(
                "SELECT count(*) FROM trials WHERE rater = ? AND image = ? AND shown IS NOT NULL", (rater, image)
            ).fetchone()[0]
            if not known:
                raise KeyError(image)
            database.execute(
                "UPDATE trials SET answer = ?, answered = ? WHERE rater = ? AND image = ? AND answer IS NULL",
                (answer, time.time(), rater, image),
            )

    def image(self, token: str) -> Path:
        """Returns an image's file.

        Raises:
            KeyError: There is none of that token.
        """
        with self._database() as database:
            if database.execute("SELECT 1 FROM images WHERE token = ?", (token,)).fetchone() is None:
                raise KeyError(token)
        return self.folder / "images" / f"{token}.png"

    def votes(self) -> list[tuple[str, str, str, str, str]]:
        """Lists all answers: rater's token and name, kind of image, image's token, answer."""
        with self._database() as database:
            return database.execute(
                "SELECT rater, raters.name, kind, image, answer FROM trials JOIN raters ON raters.token = rater "
                "JOIN images ON images.token = image WHERE answer IS NOT NULL ORDER BY begun, place"
            ).fetchall()

    def description(self) -> str:
        """Describes the images in words."""
        with self._database() as database:
            return str(database.execute("SELECT description FROM settings").fetchone()[0])

    def kinds(self) -> list[str]:
        """Lists the kinds of images: `real`, then the methods."""
        with self._database() as database:
            found = [row[0] for row in database.execute("SELECT kind FROM images GROUP BY kind ORDER BY min(rowid)")]
        return [REAL, *(kind for kind in found if kind != REAL)]

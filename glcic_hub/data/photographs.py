"""Where photographs come from: folders, and what the `datasets` library opens."""

from __future__ import annotations

import hashlib
import io
import itertools
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, overload

import fsspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from glcic_hub.files import first_line
from glcic_hub.images.exif import orientation_of
from glcic_hub.images.files import IMAGE_SUFFIXES, READ_FORMATS
from glcic_hub.images.folders import find_images
from glcic_hub.images.processing import open_image, to_uint8, turn_upright

if TYPE_CHECKING:  # takes seconds to import, and folders do without
    import datasets

MEAN_PIXEL_SAMPLE = 10_000
MEAN_PIXEL_STREAM_SAMPLE = 1_000
SHUFFLE_BUFFER = 1_000
SHARD_SUFFIXES = (".tar", ".parquet")
METADATA_FILE, MASK_COLUMN = "metadata.jsonl", "mask"
"""Of the layout `imagefolder` of `datasets`: its `mask_file_name` becomes a column `mask`."""

# What draws what, so that no two generators start from the same numbers; `data.py` has the others.
HELD_OUT_DRAW, SHUFFLE_DRAW = 3, 4


class Photograph(NamedTuple):
    """A photograph that has not been read yet."""

    name: str
    file: Path | bytes | str
    """A file, its content, or an address that `fsspec` opens."""
    mask: Path | bytes | str | None = None
    """The mask that comes with it, likewise, white = hole."""


class UnreadableError(ValueError):
    """A photograph cannot be read."""


class Folder(Sequence[Photograph]):
    """The photographs of a folder and its subfolders."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.paths = find_images(folder)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: Any) -> Any:
        return Photograph(str(self.paths[index]), self.paths[index])

    def digest(self) -> str:
        """Digests the names of all files, to tell whether a folder is still the same."""
        names = "\n".join(str(path.relative_to(self.folder)) for path in self.paths)
        return hashlib.sha256(names.encode(errors="surrogateescape")).hexdigest()


class Table(Sequence[Photograph]):
    """The photographs of a dataset of the `datasets` library that lies on disk, with their masks if it has them."""

    def __init__(self, dataset: datasets.Dataset, column: str) -> None:
        self.dataset = dataset
        self.column = column
        self.has_masks = MASK_COLUMN in dataset.column_names

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: Any) -> Any:
        return _from_row(self.dataset[int(index)], self.column, f"row {index}")


class Selection(Sequence[Photograph]):
    """Some of other photographs, by their indexes."""

    def __init__(self, photographs: Sequence[Photograph], indexes: NDArray[np.int64]) -> None:
        self.photographs = photographs
        self.indexes = indexes

    def __len__(self) -> int:
        return len(self.indexes)

    def __getitem__(self, index: Any) -> Any:
        return self.photographs[self.indexes[index]]


class Stream(Iterable[Photograph]):
    """The photographs of a streamed dataset of the `datasets` library: Parquet files or tar shards, near or far.

    Each iteration is one epoch. In a worker of a DataLoader it gives that worker's share of the shards.
    """

    def __init__(self, dataset: datasets.IterableDataset, column: str) -> None:
        self.dataset = dataset
        self.column = column

    def __iter__(self) -> Iterator[Photograph]:
        """Yields photographs.

        Raises:
            OSError: The dataset is broken, or cannot be reached any more.
        """
        rows = iter(self.dataset)
        while True:
            try:
                row = next(rows)
            except StopIteration:
                return
            except Exception as error:  # of the many file systems and formats that `datasets` reads
                raise OSError(f"cannot read on in the dataset: {first_line(error)}") from None
            yield _from_row(row, self.column)

    def share(self, seed: int, epoch: int, process: int, processes: int) -> Stream:
        """Returns the part of one of several processes in an epoch, shuffled."""
        from datasets.distributed import split_dataset_by_node

        # Not by `set_epoch`: the number that it sets lies in memory that all workers share, and they change it.
        generator = np.random.default_rng([seed, SHUFFLE_DRAW, epoch])
        shuffled = self.dataset.shuffle(generator=generator, buffer_size=SHUFFLE_BUFFER)
        return Stream(split_dataset_by_node(shuffled, process, processes), self.column)


def _from_row(row: dict[str, Any], column: str, fallback: str | None = None) -> Photograph:
    entry = row[column] or {"path": None, "bytes": b""}
    content, path = entry["bytes"], entry["path"]
    # A row of a stream has no number that it keeps, but its content.
    name = path or fallback or f"the image of SHA-1 {hashlib.sha1(content).hexdigest()}"
    mask = row.get(MASK_COLUMN)
    return Photograph(name, _place_of(entry), None if mask is None else _place_of(mask))


def _place_of(entry: dict[str, Any]) -> Path | bytes | str:
    content, path = entry["bytes"], entry["path"]
    return content if content is not None else str(path) if "://" in str(path) else Path(path)


@overload
def open_photographs(where: str | Path, *, stream: Literal[False] = ...) -> Sequence[Photograph]: ...


@overload
def open_photographs(where: str | Path, *, stream: bool) -> Sequence[Photograph] | Stream: ...


def open_photographs(where: str | Path, *, stream: bool = False) -> Sequence[Photograph] | Stream:
    """Finds the photographs to train on, or to measure on.

    Args:
        where: A folder of photographs; or what `datasets.load_dataset` opens, `user/name` on the Hub or a folder of
            Parquet files, of tar shards (WebDataset), or with a `metadata.jsonl` that has `mask_file_name`. Of a
            dataset the first column of images is taken, and one called `mask` for the masks. `name:split` takes
            another split than `train`.
        stream: Read a dataset as it comes, instead of downloading and indexing it first.

    Raises:
        FileNotFoundError: No such folder or dataset.
        ValueError: There are no photographs in it, or no such split.
        OSError: The dataset is broken, or the Hub cannot be reached or refuses.
    """
    name, split = _name_and_split(where)
    folder = Path(name)
    if folder.is_dir():
        try:
            if not _names_masks(folder):
                return Folder(folder)
        except ValueError:  # it holds no images
            if not any(path.suffix in SHARD_SUFFIXES for path in folder.rglob("*")):
                raise
    elif folder.exists():
        raise FileNotFoundError(f"{name} is a file, not a folder of photographs")
    elif isinstance(where, Path) or name.count("/") != 1 or name.startswith(("/", ".")):
        raise FileNotFoundError(f"no folder {where}; a dataset on the Hub is called user/name")
    try:
        import datasets
    except ModuleNotFoundError as error:
        raise ValueError(f'datasets need {error.name}, of the extra "train": pip install "glcic-hub[train]"') from None
    try:
        dataset = datasets.load_dataset(name, split=split or "train", streaming=stream)
    except ValueError as error:
        raise ValueError(f"cannot open the dataset {where}: {first_line(error)}") from None
    except Exception as error:  # of the many file systems and formats that `datasets` reads
        kind = FileNotFoundError if isinstance(error, FileNotFoundError) else OSError
        raise kind(f"cannot open the dataset {where}: {first_line(error)}") from None
    images = [column for column, feature in (dataset.features or {}).items() if isinstance(feature, datasets.Image)]
    columns = [column for column in images if column != MASK_COLUMN][:1]
    if not columns:
        raise ValueError(f"the dataset {where} has no column of images: {', '.join(dataset.features or ['none'])}")
    if MASK_COLUMN in images:
        columns.append(MASK_COLUMN)
    dataset = dataset.select_columns(columns)
    for column in columns:
        dataset = dataset.cast_column(column, datasets.Image(decode=False))
    return Stream(dataset, columns[0]) if stream else Table(dataset, columns[0])


def _names_masks(folder: Path) -> bool:
    """Tells whether a folder, or one of its folders of splits, names masks in its metadata."""
    for file in (folder / METADATA_FILE, *folder.glob(f"*/{METADATA_FILE}")):
        if file.is_file():
            with file.open(encoding="utf-8", errors="replace") as lines:
                if f'"{MASK_COLUMN}_file_name"' in lines.readline():
                    return True
    return False


def _name_and_split(where: str | Path) -> tuple[str, str]:
    """Splits `name:split`; a folder whose own name has a colon is one."""
    name, _, split = (str(where), "", "") if Path(where).is_dir() else str(where).partition(":")
    return name, split


def contents_digest(where: str | Path, photographs: Sequence[Photograph] | Stream) -> str | None:
    """Digests names and sizes of a folder's files, by which it is known again under another name.

    Args:
        where: As for `open_photographs`.
        photographs: What that returned.

    Returns:
        A SHA-256; None for a dataset on the Hub, which goes by its name.
    """
    name, split = _name_and_split(where)
    folder = Path(name)
    if not folder.is_dir():
        return None
    files = (
        photographs.paths
        if isinstance(photographs, Folder)
        else sorted(
            path
            for path in folder.rglob("*")
            if path.suffix in SHARD_SUFFIXES or path.suffix in IMAGE_SUFFIXES or path.name == METADATA_FILE
        )
    )
    lines = [split, *(f"{path.relative_to(folder)} {path.stat().st_size}" for path in files)]
    return hashlib.sha256("\n".join(lines).encode(errors="surrogateescape")).hexdigest()


def open_rgb(photograph: Photograph, short_side: int) -> Image.Image:
    """Opens a photograph upright and in RGB; a JPEG is decoded at a fraction if that still has `short_side` pixels.

    Raises:
        UnreadableError: It is not an image, or broken.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of broken EXIF and odd palettes, once a photograph and worker
            with Image.open(file_of(photograph.file), formats=READ_FORMATS) as image:
                image.draft("RGB", (short_side, short_side))
                if image.mode[0] in "IF":  # Pillow makes 16-bit and float images white or black
                    return Image.fromarray(to_uint8(open_image(image).whole()))
                image.load()
                return turn_upright(image, orientation_of(image)).convert("RGB")
    except Exception as error:  # Pillow's plugins raise a dozen kinds for broken files
        raise UnreadableError(f"cannot read the photograph {photograph.name}: {first_line(error)}") from None


def file_of(place: Path | bytes | str) -> Path | io.BytesIO:
    """Returns what Pillow can open of where a photograph or mask is: the file, or its content, fetched if remote."""
    if isinstance(place, Path):
        return place
    if isinstance(place, bytes):
        return io.BytesIO(place)
    with fsspec.open(place, "rb") as remote:
        return io.BytesIO(remote.read())


def measure_mean_pixel(photographs: Sequence[Photograph] | Stream) -> tuple[float, float, float]:
    """Measures the mean (red, green, blue) in [0, 1] of photographs, each of the same weight (sec. 3.1).

    Of more than 10,000 photographs an evenly spread part is enough; of a stream its first 1,000.

    Raises:
        ValueError: Not one of them can be read.
    """
    if isinstance(photographs, Stream):
        some: Iterable[Photograph] = itertools.islice(photographs, MEAN_PIXEL_STREAM_SAMPLE)
    else:
        some = (photographs[index] for index in range(0, len(photographs), len(photographs) // MEAN_PIXEL_SAMPLE + 1))
    means, failure = [], "there is none"
    for photograph in some:
        try:
            pixels = np.asarray(open_rgb(photograph, 64).resize((32, 32), Image.Resampling.BOX))
            means.append(pixels.mean(axis=(0, 1)))
        except UnreadableError as error:
            failure = str(error)
    if not means:
        raise ValueError(f"none of the photographs can be read; the last: {failure}")
    red, green, blue = (round(float(value) / 255, 4) for value in np.mean(means, axis=0))
    return red, green, blue


def hold_out(photographs: Sequence[Photograph], count: int, seed: int) -> tuple[Selection, Selection]:
    """Draws which photographs are kept for validation; returns the others and those."""
    drawn = np.random.default_rng([seed, HELD_OUT_DRAW]).permutation(len(photographs))
    return Selection(photographs, np.sort(drawn[count:])), Selection(photographs, np.sort(drawn[:count]))

"""Files that are written whole or not at all; errors and names in one line."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Lets `write` fill a temporary file beside `path`, then renames it to `path`.

    Whatever goes wrong on the way (a full disk, an interruption), `path` is as it was before. Permissions stay, and a
    link still leads to the same file.

    Args:
        path: The file to make or replace; its folder exists.
        write: Gets the temporary file's path, which has the same suffix.

    Raises:
        OSError: The folder does not exist, cannot be written, or is full.
    """
    target = path.resolve()
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.stem[:32]}-", suffix=path.suffix, dir=target.parent)
    except OSError as error:
        raise type(error)(f"cannot write {path}: {error.strerror}") from None
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        temporary.chmod(target.stat().st_mode if target.exists() else 0o666 & ~_umask())
        temporary.replace(target)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise OSError(f"cannot write {path}: {error.strerror or error}") from None
        raise


def write_text(path: Path, text: str) -> None:
    """Writes a file of UTF-8 text, whole or not at all; raises what `write_whole` does."""
    write_whole(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def read_small(path: Path, most: int = 2**20) -> str:
    """Reads a file of UTF-8 text that is small if it is what it should be.

    Raises:
        ValueError: It has more than `most` bytes, or is not UTF-8.
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise ValueError(f"it has more than {most} bytes")
    return content.decode("utf-8")


def printable(name: str) -> str:
    """Makes one line of Unicode of a text with file names, which need not be Unicode: "?" replaces what is not."""
    return "".join(character if character.isprintable() else "?" for character in name)


def _umask() -> int:
    """Reads the process's mask of file permissions, which takes setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def first_line(error: BaseException) -> str:
    """Returns an error's message in one line; its type if it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]

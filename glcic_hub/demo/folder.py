"""One folder for all files of a demo, uploads too, which goes when the demo does."""

from __future__ import annotations

import atexit
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from filelock import FileLock

PREFIX = "glcic-demo-"


def use_own_folder() -> Callable[[], None]:
    """Has all temporary files of this process, and of Gradio, written to a folder of its own.

    Call it before Gradio is imported, which takes note of where files go. The folder is in `GRADIO_TEMP_DIR`, else in
    the system's temporary folder. Those of demos that were killed are removed.

    Returns:
        What removes the folder. It is called when the process ends, too.
    """
    root = Path(os.environ.get("GRADIO_TEMP_DIR") or tempfile.gettempdir()).resolve()
    root.mkdir(parents=True, exist_ok=True)
    _remove_those_of_killed_demos(root)
    folder = root / f"{PREFIX}{secrets.token_hex(8)}"
    # The lock is there before the folder and goes after it: what has no lock that is held, is nobody's.
    lock = FileLock(f"{folder}.lock")
    lock.acquire()
    remove = partial(_remove, folder, lock)
    # At the very end, when the thread that completes photographs has ended, too.
    atexit.register(remove)
    folder.mkdir(mode=0o700)
    os.environ["GRADIO_TEMP_DIR"] = str(folder / "gradio")
    tempfile.tempdir = str(folder)  # Gradio puts what is sent to one of its addresses, /process_recording, there
    return remove


def _remove_those_of_killed_demos(root: Path) -> None:
    for path in root.glob(f"{PREFIX}*.lock"):
        lock = FileLock(path)
        with suppress(OSError):  # held, as its demo runs; or another user's
            lock.acquire(timeout=0)
            _remove(path.with_suffix(""), lock)


def _remove(folder: Path, lock: FileLock) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    lock.release()
    if not folder.exists():  # else somebody was still writing; the next demo tries again
        Path(lock.lock_file).unlink(missing_ok=True)

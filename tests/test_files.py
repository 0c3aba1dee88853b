from __future__ import annotations

import errno
from pathlib import Path

import pytest

from glcic_hub.files import write_whole


def test_a_failure_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")

    def fail_half_way(temporary: Path) -> None:
        temporary.write_text("ne")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_whole(path, fail_half_way)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    def full(temporary: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(temporary))

    with pytest.raises(OSError, match=rf"^cannot write {tmp_path}/file: No space left on device$"):
        write_whole(tmp_path / "file", full)
    assert not list(tmp_path.iterdir())


def test_the_file_has_the_usual_permissions(tmp_path: Path) -> None:
    write_whole(tmp_path / "ours", lambda path: path.write_text("x"))
    (tmp_path / "usual").write_text("x")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_an_old_file_keeps_its_permissions(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("old")
    path.chmod(0o600)
    write_whole(path, lambda temporary: temporary.write_text("new"))
    assert path.read_text() == "new" and path.stat().st_mode & 0o777 == 0o600


def test_a_link_still_leads_to_its_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    write_whole(tmp_path / "link", lambda temporary: temporary.write_text("new"))
    assert (tmp_path / "link").is_symlink() and (tmp_path / "file").read_text() == "new"


def test_a_folder_that_cannot_be_written() -> None:
    with pytest.raises(OSError, match=r"cannot write /proc/file\.txt: "):
        write_whole(Path("/proc/file.txt"), lambda path: path.write_text("x"))

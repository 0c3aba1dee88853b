from __future__ import annotations

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


def test_a_full_disk_is_named() -> None:
    with pytest.raises(OSError, match="cannot write /dev/full: "):
        write_whole(Path("/dev/full"), lambda _: Path("/dev/full").write_text("x"))


def test_the_file_has_the_usual_permissions(tmp_path: Path) -> None:
    write_whole(tmp_path / "ours", lambda path: path.write_text("x"))
    (tmp_path / "usual").write_text("x")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_a_folder_that_cannot_be_written() -> None:
    with pytest.raises(OSError, match=r"cannot write /proc/file\.txt: "):
        write_whole(Path("/proc/file.txt"), lambda path: path.write_text("x"))

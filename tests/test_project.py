"""What is around the code: the notebook, the README on PyPI, the help's examples, completion in a shell, addresses."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from glcic_hub.cli.main import COMMANDS, main, make_parser
from tests.conftest import ROOT
from tests.test_docs import PREFIXES

PROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
REPOSITORY = re.findall(r'^Source = "(.*)"', PROJECT, re.MULTILINE)[0]


def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it: completion with the packaged weights, training, completion with what was trained."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT), prepend=os.pathsep)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    notebook = nbformat.read(ROOT / "notebooks" / "quickstart.ipynb", as_version=4)  # type: ignore[no-untyped-call]
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = [output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", [])]
    assert sum("image/png" in data for data in shown) == 2
    (model,) = tmp_path.glob("*/run/model")
    assert (model / "model.safetensors").is_file()


def test_the_readme_on_pypi_links_to_files_that_exist() -> None:
    done = subprocess.run(
        [sys.executable, "setup.py", "--long-description"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    description = done.stdout[done.stdout.index("# glcic-hub") :]
    links = re.findall(r"\]\(([^)]*)\)", description)
    assert len(links) > 15
    for link in links:
        assert link.startswith(("https://", "#")), link
        if found := re.match(rf"{REPOSITORY}/(?:raw|blob)/main/([^#]*)", link):
            assert (ROOT / found[1]).is_file(), link


def test_the_project_has_one_address() -> None:
    """pyproject.toml's; others that are named belong to other projects."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    owner = REPOSITORY.removeprefix("https://github.com/").partition("/")[0]
    for name in listed.splitlines():
        path = ROOT / name
        if path.suffix in (".md", ".py", ".toml", ".yml", ".ipynb", ".cff") and path.is_file():
            for address in re.findall(r"github\.com/([\w.-]+/glcic-hub\b)", path.read_text(encoding="utf-8")):
                assert address == f"{owner}/glcic-hub", name


@pytest.mark.parametrize("name", COMMANDS)
def test_examples_of_the_help_are_taken(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        make_parser([name]).parse_args([name, "--help"])
    examples = capsys.readouterr().out.split("examples:\n")[1].splitlines()
    for words in map(shlex.split, examples):
        instead, prefix = next((instead, prefix) for prefix, instead in PREFIXES if words[: len(prefix)] == prefix)
        arguments = instead + words[len(prefix) :]
        assert arguments[0] == name
        make_parser([name]).parse_args(arguments)


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_a_shell_completes_options_choices_and_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--print-completion", "bash"])
    assert ended.value.code == 0
    (tmp_path / "glcic.bash").write_text(capsys.readouterr().out)
    (tmp_path / "photo.jpg").touch()
    for typed, completed in (
        ("glcic eval", "evaluate"),
        ("glcic complete --mask-from", "--mask-from-alpha"),
        ("glcic complete --detail e", "exemplars"),
        ("glcic complete pho", "photo.jpg"),
    ):
        words = typed.split()
        script = (
            f"source glcic.bash; COMP_WORDS=({typed}); COMP_CWORD={len(words) - 1}; COMP_LINE='{typed}'; "
            "COMP_POINT=${#COMP_LINE}; _shtab_glcic; echo ${COMPREPLY[@]}"
        )
        done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
        assert done.stdout.split() == [completed], typed

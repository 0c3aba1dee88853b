"""What the pages say to type is what the command line takes, and what they link to is there."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from glcic_hub.cli.main import make_parser
from tests.conftest import ROOT

PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/*.md")]
PREFIXES: tuple[tuple[list[str], list[str]], ...] = (
    (["glcic"], []),
    (["accelerate", "launch", "-m", "glcic_hub"], []),
    (["accelerate", "launch", "train_accelerate.py"], ["train"]),
)


def commands(page: Path) -> Iterator[list[str]]:
    """The arguments of each of our commands in a page's shell blocks; of loops once for each value."""
    for block in re.findall(r"```sh\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
        values = [""]
        for line in block.replace("\\\n", " ").splitlines():
            if loop := re.match(r"for \w+ in (.*); do", line):
                values = loop[1].split()
            for value in values if "$kind" in line else [""]:
                words = shlex.split(line.replace("$kind", value), comments=True)
                for prefix, instead in PREFIXES:
                    if words[: len(prefix)] == prefix:
                        yield instead + words[len(prefix) :]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_pages(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in commands(page):
        try:
            make_parser().parse_args(arguments)
        except SystemExit as end:
            raise AssertionError(f"{arguments}: {capsys.readouterr().err}") from end
        for argument in arguments:
            assert not argument.startswith("docs/") or (ROOT / argument).is_file(), argument
    if page.name == "model_card.md":  # lies beside its image on the Hub
        return
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


def test_flags_of_other_scripts_are_taken(capsys: pytest.CaptureFixture[str]) -> None:
    """The table of docs/training.md, left column."""
    page = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    table = page.split("| there | here |")[1].split("\n\n")[0]
    flags = [flag for row in table.splitlines()[2:] for flag in re.findall(r"`(--\w+)", row.split("|")[1])]
    assert len(flags) > 20
    for flag in flags:
        with pytest.raises(SystemExit):
            make_parser(["train"]).parse_args(["train", "--data", "x", "--output", "y", flag, "--unknown"])
        assert flag not in capsys.readouterr().err.partition("unrecognized arguments: ")[2]


def test_commands_are_found() -> None:
    found = [arguments for page in PAGES for arguments in commands(page)]
    assert {arguments[0] for arguments in found} >= {"complete", "train", "evaluate", "study", "push", "export"}
    assert ["train", "--discriminators", "global"] in [[words[0], *words[-6:-4]] for words in found if len(words) > 6]

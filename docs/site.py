"""A hook of MkDocs: pages of the site that are kept outside docs/, and the links between them and the others."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent
PAGES = {
    "README.md": "index.md",
    "benchmarks/README.md": "benchmarks.md",
    "benchmarks/benchmark.md": "benchmark.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md",
}
"""Pages outside docs/, and what they are on the site."""


def on_files(files: Files, config: Any) -> Files:
    """Adds the pages outside docs/, and the images that these show."""
    for source, target in PAGES.items():
        # Without badges, which would be fetched from elsewhere.
        content = re.sub(r"^\[!\[.*\n", "", (ROOT / source).read_text(encoding="utf-8"), flags=re.MULTILINE)
        files.append(File.generated(config, target, content=content))
        for link in re.findall(r"!\[[^]]*\]\(([^)]+)\)", content):
            image = (ROOT / source).parent / link
            if not image.is_relative_to(ROOT / "docs"):
                files.append(File.generated(config, _on_site(image), abs_src_path=str(image)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Has links lead to where pages are on the site; a link to a file that is not on it becomes its name."""
    source = {target: source for source, target in PAGES.items()}.get(page.file.src_uri, f"docs/{page.file.src_uri}")
    depth = "../" * page.file.src_uri.count("/")

    def place(match: re.Match[str]) -> str:
        text, link, anchor = match.groups(default="")
        if link.startswith(("http:", "https:")) or not link:
            return match[0]
        target = _on_site((ROOT / source).parent / link)
        return f"{text}({depth}{target}{anchor})" if files.get_file_from_path(target) else text.lstrip("!").strip("[]")

    return re.sub(r"(!?\[[^]]*\])\(([^)#\s]*)(#[^)\s]*)?\)", place, markdown)


def _on_site(file: Path) -> str:
    """The path on the site of a file of the repository."""
    path = file.resolve().relative_to(ROOT.resolve())
    if path.as_posix() in PAGES:
        return PAGES[path.as_posix()]
    return path.relative_to("docs").as_posix() if path.parts[0] == "docs" else path.as_posix()

"""The templates of the pages: the report's, and the study's two."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, select_autoescape

PAGES = Environment(
    loader=PackageLoader("glcic_hub.evaluation", "."),
    autoescape=select_autoescape(),
    trim_blocks=True,
    lstrip_blocks=True,
)

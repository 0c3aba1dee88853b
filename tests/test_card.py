"""Model cards from what a config says."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from PIL import Image

from glcic_hub import GLCICPipeline
from glcic_hub.hub.card import write_card


def test_a_model_without_a_recipe_has_one_table_head(pipe: GLCICPipeline, tmp_path: Path) -> None:
    """As converted models are: what is known of their training, and no recipe."""
    described = dataclasses.replace(pipe.config, training={"data": "photographs of others", "start": "scratch"})
    write_card(tmp_path, described, Image.new("RGB", (24, 8)))
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    table = card.split("## Training\n\n")[1].split("\n\n")[0]
    assert table.splitlines() == [
        "| | |",
        "|---|---|",
        "| data | photographs of others |",
        "| started from | scratch |",
    ]

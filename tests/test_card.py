"""Model cards from what a config says."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import yaml
from PIL import Image

from glcic_hub import GLCICPipeline
from glcic_hub.config import GLCICConfig
from glcic_hub.hub.card import card_text, inherited, license_text, write_card
from glcic_hub.hub.model_files import PACKAGED
from tests.conftest import PRETRAINED
from tests.hub_metadata import errors_of


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


@pytest.mark.parametrize("name", ["compact", "faces"])
def test_the_packaged_card_and_license_are_those_that_the_config_makes(name: str) -> None:
    """Otherwise `make card` was forgotten."""
    config = GLCICConfig.from_json((PACKAGED / name / "config.json").read_text(encoding="utf-8"))
    card = (PACKAGED / name / "README.md").read_text(encoding="utf-8")
    assert card == card_text(config, name) and not errors_of(card, "model")
    assert (PACKAGED / name / "LICENSE").read_text(encoding="utf-8") == license_text(config)


def test_what_a_model_takes_over_from_the_one_that_it_was_trained_from(tmp_path: Path) -> None:
    """License, terms, data and, where it is on the Hub, the model; and those that it took over itself."""
    packaged = GLCICConfig.from_json((PRETRAINED / "config.json").read_text(encoding="utf-8"))
    own = {"data": "faces, 12 photographs", "figures": [], "validation": "1"}
    first = dataclasses.replace(packaged, training={**inherited(PRETRAINED, packaged, "user/model"), **own})
    second = dataclasses.replace(packaged, training={**inherited(tmp_path, first, "tuned"), **own, "data": "fronts"})
    for config, start in ((first, "user/model (The weights that come with glcic-hub)"), (second, "tuned")):
        card = card_text(config, "user/tuned")
        data = yaml.safe_load(card.split("---")[1])
        assert not errors_of(card, "model")
        assert (data["license"], data["license_name"], data["license_link"]) == ("other", "research-only", "LICENSE")
        assert data["base_model"] == "user/model"
        assert f"| started from | {start} |" in card and "| trained before on | 4,763 photographs" in card
        assert f"Those of the model that it was trained from, {start}: For research and non-commercial use" in card
        assert "Whatever the photographs' terms say" in card
    assert "| trained before on | faces, 12 photographs |" in card_text(second)

    # What its card says goes before its config; a card that cannot be read is named.
    (tmp_path / "README.md").write_text("---\nlicense: mit\nlicense_link: https://example.org/mit\n---\n# Mine\n")
    assert inherited(tmp_path, packaged, "mine")["license"] == {
        "license": "mit", "license_link": "https://example.org/mit",
    }  # fmt: skip
    (tmp_path / "README.md").write_text("---\nlicense: [mit\n---\n# Mine\n")
    with pytest.raises(ValueError, match=r"cannot read the metadata of .*README\.md: .*; mend them"):
        inherited(tmp_path, packaged, "mine")


def test_a_license_is_written_where_the_card_links_to_it(pipe: GLCICPipeline, tmp_path: Path) -> None:
    """And one that is there stays; older records link to the card itself, which the Hub refuses."""
    license_ = {"license": "other", "license_name": "mine", "license_link": "README.md"}
    described = dataclasses.replace(pipe.config, training={"license": license_, "terms": "Ask me.", "data": "faces"})
    image = Image.new("RGB", (24, 8))
    write_card(tmp_path, described, image)
    assert "license_link: LICENSE\n" in (tmp_path / "README.md").read_text()
    assert (tmp_path / "LICENSE").read_text().split("\n\n")[1:] == ["Ask me.", "They were trained on: faces\n"]
    (tmp_path / "LICENSE").write_text("mine")
    write_card(tmp_path, described, image)
    assert (tmp_path / "LICENSE").read_text() == "mine"

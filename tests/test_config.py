from __future__ import annotations

import json

import pytest

from glcic_hub import GLCICConfig

MEAN = (0.1, 0.2, 0.3)


def test_json_round_trip() -> None:
    config = GLCICConfig(mean_pixel=MEAN, width=32, image_size=160, patch_size=96)
    assert GLCICConfig.from_json(config.to_json()) == config


def test_is_frozen() -> None:
    with pytest.raises(AttributeError):
        GLCICConfig(mean_pixel=MEAN).width = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"depth": 3}, "unknown entries: depth"),
        ({"format_version": 2}, "format_version 2"),
        ({"model_type": "lama"}, "not one of a GLCIC model"),
        ({"mean_pixel": None}, "mean_pixel must be three numbers"),
        ({"mean_pixel": [0.5, 0.5]}, "mean_pixel must be three numbers"),
        ({"mean_pixel": [124, 116, 103]}, r"in \[0, 1\]"),
        ({"width": 33}, "even number"),
        ({"width": "64"}, "width must be a whole number"),
        ({"width": 10**9}, "width must be an even number from 2 to 1024"),
        ({"patch_size": 512}, "patch_size <= image_size"),
        ({"detail": "sharp"}, "detail must be exemplars or none, not 'sharp'"),
        ({"blend": "yes"}, "blend must be none or poisson, not 'yes'"),
    ],
)
def test_wrong_entries_are_refused(change: dict[str, object], message: str) -> None:
    document = json.loads(GLCICConfig(mean_pixel=MEAN).to_json()) | change
    with pytest.raises(ValueError, match=message):
        GLCICConfig.from_json(json.dumps(document))


def test_mean_pixel_has_no_default() -> None:
    document = json.loads(GLCICConfig(mean_pixel=MEAN).to_json())
    del document["mean_pixel"]
    with pytest.raises(ValueError, match="lacks mean_pixel"):
        GLCICConfig.from_json(json.dumps(document))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "3"])
def test_what_is_no_config_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="config is not"):
        GLCICConfig.from_json(text)

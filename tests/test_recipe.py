from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from glcic_hub.training.recipe import Recipe, recipe_names
from tests.conftest import ROOT
from tests.training_parts import SMALL


def test_the_papers_recipe() -> None:
    recipe = Recipe.load("places2")
    assert recipe == Recipe()
    assert (recipe.batch_size, recipe.alpha) == (96, 0.0004)
    assert (recipe.completion_steps, recipe.discriminator_steps, recipe.total_steps) == (90_000, 10_000, 500_000)
    assert recipe.phase_ends == (90_000, 100_000, 500_000)
    assert (recipe.resize, recipe.image_size, recipe.hole_size) == ((256, 384), 256, (96, 128))
    assert (recipe.optimizer, recipe.adversarial_loss, recipe.initialisation) == ("adadelta", "minimax", "pytorch")
    assert (recipe.tint_weight, recipe.gradient_weight, recipe.similarity_weight, recipe.strokes) == (0, 0, 0, 0)


def test_the_papers_other_recipes() -> None:
    places2 = Recipe.load("places2")
    facade = Recipe.load("facade")
    from_weights: Any = {"completion_steps": 0, "total_steps": 410_000}
    assert facade == dataclasses.replace(places2, **from_weights)
    faces: Any = {"image_size": 160, "patch_size": 96, "hole_size": (48, 96), "resize": (178, 178)}
    assert Recipe.load("celeba") == dataclasses.replace(places2, **from_weights, **faces)
    centre: Any = {"image_size": 128, "patch_size": 64, "hole_size": (64, 64), "resize": (128, 128)}
    assert Recipe.load("imagenet-center") == dataclasses.replace(places2, **centre, hole_position="centre")


def test_faces_are_the_papers_at_half_scale() -> None:
    celeba, faces = Recipe.load("celeba"), Recipe.load("faces")
    assert (faces.image_size, faces.patch_size) == (celeba.image_size // 2, celeba.patch_size // 2)
    assert faces.resize == tuple(side // 2 for side in celeba.resize)
    assert faces.hole_size == tuple(side // 2 for side in celeba.hole_size)
    assert (faces.config((0, 0, 0)).detail, faces.config((0, 0, 0)).blend) == ("none", "poisson")


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_is_saved_as_it_was(tmp_path: Path, name: str) -> None:
    recipe = Recipe.load(name, seed=7)
    recipe.save(tmp_path / "recipe.yaml")
    assert Recipe.load(str(tmp_path / "recipe.yaml")) == recipe
    assert recipe.seed == 7


def test_recipes_of_the_experiments() -> None:
    """They can be read; and the two of fig. 5 differ in the hole alone."""
    experiments = {path.stem: Recipe.load(str(path)) for path in (ROOT / "docs/experiments").glob("*.yaml")}
    assert experiments.keys() == {"ablation", "anywhere", "centre", "house-fronts", "training-data"}
    centre: Any = {"hole_size": (64, 64), "hole_position": "centre"}
    assert experiments["centre"] == dataclasses.replace(experiments["anywhere"], **centre)
    assert all(recipe.width == 32 and recipe.image_size == 128 for recipe in experiments.values())


def test_phases() -> None:
    """SMALL has 4 steps of phase 1, 3 of phase 2, 3 of phase 3."""
    assert [SMALL.phase_of(step) for step in range(10)] == [1, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    without = dataclasses.replace(SMALL, discriminators="none")
    assert without.phase_ends == (7, 7, 7) and not without.is_adversarial
    assert [without.phase_of(step) for step in range(7)] == [1] * 7
    tuned = dataclasses.replace(SMALL, completion_steps=0)
    assert [tuned.phase_of(step) for step in range(10)] == [2, 2, 2, 3, 3, 3, 3, 3, 3, 3]


def test_differences_are_named() -> None:
    other = dataclasses.replace(SMALL, width=8, hole_size=(8, 12))
    assert SMALL.differences(other) == "width 4 and 8, hole_size [8, 16] and [8, 12]"
    assert SMALL.differences(SMALL) == ""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("widht: 3", "unknown entries: widht"),
        ("learning_rate: 1e-3", "learning_rate must be of type float, not '1e-3'"),  # YAML wants 1.0e-3
        ("batch_size: 0", "batch_size must be at least 1"),
        ("optimizer: sgd", "optimizer must be one of adadelta, adamw"),
        ("discriminators: two", "discriminators must be one of both, global, local, none, not 'two'"),
        ("adversarial_loss: hinge", "adversarial_loss must be one of minimax, non-saturating"),
        ("hole_size: [96]", "hole_size must be two whole numbers"),
        ("hole_size: [96, 256]", "hole_size .96, 256. must be a range below image_size 256"),
        ("hole_size: [96, 144]", "hole_size .96, 144. must not exceed patch_size 128"),
        ("resize: [128, 256]", "resize"),
        ("image_size: 254", "multiple of 4"),
        ("learning_rate: -1.0", "above 0"),
        ("learning_rate: .nan", "finite, not nan"),
        ("discriminator_learning_rate: 0", "discriminator_learning_rate must be above 0"),
        ("alpha: -1", "alpha must be at least 0"),
        ("gradient_weight: -1", "gradient_weight must be at least 0"),
        ("similarity_weight: .inf", "similarity_weight must be at least 0 and finite, not inf"),
        ("{strokes: 0.5, hole_position: centre}", "strokes 0.5 are anywhere, and hole_position is centre"),
        ("strokes: 1.5", "strokes must be a share in .0, 1., not 1.5"),
        ("balance_steps: -1", "balance_steps must be at least 0"),
        ("total_steps: 99999", "total_steps 99999 is less than completion_steps 90000 and discriminator_steps 10000"),
        ("width: 3", "width must be an even number"),
        ("flip: 1", "flip must be of type bool"),
        ("- a", "key: value"),
        ("a: [", "not YAML"),
    ],
)
def test_wrong_recipes_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "recipe.yaml").write_text(text)
    with pytest.raises(ValueError, match=message):
        Recipe.load(str(tmp_path / "recipe.yaml"))


def test_unknown_recipes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"no recipe and no file.*celeba, compact, facade, faces, imagenet-center"):
        Recipe.load("resnet")


def test_learning_rate() -> None:
    """Up and down in each phase that trains the completion network, with a greatest rate of its own."""
    recipe = Recipe(
        schedule="cosine",
        learning_rate=0.5,
        joint_learning_rate=0.1,
        completion_steps=1000,
        discriminator_steps=50,
        total_steps=2050,
    )
    for phase, begin, greatest in ((1, 0, 0.5), (3, 1050, 0.1)):
        rates = [recipe.learning_rate_at(step) for step in range(begin, begin + 1000)]
        assert {recipe.phase_of(step) for step in range(begin, begin + 1000)} == {phase}
        assert rates[0] < 0.01 and max(rates) == pytest.approx(greatest, rel=0.1) and rates[-1] < 1e-5
    assert Recipe(joint_learning_rate=0.5).learning_rate_at(89_999) == 1
    assert Recipe(joint_learning_rate=0.5).learning_rate_at(100_000) == 0.5


def test_steps_may_grow_where_those_done_would_have_been_the_same() -> None:
    constant = Recipe(completion_steps=4, discriminator_steps=2, total_steps=10)
    cosine = dataclasses.replace(constant, schedule="cosine")
    alone = Recipe(completion_steps=4, discriminator_steps=0, total_steps=4)
    cases: list[tuple[Recipe, Any, int]] = [
        (constant, {"total_steps": 12}, 10),
        (constant, {"discriminator_steps": 3, "total_steps": 12}, 6),  # the phase that grows may be under way
        (constant, {"completion_steps": 5}, 4),
        (cosine, {"total_steps": 12}, 7),  # its rate falls to the end of phase 3, from its second step on
        (cosine, {"completion_steps": 5}, 1),
        (dataclasses.replace(constant, discriminators="none"), {"total_steps": 12}, 8),
        (alone, {"completion_steps": 6, "total_steps": 6}, 4),
    ]
    for begun, grown, most in cases:
        longer = dataclasses.replace(begun, **grown)
        allowed = [done for done in range(begun.phase_ends[-1] + 1) if longer.continues(begun, done)]
        assert allowed == list(range(most + 1)), (begun, grown)
        assert not begun.continues(longer, 0)  # steps do not become fewer
    assert not dataclasses.replace(constant, total_steps=12, seed=1).continues(constant, 0)
    assert not dataclasses.replace(alone, total_steps=6).continues(alone, 0)  # discriminators that it does not have

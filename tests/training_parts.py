"""What the tests of training share: a recipe that takes a second, and networks as the trainer prepares them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch
from accelerate import Accelerator
from PIL import Image
from torch import nn

from glcic_hub.networks import CompletionNetwork, ContextDiscriminator
from glcic_hub.training.recipe import Recipe
from glcic_hub.training.steps import Networks
from tests.conftest import MEAN_PIXEL, make_photo

SMALL = Recipe(
    width=4,
    image_size=32,
    patch_size=16,
    resize=(32, 40),
    hole_size=(8, 16),
    strokes=0.25,
    flip=True,
    batch_size=4,
    completion_steps=4,
    discriminator_steps=3,
    total_steps=10,
    optimizer="adamw",
    learning_rate=0.01,
    joint_learning_rate=0.001,
    discriminator_learning_rate=0.001,
    balance_steps=1,
    initialisation="spreading",
    tint_weight=6.0,
    gradient_weight=10.0,
    similarity_weight=0.1,
)

ADVERSARIAL = dataclasses.replace(
    SMALL, r1_weight=1.0, colour_augmentation=True, frozen_statistics=True, joint_learning_rate=0.01
)
"""With each entry on that keeps phase 3 in balance."""


def make_photographs(folder: Path, count: int = 12) -> Path:
    """Generated photographs of different sizes, one as wide as high."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        Image.fromarray(make_photo(40 + index, 60 - index, seed=index)).save(folder / f"{index:02}.png")
    return folder


def make_networks(recipe: Recipe = SMALL, *, rate: float = 0.01, adaptive: bool = True) -> Networks:
    """All networks with the same initial weights each time; optimised by AdamW, or by plain gradient descent."""
    torch.manual_seed(0)
    accelerator = Accelerator()
    completion: nn.Module = CompletionNetwork(recipe.width, MEAN_PIXEL)
    kind = recipe.discriminators
    assert kind != "none"
    discriminator: nn.Module = ContextDiscriminator(recipe.width, recipe.image_size, recipe.patch_size, kind)
    prepared = []
    for network in (completion, discriminator):
        optimizer = (torch.optim.AdamW if adaptive else torch.optim.SGD)(network.parameters(), lr=rate)
        prepared += accelerator.prepare(network, optimizer)
    return Networks(accelerator, recipe, *prepared)

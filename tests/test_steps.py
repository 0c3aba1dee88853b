"""The steps of algorithm 1: losses against NumPy, and gradients where they belong."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from glcic_hub.evaluation.metrics import hole_metrics
from glcic_hub.images.masks import Rectangle, random_rectangle
from glcic_hub.networks import CompletionNetwork
from glcic_hub.networks.completion import composite
from glcic_hub.training.initialisation import initialise_spreading
from glcic_hub.training.losses import (
    adversarial_loss,
    completion_loss,
    discriminator_loss,
    gradient_loss,
    gradient_penalty,
    similarity_loss,
    tint_loss,
)
from glcic_hub.training.steps import (
    Batch,
    Networks,
    completion_step,
    discriminator_step,
    joint_step,
    patches_around,
    shift_colours,
    update_completion,
)
from tests.conftest import MEAN_PIXEL, make_photo
from tests.training_parts import SMALL, make_networks

Step = Callable[[Networks, list[Batch]], dict[str, Tensor]]


def make_batch(size: int = 4, seed: int = 0) -> Batch:
    random = np.random.default_rng(seed)
    generator = torch.Generator().manual_seed(seed)
    rectangles = [random_rectangle(random, 32, 32, (8, 16)) for _ in range(2 * size)]
    masks, holes = masks_of(rectangles[:size]), torch.tensor(rectangles)
    image = torch.rand(size, 3, 32, 32, generator=generator)
    colours = torch.rand(2, size, 3, generator=generator)
    return Batch(image, masks, holes[:size], holes[size:], *colours)


def masks_of(holes: list[Rectangle]) -> Tensor:
    return torch.from_numpy(np.stack([hole.mask(32, 32) for hole in holes]))[:, None].float()


def test_losses_against_numpy() -> None:
    """Eq. 2 averaged over each hole, whatever its size; its tint; its differences, those across the edge included."""
    random = np.random.default_rng(0)
    completed, image = random.random((2, 3, 3, 8, 9))
    mask = np.zeros((3, 1, 8, 9))
    mask[0, :, 2:5, 3:4], mask[1, :, :, 1:8], mask[2, :, 7, 8] = 1, 1, 1
    squares, tints, gradients = [], [], []
    for sample in range(3):
        error = (completed - image)[sample][:, mask[sample, 0] > 0]
        squares.append((error**2).mean())
        tints.append(((error - error.mean(axis=0)) ** 2).mean())
        whole = (completed - image)[sample] * mask[sample]
        differences = [np.diff(whole, axis=axis) ** 2 for axis in (1, 2)]
        gradients.append(sum(map(np.sum, differences)) / (3 * mask[sample].sum()))
    tensors = [torch.from_numpy(array) for array in (completed, image, mask)]
    assert completion_loss(*tensors).item() == pytest.approx(np.mean(squares), abs=1e-12)
    assert tint_loss(*tensors).item() == pytest.approx(np.mean(tints), abs=1e-12)
    assert gradient_loss(*tensors).item() == pytest.approx(np.mean(gradients), abs=1e-12)


def test_similarity_loss_is_what_evaluation_measures() -> None:
    random = np.random.default_rng(2)
    image = make_photo(32, 40, seed=3)
    completed = np.clip(image + random.normal(0, 20, image.shape), 0, 255).astype(np.uint8)
    mask = np.zeros((32, 40), np.uint8)
    mask[6:20, 10:33] = 1
    fill, original = (torch.from_numpy(array / 255).permute(2, 0, 1)[None] for array in (completed, image))
    loss = similarity_loss(fill, original, torch.from_numpy(mask)[None, None].double())
    assert loss.item() == pytest.approx(1 - hole_metrics(image, completed, mask)["ssim"], abs=1e-9)
    assert similarity_loss(original, original, torch.ones(1, 1, 32, 40)).item() == pytest.approx(0, abs=1e-9)


def test_adversarial_losses_against_numpy() -> None:
    """Eq. 3 to 5, from the probabilities that the paper writes them in."""
    real_logits, fake_logits = np.random.default_rng(1).normal(0, 3, (2, 5, 1))
    real, fake = (1 / (1 + np.exp(-logits)) for logits in (real_logits, fake_logits))
    tensors = [torch.from_numpy(array) for array in (real_logits, fake_logits)]
    terms = np.mean(np.log(real)), np.mean(np.log(1 - fake))  # of eq. 4, to be maximised
    assert discriminator_loss(tensors[0], real=True).item() == pytest.approx(-terms[0], abs=1e-12)
    assert discriminator_loss(tensors[1], real=False).item() == pytest.approx(-terms[1], abs=1e-12)
    assert adversarial_loss(tensors[1], "minimax").item() == pytest.approx(np.mean(np.log(1 - fake)), abs=1e-12)
    assert adversarial_loss(tensors[1], "non-saturating").item() == pytest.approx(-np.mean(np.log(fake)), abs=1e-12)


def test_adversarial_losses_are_finite_where_the_discriminator_is_sure() -> None:
    sure = torch.tensor([[200.0], [-200.0]])
    assert all(discriminator_loss(sure, real=real).isfinite() for real in (True, False))
    assert all(adversarial_loss(sure, kind).isfinite() for kind in ("minimax", "non-saturating"))


def test_losses_ignore_what_is_outside_the_hole() -> None:
    completed = torch.rand(2, 3, 8, 8, requires_grad=True)
    mask = torch.zeros(2, 1, 8, 8)
    mask[..., 2:6, 3:7] = 1
    image = torch.rand(2, 3, 8, 8)
    functions = (completion_loss, tint_loss, gradient_loss, similarity_loss)
    losses = [function(completed, image, mask) for function in functions]
    torch.stack(losses).sum().backward()  # type: ignore[no-untyped-call]
    assert completed.grad is not None
    assert torch.equal(completed.grad != 0, mask.expand_as(completed) > 0)


def test_patches_against_slices() -> None:
    """Each patch is centred on its own hole to half a pixel, or shifted inwards, and holds the whole hole."""
    random = np.random.default_rng(0)
    holes = [random_rectangle(random, 32, 32, (4, 16)) for _ in range(200)]
    holes += [Rectangle(0, 0, 4, 4), Rectangle(28, 28, 4, 4), Rectangle(16, 0, 16, 16)]
    image = torch.rand(len(holes), 3, 32, 32)
    tensor = torch.tensor(holes)
    patches, seen = patches_around(image, tensor, 16), patches_around(masks_of(holes), tensor, 16)
    corners = set()
    for index, hole in enumerate(holes):
        assert seen[index].sum() == hole.height * hole.width
        top, left = (
            min(max(int(np.floor(begin + length / 2 - 8)), 0), 16)
            for begin, length in ((hole.top, hole.height), (hole.left, hole.width))
        )
        assert torch.equal(patches[index], image[index, :, top : top + 16, left : left + 16])
        corners.add((top, left))
    assert len(corners) > 50  # a patch for each sample, not one for the batch


def test_spreading_initialisation_carries_the_rim_into_the_hole() -> None:
    """With no noise, a dilated layer of the same width is the mean of its nine taps, the others leave all as it is."""
    torch.manual_seed(0)
    network = CompletionNetwork(32, MEAN_PIXEL)
    initialise_spreading(network)
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    for convolution in convolutions:
        weight = convolution.weight.detach()
        if weight.shape[0] != weight.shape[1]:
            continue
        diagonal = weight.diagonal(dim1=0, dim2=1).mean(-1)  # (3, 3), the noise averaged out
        expected = torch.full((3, 3), 1 / 9) if convolution.dilation[0] > 1 else torch.zeros(3, 3)
        expected[1, 1] = 1 / 9 if convolution.dilation[0] > 1 else 1
        assert (diagonal - expected).abs().max() < 0.05


def state_of(network: nn.Module) -> dict[str, Tensor]:
    return copy.deepcopy(network.state_dict())


def changed(before: dict[str, Tensor], network: nn.Module) -> set[str]:
    after = network.state_dict()
    return {name for name in before if not torch.equal(before[name], after[name])}


def gradients_of(network: nn.Module) -> list[Tensor | None]:
    return [None if parameter.grad is None else parameter.grad.clone() for parameter in network.parameters()]


def test_phase_1_trains_the_completion_network_alone() -> None:
    networks = make_networks()
    before_c, before_d = state_of(networks.completion), state_of(networks.discriminator)
    values = completion_step(networks, [make_batch()])
    assert changed(before_c, networks.completion) == before_c.keys()
    assert not changed(before_d, networks.discriminator)
    assert gradients_of(networks.discriminator) == [None] * len(list(networks.discriminator.parameters()))
    assert values.keys() == {"mse"} and 0 < values["mse"] < 1


def test_phase_2_trains_the_discriminators_alone() -> None:
    networks = make_networks()
    before_c, before_d = state_of(networks.completion), state_of(networks.discriminator)
    values = discriminator_step(networks, [make_batch()])
    assert not changed(before_c, networks.completion)
    assert gradients_of(networks.completion) == [None] * len(list(networks.completion.parameters()))
    assert changed(before_d, networks.discriminator) == before_d.keys()
    assert networks.completion.training
    assert all(0 < values[name] < 1 for name in ("real", "fake"))


@pytest.mark.parametrize("kind", ["both", "global", "local"])
def test_phase_3_trains_all_networks(kind: Any) -> None:
    networks = make_networks(dataclasses.replace(SMALL, discriminators=kind))
    assert (networks.discriminator.global_discriminator is None) == (kind == "local")
    assert (networks.discriminator.local_discriminator is None) == (kind == "global")
    before_c, before_d = state_of(networks.completion), state_of(networks.discriminator)
    values = joint_step(networks, [make_batch()])
    assert changed(before_c, networks.completion) == before_c.keys()
    assert changed(before_d, networks.discriminator) == before_d.keys()
    assert values.keys() == {"mse", "discriminator", "real", "fake", "adversarial", "alpha"}
    assert values["alpha"] == pytest.approx(0.0004)


def test_what_trains_the_completion_network_leaves_the_discriminators_alone() -> None:
    """Weights, statistics, and gradients that lie there: no "call it real" enters the discriminators' next step."""
    networks = make_networks()
    for parameter in networks.discriminator.parameters():
        parameter.grad = torch.full_like(parameter, 0.5)
    before = state_of(networks.discriminator)
    before_c = state_of(networks.completion)
    update_completion(networks, [make_batch()], [])
    assert not changed(before, networks.discriminator)
    assert all(torch.all(gradient == 0.5) for gradient in gradients_of(networks.discriminator) if gradient is not None)
    assert None not in gradients_of(networks.discriminator)
    assert all(parameter.requires_grad for parameter in networks.discriminator.parameters())
    assert changed(before_c, networks.completion) == before_c.keys()


def test_the_adversarial_term_reaches_the_completion_network() -> None:
    """Without eq. 2, what is left moves the fill; and with alpha 0 nothing does."""
    moved = []
    for alpha in (0.0, 1.0):
        alone = dataclasses.replace(SMALL, alpha=alpha, tint_weight=0.0, gradient_weight=0.0, similarity_weight=0.0)
        networks = make_networks(alone, adaptive=False)
        batch = make_batch()
        made = networks.completion(batch.image, batch.mask)
        batch = batch._replace(image=composite(batch.image, made.detach(), batch.mask))  # eq. 2 is 0
        before = {name: p.detach().clone() for name, p in networks.completion.named_parameters()}
        update_completion(networks, [batch], [made])
        moved.append(sum((p - before[name]).abs().sum().item() for name, p in networks.completion.named_parameters()))
    assert moved[0] == 0 < moved[1]


def test_the_discriminators_learn_to_tell_real_from_completed() -> None:
    networks = make_networks()
    values = [discriminator_step(networks, [make_batch()]) for _ in range(20)]
    assert values[-1]["real"] > 0.7 and values[-1]["fake"] < 0.3
    assert values[-1]["discriminator"] < values[0]["discriminator"] / 2


@pytest.mark.parametrize("kind", ["minimax", "non-saturating"])
def test_the_completion_network_learns_to_be_taken_for_real(kind: Any) -> None:
    networks = make_networks(dataclasses.replace(SMALL, alpha=1.0, adversarial_loss=kind))
    batch = make_batch()
    for _ in range(3):  # or it is so sure that log(1 - D) has no gradient left
        discriminator_step(networks, [batch])
    values = [update_completion(networks, [batch], [])["adversarial"] for _ in range(10)]
    assert values[-1] < values[0]


def test_the_discriminators_see_composites() -> None:
    """What the completion network makes outside the hole has no influence on them."""
    results = []
    for brightness in (0.0, 0.5):
        networks = make_networks()
        batch = make_batch()
        make = networks.completion.forward

        def outside_changed(image: Tensor, mask: Tensor, make: Any = make, add: float = brightness) -> Any:
            return make(image, mask) + add * (1 - mask)

        networks.completion.forward = outside_changed
        results.append(discriminator_step(networks, [batch]))
    assert all(torch.equal(results[0][name], results[1][name]) for name in results[0])


@pytest.mark.parametrize("step", [completion_step, discriminator_step, joint_step])
def test_parts_of_a_batch_add_up_to_it(step: Step) -> None:
    """In evaluation mode, where batch normalisation does not depend on the part; rate 1, so a change is a gradient."""
    results = []
    for parts in (1, 2, 4):
        networks = make_networks(rate=1.0, adaptive=False)
        networks.completion.eval()
        networks.discriminator.eval()
        before = [state_of(networks.completion), state_of(networks.discriminator)]
        values = step(networks, make_batch(8).split(parts))
        after = [networks.completion.state_dict(), networks.discriminator.state_dict()]
        gradients = {(i, k): before[i][k] - after[i][k] for i in (0, 1) for k in before[i]}
        results.append((gradients, values))
    whole = results[0]
    assert any(gradient.abs().max() > 1e-3 for gradient in whole[0].values())
    for gradients, values in results[1:]:
        assert all(torch.allclose(gradients[key].float(), whole[0][key].float(), atol=1e-5) for key in whole[0])
        assert all(torch.allclose(values[name], whole[1][name], atol=1e-5) for name in whole[1])


@pytest.mark.parametrize("parts", [1, 2])
def test_the_completion_networks_statistics_are_recorded_once_a_step(parts: int) -> None:
    """However often a part goes through it; and phase 2 completes with those recorded, as the paper's fixed C."""
    networks = make_networks()
    norm = next(module for module in networks.completion.modules() if isinstance(module, nn.BatchNorm2d))
    joint_step(networks, make_batch().split(parts))
    assert norm.num_batches_tracked == parts
    reference = make_networks()
    completion_step(reference, make_batch().split(parts))
    expected = next(module for module in reference.completion.modules() if isinstance(module, nn.BatchNorm2d))
    assert torch.allclose(norm.running_mean, expected.running_mean)  # type: ignore[arg-type]


def test_phase_2_completes_with_recorded_statistics() -> None:
    results = []
    for shift in (0.0, -0.7):
        networks = make_networks()
        for module in networks.completion.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.add_(shift)  # type: ignore[union-attr]
        results.append(discriminator_step(networks, [make_batch()])["fake"])
    assert results[0] != results[1]


def test_balance_makes_both_gradients_equally_long() -> None:
    networks = make_networks()
    batch = make_batch()
    made = networks.completion(batch.image, batch.mask)
    discriminator = copy.deepcopy(networks.discriminator)
    alpha = update_completion(networks, [batch], [made], balance=True)["alpha"]

    fill = made.detach().requires_grad_()
    whole = composite(batch.image, fill, batch.mask)
    adversarial = torch.log(1 - discriminator(whole, patches_around(whole, batch.hole, 16)).sigmoid()).mean()
    arguments = (fill, batch.image, batch.mask)
    reconstruction = completion_loss(*arguments) + 6 * tint_loss(*arguments) + 10 * gradient_loss(*arguments)
    reconstruction = reconstruction + 0.1 * similarity_loss(*arguments)
    norms = [torch.autograd.grad(loss, fill)[0].norm() for loss in (reconstruction, alpha * adversarial)]
    assert norms[0] > 0
    assert torch.allclose(norms[0], norms[1], rtol=1e-4)


def test_shifted_colours_against_numpy() -> None:
    image, colour = torch.rand(3, 3, 4, 5), torch.rand(3, 3)
    shifted = shift_colours(image, colour)
    for x, (brightness, saturation, contrast), y in zip(image.numpy(), colour.numpy(), shifted.numpy(), strict=True):
        brighter = x + (brightness - 0.5) / 2
        grey = brighter.mean(axis=0)
        vivid = grey + (brighter - grey) * saturation * 2
        assert np.allclose(y, vivid.mean() + (vivid - vivid.mean()) * (0.5 + contrast), atol=1e-6)
    assert torch.allclose(shift_colours(image, torch.full((3, 3), 0.5)), image, atol=1e-6)
    assert torch.allclose(
        shift_colours(image, torch.tensor([[0.5, 0.0, 0.5]])).std(dim=1), torch.zeros(3, 4, 5), atol=1e-6
    )


@pytest.mark.parametrize("step", [discriminator_step, joint_step])
def test_the_discriminators_see_real_and_completed_images_with_other_colours(step: Step) -> None:
    """Image and patch of a sample with the same change, in both updates."""
    networks = make_networks(dataclasses.replace(SMALL, colour_augmentation=True, strokes=0.0))
    batch = make_batch()
    seen: list[tuple[Tensor, Tensor]] = []
    networks.discriminator.register_forward_pre_hook(lambda _, inputs: seen.append(inputs))
    evaluated = step is discriminator_step
    networks.completion.train(not evaluated)
    fake = composite(batch.image, networks.completion(batch.image, batch.mask), batch.mask)
    step(networks, [batch])
    expected = [shift_colours(fake, batch.colour), shift_colours(batch.image, batch.other_colour)]
    holes = [batch.hole, batch.other_hole]
    assert len(seen) == (2 if evaluated else 3)
    for (image, patch), whole, hole in zip(seen, [*expected, expected[0]], [*holes, holes[0]], strict=False):
        assert torch.allclose(image, whole, atol=1e-6)
        assert torch.allclose(patch, patches_around(whole, hole, 16), atol=1e-6)
    assert not torch.allclose(expected[0], fake, atol=0.01)


def test_gradient_penalty_of_a_linear_discriminator() -> None:
    """Half the squared norm of its weights, whatever the image; and it can be differentiated by them."""
    image, weights = torch.rand(5, 3, 4, 4, requires_grad=True), torch.rand(3, 4, 4, requires_grad=True)
    penalty = gradient_penalty((image * weights).sum(dim=(1, 2, 3))[:, None], image)
    assert penalty.item() == pytest.approx(weights.square().sum().item() / 2)
    penalty.backward()  # type: ignore[no-untyped-call]
    assert weights.grad is not None and torch.allclose(weights.grad, weights)


def test_r1_keeps_the_discriminators_gradient_small() -> None:
    """At real images; the loss that is logged is eq. 4 alone."""
    norms, losses = [], []
    for penalise in (False, True):
        networks = make_networks(dataclasses.replace(SMALL, r1_weight=10.0))
        losses.append(
            [discriminator_step(networks, [make_batch()], penalise=penalise)["discriminator"] for _ in range(10)]
        )
        image = make_batch().image.requires_grad_()
        logits = networks.discriminator(image, patches_around(image, make_batch().other_hole, 16))
        norms.append(gradient_penalty(logits, image).item())
    assert norms[1] < norms[0] / 4
    assert losses[0][0] == losses[1][0]


@pytest.mark.parametrize("parts", [1, 2])
def test_frozen_statistics_are_used_and_kept_in_phase_3(parts: int) -> None:
    """Weights are trained all the same, those of the normalisation, too."""
    networks = make_networks(dataclasses.replace(SMALL, frozen_statistics=True))
    statistics = dict(networks.completion.named_buffers())
    before = state_of(networks.completion)
    batch = make_batch()
    with torch.no_grad():
        made = networks.completion.eval()(batch.image, batch.mask)
    networks.completion.train()
    values = joint_step(networks, batch.split(parts))
    assert changed(before, networks.completion) == before.keys() - statistics.keys()
    assert values["mse"] == pytest.approx(completion_loss(made, batch.image, batch.mask).item(), rel=1e-5)
    assert networks.completion.training

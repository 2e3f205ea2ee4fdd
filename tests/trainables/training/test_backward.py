"""Gradients of spiking networks: step by step, in some steps, and through time, against the equations written out."""

from __future__ import annotations

import itertools
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.functional import cosine_similarity, cross_entropy

from tests.support.spiking_networks import EXACT, batch, gradient, naive_loss, perceptron
from trainables.config.spiking import SpikingConfig, SpikingRule
from trainables.models.loss_parts import loss_parts
from trainables.pruning.score_gradients import scoring_gradients
from trainables.training.backward import backward, sampled_steps

TAUS = (1.1, 1.5, 2.0, 5.0, 20.0)


def largest_difference(one: list[Tensor], other: list[Tensor]) -> float:
    return max(float((first - second).abs().max()) for first, second in zip(one, other, strict=True))


@pytest.mark.parametrize(("rule", "detach"), [("sltt", True), ("bptt", False)])
@pytest.mark.parametrize("tau", [1.1, 2.0])
def test_gradient_is_that_of_the_equations(rule: SpikingRule, detach: bool, tau: float) -> None:
    spiking = SpikingConfig(rule=rule, tau=tau)
    network, (images, labels) = perceptron(spiking), batch()
    loss = naive_loss(network, images, labels, spiking, detach)
    expected = list(torch.autograd.grad(loss, list(network.parameters())))
    assert largest_difference(gradient(network, images, labels), expected) < 1e-12
    assert min(float(one.abs().max()) for one in expected) > 1e-3
    total, _ = backward(loss_parts(network, network, images, labels, cross_entropy, EXACT))
    assert float(total) == pytest.approx(loss.item(), abs=1e-12)


@pytest.mark.parametrize("shared", [{"steps": 1, "tau": 3.0}, {"steps": 6, "tau": 1.0}])
def test_nothing_is_dropped_from_one_step_or_without_memory(shared: dict[str, Any]) -> None:
    images, labels = batch()
    online, through_time = (
        gradient(perceptron(SpikingConfig(rule=rule, **shared)), images, labels) for rule in ("sltt", "bptt")
    )
    assert largest_difference(online, through_time) < 1e-15


def test_longer_memory_turns_the_gradient_away_from_the_one_through_time() -> None:
    images, labels = batch(images=64)
    rules: tuple[SpikingRule, ...] = ("sltt", "bptt")
    cosines = []
    for tau in TAUS:
        one, other = (
            torch.cat([grad.flatten() for grad in gradient(perceptron(SpikingConfig(rule=rule, tau=tau)), images, labels)])
            for rule in rules
        )
        cosines.append(float(cosine_similarity(one, other, dim=0)))
    assert cosines[0] > 0.99
    assert cosines == sorted(cosines, reverse=True)


def test_gradients_of_all_choices_of_steps_have_the_mean_k_over_t() -> None:
    images, labels = batch()
    whole = gradient(perceptron(SpikingConfig(rule="sltt")), images, labels)
    network = perceptron(SpikingConfig(rule="sltt-k", sampled_steps=2))
    choices = [frozenset(one) for one in itertools.combinations(range(6), 2)]
    each = [gradient(network, images, labels, choice) for choice in choices]
    means = [torch.stack(grads).mean(0) for grads in zip(*each, strict=True)]
    assert largest_difference(means, [grad * 2 / 6 for grad in whole]) < 1e-15
    assert largest_difference(each[0], each[1]) > 1e-4


@pytest.mark.parametrize("other", ["bptt", "sltt-k"])
def test_rules_differ_in_the_gradient_alone(other: SpikingRule) -> None:
    images, labels = batch()
    results: list[list[Tensor]] = []
    rules: tuple[SpikingRule, ...] = ("sltt", other)
    for rule in rules:
        network = perceptron(SpikingConfig(rule=rule, tau=2.0))
        sampled = frozenset({3}) if rule == "sltt-k" else None
        _, scores = backward(loss_parts(network, network, images, labels, cross_entropy, EXACT, sampled))
        results.append([scores, *network.buffers()])
    assert all(torch.equal(one, two) for one, two in zip(*results, strict=True))


@pytest.mark.parametrize(("rule", "growth"), [("sltt", (1, 1, 1)), ("sltt-k", (1, 1, 1)), ("bptt", (2, 6, 12))])
def test_memory_does_not_grow_with_steps_unless_through_time(rule: SpikingRule, growth: tuple[int, ...]) -> None:
    images, labels = batch()
    sampled = frozenset({0}) if rule == "sltt-k" else None
    of_one_step, *peaks = (
        peak_of_saved(perceptron(SpikingConfig(rule=rule, steps=steps)), images, labels, sampled) for steps in (1, 2, 6, 12)
    )
    assert peaks == [of_one_step * factor for factor in growth]


def peak_of_saved(network: nn.Module, images: Tensor, labels: Tensor, sampled: frozenset[int] | None) -> int:
    """The most elements that were kept for the backward pass at once."""
    held = peak = 0

    class Saved:
        def __init__(self, tensor: Tensor) -> None:
            self.tensor = tensor

    def forget(elements: int) -> None:
        nonlocal held
        held -= elements

    def keep(tensor: Tensor) -> Saved:
        nonlocal held, peak
        saved = Saved(tensor.detach())
        held += tensor.numel()
        peak = max(peak, held)
        weakref.finalize(saved, forget, tensor.numel())
        return saved

    with saved_tensors_hooks(keep, lambda saved: saved.tensor):
        gradient(network, images, labels, sampled)
    assert held == 0
    return peak


def test_scores_take_the_gradient_of_the_training() -> None:
    spiking = SpikingConfig(rule="sltt", tau=2.0)
    network, (images, labels) = perceptron(spiking), batch()
    weights = dict(network.named_parameters())
    before = {name: value.clone() for name, value in network.state_dict().items()}
    loss, grads = scoring_gradients(network, weights, [(images, labels)], EXACT)
    expected = naive_loss(network, images, labels, spiking, detach=True)
    slopes = torch.autograd.grad(expected, list(weights.values()))
    assert largest_difference(list(grads.values()), list(slopes)) < 1e-12
    assert float(loss) == pytest.approx(expected.item(), abs=1e-12)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_sampled_steps_depend_on_the_seed_and_the_epoch_alone() -> None:
    network = perceptron(SpikingConfig(rule="sltt-k", steps=6, sampled_steps=2))

    def drawn(seed: int, epoch: int) -> list[frozenset[int] | None]:
        return list(itertools.islice(sampled_steps(network, seed, epoch), 40))

    assert drawn(0, 1) == drawn(0, 1)
    assert drawn(0, 1) != drawn(0, 2) != drawn(1, 2)
    assert all(steps is not None and len(steps) == 2 and steps <= set(range(6)) for steps in drawn(0, 1))
    assert len(set(drawn(0, 1))) > 10
    assert next(sampled_steps(perceptron(SpikingConfig(rule="sltt")), 0, 1)) is None

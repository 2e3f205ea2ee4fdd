"""Which channels become implants, against a loop over both thresholds; later rounds; the score of an implant."""

from __future__ import annotations

from dataclasses import replace
from math import floor

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from tests.support.channel_networks import Concatenated
from tests.support.trials import selection_for, tiny_config
from tests.trainables.pruning.test_channel_scorers import batch, context_of
from trainables.analysis.multiply_adds import multiply_adds
from trainables.channels.dependencies import find_units
from trainables.config.methods import HapConfig
from trainables.config.trial import TargetConfig, TrialConfig
from trainables.errors import ConfigError
from trainables.models.prunable import prunable_weights
from trainables.models.registry import build_model, initialize
from trainables.pruning.channel_scorers import score_hap
from trainables.pruning.channel_selection import ChannelSelection
from trainables.pruning.masks import Masks, full_masks

SHAPE = (1, 8, 8)


def config_of(implant: float, **changes: object) -> TrialConfig:
    config = tiny_config(method="hap", prune_iterations=1, target=TargetConfig(multiply_adds=0.4), sparsity=0.6)
    return replace(config, options=HapConfig(implant=implant), **changes)  # type: ignore[arg-type]


def network_of(name: str = "convnet") -> nn.Module:
    if name == "concatenated":
        return Concatenated()
    network = build_model(name, SHAPE, 10)
    initialize(network, 0)
    return network


def selection(network: nn.Module, config: TrialConfig) -> ChannelSelection:
    chosen = selection_for(config, network)
    assert isinstance(chosen, ChannelSelection)
    return chosen


def drawn(count: int, seed: int) -> Tensor:
    return torch.rand(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def naive_states(scores: Tensor, chosen: ChannelSelection, affected: int, share: float) -> list[str]:
    """For each unit whether it is whole, an implant or gone, if so many of the lowest are affected."""
    best = {max(group.units, key=lambda unit: float(scores[unit])) for group in chosen.units.groups}
    lowest = sorted(set(range(chosen.units.count)) - best, key=lambda unit: float(scores[unit]))[:affected]
    states = ["whole"] * chosen.units.count
    for rank, unit in enumerate(lowest):
        in_band = rank >= floor((1 - share) * affected + 1e-9)
        states[unit] = "implant" if in_band and bool(chosen.implantable[unit]) else "gone"
    return states


def naive_masks(states: list[str], chosen: ChannelSelection, masks: Masks) -> Masks:
    pruned = {name: mask.clone() for name, mask in masks.items()}
    for (name, dim), unit_of in chosen.units.unit_of.items():
        if name not in pruned:
            continue
        for index, unit in enumerate(unit_of.tolist()):
            entries = pruned[name].select(dim, index)
            if unit >= 0 and states[unit] == "gone":
                entries.fill_(False)
            elif unit >= 0 and dim == 0 and states[unit] == "implant":
                centre = entries[..., 1, 1].clone()
                entries.fill_(False)
                entries[..., 1, 1] = centre
    return pruned


def share_left(network: nn.Module, masks: Masks) -> float:
    uses = multiply_adds(network, set(masks), SHAPE).uses
    left, whole = (sum((uses[name] or 0) * count for name, count in counts) for counts in (kept(masks), sizes(masks)))
    return left / whole


def kept(masks: Masks) -> list[tuple[str, int]]:
    return [(name, int(mask.sum())) for name, mask in masks.items()]


def sizes(masks: Masks) -> list[tuple[str, int]]:
    return [(name, mask.numel()) for name, mask in masks.items()]


@pytest.mark.parametrize("name", ["convnet", "concatenated"])
@pytest.mark.parametrize("share", [0.0, 0.3])
def test_thresholds_are_the_first_at_which_the_target_is_met(name: str, share: float) -> None:
    network, config = network_of(name), config_of(share)
    chosen, full = selection(network, config), full_masks(prunable_weights(network))
    scores = drawn(chosen.units.count, seed=3)
    affected = next(
        count
        for count in range(chosen.units.count)
        if share_left(network, naive_masks(naive_states(scores, chosen, count, share), chosen, full)) <= 0.4
    )
    states = naive_states(scores, chosen, affected, share)
    expected = naive_masks(states, chosen, full)
    got = chosen.select(scores, full, config, 1)
    assert all(torch.equal(mask, expected[key]) for key, mask in got.items())
    assert chosen.metrics(got, config) == ({"prune/implants": float(states.count("implant"))} if share else {})
    assert ("implant" in states) == (share > 0)


@pytest.mark.parametrize("changing", [False, True])
def test_implants_of_a_round_may_go_later_and_never_grow_back(changing: bool) -> None:
    network, config = network_of(), config_of(0.3, prune_iterations=4)
    chosen, full = selection(network, config), full_masks(prunable_weights(network))
    masks, implants = full, torch.zeros(chosen.units.count, dtype=torch.bool)
    for round_ in range(1, 5):
        after = chosen.select(drawn(chosen.units.count, seed=round_ if changing else 0), masks, config, round_)
        assert all(bool((mask <= masks[name]).all()) for name, mask in after.items())
        assert share_left(network, after) <= 0.4 ** (round_ / 4) + 1e-9
        implants |= chosen.remaining(after).implants
        masks = after
    assert bool((implants & ~chosen.remaining(masks).kept).any())
    if not changing:  # the same thresholds as in one round
        once = chosen.select(drawn(chosen.units.count, seed=0), full, config_of(0.3), 1)
        assert all(torch.equal(mask, once[name]) for name, mask in masks.items())


def test_implants_give_way_where_they_leave_too_much() -> None:
    network = network_of()
    config = config_of(0.9, target=TargetConfig(multiply_adds=0.02), sparsity=0.98)
    chosen, full = selection(network, config), full_masks(prunable_weights(network))
    scores = drawn(chosen.units.count, seed=0)
    masks = chosen.select(scores, full, config, 1)
    assert (
        share_left(network, masks)
        <= 0.02
        < share_left(network, naive_masks(naive_states(scores, chosen, 77, 0.9), chosen, full))
    )
    remaining = chosen.remaining(masks)
    implants, whole = remaining.implants.nonzero().flatten(), (remaining.kept & ~remaining.implants).nonzero().flatten()
    gone = (~remaining.kept).nonzero().flatten()
    assert len(whole) == 3  # the best of each layer
    assert len(implants) > 0
    assert float(scores[implants].min()) > float(scores[gone].max())


def test_shuffled_implants_are_as_many_in_each_layer() -> None:
    network, config = network_of(), config_of(0.5)
    chosen = selection(network, config)
    masks = chosen.select(drawn(chosen.units.count, seed=0), full_masks(prunable_weights(network)), config, 1)
    before, after = chosen.remaining(masks), chosen.remaining(chosen.shuffled(masks, seed=0))
    assert not torch.equal(before.implants, after.implants)
    for group in chosen.units.groups:
        units = list(group.units)
        assert int(before.implants[units].sum()) == int(after.implants[units].sum())
        assert int(before.kept[units].sum()) == int(after.kept[units].sum())


def test_network_without_wide_convolutions_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"hap\.implant: the network must have channels that k x k convolutions alone make"):
        selection(network_of("lenet300"), config_of(0.1, model="lenet300"))


def test_score_of_an_implant_is_that_of_its_centre() -> None:
    """Against the Hessian of the weights that are left, at one filter that is whole and one that is an implant."""
    network = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1, bias=False), nn.Flatten(), nn.Linear(32, 3, bias=False)).double()
    initialize(network, 0)
    shape = (1, 4, 4)
    images, labels = batch(8, shape=shape, classes=3)
    weights = {"0.weight": prunable_weights(network)["0.weight"]}  # alone, for a small variance of the estimate
    masks = full_masks(weights)
    masks["0.weight"][1] = False
    masks["0.weight"][1, :, 1, 1] = True
    with torch.no_grad():
        weights["0.weight"].mul_(masks["0.weight"])
    head = network.get_parameter("2.weight").detach()

    def loss_of(filters: Tensor) -> Tensor:
        maps = torch.nn.functional.conv2d(images, filters.view(2, 1, 3, 3), padding=1)
        return cross_entropy(maps.flatten(1) @ head.T, labels)

    filters = weights["0.weight"].detach().flatten()
    curvature = torch.autograd.functional.hessian(loss_of, filters).diagonal().view(2, 9)
    squares = filters.view(2, 9).square().sum(1)
    expected = torch.stack([curvature[0].sum() / 18 * squares[0], curvature[1, 4] / 2 * squares[1]])
    units = find_units(network, shape)
    config = replace(config_of(0.1), options=HapConfig(implant=0.1, probes=400))
    got = score_hap(context_of(network, [(images, labels)], config, units=units, weights=weights, masks=masks)).scores
    assert got.tolist() == pytest.approx(expected.tolist(), rel=0.1)

"""The choice of channels, against naive sums and a loop that removes one unit after another."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from tests.support.channel_networks import Concatenated
from tests.support.trials import tiny_config
from trainables.channels.quantities import priced_entries
from trainables.channels.removal import remove_units
from trainables.channels.units import STAYS
from trainables.config.trial import TargetConfig, TrialConfig
from trainables.errors import ConfigError, NonFiniteError
from trainables.models.prunable import prunable_weights
from trainables.models.registry import build_model, initialize
from trainables.pruning.channel_selection import ChannelSelection, removal_order
from trainables.pruning.masks import Masks, apply_masks, flattened, full_masks, num_kept
from trainables.trial.selections import selection_of

SHAPE = (1, 8, 8)
CONFIG = tiny_config(granularity="channel", prune_iterations=1, sparsity=0.6)


def selection(network: nn.Module, config: TrialConfig = CONFIG) -> ChannelSelection:
    made = selection_of(config, network, SHAPE)
    assert isinstance(made, ChannelSelection)
    return made


def drawn(weights: dict[str, Tensor], seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.rand(weight.shape, generator=generator) for name, weight in weights.items()}


def of_survivors(scores: dict[str, Tensor], masks: Masks) -> Tensor:
    return flattened(scores)[flattened(masks)]


def naive_unit_scores(scores: dict[str, Tensor], masks: Masks, chosen: ChannelSelection) -> list[float]:
    sums = [0.0] * chosen.units.count
    for name, values in scores.items():
        for index in masks[name].nonzero().tolist():
            for dim, position in enumerate(index):
                unit = chosen.units.unit_of.get((name, dim))
                if unit is not None and int(unit[position]) != STAYS:
                    sums[int(unit[position])] += float(values[tuple(index)].double())
    return sums


def test_a_unit_has_the_sum_of_its_weights_scores() -> None:
    network = Concatenated()
    chosen = selection(network)
    weights = prunable_weights(network)
    scores, masks = drawn(weights), full_masks(weights)
    first = chosen.select(of_survivors(scores, masks), masks, replace(CONFIG, sparsity=0.3), 1)
    for each in (masks, first):
        sums = chosen.unit_scores(of_survivors(scores, each), each)
        assert sums.tolist() == pytest.approx(naive_unit_scores(scores, each, chosen), rel=1e-12)


@pytest.mark.parametrize(
    ("target", "sparsity"),
    [
        (TargetConfig(), 0.6),
        (TargetConfig(channels=0.5), 0.5),
        (TargetConfig(parameters=0.4), 0.6),
        (TargetConfig(multiply_adds=0.4), 0.6),
    ],
    ids=["weights", "channels", "parameters", "multiply_adds"],
)
def test_lowest_channels_go_one_by_one_until_the_share_is_reached(target: TargetConfig, sparsity: float) -> None:
    config = replace(CONFIG, target=target, sparsity=sparsity)
    network = build_model("convnet", SHAPE, 10)
    initialize(network, 0)
    chosen = selection(network, config)
    weights = prunable_weights(network)
    masks, scores = full_masks(weights), drawn(weights)

    def size(kept: Tensor) -> float:
        smaller = copy.deepcopy(network)
        remove_units(smaller, chosen.units, kept)
        convolutions = {"conv1": 64, "conv2": 16, "conv3": 16, "head": 1}  # pixels of their outputs
        layers = dict(smaller.named_modules())
        sizes: dict[str, float] = {
            "weights": sum(layers[name].weight.numel() for name in convolutions),
            "channels": sum(layers[name].weight.shape[0] for name in ("conv1", "conv2", "conv3")),
            "parameters": sum(parameter.numel() for parameter in smaller.parameters()),
            "multiply_adds": sum(pixels * layers[name].weight.numel() for name, pixels in convolutions.items()),
        }
        return sizes[config.quantity]

    sums = naive_unit_scores(scores, masks, chosen)
    kept = torch.ones(chosen.units.count, dtype=torch.bool)
    whole = size(kept)
    while size(kept) > (1 - sparsity) * whole:
        least = min(
            (
                unit
                for group in chosen.units.groups
                for unit in group.units
                if kept[unit] and int(kept[list(group.units)].sum()) > 1
            ),
            key=lambda unit: sums[unit],
        )
        kept[least] = False
    pruned = chosen.select(of_survivors(scores, masks), masks, config, 1)
    assert torch.equal(chosen.kept_units(pruned), kept)
    smaller = copy.deepcopy(network)
    remove_units(smaller, chosen.units, kept)
    assert num_kept(pruned) == sum(weight.numel() for weight in prunable_weights(smaller).values())


def test_what_no_channel_decides_counts_in_a_size() -> None:
    network = build_model("convnet", SHAPE, 10)
    units, weights = selection(network).units, prunable_weights(network)
    quantity = priced_entries(weights, dict.fromkeys(weights, 2.0), units, constant=7.0)
    everything = torch.ones(units.count, dtype=torch.bool)
    assert quantity.of(units, everything) == 7.0 + 2.0 * sum(weight.numel() for weight in weights.values())


def test_rounds_only_remove_and_end_at_the_share() -> None:
    config = replace(CONFIG, prune_iterations=4, sparsity=0.8)
    network = build_model("convnet", SHAPE, 10)
    chosen, weights = selection(network, config), prunable_weights(network)
    masks = full_masks(weights)
    counts = []
    for round_ in range(1, 5):
        after = chosen.select(of_survivors(drawn(weights, round_), masks), masks, config, round_)
        assert all(bool((mask <= masks[name]).all()) for name, mask in after.items())
        masks = after
        counts.append(num_kept(masks))
    total = sum(mask.numel() for mask in masks.values())
    assert counts == sorted(counts, reverse=True)
    assert all(count <= 0.2 ** (round_ / 4) * total for round_, count in enumerate(counts, start=1))
    assert counts[-1] > 0.2 * total - 32 * 9 * 2  # no more than the last channel beyond it


def test_the_best_channel_of_each_layer_stays_and_the_first_of_equals() -> None:
    chosen = selection(build_model("convnet", SHAPE, 10))
    units = chosen.units
    scores = torch.zeros(units.count, dtype=torch.float64)
    scores[units.groups[1].start + 5] = 1.0
    order = removal_order(scores, torch.ones(units.count, dtype=torch.bool), units).tolist()
    stay = set(range(units.count)) - set(order)
    assert stay == {units.groups[0].start, units.groups[1].start + 5, units.groups[2].start}
    assert order == sorted(order, reverse=True)


def test_unreachable_share_is_refused_at_the_start() -> None:
    with pytest.raises(
        ConfigError, match=r"sparsity: one channel in each layer must stay, which is 0.0044 of the weights of con"
    ):
        selection(build_model("convnet", SHAPE, 10), replace(CONFIG, sparsity=0.999))
    config = replace(CONFIG, target=TargetConfig(channels=0.01), sparsity=0.99)
    with pytest.raises(
        ConfigError, match=r"target.channels: .* which is 0.0375 of the channels of convnet, got 0.01; prune less"
    ):
        selection(build_model("convnet", SHAPE, 10), config)


def test_scores_that_are_not_finite_are_refused() -> None:
    network = build_model("convnet", SHAPE, 10)
    masks = full_masks(prunable_weights(network))
    scores = torch.ones(sum(mask.numel() for mask in masks.values()))
    scores[3] = float("nan")
    with pytest.raises(NonFiniteError, match="1 scores of surviving weights are not finite"):
        selection(network).select(scores, masks, CONFIG, 1)


def test_random_channels_depend_on_the_seed_alone() -> None:
    network = build_model("convnet", SHAPE, 10)
    chosen, weights = selection(network), prunable_weights(network)
    masks = full_masks(weights)
    config = replace(CONFIG, method="random")
    kept = [
        chosen.kept_units(chosen.select(of_survivors(drawn(weights, number), masks), masks, replace(config, seed=seed), 1))
        for number, seed in ((0, 0), (1, 0), (0, 1))
    ]
    assert torch.equal(kept[0], kept[1])
    assert not torch.equal(kept[0], kept[2])


def test_shuffled_channels_are_as_many_in_each_layer() -> None:
    network = build_model("resnet20", SHAPE, 10)
    chosen, weights = selection(network), prunable_weights(network)
    masks = full_masks(weights)
    pruned = chosen.select(of_survivors(drawn(weights), masks), masks, CONFIG, 1)
    shuffled = chosen.shuffled(pruned, seed=0)
    before, after = chosen.kept_units(pruned), chosen.kept_units(shuffled)
    assert [int(before[list(group.units)].sum()) for group in chosen.units.groups] == [
        int(after[list(group.units)].sum()) for group in chosen.units.groups
    ]
    assert not torch.equal(before, after)
    assert num_kept(shuffled) == num_kept(pruned)


def test_norm_layers_and_biases_go_with_their_channel() -> None:
    network = Concatenated()
    chosen, weights = selection(network), prunable_weights(network)
    masks = full_masks(weights)
    pruned = chosen.select(of_survivors(drawn(weights), masks), masks, CONFIG, 1)
    everything = chosen.with_other_tensors(pruned, network)
    assert everything.keys() - pruned.keys() == {
        *(f"{layer}.bias" for layer in ("left", "right", "depthwise", "norm", "mix", "grouped")),
        "norm.weight",
    }
    apply_masks({name: value for name, value in network.named_parameters() if name in everything}, everything)
    kept = chosen.kept_units(pruned)
    for layer in ("left", "right", "depthwise", "mix", "grouped"):
        units = chosen.units.unit_of[f"{layer}.bias", 0]
        assert torch.equal(network.get_parameter(f"{layer}.bias") != 0, kept[units])

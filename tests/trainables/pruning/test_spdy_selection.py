"""SPDY's choice of options by brute force, its bounds, and how many weights its rounds keep."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace

import pytest
import torch

from tests.support.timings import SHAPES, convnet_table
from tests.support.trials import tiny_config
from trainables.config.trial import TargetConfig, TrialConfig
from trainables.custom.timing_table import LayerTimes, TimingTable
from trainables.errors import ConfigError
from trainables.export.layer_timing import SPARSITIES
from trainables.pruning.masks import Masks
from trainables.pruning.spdy_selection import SpdySelection
from trainables.pruning.timed_layers import LATENCY_METRIC, TimedLayers, timed_layers

NAMES = [f"{name}.weight" for name in SHAPES]


def selection(*excluded: str) -> SpdySelection:
    return SpdySelection(timed=timed_layers(convnet_table(), [name for name in NAMES if name not in excluded]))


def trial(latency: float, rounds: int = 1) -> TrialConfig:
    target = TargetConfig(latency=latency)
    return tiny_config(layer_sparsity="spdy", target=target, sparsity=target.sparsity, prune_iterations=rounds)


def random_table(rng: random.Random) -> TimingTable:
    """Four layers with four sparsities each, not all of them faster than dense."""
    layers = {}
    for number in range(4):
        dense = rng.uniform(0.5, 1)
        times = tuple(dense * rng.uniform(0.3, 1.5) for _ in range(4))
        layers[f"l{number}"] = LayerTimes(shape=(10, 10), dense=dense, sparsities=(0.3, 0.5, 0.7, 0.9), times=times)
    return TimingTable(network="n", width=1, image_shape=(1, 8, 8), rest=rng.uniform(0, 1), layers=layers)


def cost(timed: TimedLayers, counts: dict[str, int], weights: dict[str, float]) -> float:
    return sum(weights[name] * layer.errors[layer.counts.index(counts[name])] for name, layer in timed.layers.items())


def test_choice_is_the_best_of_all_within_the_time() -> None:
    rng, nearer = random.Random(0), 0
    for _ in range(40):
        timed = timed_layers(random_table(rng), [f"l{number}.weight" for number in range(4)])
        weights = {name: 1 - rng.random() for name in timed.layers}
        all_counts = [
            dict(zip(timed.layers, counts, strict=True))
            for counts in itertools.product(*(layer.counts for layer in timed.layers.values()))
        ]
        share = rng.uniform(0.5, 1.0)
        within = [cost(timed, counts, weights) for counts in all_counts if timed.time(counts) <= share * timed.whole]
        chosen = SpdySelection(timed=timed).with_coefficients(weights)
        if not within:
            with pytest.raises(ConfigError, match=r"target\.latency: by the timing table at least 0\.\d+ of the time"):
                chosen.counts(share)
            continue
        found = chosen.counts(share)
        assert timed.time(found) <= share * timed.whole * (1 + 1e-12)
        assert cost(timed, found, weights) >= min(within)
        nearer += cost(timed, found, weights) == pytest.approx(min(within))
        larger = {name: 7.5 * weight for name, weight in weights.items()}
        assert chosen.with_coefficients(larger).counts(share) == found
    assert nearer >= 25  # rounding up may leave one bucket of each layer unused


def test_prior_of_the_grid_and_its_ends() -> None:
    assert [round(SPARSITIES[index], 4) for index in (0, 1, 2, 3, 39, 40)] == [0.4, 0.4584, 0.5111, 0.5586, 0.9889, 0.99]
    assert len(SPARSITIES) == 41
    for layer in selection().timed.layers.values():
        assert layer.errors == (0, (1 / 5) ** 2, (2 / 5) ** 2, (3 / 5) ** 2, (4 / 5) ** 2, 1)


def test_more_time_than_the_dense_network_takes_keeps_it_dense() -> None:
    timed = selection().timed
    assert selection().counts(1 / 0.99) == {name: layer.counts[0] for name, layer in timed.layers.items()}


def test_option_that_is_slower_and_costs_more_changes_nothing() -> None:
    table = convnet_table()
    conv2 = table.layers["conv2"]
    more = replace(conv2, sparsities=(*conv2.sparsities, 0.995), times=(*conv2.times, 2 * conv2.dense))
    wider = replace(table, layers={**table.layers, "conv2": more})
    coefficients = {"conv2.weight": (6 / 5) ** 2}  # its prior of one option more
    for share in (0.3, 0.45, 0.6, 0.8):
        with_it = SpdySelection(timed=timed_layers(wider, NAMES), coefficients=coefficients)
        assert with_it.counts(share) == selection().counts(share)


def test_layers_that_stay_dense_count_in_the_fixed_time() -> None:
    """The published script leaves them out of the program, but not of the time that it divides, and misses its target."""
    excluding = selection("conv1.weight", "head.weight")
    timed, table = excluding.timed, convnet_table()
    dense = {name: layer.counts[0] for name, layer in timed.layers.items()}
    assert timed.time(dense) == pytest.approx(table.dense) == pytest.approx(timed.whole)
    published = SpdySelection(timed=replace(timed, fixed=table.rest))
    for share in (0.2, 1 / 2):
        assert timed.time(excluding.counts(share)) <= share * timed.whole < timed.time(published.counts(share))
    with pytest.raises(ConfigError, match=r"at least 0\.1\d+ of the time of the dense network remains, got 0\.08"):
        excluding.counts(0.08)
    assert selection().counts(0.08)


def test_table_gives_the_same_numbers_on_every_machine() -> None:
    assert list(selection().counts(0.3).values()) == [144, 1152, 922, 1280]
    assert list(selection().counts(0.6).values()) == [144, 2304, 2304, 1280]


def test_rounds_only_prune_and_the_last_is_within_the_target() -> None:
    config, chosen = trial(0.4, rounds=7), selection()
    masks: Masks = {f"{name}.weight": torch.ones(shape, dtype=torch.bool) for name, shape in SHAPES.items()}
    scores = torch.rand(sum(mask.numel() for mask in masks.values()), generator=torch.Generator().manual_seed(0))
    for round_ in range(1, 8):
        surviving = scores[torch.cat([mask.flatten() for mask in masks.values()])]
        smaller = chosen.select(surviving, masks, config, round_)
        assert all(bool((mask <= masks[name]).all()) for name, mask in smaller.items())
        assert chosen.metrics(smaller, config)[LATENCY_METRIC] <= 0.4 ** (round_ / 7) + 1e-12
        masks = smaller
    assert chosen.metrics(masks, config)[LATENCY_METRIC] <= 0.4

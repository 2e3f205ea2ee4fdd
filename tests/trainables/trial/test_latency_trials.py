"""Trials whose timing table decides: SPDY's layers and channels within a latency, killed anywhere, and refused beforehand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.killed_trials import KilledError, MortalStorage
from tests.support.timings import convnet_table, planned_timings
from tests.support.trials import metric_points, new_storage, run, tiny_config
from trainables.config.keys import warmup_key
from trainables.config.trial import DatasetConfig, SpdyConfig, TargetConfig, TrialConfig
from trainables.data.digits import DIGITS_DIGEST
from trainables.errors import ConfigError
from trainables.pruning.timed_layers import LATENCY_METRIC, timed_layers

SMALL = SpdyConfig(starts=3, misses=2, samples=32, passes=1, global_passes=1)
SPDY = tiny_config(layer_sparsity="spdy", target=TargetConfig(latency=0.5), sparsity=0.5, spdy=SMALL)
CHANNELS = tiny_config(granularity="channel", target=TargetConfig(latency=0.55), sparsity=0.45, prune_iterations=3)


@pytest.mark.parametrize("config", [SPDY, replace(SPDY, method="magnitude"), CHANNELS, replace(CHANNELS, method="taylor")])
def test_last_round_is_within_the_target_and_rounds_only_prune(config: TrialConfig, tmp_path: Path) -> None:
    storage = new_storage(tmp_path)
    run(config, storage, custom_files=planned_timings(tmp_path, config))
    points = metric_points(config, storage)
    rounds = range(1, config.rounds + 1)
    shares, kept = ([points[name, round_] for round_ in rounds] for name in (LATENCY_METRIC, "prune/kept_weights"))
    print(shares)
    assert config.target.latency is not None
    for round_, share in zip(rounds, shares, strict=True):
        assert share is not None
        assert share <= config.target.latency ** (round_ / config.rounds) + 1e-9
    assert kept == sorted(kept, reverse=True)
    if config.layer_sparsity == "spdy":
        assert points["prune/searched_loss", 0] <= points["prune/prior_loss", 0]

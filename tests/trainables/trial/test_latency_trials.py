"""Trials whose timing table decides: SPDY's layers and channels within a latency, killed anywhere, and refused beforehand."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.support.killed_trials import CopiedStorage
from tests.support.timings import convnet_record, planned_timings
from tests.support.trials import (
    RUNTIME,
    metric_points,
    new_storage,
    run,
    tiny_config,
    tiny_training,
    trial_folder,
    warmup_trainer,
)
from trainables.config.keys import inputs_digest, trial_key, warmup_key
from trainables.config.trial import SpdyConfig, TargetConfig, TrialConfig, WarmupConfig
from trainables.custom.references import without_method
from trainables.data.digits import DIGITS_DIGEST
from trainables.errors import ConfigError
from trainables.export.sparse_model import load_sparse_model
from trainables.preflight.network_case import cases_of
from trainables.preflight.network_checks import examine_network
from trainables.pruning.timed_layers import LATENCY_METRIC

SMALL = SpdyConfig(starts=3, misses=2, samples=32, passes=1, global_passes=1)
SPDY = tiny_config(layer_sparsity="spdy", target=TargetConfig(latency=0.5), sparsity=0.5, spdy=SMALL)
CHANNELS = tiny_config(granularity="channel", target=TargetConfig(latency=0.55), sparsity=0.45, prune_iterations=3)


@pytest.mark.parametrize(
    "config",
    [
        SPDY,
        replace(SPDY, method="magnitude", spdy=SpdyConfig(search=False)),
        replace(SPDY, method="imp", spdy=SpdyConfig(search=False)),
        CHANNELS,
        replace(CHANNELS, method="taylor"),
        replace(CHANNELS, method="polarization"),
    ],
    ids=["spdy", "prior", "imp", "channels", "taylor", "polarization"],
)
def test_last_round_is_within_the_target_and_rounds_only_prune(config: TrialConfig, tmp_path: Path) -> None:
    storage = new_storage(tmp_path)
    result = run(config, storage, custom_files=planned_timings(tmp_path, config))
    points = metric_points(config, storage)
    shares = {step: share for (name, step), share in points.items() if name == LATENCY_METRIC and share is not None}
    kept = [points["prune/kept_weights", step] for step in shares]
    assert config.target.latency is not None
    if config.method != "polarization":
        assert list(shares) == list(range(1, config.rounds + 1))
        assert all(share <= config.target.latency ** (step / config.rounds) * (1 + 1e-8) for step, share in shares.items())
    assert list(shares.values())[-1] == result["metrics"][LATENCY_METRIC] <= config.target.latency * (1 + 1e-8)
    assert all(later is not None and earlier is not None and later <= earlier for earlier, later in itertools.pairwise(kept))
    assert kept[-1] == result["kept_weights"]
    if config.searches_layers:
        assert result["metrics"]["prune/searched_loss"] <= result["metrics"]["prune/prior_loss"]


def test_sparse_training_starts_from_reconstructed_layers(tmp_path: Path) -> None:
    storage, weights = new_storage(tmp_path), {}
    for passes in (0, 3):
        spdy = replace(SMALL, passes=passes, global_passes=0)
        config = replace(SPDY, method="magnitude", spdy=spdy, training=tiny_training(epochs=0))
        run(config, storage, custom_files=planned_timings(tmp_path, config))
        model = load_sparse_model(trial_folder(config, storage).read("model.safetensors.zst") or b"")
        weights[passes] = model.network.get_submodule("conv3").get_parameter("weight").detach()
    dense = warmup_trainer(SPDY, storage).state_at(2).model.get_submodule("conv3").get_parameter("weight").detach()
    assert torch.equal(weights[0][weights[0] != 0], dense[weights[0] != 0])
    kept = (weights[3] != 0) & (weights[0] != 0)
    moved = (weights[3] - dense)[kept].abs()
    assert 0 < float(moved.max()) < 0.1  # by Adam, whose steps are of 1e-3
    assert float((moved > 0).float().mean()) > 0.99


@pytest.mark.slow
def test_trial_killed_at_any_write_ends_with_the_same_bits(tmp_path: Path) -> None:
    custom_files = planned_timings(tmp_path, SPDY)
    storage = CopiedStorage(str(tmp_path / "whole"), copies=tmp_path / "copies")
    model = run(SPDY, storage, custom_files=custom_files)["model_sha256"]
    points = metric_points(SPDY, storage)
    for killed in storage.killed():
        assert run(SPDY, killed, attempt=2, custom_files=custom_files)["model_sha256"] == model
        assert metric_points(SPDY, killed) == points
    assert len(storage.changes) > 8


def test_automatic_numbers_and_spdy_go_together(tmp_path: Path) -> None:
    config = replace(
        SPDY,
        warmup_epochs=4,
        warmup=WarmupConfig(auto=True, window=1, rule="overlap"),
        iterations=replace(SPDY.iterations, auto=True),
    )
    result = run(config, new_storage(tmp_path), custom_files=planned_timings(tmp_path, config))
    assert result["choices"].keys() == {"warmup_epochs", "prune_iterations"}
    assert result["metrics"][LATENCY_METRIC] <= 0.5


def test_table_decides_the_key_of_the_trial_but_not_that_of_its_warm_up(tmp_path: Path) -> None:
    keys = []
    for rest in (0.005, 0.006):
        files = planned_timings(tmp_path, SPDY, rest=rest)
        of_trial = inputs_digest(DIGITS_DIGEST, files.identities_of(SPDY))
        of_warmup = inputs_digest(DIGITS_DIGEST, files.identities_of(without_method(SPDY)))
        assert of_warmup == DIGITS_DIGEST
        keys.append((trial_key(SPDY, of_trial), warmup_key(SPDY, of_warmup)))
    assert keys[0][0] != keys[1][0]
    assert keys[0][1] == keys[1][1] == warmup_key(tiny_config(), DIGITS_DIGEST)


@pytest.mark.parametrize(
    ("config", "changes", "message"),
    [
        (
            replace(SPDY, target=TargetConfig(latency=0.05), sparsity=0.95),
            {},
            "at least 0.0664 of the time of the dense network",
        ),
        (
            replace(CHANNELS, target=TargetConfig(latency=0.05), sparsity=0.95),
            {},
            "one channel in each layer must stay, which is",
        ),
        (SPDY, {"network": "vgg11"}, "timings: must be of the network convnet for images of 1 x 8 x 8, got vgg11"),
    ],
)
def test_refused_before_the_warm_up(config: TrialConfig, changes: dict[str, str], message: str, tmp_path: Path) -> None:
    storage = new_storage(tmp_path)
    with pytest.raises(ConfigError, match=message):
        run(config, storage, custom_files=planned_timings(tmp_path, config, **changes))
    assert not list(Path(tmp_path).glob("warmups/*/epoch-*"))
    (case,) = cases_of([replace(config, warmup_epochs=0), config])
    files = planned_timings(tmp_path, config, **changes)
    (finding,) = examine_network(case, (1, 8, 8), 10, RUNTIME, [10], files).findings
    assert (finding.severity, finding.check) == ("error", "network")
    assert message in finding.message


def test_other_or_missing_table_is_refused(tmp_path: Path) -> None:
    files = planned_timings(tmp_path, SPDY)
    assert files.missing(SPDY) is None
    table = Path(str(files.timings))
    table.write_text(json.dumps(convnet_record(rest=1)))
    with pytest.raises(ConfigError, match=r"timings: must be the file that the sweep was planned with \(SHA-256 "):
        run(SPDY, new_storage(tmp_path), custom_files=files)
    table.unlink()
    assert "timings: no file" in str(files.missing(SPDY))
    with pytest.raises(ConfigError, match="timings must be a file that can be read"):
        files.with_digests([SPDY])
    with pytest.raises(ConfigError, match=r"must be given with target\.latency, got none; the command timings measures one"):
        replace(files, timings=None).with_digests([SPDY])

"""Trials that are killed, stopped or superseded end with the same model and points, or publish nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.storage.base import Storage
from orchestrator.storage.layout import stop_files
from orchestrator.storage.local import LocalStorage
from tests.support.killed_trials import CopiedStorage, Fuse, KilledError, MortalStorage
from tests.support.trials import (
    SWEEP,
    Points,
    all_files,
    metric_lines,
    metric_points,
    new_storage,
    run,
    stop_at,
    tiny_config,
    tiny_training,
    trial_context,
    trial_folder,
    undisturbed,
    warmup_folder,
)
from trainables.config.methods import ConsensusConfig, DriveConfig, HapConfig
from trainables.config.spiking import SpikingConfig
from trainables.config.trial import TrialConfig
from trainables.errors import StaleAttemptError, StopRequestedError
from trainables.models.registry import dense_network_of, network_of
from trainables.trial.checkpoint import TrialState, from_bytes
from trainables.trial.runner import run_trial

PLAIN = tiny_config()
REWOUND = tiny_config(rewind="epoch 1", options=DriveConfig(normalize="rank"), training=tiny_training(epochs=1))
DENSE = tiny_config(method="dense", warmup_epochs=0, training=tiny_training(epochs=3))
CHANNELS = replace(REWOUND, granularity="channel")
BLOCKS = replace(REWOUND, block="orepa")
FITTED = tiny_config(method="cap", warmup_epochs=1, sparsity=0.5, training=tiny_training(epochs=1))
IMPLANTED = tiny_config(
    method="hap", warmup_epochs=1, sparsity=0.5, options=HapConfig(implant=0.4, probes=2), training=tiny_training(epochs=1)
)
POLARIZED = tiny_config(method="polarization", warmup_epochs=1, sparsity=0.5, training=tiny_training(epochs=3))
SAMPLED = SpikingConfig(rule="sltt-k", steps=3, sampled_steps=2)
SPIKING = tiny_config(warmup_epochs=1, prune_iterations=1, training=tiny_training(spiking=SAMPLED))
CONSENSUS = replace(POLARIZED, method="consensus", options=ConsensusConfig(end=0.8))
DENSE_BLOCKS = replace(DENSE, block="orepa", training=tiny_training(epochs=2))


def check_ends_alike(config: TrialConfig, storage: Storage, expected: tuple[str, Points], attempt: int) -> None:
    """The next attempt ends with the same model and points, and what was published before keeps its time."""
    before = {(line["key"], line["step"]): line for line in metric_lines(config, storage)}
    result = run(config, storage, attempt)
    assert result["model_sha256"] == expected[0]
    assert trial_folder(config, storage).read("checkpoint") is None
    points = metric_points(config, storage)
    assert points == expected[1]
    after = {(line["key"], line["step"]): line for line in metric_lines(config, storage)}
    assert {place: after[place] for place in before} == before
    assert result["metric_points"] == len(points)
    assert result["metrics"] == {line["key"]: line["value"] for line in sorted(after.values(), key=lambda line: line["step"])}


def check_metrics_cover_checkpoint(config: TrialConfig, storage: Storage) -> None:
    """Whoever reads metrics.jsonl knows every point that the checkpoint carries."""
    content = trial_folder(config, storage).read("checkpoint")
    if content is not None:
        folder = trial_folder(config, storage)
        network = (dense_network_of if config.is_dense else network_of)(config, (1, 8, 8), 10)
        carried = from_bytes(content, network, config.training, folder.key).metrics.points()
        lines = metric_lines(config, storage)
        assert all(point.to_json() in lines for point in carried)


@pytest.mark.parametrize(
    ("config", "before"),
    [
        (PLAIN, False),
        (PLAIN, True),
        (REWOUND, False),
        (DENSE, False),
        (CHANNELS, False),
        (BLOCKS, False),
        (DENSE_BLOCKS, False),
        (FITTED, False),
        (IMPLANTED, False),
        (POLARIZED, False),
        (SPIKING, False),
        (CONSENSUS, False),
    ],
    ids=[
        "after",
        "in the middle of",
        "rewound",
        "dense",
        "channels",
        "blocks",
        "dense blocks",
        "fitted",
        "implanted",
        "polarized",
        "spiking",
        "consensus",
    ],
)
@pytest.mark.slow
def test_trial_killed_at_any_write_ends_with_the_same_result(config: TrialConfig, before: bool, tmp_path: Path) -> None:
    whole = CopiedStorage(str(tmp_path / "whole"), tmp_path / "killed", before)
    expected = run(config, whole)["model_sha256"], metric_points(config, whole)
    for storage in whole.killed():
        check_metrics_cover_checkpoint(config, storage)
        check_ends_alike(config, storage, expected, attempt=2)
    minimum = config.warmup_epochs + config.rounds + config.sparse_epochs
    assert len(whole.changes) >= 2 * minimum  # at least points and a checkpoint of every epoch and round
    assert all(any(name.endswith(part) for name in whole.changes) for part in ("checkpoint", "metrics.jsonl", "result.json"))


def test_trial_killed_repeatedly_ends_with_the_same_result(tmp_path: Path) -> None:
    expected = undisturbed(PLAIN, tmp_path / "undisturbed")
    root = str(tmp_path / "killed")
    for attempt in range(1, 100):
        try:
            run(PLAIN, MortalStorage(root, Fuse(at=6)), attempt)
        except KilledError:
            continue
        break
    assert attempt > 3
    check_ends_alike(PLAIN, LocalStorage(root), expected, attempt)


def test_rare_checkpoints_do_not_change_the_result(tmp_path: Path) -> None:
    config = replace(PLAIN, training=tiny_training(epochs=1))
    expected = undisturbed(config, tmp_path / "undisturbed")
    whole = CopiedStorage(str(tmp_path / "whole"), tmp_path / "killed")
    run(config, whole, checkpoint_seconds=1e6)
    for storage in whole.killed():
        check_ends_alike(config, storage, expected, attempt=2)
    checkpoints = [name for name in whole.changes if name.endswith("checkpoint")]
    assert len(checkpoints) == 2  # one at the end of pruning, and its removal


def test_network_with_unsorted_layer_names_resumes_exactly(tmp_path: Path) -> None:
    config = tiny_config(model="resnet20", warmup_epochs=0, training=tiny_training(epochs=1))
    whole = run(config, new_storage(tmp_path / "undisturbed"))
    storage = new_storage(tmp_path / "stopped")
    stop_at(config, storage, lambda state: (state.phase, state.position) == ("prune", 1))
    resumed = run(config, storage, attempt=2)
    assert (resumed["model_sha256"], resumed["layers"]) == (whole["model_sha256"], whole["layers"])
    assert metric_points(config, storage) == metric_points(config, new_storage(tmp_path / "undisturbed"))


def test_damaged_checkpoint_restarts_the_trial(tmp_path: Path) -> None:
    config = replace(PLAIN, training=tiny_training(epochs=3))
    expected = undisturbed(config, tmp_path / "undisturbed")
    storage = new_storage(tmp_path / "damaged")
    stop_at(config, storage, lambda state: (state.phase, state.position) == ("train", 1))
    folder = trial_folder(config, storage)
    content = folder.read("checkpoint") or b""
    folder.publish("checkpoint", content[: len(content) // 2])
    check_ends_alike(config, storage, expected, attempt=2)


@pytest.mark.parametrize("phase", ["warmup", "prune", "train"])
def test_stopped_trial_continues_to_the_same_result(phase: str, tmp_path: Path) -> None:
    config = replace(PLAIN, prune_iterations=3, training=tiny_training(epochs=4))
    expected = undisturbed(config, tmp_path / "undisturbed")
    storage = new_storage(tmp_path / "stopped")
    stop_at(config, storage, lambda state: state.phase == phase and state.position == 1)
    assert trial_folder(config, storage).read("result.json") is None
    states: list[tuple[str, int]] = []
    run(config, storage, 2, on_progress=lambda state: states.append((state.phase, state.position)))
    first_boundary = {"warmup": ("prune", 1), "prune": ("train", 0), "train": ("train", 3)}
    assert states[0] == first_boundary[phase]  # it went on where it had stopped
    assert (run(config, storage, 2)["model_sha256"], metric_points(config, storage)) == expected


def test_stop_during_the_warmup_leaves_a_snapshot(tmp_path: Path) -> None:
    config = tiny_config(warmup_epochs=4)
    expected = undisturbed(config, tmp_path / "undisturbed")
    storage = new_storage(tmp_path / "stopped")
    stop_at(config, storage, lambda state: (state.phase, state.position) == ("warmup", 1), checkpoint_seconds=1e6)
    assert warmup_folder(config, storage).epochs() == [2]
    check_ends_alike(config, storage, expected, attempt=2)


def test_single_trial_is_stopped_by_its_key(tmp_path: Path) -> None:
    storage = new_storage(tmp_path)
    key = trial_folder(PLAIN, storage).key
    storage.write(stop_files(SWEEP, "another")[1], b"")
    assert not trial_folder(PLAIN, storage).stop_requested()
    storage.write(stop_files(SWEEP, key)[1], b"")
    with pytest.raises(StopRequestedError):
        run(PLAIN, storage)


@pytest.mark.parametrize("phase", ["warmup", "prune", "train"])
def test_superseded_attempt_publishes_nothing(phase: str, tmp_path: Path) -> None:
    storage = new_storage(tmp_path)
    seen: list[dict[str, bytes]] = []

    def supersede(state: TrialState) -> None:
        if state.phase == phase and not seen:
            trial_folder(PLAIN, storage, attempt=2).claim_attempt()
            seen.append(all_files(storage))

    with pytest.raises(StaleAttemptError, match="attempt 2 has started, attempt 1 gives up"):
        run(PLAIN, storage, 1, on_progress=supersede)
    trials = {name: content for name, content in all_files(storage).items() if name.startswith("trials/")}
    assert trials == {name: content for name, content in seen[0].items() if name.startswith("trials/")}


def test_older_attempt_cannot_start(tmp_path: Path) -> None:
    storage = new_storage(tmp_path)
    trial_folder(PLAIN, storage, attempt=3).claim_attempt()
    before = all_files(storage)
    with pytest.raises(StaleAttemptError):
        run(PLAIN, storage, attempt=2)
    assert all_files(storage) == before


def test_finished_trial_returns_its_result_and_writes_nothing(tmp_path: Path) -> None:
    root = str(tmp_path)
    first = run(PLAIN, LocalStorage(root))
    fuse = Fuse()
    storage = MortalStorage(root, fuse)
    assert run_trial(PLAIN, trial_context(PLAIN, storage)) == first
    assert fuse.names == []

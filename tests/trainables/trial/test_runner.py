"""The phases of a trial: failures, what sparse training starts from, budgets, records and snapshots."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from orchestrator.storage.base import Storage
from orchestrator.storage.layout import StageFolders, TrialFolder
from tests.support.killed_trials import Fuse, MortalStorage
from tests.support.trials import (
    DIGITS,
    RUNTIME,
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
from trainables.config.counts import kept_count
from trainables.config.trial import TrialConfig
from trainables.data.splits import load_data
from trainables.errors import ConfigError, NonFiniteError
from trainables.export.sparse_model import load_sparse_model
from trainables.models.registry import build_model, initialize
from trainables.pruning.sparse_trainers import MaskUpdater
from trainables.training.loop import train_epoch
from trainables.training.optimizer import make_optimizer, momentum_of
from trainables.trial.checkpoint import TrialState, from_bytes
from trainables.trial.warmup import WarmupTrainer

PLAIN = tiny_config()
DENSE = tiny_config(method="dense", warmup_epochs=0, training=tiny_training(epochs=3))


def test_diverging_loss_ends_the_trial(tmp_path: Path) -> None:
    config = tiny_config(warmup_epochs=1, training=tiny_training(lr=1e30))
    with pytest.raises(NonFiniteError, match=r"the training loss became (nan|inf) in epoch 1 \(learning rate 1e\+30\)"):
        run(config, new_storage(tmp_path))


def test_divergence_at_the_last_step_ends_the_trial(tmp_path: Path) -> None:
    config = tiny_config(
        method="dense", warmup_epochs=0, training=tiny_training(epochs=1, lr=1e30, batch_size=40, milestones=())
    )
    storage = new_storage(tmp_path)
    with pytest.raises(NonFiniteError, match=r"loss became (nan|inf)"):
        run(config, storage)
    assert trial_folder(config, storage).read("result.json") is None


def test_exclude_pattern_without_a_match_ends_the_trial(tmp_path: Path) -> None:
    config = tiny_config(prunable=replace(PLAIN.prunable, exclude=("nothing",)))
    with pytest.raises(ConfigError):
        run(config, new_storage(tmp_path))


def start_of_training(config: TrialConfig, storage: Storage) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
    """Weights and buffers, masks, and momentum right before sparse training, as its checkpoint holds them."""
    states: list[TrialState] = []

    def look(state: TrialState) -> None:
        if (state.phase, state.position) == ("train", 0):
            folder = trial_folder(config, storage)
            content = folder.read("checkpoint")
            assert content is not None
            states.append(from_bytes(content, build_model("convnet", (1, 8, 8), 10), config.training, folder.key))
            alive = state.model.state_dict()
            assert all(torch.equal(tensor, alive[name]) for name, tensor in states[0].model.state_dict().items())
            assert momentum_of(state.optimizer, state.model) == {}

    run(config, storage, on_progress=look)
    (state,) = states
    return dict(state.model.state_dict()), state.masks, momentum_of(state.optimizer, state.model)


def dense_state(config: TrialConfig, epoch: int, root: Path) -> dict[str, Tensor]:
    """The network after `epoch` dense epochs, from a trunk of its own."""
    trial = trial_context(config, new_storage(root))
    trunk = WarmupTrainer(
        config=config,
        data=load_data(config.dataset, DIGITS, "cpu"),
        runtime=RUNTIME,
        snapshots=trial.snapshots,
        snapshot_seconds=60.0,
        after_epoch=lambda state: None,
    )
    return copy.deepcopy(dict(trunk.state_at(epoch).model.state_dict()))


@pytest.mark.parametrize(("rewind", "epoch"), [("init", 0), ("epoch 1", 1), ("epoch 3", 3), ("none", 3)])
def test_sparse_training_starts_from_the_rewind_epoch(rewind: str, epoch: int, tmp_path: Path) -> None:
    config = tiny_config(warmup_epochs=3, rewind=rewind)
    weights, masks, momentum = start_of_training(config, new_storage(tmp_path / "trial"))
    expected = dense_state(config, epoch, tmp_path / "trunk")
    if rewind == "init":
        model = build_model("convnet", (1, 8, 8), 10)
        initialize(model, config.seed)
        expected = dict(model.state_dict())
    assert "norm1.running_mean" in weights
    for name, tensor in weights.items():
        kept = masks.get(name, torch.ones_like(tensor, dtype=torch.bool))
        assert torch.equal(tensor, torch.where(kept, expected[name], torch.zeros_like(tensor))), name
    assert sum(int(mask.sum()) for mask in masks.values()) == kept_count(config.sparsity, 15_248)
    assert momentum == {}


def test_rewound_trial_scores_the_weights_after_the_warmup(tmp_path: Path) -> None:
    kept = [
        start_of_training(tiny_config(warmup_epochs=3, rewind=rewind), new_storage(tmp_path / rewind))[1]
        for rewind in ("none", "init")
    ]
    assert all(torch.equal(mask, kept[1][name]) for name, mask in kept[0].items())


def test_sparse_epochs_continue_the_data_order_of_the_warmup(tmp_path: Path) -> None:
    # Sparsity 0 keeps everything, so a trial is one warm-up epoch and one more with new momentum.
    config = tiny_config(warmup_epochs=1, sparsity=0.0, training=tiny_training(epochs=1, milestones=()))
    storage = new_storage(tmp_path / "trial")
    run(config, storage)
    trained = load_sparse_model(trial_folder(config, storage).read("model.safetensors.zst") or b"").network.state_dict()

    def by_hand(epoch: int) -> dict[str, Tensor]:
        model = RUNTIME.to_device(build_model("convnet", (1, 8, 8), 10))
        model.load_state_dict(dense_state(config, 1, tmp_path / f"trunk-{epoch}"))
        data = load_data(config.dataset, DIGITS, "cpu")
        optimizer = make_optimizer(model, config.training)
        train_epoch(
            model,
            optimizer,
            MaskUpdater(),
            data,
            training=config.training,
            lr=0.05,
            seed=config.seed,
            epoch=epoch,
            runtime=RUNTIME,
        )
        return dict(model.state_dict())

    second, first_again = by_hand(1), by_hand(0)
    assert all(torch.equal(tensor, second[name]) for name, tensor in trained.items())
    assert not torch.equal(trained["head.weight"], first_again["head.weight"])


def test_total_budget_continues_the_schedule_after_the_warmup(tmp_path: Path) -> None:
    total = tiny_config(warmup_epochs=1, training=tiny_training(epochs=4, milestones=(2,), budget="total"))
    by_hand = tiny_config(warmup_epochs=1, training=tiny_training(epochs=3, milestones=(1,)))
    results = [run(config, new_storage(tmp_path / str(i))) for i, config in enumerate((total, by_hand))]
    assert results[0]["model_sha256"] == results[1]["model_sha256"]
    steps = sorted(step for key, step in metric_points(total, new_storage(tmp_path / "0")) if key == "val/accuracy")
    assert steps == [1, 2, 3, 4]
    restarted = replace(by_hand, training=tiny_training(epochs=3, milestones=(2,)))
    assert run(restarted, new_storage(tmp_path / "2"))["model_sha256"] != results[0]["model_sha256"]


def test_budget_used_up_by_the_warmup_leaves_no_sparse_epoch(tmp_path: Path) -> None:
    config = tiny_config(warmup_epochs=2, training=tiny_training(epochs=2, budget="total"))
    storage = new_storage(tmp_path)
    result = run(config, storage)
    assert result["kept_weights"] == 1525
    assert ("test/accuracy", 2) in metric_points(config, storage)


def test_dense_baseline_keeps_all_weights(tmp_path: Path) -> None:
    storage = new_storage(tmp_path)
    config = replace(DENSE, sparsity=0.9)  # asked for, but a baseline has no rounds
    result = run(config, storage)
    assert result["kept_weights"] == result["prunable_weights"] == 15_248
    assert {place for place in metric_points(config, storage) if place[0].startswith("prune/")} == {("prune/sparsity", 0)}
    assert result["metrics"]["prune/sparsity"] == 0.0
    assert result["metrics"]["cost/prune_seconds"] == 0.0
    weights = load_sparse_model(trial_folder(config, storage).read("model.safetensors.zst") or b"").network.state_dict()
    # Dense training of n epochs is a dense warm-up of n epochs, as long as the rate does not fall.
    flat = replace(config, training=tiny_training(epochs=3, milestones=()))
    run(flat, storage)
    flat_weights = load_sparse_model(trial_folder(flat, storage).read("model.safetensors.zst") or b"").network.state_dict()
    trunk = dense_state(flat, 3, tmp_path / "trunk")
    assert all(torch.equal(tensor, trunk[name]) for name, tensor in flat_weights.items())
    assert not torch.equal(weights["head.weight"], trunk["head.weight"])


def test_late_checkpoint_does_not_reopen_a_finished_trial(tmp_path: Path) -> None:
    storage, folder = new_storage(tmp_path), trial_folder(PLAIN, new_storage(tmp_path))
    checkpoints: list[bytes] = []
    result = run(PLAIN, storage, on_progress=lambda state: checkpoints.append(folder.read("checkpoint") or b""))
    before = all_files(storage)
    folder.publish("checkpoint", next(filter(None, checkpoints)))
    trained: list[TrialState] = []
    assert run(PLAIN, storage, attempt=2, on_progress=trained.append) == result
    assert trained == []
    assert all_files(storage) == before


def test_result_matches_the_files(tmp_path: Path) -> None:
    storage = new_storage(tmp_path)
    result = run(PLAIN, storage, provenance={"key": "k", "revision": "r"})
    folder = trial_folder(PLAIN, storage)
    model_file = folder.read("model.safetensors.zst") or b""
    model = load_sparse_model(model_file)
    assert json.loads(folder.read("result.json") or b"") == result
    assert folder.read("checkpoint") is None
    assert (result["key"], result["revision"], result["attempt"]) == ("k", "r", 1)
    assert (result["model_bytes"], result["model_sha256"]) == (len(model_file), model.sha256)
    assert result["kept_weights"] == kept_count(0.9, 15_248) == 1525
    assert [(layer["name"], layer["kept"]) for layer in result["layers"]] == [
        (f"{name}.weight", int(model.masks[f"{name}.weight"].sum())) for name in ("conv1", "conv2", "conv3", "head")
    ]
    assert result["fingerprints"] == [RUNTIME.fingerprint()]
    assert result["started_ms"] <= min(line["time"] for line in metric_lines(PLAIN, storage)) <= result["finished_ms"]


def test_points_have_the_steps_of_epochs_and_rounds(tmp_path: Path) -> None:
    storage = new_storage(tmp_path)
    run(PLAIN, storage)
    steps: dict[str, list[int]] = {}
    for key, step in metric_points(PLAIN, storage):
        steps.setdefault(key, []).append(step)
    assert steps["train/loss"] == steps["val/accuracy"] == [1, 2, 3, 4]
    assert steps["prune/sparsity"] == steps["prune/rank_correlation_magnitude"] == [1, 2]
    assert steps["test/accuracy"] == steps["cost/total_seconds"] == steps["model/bytes"] == [4]


def test_costs_add_up(tmp_path: Path) -> None:
    metrics: dict[str, Any] = run(PLAIN, new_storage(tmp_path))["metrics"]
    warmup, prune, total = (metrics[f"cost/{part}_seconds"] for part in ("warmup", "prune", "total"))
    assert metrics["cost/search_seconds"] == warmup + prune
    epoch = (total - prune) / 4
    assert metrics["cost/prune_dense_epochs"] == pytest.approx(prune / epoch)
    assert metrics["cost/search_dense_epochs"] == pytest.approx((warmup + prune) / epoch)
    assert min(warmup, prune, total - warmup - prune) > 0


def test_points_are_published_when_they_are_due(tmp_path: Path) -> None:
    """With rare publication only phase ends and the end of the trial publish, and nothing is lost."""
    expected = undisturbed(PLAIN, tmp_path / "undisturbed")
    fuse = Fuse()
    storage = MortalStorage(str(tmp_path / "rare"), fuse)
    result = run(PLAIN, storage, checkpoint_seconds=1e6, metrics_seconds=1e6)
    assert (result["model_sha256"], metric_points(PLAIN, storage)) == expected
    assert [name.rpartition("/")[2] for name in fuse.names if name.endswith("metrics.jsonl")] == ["metrics.jsonl"] * 2


def test_trial_leaves_snapshots_at_its_warmup_lengths(tmp_path: Path) -> None:
    storage = new_storage(tmp_path)
    run(tiny_config(warmup_epochs=3, rewind="epoch 2"), storage)
    assert warmup_folder(tiny_config(), storage).epochs() == [2, 3]


def test_private_snapshots_are_removed_after_the_trial(tmp_path: Path) -> None:
    config, storage = tiny_config(warmup_epochs=3, rewind="epoch 2"), new_storage(tmp_path / "own")
    key = trial_folder(config, storage).key
    private = StageFolders(storage, None).private_warmups(key, RUNTIME.fingerprint_id())
    seen: list[list[int]] = []
    result = run(
        config, storage, snapshots=private, shares_snapshots=False, on_progress=lambda state: seen.append(private.epochs())
    )
    assert [2, 3] in seen  # they were there
    assert list(Path(storage.root, f"trials/{key}/warmup").iterdir()) == []
    assert not storage.exists("warmups")
    assert result["model_sha256"] == run(config, new_storage(tmp_path / "shared"))["model_sha256"]


def test_stopped_trial_keeps_private_snapshots(tmp_path: Path) -> None:
    config, storage = tiny_config(warmup_epochs=3), new_storage(tmp_path)
    private = StageFolders(storage, None).private_warmups(trial_folder(config, storage).key, RUNTIME.fingerprint_id())
    unshared: dict[str, Any] = {"snapshots": private, "shares_snapshots": False}
    stop_at(config, storage, lambda state: (state.phase, state.position) == ("warmup", 1), **unshared)
    assert private.epochs() == [2]
    run(config, storage, 2, **unshared)
    assert private.epochs() == []


def test_attempts_are_numbered(tmp_path: Path) -> None:
    storage = new_storage(tmp_path)
    TrialFolder(storage, "k", 4).claim_attempt()
    assert storage.read_json("trials/k/attempt.json")["attempt"] == 4

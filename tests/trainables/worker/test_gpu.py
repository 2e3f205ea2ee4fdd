"""The same guarantees on a CUDA device: equal results, exact counts, compiled bf16 training."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from orchestrator.storage.layout import StageFolders
from tests.support.trials import DIGITS, metric_points, new_storage, run, tiny_config, trial_folder, warmup_folder
from trainables.config.methods import DriveConfig
from trainables.data.splits import load_data
from trainables.models.prunable import prunable_weights
from trainables.models.registry import build_model, initialize
from trainables.pruning.masks import full_masks, num_kept
from trainables.pruning.rounds import prune_round
from trainables.pruning.sparsity_schedules import kept_after_round
from trainables.runtime.device import Runtime
from trainables.worker.probe import compile_problem

DEVICE = "cuda"
DETERMINISTIC = Runtime(device=DEVICE, deterministic=True)
FAST = Runtime(device=DEVICE, deterministic=False, precision="bf16", channels_last=True, compile=True)

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")]


def test_shared_and_private_warmups_are_equal_on_gpu(tmp_path: Path) -> None:
    config = tiny_config(model="resnet20", warmup_epochs=3)
    shared = new_storage(tmp_path / "shared")
    snapshots = warmup_folder(config, shared, DETERMINISTIC)
    run(tiny_config(model="resnet20", warmup_epochs=1), shared, runtime=DETERMINISTIC, snapshots=snapshots)
    assert snapshots.epochs() == [1]
    from_snapshot = run(config, shared, runtime=DETERMINISTIC, snapshots=snapshots)

    storage = new_storage(tmp_path / "own")
    private = StageFolders(storage, None).private_warmups(trial_folder(config, storage).key, DETERMINISTIC.fingerprint_id())
    alone = run(config, storage, runtime=DETERMINISTIC, snapshots=private, shares_snapshots=False)
    assert alone["model_sha256"] == from_snapshot["model_sha256"]
    assert metric_points(config, storage) == metric_points(config, shared)
    assert {fingerprint["device"] for fingerprint in alone["fingerprints"]} == {DEVICE}


def test_rounds_reach_their_counts_with_equal_scores() -> None:
    """A constant weight is scored by its size alone, so the order of the weights decides."""
    DETERMINISTIC.activate()
    config = tiny_config(prune_iterations=4, sparsity=0.98, options=DriveConfig(magnitude=1, connection=0, convergence=0))
    model = build_model(config.model, (1, 8, 8), 10)
    initialize(model, config.seed)
    model = DETERMINISTIC.to_device(model)
    weights = prunable_weights(model)
    with torch.no_grad():
        for weight in weights.values():
            weight.fill_(0.01)
    masks = full_masks(weights)
    for round_ in range(1, 5):
        masks, metrics, _ = prune_round(
            model, weights, masks, load_data(config.dataset, DIGITS, DEVICE), config, round_, DETERMINISTIC
        )
        kept = kept_after_round(round_, 4, 0.98, 15_248, "exponential")
        assert (num_kept(masks), metrics["prune/kept_weights"]) == (kept, kept)
        flat = torch.cat([mask.flatten() for mask in masks.values()])
        assert flat[:kept].all()  # the earlier ones
        assert not flat[kept:].any()
    assert kept == 305  # 0.02 * 15,248 = 304.96


def test_trial_runs_compiled_in_bf16_and_channels_last(tmp_path: Path) -> None:
    if problem := compile_problem(DEVICE):
        pytest.skip(f"nothing can be compiled here: {problem}")
    config = tiny_config(precision="bf16")
    storage = new_storage(tmp_path)
    result = run(config, storage, runtime=FAST, snapshots=warmup_folder(config, storage, FAST))
    assert result["kept_weights"] == 1525
    (fingerprint,) = result["fingerprints"]
    assert (fingerprint["precision"], fingerprint["compile"], fingerprint["channels_last"]) == ("bf16", True, True)
    assert 0 < result["metrics"]["train/loss"] < 10

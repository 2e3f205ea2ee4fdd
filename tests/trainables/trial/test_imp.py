"""Iterative magnitude pruning against a plain loop, its published level counts, and interruption anywhere."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.killed_trials import CopiedStorage
from tests.support.trials import (
    DIGITS,
    RUNTIME,
    metric_points,
    new_storage,
    run,
    tiny_config,
    tiny_training,
    trial_folder,
)
from tests.trainables.pruning.test_scorers import digits as digits_in_float64
from trainables.config.counts import imp_levels, kept_count
from trainables.config.methods import ImpConfig
from trainables.config.trial import TrialConfig
from trainables.data.splits import load_data
from trainables.export.sparse_model import load_sparse_model
from trainables.models.prunable import prunable_weights
from trainables.models.registry import build_model, initialize
from trainables.pruning.masks import full_masks
from trainables.pruning.rounds import prune_round
from trainables.pruning.sparse_trainers import FixedMasks, MaskUpdater
from trainables.training.loop import train_epoch
from trainables.training.lr_schedules import learning_rate
from trainables.training.optimizer import make_optimizer

PRUNABLE = 15_248


@pytest.mark.parametrize(("sparsity", "levels"), [(0.9, 11), (0.95, 14), (0.98, 18), (0.99, 21), (0.2, 1), (0.36, 2), (0.0, 0)])
def test_levels_match_the_published_ones(sparsity: float, levels: int) -> None:
    assert imp_levels(sparsity, 0.2) == levels


def counts(config: TrialConfig) -> list[int]:
    model = build_model("convnet", (1, 8, 8), 10)
    initialize(model, 0)
    model = RUNTIME.to_device(model.double())
    weights = prunable_weights(model)
    masks, kept = full_masks(weights), []
    for level in range(1, config.rounds + 1):
        masks, metrics, _ = prune_round(model, weights, masks, digits_in_float64(), config, level, RUNTIME)
        kept.append(int(metrics["prune/kept_weights"]))
    return kept


def test_every_level_prunes_a_fifth_of_the_kept_weights() -> None:
    kept = counts(tiny_config(method="imp", sparsity=0.9, options=ImpConfig(exact=False)))
    assert kept == [round(PRUNABLE * 0.8**level) for level in range(1, 12)]
    assert kept[-1] < kept_count(0.9, PRUNABLE) <= kept[-2]


def test_exact_levels_end_on_the_sparsity() -> None:
    kept = counts(tiny_config(method="imp", sparsity=0.9))
    assert len(kept) == 11
    assert kept[-1] == kept_count(0.9, PRUNABLE)
    shares = [after / before for before, after in zip([PRUNABLE, *kept], kept, strict=False)]
    assert shares == pytest.approx([0.1 ** (1 / 11)] * 11, rel=1e-3)
    assert all(share > 0.8 for share in shares)


def plain_imp(config: TrialConfig) -> dict[str, torch.Tensor]:
    """The final weights by a loop that knows nothing of phases, rounds or checkpoints."""
    data = load_data(config.dataset, DIGITS, "cpu")
    model = build_model(config.model, (1, 8, 8), 10)
    initialize(model, config.seed)
    model = RUNTIME.to_device(model)

    def train(masking: Any, first: int, epochs: int, rates: list[float]) -> None:
        optimizer = make_optimizer(model, config.training)
        for epoch in range(epochs):
            train_epoch(
                model,
                optimizer,
                masking,
                data,
                training=config.training,
                lr=rates[epoch],
                seed=config.seed,
                epoch=first + epoch,
                runtime=RUNTIME,
            )

    train(MaskUpdater(), 0, config.warmup_epochs, [config.warmup_lr] * config.warmup_epochs)
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    rates = [learning_rate(epoch, config.training) for epoch in range(config.sparse_epochs)]
    names = [f"{name}.weight" for name in ("conv1", "conv2", "conv3", "head")]
    masks = {name: torch.ones_like(start[name], dtype=torch.bool) for name in names}
    assert isinstance(config.options, ImpConfig)
    levels = imp_levels(config.sparsity, config.options.fraction)
    for level in range(1, levels + 1):
        train(FixedMasks(model, masks), config.warmup_epochs, config.sparse_epochs, rates)
        left = torch.cat([model.state_dict()[name].abs()[masks[name]] for name in names]).sort(descending=True).values
        keep = round(PRUNABLE * (1 - config.sparsity) ** (level / levels))
        threshold = left[keep - 1]
        masks = {name: masks[name] & (model.state_dict()[name].abs() >= threshold) for name in names}
        model.load_state_dict({name: tensor * masks[name] if name in masks else tensor for name, tensor in start.items()})
    train(FixedMasks(model, masks), config.warmup_epochs, config.sparse_epochs, rates)
    return {name: tensor * masks[name] if name in masks else tensor for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("warmup_epochs", [0, 1])  # 0 is the original lottery ticket
def test_imp_trial_equals_a_plain_loop(warmup_epochs: int, tmp_path: Path) -> None:
    config = tiny_config(method="imp", sparsity=0.6, warmup_epochs=warmup_epochs, options=ImpConfig(fraction=0.4))
    storage = new_storage(tmp_path)
    result = run(config, storage)
    content = trial_folder(config, storage).read("model.safetensors.zst")
    assert content is not None
    network = load_sparse_model(content).network
    expected = plain_imp(config)
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, expected[name]), name
    assert result["kept_weights"] == kept_count(0.6, PRUNABLE)


def test_search_cost_covers_all_levels(tmp_path: Path) -> None:
    config = tiny_config(method="imp", sparsity=0.6, options=ImpConfig(fraction=0.4))
    storage = new_storage(tmp_path)
    metrics = run(config, storage)["metrics"]
    assert config.level_epochs == 4
    # 2 levels of 2 epochs each: about 4 epochs, beside masks and rewinding; timings of so small a trial are noisy.
    assert metrics["cost/prune_dense_epochs"] > 1.5
    points = metric_points(config, storage)
    for level in (1, 2):
        assert ("prune/val_accuracy_before", level) in points
        assert ("prune/val_accuracy_after", level) in points


@pytest.mark.slow
def test_imp_trial_resumes_to_the_same_model_and_points(tmp_path: Path) -> None:
    config = tiny_config(method="imp", sparsity=0.6, options=ImpConfig(fraction=0.4), training=tiny_training(epochs=2))
    whole = CopiedStorage(str(tmp_path / "whole"), tmp_path / "killed")
    result = run(config, whole)
    points = metric_points(config, whole)
    for storage in whole.killed():
        resumed = run(config, storage, attempt=2)
        assert (resumed["model_sha256"], resumed["layers"]) == (result["model_sha256"], result["layers"])
        assert metric_points(config, storage) == points


def test_imp_budget_continues_the_schedule_after_the_warmup() -> None:
    config = replace(tiny_config(method="imp"), training=tiny_training(epochs=6, budget="total"))
    assert (config.sparse_epochs, config.level_epochs) == (4, 44)
    assert config.rewind_epoch == config.warmup_epochs == 2


def test_reported_epochs_are_the_trained_ones() -> None:
    config = tiny_config(method="imp", sparsity=0.9)  # 11 levels of 2 epochs, a warm-up of 2, and 2 at the end
    assert (config.total_epochs, config.trained_epochs) == (4, 26)
    assert tiny_config().trained_epochs == 4

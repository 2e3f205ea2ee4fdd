"""Rounds of score and mask on a real network: what they change, and what they leave as it was."""

from __future__ import annotations

import copy
import itertools
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from tests.support import oracles as reference
from tests.support.trials import DIGITS, RUNTIME, tiny_config, tiny_training
from trainables.config.methods import DriveConfig
from trainables.config.trial import TrialConfig
from trainables.data.batches import scoring_batches, training_batches
from trainables.data.splits import Data, load_data
from trainables.models.prunable import prunable_weights
from trainables.models.registry import build_model, initialize
from trainables.pruning import scoring
from trainables.pruning.masks import Masks, apply_masks, full_masks, num_kept
from trainables.pruning.rounds import prune_round
from trainables.pruning.score_gradients import scoring_gradients
from trainables.pruning.sparse_trainers import FixedMasks
from trainables.pruning.sparsity_schedules import kept_after_round
from trainables.training.loop import train_epoch
from trainables.training.optimizer import make_optimizer, momentum_of

PRUNABLE = 15_248


def digits() -> Data:
    return load_data(tiny_config().dataset, DIGITS, "cpu")


def network(seed: int = 3, model: str = "convnet") -> nn.Module:
    built = build_model(model, (1, 8, 8), 10)
    initialize(built, seed)
    return RUNTIME.to_device(built)


def masks_of_rounds(model: nn.Module, config: TrialConfig) -> list[Masks]:
    weights = prunable_weights(model)
    history = [full_masks(weights)]
    for round_ in range(1, config.rounds + 1):
        masks, *_ = prune_round(model, weights, history[-1], digits(), config, round_, RUNTIME)
        history.append(masks)
    return history


@pytest.mark.parametrize("normalize", ["mean", "sum", "rank", "none"])
@pytest.mark.parametrize("schedule", ["exponential", "linear"])
def test_prune_round_shrinks_masks_to_the_exact_count(
    normalize: Literal["mean", "sum", "rank", "none"], schedule: Literal["exponential", "linear"]
) -> None:
    config = tiny_config(prune_iterations=5, sparsity=0.98, options=DriveConfig(normalize=normalize, density_schedule=schedule))
    model = network()
    history = masks_of_rounds(model, config)
    for round_, (before, after) in enumerate(itertools.pairwise(history), start=1):
        assert all(bool((after[name] <= before[name]).all()) for name in after)
        assert num_kept(after) == kept_after_round(round_, 5, 0.98, PRUNABLE, schedule)
    assert num_kept(history[-1]) == 305  # 0.02 * 15,248 = 304.96
    for name, weight in prunable_weights(model).items():
        assert not weight[~history[-1][name]].any()
        assert weight[history[-1][name]].all()


def test_prune_round_returns_metrics() -> None:
    config = tiny_config(prune_iterations=2, sparsity=0.9)
    model = network()
    weights = prunable_weights(model)
    masks, metrics, _ = prune_round(model, weights, full_masks(weights), digits(), config, 1, RUNTIME)
    densities = [float(mask.double().mean()) for mask in masks.values()]
    assert metrics["prune/kept_weights"] == num_kept(masks)
    assert metrics["prune/sparsity"] == 1 - num_kept(masks) / PRUNABLE
    assert metrics["prune/min_layer_density"] == pytest.approx(min(densities), rel=1e-6)
    assert metrics["prune/emptied_layers"] == sum(density == 0 for density in densities)


@pytest.mark.parametrize("how", ["mean", "sum", "none"])
def test_prune_round_keeps_the_highest_surviving_scores(how: Literal["mean", "sum", "none"]) -> None:
    config = tiny_config(prune_iterations=3, sparsity=0.9, options=DriveConfig(magnitude=0.5, connection=2, normalize=how))
    model = network()
    weights = prunable_weights(model)
    masks = full_masks(weights)
    for round_ in range(1, 4):
        before = {name: mask.numpy().copy() for name, mask in masks.items()}
        batches = scoring_batches(digits(), config.training.batch_size, 1, config.seed, round_)
        _, grads = scoring_gradients(model, weights, batches, RUNTIME)
        values = {name: weight.detach().numpy().copy() for name, weight in weights.items()}
        score = reference.drive_score(values, {n: g.numpy() for n, g in grads.items()}, before, (0.5, 2.0, 1.0), how)
        masks, *_ = prune_round(model, weights, masks, digits(), config, round_, RUNTIME)
        kept = np.concatenate([score[name][mask.numpy()] for name, mask in masks.items()])
        dropped = np.concatenate([score[name][before[name] & ~mask.numpy()] for name, mask in masks.items()])
        assert len(kept) == kept_after_round(round_, 3, 0.9, PRUNABLE, "exponential")
        assert len(kept) + len(dropped) == sum(mask.sum() for mask in before.values())
        assert not np.isnan(kept).any()  # nothing that was pruned came back
        assert kept.min() > dropped.max() * (1 - 1e-5)  # float32 against float64


@pytest.mark.parametrize("how", ["mean", "sum", "rank", "none"])
def test_prune_round_ignores_gradients_of_pruned_weights(
    how: Literal["mean", "sum", "rank", "none"], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(prune_iterations=2, options=DriveConfig(normalize=how))
    expected = masks_of_rounds(network(), config)[-1]
    model = network()
    weights = prunable_weights(model)
    first, *_ = prune_round(model, weights, full_masks(weights), digits(), config, 1, RUNTIME)
    real = scoring_gradients
    spoilt: list[int] = []

    def spoiling(*arguments: Any, **named: Any) -> tuple[Tensor, dict[str, Tensor]]:
        loss, grads = real(*arguments, **named)
        spoilt.append(sum(int(grad[~first[name]].count_nonzero()) for name, grad in grads.items()))
        return loss, {name: grad.masked_fill(~first[name], float("nan")) for name, grad in grads.items()}

    monkeypatch.setattr(scoring, "scoring_gradients", spoiling)
    masks, metrics, _ = prune_round(model, weights, first, digits(), config, 2, RUNTIME)
    assert spoilt[0] > 1000  # they had gradients
    assert reference.positions(masks) == reference.positions(expected)
    assert all(np.isfinite(value) for value in metrics.values())


def test_magnitude_rounds_without_training_equal_one_shot() -> None:
    drive = DriveConfig(magnitude=1, connection=0, convergence=0)
    last = [
        masks_of_rounds(network(), tiny_config(prune_iterations=rounds, sparsity=0.95, options=drive))[-1] for rounds in (1, 7)
    ]
    assert reference.positions(last[0]) == reference.positions(last[1])
    assert num_kept(last[0]) == 762  # 762.4


class Wobbly(nn.Module):
    """BN and dropout, which both depend on the mode of their module."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(4 * 36, 10)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.drop(torch.relu(self.norm(self.conv(images)))).flatten(1))
        return logits


@pytest.mark.parametrize("training", [True, False])
def test_scoring_does_not_change_the_network(training: bool) -> None:
    model = Wobbly()
    initialize(model, seed=1)
    model.train(training)
    model.conv.train(not training)  # modes are kept one by one
    for step, parameter in enumerate(model.parameters()):
        parameter.grad = None if step == 0 else torch.full_like(parameter, float(step))
    grads = [None if parameter.grad is None else parameter.grad.clone() for parameter in model.parameters()]
    state = copy.deepcopy(model.state_dict())
    modes = [module.training for module in model.modules()]
    torch.manual_seed(5)
    generator_state = torch.get_rng_state()

    scoring_gradients(model, prunable_weights(model), scoring_batches(digits(), 40, 2, 0, 1), RUNTIME)

    assert {"norm.running_mean", "norm.running_var", "norm.num_batches_tracked"} <= set(state)
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    for parameter, grad in zip(model.parameters(), grads, strict=True):
        assert (parameter.grad is None) if grad is None else torch.equal(parameter.grad, grad)  # type: ignore[arg-type]
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), generator_state)


def test_scoring_mode_is_restored_after_an_error() -> None:
    model = network().train()
    with pytest.raises(RuntimeError):
        scoring_gradients(model, prunable_weights(model), [(torch.ones(1, 3, 8, 8), torch.zeros(1).long())], RUNTIME)
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize("training", [True, False])
def test_scoring_uses_batch_statistics_and_no_dropout(training: bool) -> None:
    model = Wobbly()
    initialize(model, seed=1)
    images, labels = next(scoring_batches(digits(), 40, 1, 0, 1))
    plain = nn.Sequential(model.conv, model.norm, nn.ReLU(), nn.Flatten(), model.head)
    with torch.no_grad():
        expected = cross_entropy(copy.deepcopy(plain).train()(images), labels)
        with_running_statistics = cross_entropy(copy.deepcopy(plain).eval()(images), labels)
    loss, _ = scoring_gradients(model.train(training), prunable_weights(model), [(images, labels)], RUNTIME)
    assert float(loss) == pytest.approx(float(expected), rel=1e-6)
    assert float(loss) != pytest.approx(float(with_running_statistics), rel=1e-2)


def test_scoring_gradients_are_the_mean_over_batches() -> None:
    model = network()
    weights = prunable_weights(model)
    batches = list(scoring_batches(digits(), 20, 4, seed=0, round_=1))
    loss, grads = scoring_gradients(model, weights, batches, RUNTIME)
    single = [scoring_gradients(model, weights, [batch], RUNTIME) for batch in batches]
    assert float(loss) == pytest.approx(float(np.mean([float(part) for part, _ in single])), rel=1e-6)
    for name, grad in grads.items():
        parts = np.stack([part[name].numpy().astype(np.float64) for _, part in single])
        np.testing.assert_allclose(grad.numpy(), parts.mean(axis=0), rtol=1e-4, atol=1e-7)
        assert not np.allclose(grad.abs().numpy(), np.abs(parts).mean(axis=0), rtol=1e-2)


def test_scoring_gradients_are_those_of_the_mean_loss() -> None:
    model = network().train()
    images, labels = next(scoring_batches(digits(), 40, 1, 0, 1))
    weights = prunable_weights(model)
    loss, grads = scoring_gradients(model, weights, [(images, labels)], RUNTIME)
    plain = copy.deepcopy(model)
    expected = cross_entropy(plain(images), labels)
    expected.backward()
    assert torch.equal(loss, expected.detach())
    for name, parameter in plain.named_parameters():
        if name in grads:
            assert parameter.grad is not None
            assert torch.equal(grads[name], parameter.grad)


def train(model: nn.Module, optimizer: torch.optim.SGD, masks: Masks, config: TrialConfig, epoch: int) -> None:
    train_epoch(
        model,
        optimizer,
        FixedMasks(model, masks),
        digits(),
        training=config.training,
        lr=config.training.lr,
        seed=config.seed,
        epoch=epoch,
        runtime=RUNTIME,
    )


@pytest.mark.parametrize("nesterov", [False, True])
def test_fixed_masks_keep_pruned_weights_zero(nesterov: bool) -> None:
    config = tiny_config(prune_iterations=2, training=tiny_training(nesterov=nesterov, weight_decay=1e-2))
    model = network()
    optimizer = make_optimizer(model, config.training)
    train(model, optimizer, {}, config, epoch=0)
    masks = masks_of_rounds(model, config)[-1]
    weights = prunable_weights(model)
    assert all(bool(momentum_of(optimizer, model)[name][~masks[name]].any()) for name in masks)  # it would bring them back
    for epoch in (1, 2):
        train(model, optimizer, masks, config, epoch)
        for name, weight in weights.items():
            assert not weight[~masks[name]].any()
            assert weight[masks[name]].all()


@pytest.mark.parametrize("nesterov", [False, True])
def test_epoch_with_masks_equals_a_naive_loop(nesterov: bool) -> None:
    config = tiny_config(training=tiny_training(batch_size=20, nesterov=nesterov, weight_decay=1e-2))
    model, naive = network(), network()
    masks = masks_of_rounds(model, replace(config, prune_iterations=1))[-1]
    naive.load_state_dict(model.state_dict())
    train(model, make_optimizer(model, config.training), masks, config, epoch=4)

    naive.train()
    buffers: dict[str, Any] = {name: None for name, _ in naive.named_parameters()}
    for images, labels in training_batches(digits(), 20, config.seed, epoch=4):
        naive.zero_grad()
        cross_entropy(naive(images), labels).backward()
        with torch.no_grad():
            for name, parameter in naive.named_parameters():
                assert parameter.grad is not None
                value, buffers[name] = reference.sgd_step(
                    parameter.numpy().astype(np.float64),
                    parameter.grad.numpy().astype(np.float64),
                    buffers[name],
                    lr=config.training.lr,
                    momentum=0.9,
                    nesterov=nesterov,
                    weight_decay=1e-2,
                )
                kept = masks[name].numpy() if name in masks else 1.0
                parameter.copy_(torch.from_numpy(value * kept))
    for (name, parameter), expected in zip(model.named_parameters(), naive.parameters(), strict=True):
        torch.testing.assert_close(parameter, expected, rtol=1e-3, atol=1e-5, msg=name)


def test_prune_round_ignores_the_random_state_of_the_process() -> None:
    config = tiny_config(prune_iterations=2)
    torch.manual_seed(1)
    first = masks_of_rounds(network(), config)[-1]
    torch.manual_seed(2)
    second = masks_of_rounds(network(), config)[-1]
    assert reference.positions(first) == reference.positions(second)


def test_prune_round_applies_masks_in_place() -> None:
    model = network()
    weights = prunable_weights(model)
    apply_masks(weights, {name: torch.zeros_like(weight, dtype=torch.bool) for name, weight in weights.items()})
    assert not any(weight.any() for weight in prunable_weights(model).values())

"""Methods that prune during training, against their equations written another way and against plain loops."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.support.killed_trials import CopiedStorage
from tests.support.trials import (
    RUNTIME,
    metric_points,
    new_storage,
    run,
    tiny_config,
    trial_folder,
)
from trainables.config.counts import kept_count
from trainables.config.methods import METHODS, GmpConfig, GranetConfig, SrsteConfig
from trainables.config.trial import TrialConfig
from trainables.errors import ConfigError
from trainables.export.sparse_model import load_sparse_model
from trainables.models.prunable import prunable_weights
from trainables.models.registry import build_model, initialize
from trainables.pruning.gradual_masks import GmpMasks, prune_and_regrow, regrown_share
from trainables.pruning.masks import Masks, full_masks, num_kept
from trainables.pruning.nm_masks import NMMasks, pattern_masks
from trainables.pruning.sparse_trainers import MaskUpdater, SparseTraining, updater_class
from trainables.pruning.sparsity_distributions import erk
from trainables.pruning.sparsity_schedules import kept_on_cubic_schedule
from trainables.training.loop import train_epoch
from trainables.training.optimizer import make_optimizer

PRUNABLE = 15_248
STEPS = 20


def network() -> nn.Module:
    model = build_model("convnet", (1, 8, 8), 10)
    initialize(model, 0)
    return RUNTIME.to_device(model)


def initial_masks(model: nn.Module, config: TrialConfig) -> Masks:
    return updater_class(config).initial_masks(model, config)


def started(model: nn.Module, optimizer: torch.optim.SGD, masks: Masks, config: TrialConfig, first_step: int = 0) -> GmpMasks:
    training = SparseTraining(model=model, optimizer=optimizer, masks=masks, config=config, first_step=first_step, steps=STEPS)
    updater = updater_class(config).start(training)
    assert isinstance(updater, GmpMasks)
    return updater


def moved(config: TrialConfig, first_step: int = 0) -> tuple[nn.Module, torch.optim.SGD, GmpMasks]:
    """A network with gradients and momentum of a step, and its updater."""
    model = network()
    optimizer = make_optimizer(model, config.training)
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    updater = started(model, optimizer, initial_masks(model, config), config, first_step)
    updater.after_step(0)
    optimizer.step()
    return model, optimizer, updater


@pytest.mark.parametrize(("first", "last"), [(0.0, 0.9), (0.5, 0.98), (0.3, 0.3)])
def test_cubic_schedule_has_the_given_start_and_end(first: float, last: float) -> None:
    kept = [kept_on_cubic_schedule(k, 8, first, last, 100_000) for k in range(9)]
    assert kept[0] == round(100_000 * (1 - first))
    assert kept[-1] == kept_count(last, 100_000)
    for k, count in enumerate(kept):  # s_k = s + (s_0 - s) (1 - k/N)^3, the sparsity of k updates
        assert 1 - count / 100_000 == pytest.approx(last - (last - first) * (1 - k / 8) ** 3, abs=1e-5)


def test_cubic_schedule_starts_at_most_at_the_target() -> None:
    assert [kept_on_cubic_schedule(k, 4, 0.95, 0.9, 1000) for k in range(5)] == [100] * 5


def test_gmp_follows_the_cubic_schedule() -> None:
    config = tiny_config(method="gmp", prune_iterations=4, sparsity=0.9, options=GmpConfig(begin=0.2, end=0.8))
    _, _, updater = moved(config)
    counts, before = [], updater.masks
    for step in range(1, STEPS + 1):
        updater.after_step(step)
        counts.append(num_kept(updater.masks))
        assert not any((updater.masks[name] & ~before[name]).any() for name in before)
        before = updater.masks
    # 4 updates between steps 4 and 16, so after steps 7, 10, 13 and 16.
    expected = [PRUNABLE] * 6 + [kept_on_cubic_schedule(k, 4, 0.0, 0.9, PRUNABLE) for k in (1, 2, 3) for _ in range(3)]
    assert counts == expected + [kept_count(0.9, PRUNABLE)] * 5


def test_gmp_keeps_the_largest_weights_of_the_whole_network() -> None:
    config = tiny_config(method="gmp", prune_iterations=1, options=GmpConfig(end=0.5))
    model, _, updater = moved(config)
    sizes = torch.cat([weight.detach().abs().flatten() for weight in prunable_weights(model).values()])
    updater.after_step(10)
    expected = sizes >= sizes.sort(descending=True).values[kept_count(0.9, PRUNABLE) - 1]
    assert torch.equal(torch.cat([mask.flatten() for mask in updater.masks.values()]), expected)
    for name, weight in prunable_weights(model).items():
        assert not weight.detach()[~updater.masks[name]].any()


def test_granet_starts_with_a_random_erk_mask() -> None:
    model = network()
    masks = initial_masks(model, tiny_config(method="granet", options=GranetConfig(initial_sparsity=0.6)))
    shapes = {name: tuple(mask.shape) for name, mask in masks.items()}
    assert num_kept(masks) == kept_count(0.6, PRUNABLE)
    for name, density in erk(shapes, num_kept(masks) / PRUNABLE).items():
        assert abs(int(masks[name].sum()) - density * masks[name].numel()) <= 1
    other = initial_masks(model, tiny_config(method="granet", options=GranetConfig(initial_sparsity=0.6), seed=1))
    assert not torch.equal(masks["conv3.weight"], other["conv3.weight"])


def test_granet_replaces_smallest_weights_by_largest_gradients() -> None:
    weight = torch.tensor([5.0, 1.0, 4.0, 2.0, 0.0, 0.0, 0.0, 0.0])
    slopes = torch.tensor([0.0, 0.1, 0.0, 9.0, 7.0, 8.0, 1.0, 0.0])
    mask = torch.tensor([1, 1, 1, 1, 0, 0, 0, 0], dtype=torch.bool)
    # Half of the four kept go: sizes 1 and 2. The largest gradients among the rest: 9, of one that just went, and 8.
    assert prune_and_regrow(weight, mask, slopes, 0.5).tolist() == [True, False, True, True, False, True, False, False]
    assert prune_and_regrow(weight, mask, slopes, 0.2).equal(mask)
    assert prune_and_regrow(weight, mask, slopes, 0.3).tolist() == [True, False, True, True, False, True, False, False]
    assert mask.tolist() == [True] * 4 + [False] * 4


def test_granet_regrows_less_and_less() -> None:
    assert regrown_share(0, 100, 0.5) == pytest.approx(0.5)
    assert regrown_share(50, 100, 0.5) == pytest.approx((0.5 + 0.005) / 2)
    assert regrown_share(100, 100, 0.5) == pytest.approx(0.005)


def test_granet_regrows_weights_without_momentum() -> None:
    config = tiny_config(method="granet", prune_iterations=4, options=GranetConfig(end=0.8))
    model, optimizer, updater = moved(config)
    weights = prunable_weights(model)
    before = updater.masks
    sizes = {name: weight.detach().abs().clone() for name, weight in weights.items()}
    slopes = {name: weight.grad.abs() for name, weight in weights.items() if weight.grad is not None}
    updater.after_backward(4)
    updater.after_step(4)
    assert num_kept(updater.masks) == kept_on_cubic_schedule(1, 4, 0.5, 0.9, PRUNABLE)
    grown = 0
    for name, weight in weights.items():
        new = updater.masks[name] & ~before[name]
        lost = before[name] & ~updater.masks[name]
        kept = updater.masks[name] & before[name]
        grown += int(new.sum())
        assert not weight.detach()[new].any()
        assert not optimizer.state[weight]["momentum_buffer"][new].any()
        assert not weight.detach()[~updater.masks[name]].any()
        never = ~before[name] & ~updater.masks[name]
        if new.any() and never.any():
            assert slopes[name][new].min() >= slopes[name][never].max()
        if lost.any() and kept.any() and not new.all():
            assert sizes[name][kept].max() > sizes[name][lost].max()
    assert grown > 0


def test_resume_does_not_repeat_updates() -> None:
    config = tiny_config(method="granet", prune_iterations=4, options=GranetConfig(end=0.8))
    _, _, updater = moved(config, first_step=8)
    before = updater.masks
    updater.after_step(9)
    assert updater.masks is before
    updater.after_step(12)
    assert updater.masks is not before


def test_granet_continues_updates_at_the_target_sparsity() -> None:
    config = tiny_config(method="granet", prune_iterations=2, options=GranetConfig(end=0.5))
    model, _, updater = moved(config)
    changed = []
    for step in range(1, STEPS + 1):
        before = updater.masks
        for parameter in model.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(step))
        updater.after_backward(step)
        updater.after_step(step)
        if any(not torch.equal(updater.masks[name], before[name]) for name in before):
            changed.append((step, num_kept(updater.masks)))
    final = kept_count(0.9, PRUNABLE)
    # Updates after steps 5 and 10, and at that pace on; at the last step there is no training left for new weights.
    assert changed == [(5, kept_on_cubic_schedule(1, 2, 0.5, 0.9, PRUNABLE)), (10, final), (15, final)]


def test_granet_ranks_by_gradients_without_nesterov() -> None:
    training = replace(tiny_config().training, nesterov=True, weight_decay=0.0)
    config = tiny_config(method="granet", prune_iterations=4, options=GranetConfig(end=0.8), training=training)
    model, optimizer, updater = moved(config)
    weights = prunable_weights(model)
    gradients = {
        name: torch.randn(weight.shape, generator=torch.Generator().manual_seed(2)) for name, weight in weights.items()
    }
    for name, weight in weights.items():
        weight.grad = gradients[name].clone()
    before = updater.masks
    updater.after_backward(4)
    optimizer.step()
    updater.after_step(4)
    grown = {name: updater.masks[name] & ~before[name] for name in weights}
    never = {name: ~updater.masks[name] & ~before[name] for name in weights}
    assert any(bool(one.any()) for one in grown.values())
    for name, gradient in gradients.items():
        if grown[name].any() and never[name].any():
            assert gradient[grown[name]].abs().min() >= gradient[never[name]].abs().max()


def test_gmp_starts_at_the_initial_sparsity_by_magnitude() -> None:
    model = network()
    masks = initial_masks(model, tiny_config(method="gmp", options=GmpConfig(initial_sparsity=0.4)))
    sizes = torch.cat([weight.detach().abs().flatten() for weight in prunable_weights(model).values()])
    expected = sizes >= sizes.sort(descending=True).values[kept_count(0.4, PRUNABLE) - 1]
    assert torch.equal(torch.cat([mask.flatten() for mask in masks.values()]), expected)


@pytest.mark.parametrize("method", ["gmp", "granet"])
def test_updates_at_the_last_step_take_place(method: Any) -> None:
    late = {"gmp": GmpConfig(begin=0.98, end=1.0), "granet": GranetConfig(begin=0.98, end=1.0)}
    _, _, updater = moved(tiny_config(method=method, prune_iterations=3, options=late[method]))
    for step in range(1, STEPS + 1):
        updater.after_step(step)
    assert num_kept(updater.masks) == kept_count(0.9, PRUNABLE)


def test_nm_masks_reject_a_pattern_that_no_layer_supports() -> None:
    with pytest.raises(ConfigError, match=r"srste\.pattern: no layer has a multiple of 5 input channels, got 2:5"):
        initial_masks(network(), tiny_config(method="srste", options=SrsteConfig(pattern="2:5"), sparsity=0.6))


def test_nm_masks_report_layers_that_stay_dense(caplog: pytest.LogCaptureFixture) -> None:
    config = tiny_config(method="srste", options=SrsteConfig(pattern="1:32"), sparsity=31 / 32)
    initial_masks(network(), config)
    (record,) = caplog.records
    assert "1:32 reaches sparsity 0.6" in record.getMessage()
    assert "conv1.weight, conv2.weight stay dense" in record.getMessage()
    caplog.clear()
    initial_masks(network(), tiny_config(method="srste", sparsity=0.5))
    assert not caplog.records


@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 4), (2, 8), (3, 4)])
def test_nm_masks_keep_the_largest_of_every_group(n: int, m: int) -> None:
    weights: dict[str, Tensor] = {
        "conv": torch.randn(3, 16, 3, 3),
        "linear": torch.randn(5, 16),
        "stem": torch.randn(4, 3, 3, 3),
    }
    masks = pattern_masks(weights, n, m)
    assert masks["stem"].all()  # three channels are no group of m
    for name in ("conv", "linear"):
        weight, mask = weights[name].movedim(1, -1).reshape(-1, m), masks[name].movedim(1, -1).reshape(-1, m)
        assert (mask.sum(1) == n).all()
        for values, kept in zip(weight.abs(), mask, strict=True):
            assert values[kept].min() >= values[~kept].max()


def test_nm_masks_keep_the_first_of_equal_weights() -> None:
    masks = pattern_masks({"linear": torch.ones(1, 8)}, 2, 4)
    assert masks["linear"].tolist() == [[True, True, False, False] * 2]


def test_srste_step_is_the_update_of_the_paper() -> None:
    """w <- w - lr (dL/dw at m*w + decay (1 - m) w), equation 9, without momentum and weight decay."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(8, 3, bias=False))
    weights = prunable_weights(model)
    weight = weights["1.weight"]
    before, images = weight.detach().clone(), torch.randn(5, 8)
    mask = pattern_masks(weights, 2, 4)["1.weight"]
    effective = (before * mask).requires_grad_()
    (images @ effective.T).square().mean().backward()
    assert effective.grad is not None

    updater = NMMasks(weights, SrsteConfig(decay=0.3))
    updater.before_forward()
    assert torch.equal(weight.detach(), before * mask)
    model(images).square().mean().backward()
    updater.after_backward()
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    updater.after_step(1)
    torch.testing.assert_close(weight.detach(), before - 0.1 * (effective.grad + 0.3 * (~mask) * before))
    with updater.effective_weights():
        assert not weight.detach()[~updater.masks["1.weight"]].any()
    assert weight.detach()[~updater.masks["1.weight"]].all()


def test_srste_selects_weights_at_every_step() -> None:
    model = nn.Linear(4, 1, bias=False)
    updater = NMMasks({"weight": model.weight}, SrsteConfig())
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, 2.0, 3.0, 4.0]]))
    updater.after_step(1)
    assert updater.masks["weight"].tolist() == [[False, False, True, True]]
    with torch.no_grad():
        model.weight[0, 0] = 9.0
    updater.before_forward()
    assert updater.masks["weight"].tolist() == [[True, False, False, True]]


def trained(updater: Any, config: TrialConfig) -> dict[str, Tensor]:
    from tests.trainables.pruning.test_scorers import digits

    model = network().double()
    optimizer = make_optimizer(model, config.training)
    train_epoch(
        model,
        optimizer,
        updater(model, optimizer),
        digits(),
        training=config.training,
        lr=0.05,
        seed=0,
        epoch=0,
        runtime=RUNTIME,
    )
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def test_gradual_pruning_to_zero_sparsity_is_dense_training() -> None:
    config = tiny_config(method="gmp", sparsity=0.0, prune_iterations=3)
    dense = trained(lambda model, optimizer: MaskUpdater(), config)
    gradual = trained(lambda model, optimizer: started(model, optimizer, full_masks(prunable_weights(model)), config), config)
    assert all(torch.equal(dense[name], gradual[name]) for name in dense)


@pytest.mark.parametrize("method", [name for name, one in METHODS.items() if one.course.is_during_training])
def test_trial_resumes_to_the_same_model_and_points(method: Any, tmp_path: Path) -> None:
    config = tiny_config(method=method, prune_iterations=3, training=replace(tiny_config().training, epochs=4))
    whole = CopiedStorage(str(tmp_path / "whole"), tmp_path / "killed")
    result = run(config, whole)
    points = metric_points(config, whole)
    for storage in whole.killed()[::3]:
        assert run(config, storage, attempt=2)["model_sha256"] == result["model_sha256"]
        assert metric_points(config, storage) == points


@pytest.mark.parametrize("method", ["gmp", "granet"])
def test_gradual_trials_end_at_the_exact_count(method: Any, tmp_path: Path) -> None:
    config = tiny_config(method=method, prune_iterations=3, training=replace(tiny_config().training, epochs=4))
    storage = new_storage(tmp_path)
    result = run(config, storage)
    assert result["kept_weights"] == kept_count(0.9, PRUNABLE)
    points = metric_points(config, storage)
    sparsities = [points["prune/sparsity", step] for step in (0, 3, 4, 5, 6)]
    assert sparsities[0] == pytest.approx(0.0 if method == "gmp" else 0.5, abs=1e-4)
    assert sparsities == sorted(sparsities, key=lambda value: value or 0.0)
    assert sparsities[-1] == pytest.approx(0.9, abs=1e-4)
    assert all(math.isfinite(value) for value in sparsities if value is not None)


def test_nm_model_is_saved_as_nm(tmp_path: Path) -> None:
    config = tiny_config(method="srste", options=SrsteConfig(pattern="1:4"))
    storage = new_storage(tmp_path)
    result = run(config, storage)
    content = trial_folder(config, storage).read("model.safetensors.zst")
    assert content is not None
    model = load_sparse_model(content)
    assert model.patterns == dict.fromkeys(("conv2.weight", "conv3.weight", "head.weight"), "1:4")
    weight = dict(model.network.named_parameters())["conv3.weight"].detach()
    groups = weight.movedim(1, -1).reshape(-1, 4)
    assert (groups.count_nonzero(1) == 1).all()
    assert torch.equal(weight != 0, model.masks["conv3.weight"])
    assert result["kept_weights"] == num_kept(model.masks) == 144 + (PRUNABLE - 144) // 4
    scores = model.predict(torch.rand(3, 1, 8, 8))
    assert scores.isfinite().all()

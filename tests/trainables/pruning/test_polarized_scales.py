"""Training with the polarization regulariser: its gradient, the clamp, and the removal at its step."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from tests.support.trials import metric_points, new_storage, run, sparse_training, tiny_config, tiny_training
from trainables.config.methods import PolarizationConfig
from trainables.config.trial import TrialConfig
from trainables.errors import ConfigError
from trainables.models.registry import build_model, initialize
from trainables.pruning.masks import num_kept
from trainables.pruning.polarization import polarization
from trainables.pruning.polarized_scales import PolarizedScales

STEPS = 10


def config_of(**options: Any) -> TrialConfig:
    return tiny_config(method="polarization", sparsity=0.5, options=PolarizationConfig(**options))


def updater_of(config: TrialConfig, first_step: int = 0) -> PolarizedScales:
    model = build_model("convnet", (1, 8, 8), 10)
    initialize(model, 0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.1, 1.3, generator=generator)
    return PolarizedScales.start(sparse_training(config, model, steps=STEPS, first_step=first_step))


def test_gradient_is_that_of_the_regulariser_over_all_layers_together() -> None:
    updater = updater_of(config_of(penalty=0.3, strength=1.4))
    assert set(updater.scales) == {"norm1.weight", "norm2.weight", "norm3.weight"}
    joined = torch.cat(list(updater.scales.values()))
    (expected,) = torch.autograd.grad(0.3 * polarization(joined, 1.4), [joined])
    for scale in updater.scales.values():
        scale.grad = torch.ones_like(scale)
    updater.after_backward(1)
    got = torch.cat([scale.grad for scale in updater.scales.values() if scale.grad is not None])
    assert torch.allclose(got, 1 + expected, atol=1e-6)
    updater.after_backward(0)  # of an evaluation
    assert torch.equal(got, torch.cat([scale.grad for scale in updater.scales.values() if scale.grad is not None]))


def test_scales_are_clamped_until_the_channels_with_the_lowest_are_removed() -> None:
    updater = updater_of(config_of(end=0.4))
    updater.after_step(1)
    scales = {name: scale.detach().clone() for name, scale in updater.scales.items()}
    assert all(float(scale.min()) >= 0 and float(scale.max()) <= 1 for scale in scales.values())
    assert all(bool(mask.all()) for mask in updater.masks.values())
    for step in (2, 3):
        updater.after_step(step)
    assert not updater.removed
    updater.after_step(4)
    assert updater.removed
    assert 0 <= updater.metrics["prune/scales_below_valley"] < 1
    kept = torch.cat([scales[name][updater.masks[name]] for name in scales])
    gone = torch.cat([scales[name][~updater.masks[name]] for name in scales])
    assert len(gone) > 0
    assert float(gone.max()) <= float(kept.min())
    weights = {name: mask for name, mask in updater.masks.items() if mask.dim() > 1}
    assert num_kept(weights) <= 0.5 * sum(mask.numel() for mask in weights.values())
    for name, mask in updater.masks.items():
        assert not bool(updater.weights[name][~mask].any()), name
    before = {name: mask.clone() for name, mask in updater.masks.items()}
    with torch.no_grad():
        updater.scales["norm1.weight"].fill_(5.0)
    updater.after_step(5)
    assert all(torch.equal(mask, updater.masks[name]) for name, mask in before.items())
    assert float(updater.scales["norm1.weight"].max()) == 5.0  # no clamp any more


def test_an_epoch_after_the_removal_begins_removed() -> None:
    assert not updater_of(config_of(end=0.4), first_step=3).removed
    assert updater_of(config_of(end=0.4), first_step=4).removed


def test_network_without_norm_layers_is_refused(tmp_path: Any) -> None:
    config = tiny_config(method="polarization", model="lenet300", sparsity=0.5)
    with pytest.raises(ConfigError, match="polarization must have norm layers"):
        run(config, new_storage(tmp_path))


def test_trial_records_its_masks_over_the_training(tmp_path: Any) -> None:
    config = tiny_config(
        method="polarization", sparsity=0.5, options=PolarizationConfig(end=0.5), training=tiny_training(epochs=4)
    )
    storage = new_storage(tmp_path)
    result = run(config, storage)
    points = metric_points(config, storage)
    curve = [points["prune/sparsity", epoch] for epoch in range(3, 7)]
    assert curve[0] == 0.0
    assert (curve[-1] or 0) >= 0.5
    assert sorted(value or 0.0 for value in curve) == curve
    assert result["kept_flops"] < result["flops"]
    assert any(key == "prune/scales_below_valley" for key, _ in points)

"""Training with gates that learn to agree: the loss, the removal at its step, and nothing of them before or after."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import pytest
import torch
from safetensors.torch import load
from torch import Tensor, nn

from tests.support.trials import (
    metric_points,
    new_storage,
    run,
    selection_for,
    sparse_training,
    tiny_config,
    tiny_training,
    trial_folder,
    warmup_folder,
)
from trainables.config.keys import warmup_key
from trainables.config.methods import ConsensusConfig
from trainables.config.trial import TargetConfig, TrialConfig
from trainables.data.digits import DIGITS_DIGEST
from trainables.errors import ConfigError
from trainables.export.sparse_model import load_sparse_model
from trainables.models.registry import build_model, initialize, network_of
from trainables.pruning.consensus_gates import ConsensusGates

CONFIG = tiny_config(
    method="consensus",
    sparsity=0.6,
    target=TargetConfig(multiply_adds=0.4),
    training=tiny_training(epochs=4),
    options=ConsensusConfig(penalty=0.5, activity=2.0),
)
STEPS = 10


def updater_of(
    config: TrialConfig, images: Tensor, first_step: int = 0, state: Mapping[str, Tensor] = MappingProxyType({})
) -> ConsensusGates:
    model = build_model("convnet", (1, 8, 8), 10)
    initialize(model, 0)

    def passed() -> None:
        with torch.inference_mode():
            model.eval()(images)

    given = {"first_step": first_step, "state": state, "pass_over_images": passed}
    return ConsensusGates.start(sparse_training(config, model, steps=STEPS, **given))


def test_loss_has_both_terms_of_the_batch_and_trains_the_gates_as_the_trial() -> None:
    images = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    updater = updater_of(CONFIG, images)
    model, optimizer = updater.training.model, updater.optimizer
    assert {group["momentum"] for group in optimizer.param_groups} == {CONFIG.training.momentum}
    updater.training.optimizer.param_groups[0]["lr"] = 0.03
    model(images)
    means = updater.gates.means().tolist()
    penalty = updater.penalty()
    assert penalty is not None
    terms = sum(mean * (1 - mean) for mean in means) / len(means), (sum(means) / len(means) - 0.4) ** 2
    assert float(penalty.detach()) == pytest.approx(0.5 * terms[0] + 2.0 * terms[1])
    before = {name: value.clone() for name, value in updater.gates.state_dict().items()}
    penalty.backward()
    slopes = {name: value.grad.clone() for name, value in updater.gates.named_parameters() if value.grad is not None}
    updater.after_step(1)
    decay = CONFIG.training.weight_decay
    for name, slope in slopes.items():
        expected = before[name] - 0.03 * (slope + decay * before[name])
        assert torch.allclose(updater.gates.state_dict()[name], expected, atol=1e-7)
    assert any(bool(slope.any()) for slope in slopes.values())


def test_channels_that_fewest_images_need_go_at_the_step_and_the_gates_with_them() -> None:
    images = torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    updater = updater_of(replace(CONFIG, options=ConsensusConfig(end=0.4)), images)
    model = updater.training.model
    draw = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for layer in updater.gates.layers:
            layer[2].bias.uniform_(-1, 1, generator=draw)  # type: ignore[index]
    for step in (1, 2, 3):
        updater.after_step(step)
        assert all(bool(mask.all()) for mask in updater.masks.values())
    with torch.inference_mode():
        model.eval()(images)
    shares = updater.gates.means().detach()
    updater.after_step(4)
    assert not updater.changes_forward
    assert updater.finish() == {}
    assert model.training
    assert not any(module._forward_pre_hooks for module in model.modules())
    kept = updater.training.selection.kept_units({name: mask for name, mask in updater.masks.items() if mask.dim() > 1})  # type: ignore[attr-defined]
    for group in updater.training.selection.units.groups:  # type: ignore[union-attr]
        units = list(group.units)
        best = max(units, key=lambda unit: float(shares[unit]))
        kept[best] = False  # one of each layer stays in any case
        shares[best] = 0.0
    assert float(shares[~kept].max()) <= float(shares[kept].min())
    assert updater.metrics["prune/unanimous_gates"] <= 1
    assert 0 < updater.metrics["prune/gates_mostly_closed"] < 1
    assert updater_of(CONFIG, images, first_step=5).changes_forward is False


def test_gates_of_two_epochs_are_those_of_one_with_all_steps() -> None:
    images = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(3))
    config = replace(CONFIG, options=ConsensusConfig(end=0.9))

    def stepped(updater: ConsensusGates, steps: range) -> dict[str, Tensor]:
        for step in steps:
            for parameter in updater.gates.parameters():
                parameter.grad = torch.full_like(parameter, float(step))
            updater.after_step(step)
        return updater.finish()

    together = stepped(updater_of(config, images), range(1, 5))
    first = {name: value.clone() for name, value in stepped(updater_of(config, images), range(1, 3)).items()}
    apart = stepped(updater_of(config, images, first_step=2, state=first), range(3, 5))
    assert together.keys() == apart.keys()
    assert any(name.startswith("momentum.") for name in apart)
    assert all(torch.equal(value, apart[name]) for name, value in together.items())


def test_trial_meets_its_target_and_publishes_no_gate(tmp_path: Path) -> None:
    storage = new_storage(tmp_path)
    result, points = run(CONFIG, storage), metric_points(CONFIG, storage)
    assert result["kept_flops"] / result["flops"] <= 0.4
    assert [points["prune/sparsity", epoch] == 0 for epoch in range(3, 7)] == [True, False, False, False]
    assert {"prune/unanimous_gates", "prune/gates_mostly_closed", "prune/open_gates"} <= result["metrics"].keys()
    model = load_sparse_model(trial_folder(CONFIG, storage).read("model.safetensors.zst") or b"")
    assert set(model.network.state_dict()) == set(network_of(CONFIG, (1, 8, 8), 10).state_dict())


def test_warm_up_is_that_of_other_methods_bit_for_bit(tmp_path: Path) -> None:
    other = tiny_config(training=tiny_training(epochs=1))
    short = replace(CONFIG, training=tiny_training(epochs=1))
    assert warmup_key(short, DIGITS_DIGEST) == warmup_key(other, DIGITS_DIGEST)
    models = []
    for config in (short, other):
        storage = new_storage(tmp_path / config.method)
        run(config, storage)
        models.append(load(warmup_folder(config, storage).read(2) or b""))
    assert models[0].keys() == models[1].keys()
    assert all(torch.equal(value, models[1][name]) for name, value in models[0].items())


class ReadsEarly(nn.Module):
    """A layer that is called late makes channels together with an early one, and is registered first."""

    def __init__(self) -> None:
        super().__init__()
        self.second = nn.Conv2d(1, 4, 3, padding=1)
        self.first = nn.Conv2d(1, 4, 3, padding=1)
        self.third = nn.Conv2d(4, 8, 3, padding=1)
        self.head = nn.Linear(12, 10)

    def forward(self, images: Tensor) -> Tensor:
        maps = torch.relu(self.first(images))
        read = torch.relu(self.third(maps))
        logits: Tensor = self.head(torch.cat([read, maps + self.second(images)], 1).mean((2, 3)))
        return logits


def test_network_whose_gates_would_come_late_is_refused_before_training() -> None:
    network = ReadsEarly()
    with pytest.raises(
        ConfigError, match=r"method: consensus must .* layers can read gated channels, got: third runs before second"
    ):
        ConsensusGates.check(network, CONFIG, selection_for(CONFIG, network).units, (1, 8, 8))
    assert not any(module._forward_pre_hooks for module in network.modules())

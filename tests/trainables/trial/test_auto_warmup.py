"""The automatic warm-up leaves no trace in the training, chooses once, and gives the model of a warm-up of that length."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from orchestrator.storage.base import Storage
from tests.support.killed_trials import CopiedStorage
from tests.support.trials import (
    DIGITS,
    RUNTIME,
    all_files,
    metric_points,
    new_storage,
    run,
    selection_for,
    stop_at,
    tiny_config,
    trial_folder,
    warmup_folder,
    warmup_trainer,
)
from trainables.config.keys import warmup_rule
from trainables.config.methods import METHODS
from trainables.config.options import Options
from trainables.config.trial import TrialConfig, WarmupConfig
from trainables.data.splits import load_data
from trainables.models.prunable import prunable_weights
from trainables.pruning.masks import full_masks
from trainables.pruning.rounds import prune_round
from trainables.pruning.virtual_masks import virtual_masks
from trainables.trial.auto_warmup import AutoWarmup
from trainables.trial.checkpoint import TrialState

AUTO = tiny_config(warmup_epochs=6, warmup=WarmupConfig(auto=True, rule="overlap", window=2, threshold=0.4))
PRUNED = [name for name, method in METHODS.items() if name != "dense"]


def chosen(config: TrialConfig, storage: Storage) -> int:
    return int(AutoWarmup(trainer=warmup_trainer(config, storage)).choose([warmup_rule(config)])[0].choice.value)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[tuple[str, int], float | None]]:
    """Result and points of the trial, without a break."""
    storage = new_storage(tmp_path_factory.mktemp("auto"))
    result = run(AUTO, storage)
    return result, metric_points(AUTO, storage)


def test_trial_gives_the_model_of_the_length_that_it_chose(
    tmp_path: Path, undisturbed: tuple[dict[str, Any], dict[tuple[str, int], float | None]]
) -> None:
    result, points = undisturbed
    length = result["choices"]["warmup_epochs"]["value"]
    assert 2 <= length < 6
    assert result["choices"]["warmup_epochs"]["reason"].startswith("the mask is stable: overlap")
    fixed = tiny_config(warmup_epochs=length)
    assert run(fixed, new_storage(tmp_path))["model_sha256"] == result["model_sha256"]
    others = metric_points(fixed, new_storage(tmp_path))
    others.pop(("model/bytes", length + 2))  # the file holds the configuration
    assert {place: points[place] for place in others} == others
    assert points["warmup/chosen_epochs", length] == length
    assert {step for key, step in points if key == "warmup/mask_overlap"} == set(range(1, length + 1))
    assert {step for key, step in points if key == "warmup/epi"} == set(range(2, length + 1))


def test_config_and_key_are_those_of_the_rule(undisturbed: tuple[dict[str, Any], Any]) -> None:
    config = undisturbed[0]["config"]
    assert (config["warmup_epochs"], config["warmup"]) == (6, {"auto": True, "rule": "overlap", "window": 2, "threshold": 0.4})


@pytest.mark.parametrize("method", PRUNED)
def test_reading_masks_changes_no_bit_of_the_warmup(method: str, tmp_path: Path) -> None:
    never = tiny_config(method=method, warmup_epochs=3, warmup=WarmupConfig(auto=True, rule="overlap", window=1, threshold=2.0))
    read = new_storage(tmp_path / "read")
    assert chosen(never, read) == 3
    state = warmup_trainer(never, read).state_at(3)
    plain = warmup_trainer(never, new_storage(tmp_path / "plain")).state_at(3)
    for name, tensor in plain.model.state_dict().items():
        assert torch.equal(tensor, state.model.state_dict()[name]), name
    assert [(one.key, one.step, one.value) for one in state.metrics.points()] == [
        (one.key, one.step, one.value) for one in plain.metrics.points()
    ]


class WithDropout(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.BatchNorm1d(32), nn.Dropout(0.5), nn.Linear(32, 10))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.layers(images)  # type: ignore[no-any-return]


@pytest.mark.parametrize("method", ["drive", "grasp", "synflow", "random"])
@pytest.mark.parametrize("training", [True, False])
def test_virtual_masks_leave_the_network_and_random_numbers(method: str, training: bool) -> None:
    model = WithDropout().train(training)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    config, random_numbers = tiny_config(method=method), torch.get_rng_state()
    virtual_masks(model, load_data(config.dataset, DIGITS, "cpu"), [config], RUNTIME)
    assert torch.equal(torch.get_rng_state(), random_numbers)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(weight.grad is None for weight in model.parameters())
    assert {module.training for module in model.modules()} == {training}


@pytest.mark.parametrize("method", [name for name in PRUNED if METHODS[name].course.ends_before_training and name != "imp"])
def test_virtual_masks_are_those_of_one_round(method: str, tmp_path: Path) -> None:
    config = tiny_config(method=method, prune_iterations=1)
    state = warmup_trainer(config, new_storage(tmp_path)).state_at(1)
    data = load_data(config.dataset, DIGITS, "cpu")
    sparser = replace(config, sparsity=0.98)
    selection = selection_for(config, state.model)
    virtual = virtual_masks(state.model, data, [config, sparser], RUNTIME, selection_of=lambda _: selection)
    for one, masks in zip((config, sparser), virtual, strict=True):
        weights = {name: weight.detach().clone() for name, weight in state.model.state_dict().items()}
        prunable = prunable_weights(state.model)
        expected, _, _ = prune_round(state.model, prunable, full_masks(prunable), data, one, 1, RUNTIME, selection=selection)
        state.model.load_state_dict(weights)
        assert all(torch.equal(mask, expected[name]) for name, mask in masks.items())


def test_constant_mask_is_stable_as_soon_as_the_window_is_full(tmp_path: Path) -> None:
    still = tiny_config(
        method="magnitude", warmup_epochs=6, warmup=WarmupConfig(lr=1e-12, auto=True, rule="overlap", window=3, threshold=1.0)
    )
    assert chosen(still, new_storage(tmp_path)) == 3


def test_one_warmup_serves_all_sparsities(tmp_path: Path) -> None:
    storage, trained = new_storage(tmp_path), 0

    def count(state: TrialState) -> None:
        nonlocal trained
        trained += 1

    configs = [replace(AUTO, sparsity=sparsity) for sparsity in (0.5, 0.9, 0.99)]
    both = AutoWarmup(trainer=warmup_trainer(AUTO, storage, after_epoch=count)).choose(list(map(warmup_rule, configs)))
    lengths = [one.choice.value for one in both]
    assert trained == max(lengths)
    assert len(set(lengths)) > 1
    assert warmup_folder(AUTO, storage).epochs() == sorted(set(lengths))
    for index, config in enumerate(configs):
        assert chosen(config, new_storage(tmp_path / str(index))) == lengths[index]


def test_rules_that_differ_only_in_what_follows_are_one() -> None:
    others = [
        replace(AUTO, prune_iterations=7),
        replace(AUTO, rewind="epoch 1"),
        replace(AUTO, training=replace(AUTO.training, epochs=9, budget="total", schedule="cosine")),
    ]
    assert {warmup_rule(config) for config in others} == {warmup_rule(AUTO)}
    assert warmup_rule(replace(AUTO, sparsity=0.5)) != warmup_rule(AUTO)


@pytest.mark.parametrize("epoch", [1, 2])
def test_stopped_warmup_goes_on_with_what_it_has_read(
    epoch: int, tmp_path: Path, undisturbed: tuple[dict[str, Any], dict[tuple[str, int], float | None]]
) -> None:
    storage = new_storage(tmp_path)
    stop_at(AUTO, storage, lambda state: state.phase == "warmup" and state.position == epoch)
    (record,) = (content for name, content in all_files(storage).items() if "/rule-" in name)
    assert [one["epoch"] for one in json.loads(record)["readings"]] == list(range(epoch + 1))
    result = run(AUTO, storage, 2)
    assert result["model_sha256"] == undisturbed[0]["model_sha256"]
    assert result["choices"] == undisturbed[0]["choices"]
    assert timeless(metric_points(AUTO, storage)) == timeless(undisturbed[1])


def timeless(points: dict[tuple[str, int], float | None]) -> dict[tuple[str, int], float | None]:
    return {place: value for place, value in points.items() if place[0] != "warmup/reading_seconds"}


@pytest.mark.slow
@pytest.mark.parametrize("before", [True, False])
def test_killed_at_any_write_chooses_the_same(
    before: bool, tmp_path: Path, undisturbed: tuple[dict[str, Any], dict[tuple[str, int], float | None]]
) -> None:
    whole = CopiedStorage(str(tmp_path / "whole"), tmp_path / "killed", before)
    run(AUTO, whole)
    killed = [copy for name, copy in zip(whole.changes, whole.killed(), strict=True) if name.startswith("warmups/")]
    assert len(killed) >= 2
    for storage in killed:
        result = run(AUTO, storage, 2)
        assert (result["model_sha256"], result["choices"]) == (undisturbed[0]["model_sha256"], undisturbed[0]["choices"])


@pytest.mark.parametrize("damage", [b"", b"{", b'{"rule": 1}', "a changed length"])
def test_damaged_record_is_computed_again(
    damage: bytes | str, tmp_path: Path, undisturbed: tuple[dict[str, Any], dict[tuple[str, int], float | None]]
) -> None:
    storage = new_storage(tmp_path)
    chosen(AUTO, storage)
    ((name, content),) = ((name, content) for name, content in all_files(storage).items() if "/rule-" in name)
    length = undisturbed[0]["choices"]["warmup_epochs"]["value"]
    changed = content.replace(f'"value": {length}'.encode(), b'"value": 5')
    assert changed != content
    storage.write(name, damage if isinstance(damage, bytes) else changed)
    assert run(AUTO, storage)["model_sha256"] == undisturbed[0]["model_sha256"]


def test_private_warmup_leaves_nothing_behind(tmp_path: Path) -> None:
    storage = new_storage(tmp_path)
    run(AUTO, storage, shares_snapshots=False)
    assert not [name for name in all_files(storage) if name.startswith("warmups/")]
    assert trial_folder(AUTO, storage).read("result.json")


def test_snapshot_of_another_sweep_is_read_and_kept(tmp_path: Path) -> None:
    storage, trained = new_storage(tmp_path), []
    warmup_trainer(AUTO, storage).state_at(1)
    auto = AutoWarmup(
        trainer=warmup_trainer(AUTO, storage, snapshot_seconds=0.0, after_epoch=lambda state: trained.append(state.position))
    )
    length = auto.choose([warmup_rule(AUTO)])[0].choice.value
    assert warmup_folder(AUTO, storage).epochs() == [1, length]


def test_total_budget_leaves_the_rest_to_sparse_training(tmp_path: Path) -> None:
    storage = new_storage(tmp_path)
    config = replace(AUTO, training=replace(AUTO.training, epochs=8, budget="total"))
    length = run(config, storage)["choices"]["warmup_epochs"]["value"]
    steps = {step for key, step in metric_points(config, storage) if key == "train/loss"}
    assert length < 6
    assert steps == set(range(1, 9))


def test_iterative_magnitude_pruning_rewinds_to_the_chosen_epoch(tmp_path: Path) -> None:
    config = replace(AUTO, method="imp", options=Options(), sparsity=0.3)
    result = run(config, new_storage(tmp_path / "auto"))
    fixed = tiny_config(method="imp", warmup_epochs=result["choices"]["warmup_epochs"]["value"], sparsity=0.3)
    assert run(fixed, new_storage(tmp_path / "fixed"))["model_sha256"] == result["model_sha256"]

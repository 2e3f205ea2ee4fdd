"""Trials that remove channels: the smaller network in the file, the same scores, the same shared warm-up."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.support.trials import RUNTIME, metric_points, new_storage, run, tiny_config, trial_folder
from trainables.analysis.multiply_adds import multiply_adds
from trainables.config.keys import warmup_key
from trainables.config.methods import METHODS as ALL
from trainables.config.methods import CapConfig, HapConfig
from trainables.config.trial import DatasetConfig, TargetConfig
from trainables.data.digits import DIGITS_DIGEST
from trainables.data.source import DatasetSource
from trainables.data.splits import load_data
from trainables.errors import ConfigError
from trainables.export.sparse_model import encode_smaller, load_masks, load_sparse_model, stored_sha256
from trainables.training.loop import evaluate

METHODS = [name for name, method in ALL.items() if method.prunes_channels]
IMAGES = DatasetConfig(name="digits", limit=300)
CHANNELS = tiny_config(dataset=IMAGES, granularity="channel", target=TargetConfig(multiply_adds=0.4), sparsity=0.6)


@pytest.mark.parametrize("method", METHODS)
def test_file_holds_the_smaller_network_that_was_tested(method: str, tmp_path: Path) -> None:
    config, storage = replace(CHANNELS, method=method), new_storage(tmp_path)
    result = run(config, storage)
    content = trial_folder(config, storage).read("model.safetensors.zst") or b""
    model = load_sparse_model(content)
    assert model.sha256 == result["model_sha256"] == stored_sha256(content)
    data = load_data(config.dataset, DatasetSource(name="digits"), "cpu", 1)
    metrics = evaluate(model.network, data.test, data.normalization, RUNTIME, "test", "cross_entropy")
    points = metric_points(config, storage)
    assert {name: points[name, config.total_epochs] for name in metrics} == metrics
    smaller = multiply_adds(model.network, set(), (1, 8, 8)).total
    assert smaller == result["kept_flops"]
    assert 0.15 < result["kept_flops"] / result["flops"] <= 0.4
    masks = load_masks(content)
    assert {layer["name"]: layer["kept"] for layer in result["layers"]} == {
        name: int(mask.sum()) for name, mask in masks.items()
    }
    for name, mask in model.masks.items():
        assert bool(mask.all())
        rows, columns = (masks[name].flatten(2) if masks[name].dim() > 2 else masks[name][..., None]).any(2), None
        assert mask.shape[:2] == (int(rows.any(1).sum()), int(rows.any(0).sum())), columns
    assert result["kept_parameters"] >= sum(parameter.numel() for parameter in model.network.parameters())
    images = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert model.predict(images).shape == (5, 10)


def test_implants_are_in_the_smaller_network_that_was_tested(tmp_path: Path) -> None:
    config, storage = replace(CHANNELS, method="hap", options=HapConfig(implant=0.4, probes=5)), new_storage(tmp_path)
    result = run(config, storage)
    content = trial_folder(config, storage).read("model.safetensors.zst") or b""
    model, masks = load_sparse_model(content), load_masks(content)
    assert model.sha256 == result["model_sha256"] == stored_sha256(content)
    data = load_data(config.dataset, DatasetSource(name="digits"), "cpu", 1)
    metrics = evaluate(model.network, data.test, data.normalization, RUNTIME, "test", "cross_entropy")
    points = metric_points(config, storage)
    assert {name: points[name, config.total_epochs] for name in metrics} == metrics
    assert (points["prune/implants", 1] or 0) > 0
    assert 0.3 < result["kept_flops"] / result["flops"] <= 0.4
    rows = 0
    for layer in result["layers"]:
        mask = model.masks[layer["name"]]
        assert layer["kept"] == int(mask.sum()) == int(masks[layer["name"]].sum())
        weight = model.network.get_parameter(layer["name"])
        assert torch.equal(weight != 0, mask)
        if mask.dim() == 4:
            rows += int((~mask.flatten(1).all(1)).sum())
            assert bool(mask[:, :, 1, 1].all())
    assert rows == points["prune/implants", 2]
    again = encode_smaller(model.network, masks, model.card)
    assert again == (content, model.sha256)


def test_warm_up_is_that_of_trials_that_remove_weights() -> None:
    assert warmup_key(CHANNELS, DIGITS_DIGEST) == warmup_key(tiny_config(dataset=IMAGES), DIGITS_DIGEST)


def test_unreachable_target_ends_before_the_warm_up(tmp_path: Path) -> None:
    storage = new_storage(tmp_path)
    with pytest.raises(ConfigError, match=r"target\.channels: one channel in each layer must stay"):
        run(replace(CHANNELS, target=TargetConfig(channels=0.01), sparsity=0.99), storage)
    assert not list(Path(tmp_path).glob("warmups/*/epoch-*"))


def test_too_few_images_to_compensate_end_before_the_warm_up(tmp_path: Path) -> None:
    few = replace(CHANNELS, method="cap", options=CapConfig(), dataset=replace(CHANNELS.dataset, limit=120))
    with pytest.raises(ConfigError, match=r"more samples than inputs of a layer, got \d+ for 128 of head"):
        run(few, new_storage(tmp_path))
    assert not list(Path(tmp_path).glob("warmups/*/epoch-*"))


def test_automatic_numbers_look_at_channels(tmp_path: Path) -> None:
    config = replace(
        CHANNELS,
        warmup_epochs=6,
        warmup=replace(CHANNELS.warmup, auto=True, window=1),
        prune_iterations=4,
        iterations=replace(CHANNELS.iterations, auto=True),
    )
    result = run(config, new_storage(tmp_path))
    assert "early pruning indicator" in result["choices"]["warmup_epochs"]["reason"]
    assert result["choices"]["prune_iterations"]["value"] in (1, 2, 4)
    assert result["kept_flops"] / result["flops"] <= 0.4

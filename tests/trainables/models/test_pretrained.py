"""Checkpoints as training scripts save them: loaded, or rejected with their content."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from tests.support.trials import tiny_config
from trainables.custom.files import CustomFiles
from trainables.errors import ConfigError
from trainables.models.pretrained import load_initial_weights
from trainables.models.registry import build_model, initialize

Weights = dict[str, Tensor]


def dense_network() -> nn.Module:
    network = build_model("convnet", (1, 8, 8), 10)
    initialize(network, 3)
    return network


def loaded_from(file: Path, content: Any) -> Weights:
    """The state dict of a network that starts from what torch.save wrote."""
    torch.save(content, file)
    network = build_model("convnet", (1, 8, 8), 10)
    load_initial_weights(network, CustomFiles(initial_weights=str(file)).with_digests([tiny_config(initial_weights=True)]))
    return network.state_dict()


def renamed(weights: Weights, prefix: str) -> Weights:
    return {prefix + name: value for name, value in weights.items()}


SAVED: dict[str, Callable[[Weights], Any]] = {
    "alone": lambda weights: weights,
    "model_state_dict beside the optimizer": lambda weights: {
        "epoch": 3,
        "model_state_dict": weights,
        "optimizer_state_dict": {"state": {}, "param_groups": [{"lr": 0.1}]},
    },
    "net": lambda weights: {"net": weights, "acc": 93.2},
    "model in a state_dict": lambda weights: {"state_dict": {"model": weights}},
    "DataParallel": lambda weights: renamed(weights, "module."),
    "compiled and parallel": lambda weights: {"model": renamed(weights, "_orig_mod.module.")},
    "Lightning": lambda weights: {"state_dict": renamed(weights, "net."), "global_step": 4},
    "half precision": lambda weights: {
        name: value.half() if value.is_floating_point() else value for name, value in weights.items()
    },
    "without counters": lambda weights: {name: value for name, value in weights.items() if "num_batches" not in name},
}


@pytest.mark.parametrize("form", SAVED)
def test_checkpoints_of_training_scripts_are_read(form: str, tmp_path: Path) -> None:
    weights = dense_network().state_dict()
    expected = {name: value.half().float() for name, value in weights.items()} if form == "half precision" else weights
    loaded = loaded_from(tmp_path / "dense.pt", SAVED[form](weights))
    assert loaded.keys() == weights.keys()
    assert all(torch.equal(loaded[name], expected[name]) for name in weights)


def test_masked_weights_are_read_as_products(tmp_path: Path) -> None:
    network = dense_network()
    layer = network.get_submodule("conv2")
    prune.l1_unstructured(layer, "weight", amount=0.5)
    weight = layer.weight
    assert isinstance(weight, Tensor)
    effective = weight.detach().clone()
    loaded = loaded_from(tmp_path / "pruned.pt", {"state_dict": network.state_dict()})
    assert torch.equal(loaded["conv2.weight"], effective)
    assert int((effective == 0).sum()) == effective.numel() // 2


REFUSED: dict[str, tuple[Callable[[Weights], Any], str]] = {
    "other keys": (
        lambda weights: {"generator": weights, "step": 1},
        r"alone or under one of state_dict, model_state_dict, .*, got '.*dense.pt' with the keys generator, step; save network",
    ),
    "NaN": (
        lambda weights: weights | {"conv2.weight": torch.full((32, 16, 3, 3), float("nan"))},
        r"conv2.weight of '.*dense.pt' must be finite, got 4608 of 4608 that are NaN or infinite; give a checkpoint",
    ),
    "integers": (
        lambda weights: weights | {"conv2.weight": torch.ones((32, 16, 3, 3), dtype=torch.int8)},
        r"conv2.weight of '.*dense.pt' must be torch.float32, got torch.int8; save float32 weights",
    ),
    "overflow": (
        lambda weights: weights | {"conv2.weight": torch.full((32, 16, 3, 3), 1e30)},
        r"conv2.weight of '.*dense.pt' must be weights of a trained network, got 1e\+30 in it",
    ),
    "sparse": (
        lambda weights: weights | {"conv2.weight": weights["conv2.weight"].to_sparse()},
        r"conv2.weight of '.*dense.pt' must be a dense tensor, got a sparse one; save it after to_dense\(\)",
    ),
    "another network": (
        lambda weights: renamed(weights, "encoder.") | {"extra": torch.zeros(1)},
        r"must hold the 20 tensors of the network, got '.*' with 17 missing \(conv1.weight, .* and 7 more\); 21 unexpected",
    ),
    "nothing": (lambda weights: {}, "got '.*dense.pt' with dict without tensors; save network.state_dict"),
    "a network": (lambda weights: dense_network(), "must be safetensors or a state dict saved by torch.save"),
}


@pytest.mark.parametrize("form", REFUSED)
def test_invalid_file_is_rejected_with_its_content(form: str, tmp_path: Path) -> None:
    content_of, pattern = REFUSED[form]
    with pytest.raises(ConfigError) as caught:
        loaded_from(tmp_path / "dense.pt", content_of(dense_network().state_dict()))
    assert re.search(pattern, str(caught.value)), str(caught.value)

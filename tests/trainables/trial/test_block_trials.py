"""Trials that train blocks: they prune, rewind and publish plain networks, which compute what the blocks did."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.support.trials import RUNTIME, metric_points, new_storage, run, tiny_config, trial_folder, warmup_folder
from trainables.config.keys import warmup_key
from trainables.config.trial import SanityConfig
from trainables.data.digits import DIGITS_DIGEST
from trainables.data.source import DatasetSource
from trainables.data.splits import load_data
from trainables.export.sparse_model import load_sparse_model
from trainables.models.blocks import additional_numbers, with_blocks, without_blocks
from trainables.models.orepa import OrepaConv
from trainables.models.registry import build_model, dense_network_of, initialized_network, network_of
from trainables.models.table import NETWORKS
from trainables.training.loop import evaluate
from trainables.trial.checkpoint import from_bytes

BLOCKS = tiny_config(block="orepa")
SHAPE = (3, 32, 32)


@pytest.mark.parametrize(
    "config",
    [
        BLOCKS,
        replace(BLOCKS, method="dense", sparsity=0.0, warmup_epochs=0),
        replace(BLOCKS, method="imp", sparsity=0.3),
        replace(BLOCKS, method="granet"),
        replace(BLOCKS, method="srste", sparsity=0.5),
        replace(BLOCKS, sanity=SanityConfig(reinitialize=True)),
        replace(BLOCKS, warmup_epochs=4, warmup=replace(BLOCKS.warmup, auto=True, window=1)),
        replace(BLOCKS, granularity="channel", model="resnet20", sparsity=0.5),
    ],
    ids=["drive", "dense", "imp", "granet", "srste", "reinitialized", "automatic", "channels"],
)
def test_published_network_is_plain_and_the_one_that_was_tested(config: object, tmp_path: Path) -> None:
    assert isinstance(config, type(BLOCKS))
    storage = new_storage(tmp_path)
    run(config, storage)
    model = load_sparse_model(trial_folder(config, storage).read("model.safetensors.zst") or b"")
    assert set(model.network.state_dict()) == set(network_of(config, (1, 8, 8), 10).state_dict())
    data = load_data(config.dataset, DatasetSource(name="digits"), "cpu", 1)
    metrics = evaluate(model.network, data.test, data.normalization, RUNTIME, "test", "cross_entropy")
    points = metric_points(config, storage)
    last = max(step for name, step in points if name == "test/accuracy")
    assert {name: points[name, last] for name in metrics} == metrics


def test_warm_up_trains_blocks_and_is_not_that_of_plain_convolutions(tmp_path: Path) -> None:
    assert warmup_key(BLOCKS, DIGITS_DIGEST) != warmup_key(tiny_config(), DIGITS_DIGEST)
    storage = new_storage(tmp_path)
    run(BLOCKS, storage)
    folder = warmup_folder(BLOCKS, storage)
    network = dense_network_of(BLOCKS, (1, 8, 8), 10)
    state = from_bytes(folder.read(2) or b"", network, BLOCKS.training, folder.key)
    before = initialized_network(BLOCKS, (1, 8, 8), 10).state_dict()
    changed = {name for name, value in state.model.state_dict().items() if not torch.equal(value, before[name])}
    # The scale of the frequency branch starts at zero, so its kernel learns from the second step on.
    assert {f"conv{layer}.{name}" for layer in (1, 2, 3) for name in ("plain", "frequency", "mixing", "scales")} <= changed


@pytest.mark.parametrize("name", [name for name, network in NETWORKS.items() if network.has_blocks])
def test_every_3x3_convolution_has_a_block_and_its_numbers_are_known(name: str) -> None:
    plain = build_model(name, SHAPE, 10)
    layers = [layer for layer in plain.modules() if isinstance(layer, torch.nn.Conv2d) and layer.kernel_size == (3, 3)]
    shapes = [tuple(layer.weight.shape) for layer in plain.modules() if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear)]
    numbers = sum(value.numel() for value in plain.state_dict().values())
    network = with_blocks(plain, "orepa")
    assert sum(isinstance(module, OrepaConv) for module in network.modules()) == len(layers) > 0
    assert sum(value.numel() for value in network.state_dict().values()) == numbers + additional_numbers("orepa", shapes)


def test_plain_network_is_a_copy_with_the_same_outputs() -> None:
    network = initialized_network(replace(BLOCKS, model="resnet20"), SHAPE, 10).eval()
    images = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(0))
    plain = without_blocks(network, "orepa")
    assert any(isinstance(module, OrepaConv) for module in network.modules())
    assert not any(isinstance(module, OrepaConv) for module in plain.modules())
    assert torch.allclose(plain(images), network(images), rtol=1e-4, atol=1e-5)

"""Trials of spiking networks: methods of every course, the file of the network, shared warm-ups."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from orchestrator.planning.durations import network_of
from tests.support.exported_models import CARD, dense_model
from tests.support.trials import RUNTIME, metric_points, new_storage, run, tiny_config, tiny_training, trial_folder
from trainables.analysis.multiply_adds import multiply_adds
from trainables.config.keys import trial_key, warmup_key
from trainables.config.spiking import SpikingConfig
from trainables.config.trial import TrialConfig
from trainables.data.digits import DIGITS_DIGEST
from trainables.data.source import DatasetSource
from trainables.data.splits import load_data
from trainables.export.format import ExportRefusedError
from trainables.export.network_graph import graph_of
from trainables.export.onnx_format import write as write_onnx
from trainables.export.sparse_model import encode, load_masks, load_sparse_model
from trainables.export.variants import variants
from trainables.models.prunable import prunable_weights
from trainables.models.spiking import SpikingNetwork
from trainables.preflight.network_case import case_id
from trainables.pruning.masks import full_masks
from trainables.runtime.files import safetensors_metadata
from trainables.runtime.sizes import unpack_zstd
from trainables.training.loop import evaluate


def spiking(spikes: SpikingConfig, **changes: Any) -> TrialConfig:
    return tiny_config(**{"warmup_epochs": 1} | changes, training=tiny_training(epochs=1, spiking=spikes))


SLTT, BPTT = SpikingConfig(rule="sltt", steps=3), SpikingConfig(rule="bptt", steps=3)
SAMPLED = SpikingConfig(rule="sltt-k", steps=3, sampled_steps=2)


@pytest.mark.parametrize(
    "config",
    [
        spiking(SLTT),
        spiking(SAMPLED, method="granet", block="orepa"),
        spiking(BPTT, method="srste", sparsity=0.5, precision="bf16"),
        spiking(SAMPLED, method="taylor", sparsity=0.5),
        spiking(SLTT, method="cap", sparsity=0.5),
        spiking(SLTT, method="polarization", sparsity=0.5),
    ],
    ids=lambda config: f"{config.method}-{config.training.spiking.rule}",
)
def test_published_network_is_the_spiking_one_that_was_tested(config: TrialConfig, tmp_path: Path) -> None:
    storage = new_storage(tmp_path)
    runtime = RUNTIME.for_trial(config.precision)
    result = run(config, storage, runtime=runtime)
    content = trial_folder(config, storage).read("model.safetensors.zst") or b""
    model = load_sparse_model(content)
    assert isinstance(model.network, SpikingNetwork)
    assert model.network.spiking == config.training.spiking
    header = json.loads(safetensors_metadata(unpack_zstd(content, checksum=True))["header"])
    layout = 3 if config.prunes_channels else 2 if config.method == "srste" else 1
    assert (header["format"], header["layout"]) == (4, layout)
    data = load_data(config.dataset, DatasetSource(name="digits"), "cpu", 1)
    metrics = evaluate(model.network, data.test, data.normalization, runtime, "test")
    points = metric_points(config, storage)
    assert {name: points[name, config.total_epochs] for name in metrics} == metrics
    dense = variants(model, load_masks(content))["dense"]
    assert isinstance(dense, SpikingNetwork)
    assert result["flops"] == multiply_adds(dense, set(), (1, 8, 8)).total == 3 * 231_680
    assert result["metrics"]["model/effective_sparsity"] >= 0.4  # paths are known


def test_warm_ups_are_shared_by_trials_of_the_same_rule() -> None:
    pruned, other = spiking(SLTT), spiking(SLTT, method="snip", sparsity=0.5, warmup_epochs=3)
    assert warmup_key(pruned, DIGITS_DIGEST) == warmup_key(other, DIGITS_DIGEST)
    networks = [SpikingConfig(), SLTT, SAMPLED, BPTT, replace(SLTT, tau=2.0), replace(SLTT, steps=4)]
    for key in (trial_key, warmup_key):
        assert len({key(spiking(one), DIGITS_DIGEST) for one in networks}) == len(networks)
    for name in (case_id, network_of):  # of checked networks and of known times
        assert len({name(spiking(one)) for one in networks}) == len(networks)


def test_gradients_of_training_are_those_of_the_rule(tmp_path: Path) -> None:
    rules = (SLTT, BPTT, SAMPLED, replace(SLTT, mse_share=0.0))
    results = [run(spiking(rule, method="magnitude"), new_storage(tmp_path / str(n))) for n, rule in enumerate(rules)]
    assert len({result["model_sha256"] for result in results}) == len(rules)


def test_graph_of_a_spiking_network_has_its_bits_and_onnx_is_refused(tmp_path: Path) -> None:
    plain = dense_model()
    card = replace(CARD, config={"training": {"spiking": {"rule": "sltt", "steps": 3}}})
    masks = full_masks(prunable_weights(plain.network))
    model = load_sparse_model(encode(plain.network, masks, card)[0])
    images = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    scores = model.predict(images)
    assert not torch.equal(scores, plain.predict(images))
    assert torch.equal(graph_of(model).module()(images), scores)
    with pytest.raises(ExportRefusedError, match=r"not exported as ONNX.*take torch or safetensors"):
        write_onnx(model, tmp_path)

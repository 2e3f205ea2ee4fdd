"""The ways to run a pruned network compute what they should, and their latencies are summarised as they are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.support.exported_models import dense_model, two_of_four_model
from tests.support.trials import new_storage, run, tiny_config, trial_folder
from trainables.analysis.multiply_adds import multiply_adds
from trainables.config.trial import TargetConfig
from trainables.export import measured_latency
from trainables.export.measured_latency import measure
from trainables.export.sparse_model import load_masks, load_sparse_model
from trainables.export.variants import SemiStructured, SparseRows, runs_as_two_of_four, variants
from trainables.records.latency_record import decode_latency, encode_latency, latency_points, latency_text
from trainables.records.metrics import DamagedRecordError

SHAPE = (1, 8, 8)


def images(count: int = 5) -> torch.Tensor:
    return torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(0))


def test_weights_have_a_dense_a_masked_and_a_sparse_network() -> None:
    model = two_of_four_model()
    networks = variants(model, model.masks)
    assert list(networks) == ["dense", "masked", "csr"]
    assert all(bool(value.all()) for name, value in networks["dense"].named_parameters() if name in model.masks)
    assert networks["masked"] is model.network
    head = networks["csr"].get_submodule("head")
    assert isinstance(head, SparseRows)
    assert head.weight.values().numel() == int(model.masks["head.weight"].sum())
    with torch.no_grad():
        expected, sparse = networks["masked"](images()), networks["csr"](images())
    assert torch.allclose(sparse, expected, rtol=1e-4, atol=1e-5)
    assert isinstance(model.network.get_submodule("head"), nn.Linear), "the model itself is not changed"


def test_sparse_rows_follow_the_network_to_another_type() -> None:
    model = two_of_four_model()
    sparse = variants(model, model.masks)["csr"].double()
    head = sparse.get_submodule("head")
    assert isinstance(head, SparseRows)
    assert head.weight.dtype is torch.float64
    with torch.no_grad():
        assert torch.allclose(sparse(images().double()), model.network.double()(images().double()))


@pytest.mark.parametrize(
    ("shape", "kept", "runs"),
    [((64, 128), 2, True), ((64, 128), 1, True), ((64, 128), 3, False), ((64, 128), 4, False), ((60, 128), 2, False)],
)
def test_sparse_tensor_cores_take_layers_of_their_pattern_and_size(shape: tuple[int, int], kept: int, runs: bool) -> None:
    mask = (torch.arange(shape[1]) % 4 < kept).expand(shape)
    assert runs_as_two_of_four(mask) == runs


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_two_of_four_layers_compute_the_same_on_a_gpu() -> None:
    generator = torch.Generator().manual_seed(0)
    layer = nn.Linear(128, 64).half()
    with torch.no_grad():
        layer.weight.copy_(torch.randn(64, 128, generator=generator) * (torch.arange(128) % 4 < 2))
    layer, features = layer.cuda(), torch.randn(32, 128, generator=generator).half().cuda()
    with torch.no_grad():
        assert torch.allclose(SemiStructured(layer)(features), layer(features), rtol=1e-2, atol=1e-2)


def test_dense_model_has_nothing_to_compare() -> None:
    model = dense_model()
    assert list(variants(model, model.masks)) == ["dense", "masked"]


@pytest.mark.parametrize("name", ["convnet", "resnet20"])
def test_removed_channels_have_the_network_of_full_size_beside_them(name: str, tmp_path: Path) -> None:
    config = replace(
        tiny_config(model=name), granularity="channel", target=TargetConfig(multiply_adds=0.5), sparsity=0.5, warmup_epochs=0
    )
    storage = new_storage(tmp_path)
    result = run(config, storage)
    content = trial_folder(config, storage).read("model.safetensors.zst") or b""
    model, masks = load_sparse_model(content), load_masks(content)
    networks = variants(model, masks)
    assert list(networks) == ["dense", "masked", "removed"]
    assert networks["removed"] is model.network
    sizes = {way: multiply_adds(network, set(), SHAPE).total for way, network in networks.items()}
    assert sizes == {"dense": result["flops"], "masked": result["flops"], "removed": result["kept_flops"]}
    for weight, mask in masks.items():
        assert torch.equal(networks["masked"].get_parameter(weight) != 0, mask), weight
        assert bool(networks["dense"].get_parameter(weight).all())
    with torch.no_grad():
        assert all(network(images()).shape == (5, 10) for network in networks.values())


def of_times(monkeypatch: pytest.MonkeyPatch, *times: list[float]) -> dict[str, Any]:
    """The measurement of three networks that take these seconds in each round."""
    monkeypatch.setattr(measured_latency, "seconds_in_turns", lambda calls, seconds: [list(one) for one in times])
    networks = {name: nn.Flatten() for name in ("dense", "masked", "removed")}
    (measured,) = measure(networks, SHAPE, torch.contiguous_format, batches=[4], threads=1)
    return measured


def test_fastest_way_is_compared_with_the_dense_one_round_by_round(monkeypatch: pytest.MonkeyPatch) -> None:
    dense = [0.010, 0.020, 0.010, 0.020, 0.010]
    measured = of_times(monkeypatch, dense, [2 * one for one in dense], [one / 4 for one in dense])
    assert (measured["batch"], measured["rounds"], measured["threads"]) == (4, 5, 1)
    assert (measured["fastest"], measured["verdict"]) == ("removed", "faster")
    assert measured["speedups"]["removed"] == pytest.approx([4.0, 4.0, 4.0])  # the machine's own speed cancels
    assert measured["speedups"]["masked"] == pytest.approx([0.5, 0.5, 0.5])
    assert measured["milliseconds"]["dense"][0] == pytest.approx(10.0)


@pytest.mark.parametrize(("factors", "verdict"), [([0.9, 1.1] * 5, "no faster"), ([1.2] * 10, "slower")])
def test_nothing_is_called_faster_that_is_not(monkeypatch: pytest.MonkeyPatch, factors: list[float], verdict: str) -> None:
    dense = [0.01] * len(factors)
    measured = of_times(monkeypatch, dense, [0.03] * len(dense), [0.01 * factor for factor in factors])
    assert measured["verdict"] == verdict
    assert f"removed is {verdict} than dense" in latency_text(measured)


def test_real_networks_are_timed_and_threads_are_given_back() -> None:
    model = two_of_four_model()
    before = torch.get_num_threads()
    measured = measure(variants(model, model.masks), SHAPE, model.memory_format, batches=[1, 8], threads=1, seconds=0.0)
    assert torch.get_num_threads() == before
    assert [one["batch"] for one in measured] == [1, 8]
    assert all(0 < low <= median <= high for one in measured for median, low, high in one["milliseconds"].values())


def test_record_gives_the_measurements_back_and_each_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    one = of_times(monkeypatch, [0.02], [0.02], [0.01])
    other = one | {"batch": 64, "time_ms": one["time_ms"] + 5}
    content = encode_latency("a" * 16, [one, other, one])
    assert decode_latency(content, "a" * 16) == [one, other, one]
    assert decode_latency(None, "a" * 16) == []
    points = {(point.key, point.step): point.value for point in latency_points([one, other, one])}
    assert points["latency/batch4/removed_ms", 0] == points["latency/batch4/removed_ms", 1] == pytest.approx(10.0)
    assert points["latency/batch64/speedup", 0] == pytest.approx(2.0)
    assert len(points) == 3 * 4
    half = one | {
        "precision": "fp16",
        "milliseconds": {"dense": [1.0] * 3, "2:4": [0.5] * 3},
        "fastest": "2:4",
        "speedups": {"2:4": [2.0] * 3},
    }
    assert {point.key for point in latency_points([half])} == {
        f"latency/batch4/{name}_half" for name in ("dense_ms", "2of4_ms", "speedup")
    }
    assert latency_text(half).endswith("1 thread, half precision")
    for damaged in (content[:-20], content.replace(b'"batch": 4', b'"batch": 5'), b"[]", b"{}"):
        with pytest.raises(DamagedRecordError):
            decode_latency(damaged, "a" * 16)
    with pytest.raises(DamagedRecordError, match="another record"):
        decode_latency(content, "b" * 16)

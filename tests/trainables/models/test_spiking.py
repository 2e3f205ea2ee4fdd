"""Spiking networks: the neuron against a plain loop, and the forms of the networks of the table."""

from __future__ import annotations

import copy
import random
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn

from tests.support.spiking_networks import Perceptron, batch, naive_scores, perceptron
from trainables.analysis.multiply_adds import multiply_adds
from trainables.channels.dependencies import find_units
from trainables.channels.equality import check_removal, mask_units, randomized, removal_error
from trainables.channels.fitting import fit_to_remaining
from trainables.config.spiking import SpikingConfig
from trainables.config.trial import DatasetConfig, TrainingConfig, TrialConfig
from trainables.errors import ConfigError
from trainables.models.prunable import prunable_weights
from trainables.models.registry import build_model, initialize, network_of
from trainables.models.spiking import Neuron, neurons, spike, with_spikes, without_spikes
from trainables.models.table import NETWORKS

SLTT = SpikingConfig(rule="sltt")
SHAPE = (1, 8, 8)


def initialized(name: str, spiking: SpikingConfig) -> nn.Module:
    network = build_model(name, SHAPE, 10)
    initialize(network, seed=0)
    return with_spikes(network, spiking)


@pytest.mark.parametrize("tau", [1.0, 1.1, 4.0])
def test_neuron_equals_a_loop_over_numbers(tau: float) -> None:
    draw = random.Random(0)
    neuron = Neuron(tau, through_time=False)
    voltages = [0.0] * 5
    spikes = [0.0] * 5
    for _ in range(20):
        inputs = [draw.uniform(-0.5, 1.5) for _ in voltages]
        expected = []
        for index, current in enumerate(inputs):
            voltages[index] = (1 - 1 / tau) * (voltages[index] - spikes[index]) + current
            spikes[index] = 1.0 if voltages[index] >= 1.0 else 0.0
            expected.append(spikes[index])
        assert neuron(torch.tensor(inputs, dtype=torch.float64)).tolist() == expected


def test_derivative_of_a_spike_is_a_triangle_around_the_threshold() -> None:
    voltage = torch.tensor([-1.0, 0.0, 0.25, 1.0, 1.5, 2.0, 3.0], requires_grad=True)
    spikes = spike(voltage)
    spikes.sum().backward()
    assert spikes.tolist() == [0, 0, 0, 1, 1, 1, 1]
    assert voltage.grad is not None
    assert voltage.grad.tolist() == [0, 0, 0.25, 1, 0.5, 0, 0]


def test_voltages_are_not_rounded_to_bf16() -> None:
    neuron = Neuron(2.0, through_time=False)
    neuron(torch.tensor([255 / 512], dtype=torch.bfloat16))  # half of it is left
    spikes = neuron(torch.tensor([0.75], dtype=torch.bfloat16))
    assert spikes.dtype == torch.bfloat16
    assert spikes.item() == 0.0  # at 0.99902, which would be 1 in BF16


def test_scores_are_the_mean_of_those_of_the_steps() -> None:
    spiking = SpikingConfig(rule="bptt", tau=1.6)
    network, (images, _) = perceptron(spiking), batch()
    expected = torch.stack(list(naive_scores(network, images, spiking, detach=False))).mean(0)
    assert torch.allclose(network(images), expected, rtol=0, atol=1e-12)
    scores = network(images)
    assert torch.equal(network(images), scores)  # nothing is left of the batch before
    network(images, 0)  # nor of one that was interrupted
    assert torch.equal(network(images), scores)
    assert all(neuron.left is None for neuron in neurons(network))
    copy.deepcopy(network)  # which a graph in a neuron would prevent


def test_networks_with_a_spiking_form() -> None:
    assert [name for name, network in NETWORKS.items() if network.has_spikes] == ["convnet", "resnet20", "resnet32", "resnet56"]


@pytest.mark.parametrize("name", ["convnet", pytest.param("resnet20", marks=pytest.mark.slow)])
def test_weights_of_the_spiking_form_are_those_of_the_network(name: str) -> None:
    plain, network = initialized(name, SpikingConfig()), initialized(name, SLTT)
    assert list(network.state_dict()) == list(plain.state_dict())
    assert not any(isinstance(module, nn.ReLU) for module in network.modules())
    assert [key for key, one in network.named_modules() if isinstance(one, Neuron)] == [
        key for key, one in plain.named_modules() if isinstance(one, nn.ReLU)
    ]
    images = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(0))
    back = without_spikes(network)
    assert type(back) is type(plain)
    assert torch.equal(back.eval()(images), plain.eval()(images))
    assert any(neurons(network))
    once, all_steps = (multiply_adds(one, set(prunable_weights(one)), SHAPE) for one in (plain, network))
    assert all_steps.total == SLTT.steps * (once.total or 0) > 0
    assert {key: 6 * (uses or 0) for key, uses in once.uses.items()} == all_steps.uses


@pytest.mark.parametrize("name", ["convnet", pytest.param("resnet20", marks=pytest.mark.slow)])
def test_network_without_channels_spikes_as_the_masked_one(name: str) -> None:
    network = initialized(name, SLTT)
    units = find_units(without_spikes(network), SHAPE)
    check_removal(network, units, SHAPE)
    images = torch.randn(8, *SHAPE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    kept = torch.rand(units.count, generator=torch.Generator().manual_seed(2)) < 0.6
    for group in units.groups:
        kept[group.start] = True
    trial = randomized(network)
    assert removal_error(trial, units, kept, images) <= 1e-10
    trial.eval()
    scores = trial(images)
    mask_units(trial, units, kept)
    assert not torch.allclose(trial(images), scores, rtol=0, atol=0.01)  # the masked channels did spike


def test_compensation_replaces_a_channel_by_its_twin_exactly() -> None:
    network = randomized(initialized("convnet", SpikingConfig(rule="sltt", tau=2.0))).eval()
    with torch.no_grad():
        for name in ("conv1.weight", "norm1.weight", "norm1.bias", "norm1.running_mean", "norm1.running_var"):
            value = network.state_dict()[name]
            value[1] = value[0]
    units = find_units(without_spikes(network), SHAPE)
    kept = torch.ones(units.count, dtype=torch.bool)
    (twin,) = units.unit_of["conv1.weight", 0][1:2].tolist()
    kept[twin] = False
    fitted = copy.deepcopy(network)
    mask_units(fitted, units, kept)
    images = torch.randn(60, *SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    masked_scores = fitted(images)
    error = fit_to_remaining(fitted, network, units, kept, [images])
    assert error < 1e-6
    assert torch.allclose(fitted(images), network(images), rtol=0, atol=1e-6)
    assert not torch.allclose(masked_scores, network(images), rtol=0, atol=1e-2)


def test_threads_do_not_mix_their_batches() -> None:
    network = initialized("convnet", SLTT).eval()
    batches = torch.randn(24, 8, *SHAPE, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = [network(images) for images in batches]
    barrier = threading.Barrier(4)

    def scores(worker: int) -> list[Tensor]:
        barrier.wait()
        with torch.inference_mode():
            return [network(images) for images in batches[worker::4]]

    with ThreadPoolExecutor(4) as pool:
        for worker, found in enumerate(pool.map(scores, range(4))):
            assert all(torch.equal(one, other) for one, other in zip(found, expected[worker::4], strict=True))


def test_network_of_the_table_without_a_spiking_form_is_refused() -> None:
    config = TrialConfig(dataset=DatasetConfig(name="digits"), model="alexnet", training=TrainingConfig(spiking=SLTT))
    with pytest.raises(ConfigError, match=r"training\.spiking\.rule: must be none for alexnet.*take one of convnet, resnet20"):
        network_of(config, SHAPE, 10)


def test_network_without_relu_modules_is_refused() -> None:
    with pytest.raises(ValueError, match="has no spiking form"):
        with_spikes(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), SLTT)
    with_spikes(Perceptron((4, 3, 2)), SLTT)

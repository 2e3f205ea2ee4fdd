"""A small network for spiking tests, and what it computes as a plain loop over layers and time steps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm, cross_entropy, linear

from trainables.config.spiking import SpikingConfig
from trainables.models.loss_parts import loss_parts
from trainables.models.spiking import with_spikes
from trainables.runtime.device import Runtime
from trainables.training.backward import backward

EXACT = Runtime(channels_last=False)


class Perceptron(nn.Module):
    """Linear layers of these sizes; hidden ones have BN and ReLU."""

    def __init__(self, sizes: Sequence[int], bias: bool = False) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(sizes[:-1]):
            layers += [nn.Linear(inputs, outputs, bias=bias), nn.BatchNorm1d(outputs), nn.ReLU()]
        self.hidden = nn.Sequential(*layers)
        self.head = nn.Linear(sizes[-2], sizes[-1])

    def forward(self, images: Tensor) -> Tensor:
        scores: Tensor = self.head(self.hidden(images.flatten(1)))
        return scores


def perceptron(spiking: SpikingConfig, seed: int = 0, sizes: Sequence[int] = (6, 12, 12, 3)) -> nn.Module:
    """In float64 and training mode, with scales and shifts at which about half of the neurons spike."""
    torch.manual_seed(seed)
    network = Perceptron(sizes).double()
    for layer in network.hidden:
        if isinstance(layer, nn.BatchNorm1d):
            nn.init.uniform_(layer.weight, 0.8, 1.6)
            nn.init.uniform_(layer.bias, 0.3, 1.0)
    return with_spikes(network, spiking).train()


def batch(seed: int = 0, images: int = 16) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randn(images, 6, 1, 1, generator=generator, dtype=torch.float64)
    return pixels, torch.randint(0, 3, (images,), generator=generator)


def gradient(network: nn.Module, images: Tensor, labels: Tensor, sampled: frozenset[int] | None = None) -> list[Tensor]:
    """The gradient that training takes, by parameter."""
    network.zero_grad(set_to_none=True)
    backward(loss_parts(network, network, images, labels, cross_entropy, EXACT, sampled))
    return [torch.zeros_like(one) if one.grad is None else one.grad.clone() for one in network.parameters()]


def naive_scores(network: nn.Module, images: Tensor, spiking: SpikingConfig, detach: bool) -> Iterator[Tensor]:
    """The class scores of each step in turn, by the equations of the neuron written out.

    Args:
        detach: drop the paths of the gradient through time.
    """
    weights = list(network.parameters())
    kept: dict[int, Tensor] = {}
    for _ in range(spiking.steps):
        signal = images.flatten(1)
        for layer in range((len(weights) - 2) // 3):
            weight, scale, shift = weights[3 * layer : 3 * layer + 3]
            voltage = batch_norm(linear(signal, weight), None, None, scale, shift, training=True)
            if layer in kept:
                voltage = voltage + (1 - 1 / spiking.tau) * kept[layer]
            signal = naive_spikes(voltage)
            kept[layer] = voltage - signal
            if detach:
                kept[layer] = kept[layer].detach()
        yield linear(signal, *weights[-2:])


def naive_spikes(voltage: Tensor) -> Tensor:
    """The value of a step at 1, with the derivative of the integral of a triangle around it."""
    distance = (voltage - 1).clamp(-1, 1)
    integral = 0.5 + distance - distance * distance.abs() / 2
    return torch.where(voltage >= 1, 1.0, 0.0).to(voltage.dtype) + (integral - integral.detach())


def naive_loss(network: nn.Module, images: Tensor, labels: Tensor, spiking: SpikingConfig, detach: bool) -> Tensor:
    share = spiking.mse_share
    losses = [
        (1 - share) * cross_entropy(scores, labels) + share * ((scores - 1) ** 2).mean()
        for scores in naive_scores(network, images, spiking, detach)
    ]
    return torch.stack(losses).mean()

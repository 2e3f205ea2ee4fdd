"""Spiking networks: leaky integrate-and-fire neurons in the place of ReLUs, run over several time steps.

The definitions are those of SLTT (Meng et al., arXiv:2302.14311), read in the authors' code; the body of the paper was not. The
authors' ResNet applies its neurons before the convolutions; here each network keeps its own order of layers.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from trainables.config.spiking import SpikingConfig

THRESHOLD = 1.0
_ONE_BATCH_AT_A_TIME = threading.RLock()  # neurons hold the voltages of one batch, and servers have many threads


class Neuron(nn.Module):
    """One layer of leaky integrate-and-fire neurons with a soft reset.

    u[t] = lambda (u[t-1] - V s[t-1]) + I[t] and s[t] = 1 where u[t] >= V, else 0, with V = 1, lambda = 1 - 1 / tau and nothing
    left before the first step. Voltages are float32 or wider, since BF16 would round them to the threshold; spikes have the
    type of the input.

    Attributes:
        left: u - V s of the step before; None before the first one.
        through_time: whether the gradient follows it.
    """

    def __init__(self, tau: float, through_time: bool) -> None:
        super().__init__()
        self.decay = 1.0 - 1.0 / tau
        self.through_time = through_time
        self.left: Tensor | None = None

    def forward(self, current: Tensor) -> Tensor:
        voltage = current.to(torch.promote_types(current.dtype, torch.float32))
        if self.left is not None:
            voltage = voltage + self.decay * self.left
        spikes = spike(voltage)
        left = voltage - THRESHOLD * spikes
        self.left = left if self.through_time else left.detach()
        return spikes.to(current.dtype)


def spike(voltage: Tensor) -> Tensor:
    """1 where the voltage reaches the threshold, else 0; its derivative is taken as max(0, 1 - |voltage - threshold|).

    That the authors take a triangle was read, its height and width are from memory.
    """
    if not (torch.is_grad_enabled() and voltage.requires_grad):
        return _fired(voltage)
    spikes: Tensor = _Spike.apply(voltage)
    return spikes


def _fired(voltage: Tensor) -> Tensor:
    return (voltage >= THRESHOLD).to(voltage.dtype)


class _Spike(torch.autograd.Function):
    """Can be differentiated once: the triangle stands for a first derivative alone."""

    @staticmethod
    def forward(ctx: Any, voltage: Tensor) -> Tensor:
        ctx.save_for_backward(voltage)
        return _fired(voltage)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (voltage,) = ctx.saved_tensors
        slope: Tensor = (1.0 - (voltage - THRESHOLD).abs()).clamp(min=0.0)
        return grad * slope


class SpikingNetwork(nn.Module):
    """What makes a network spiking, by inheritance before its own class: it runs over all time steps.

    Images are the same in every step. The class scores of the whole network are the mean of those of the steps, whose highest
    is that of their sum.
    """

    spiking: SpikingConfig

    def forward(self, images_BCHW: Tensor, step: int | None = None) -> Tensor:
        """The class scores of all steps (None), or of one; steps count from 0 and must be taken in order, up to the last."""
        if step is not None:
            return self._scores_at(step, images_BCHW)
        with _ONE_BATCH_AT_A_TIME:
            total = self._scores_at(0, images_BCHW)
            total = total.to(torch.promote_types(total.dtype, torch.float32))
            for later in range(1, self.spiking.steps):
                total = total + self._scores_at(later, images_BCHW)
        return total / self.spiking.steps

    def _scores_at(self, step: int, images_BCHW: Tensor) -> Tensor:
        if step == 0:
            self.forget()
        scores: Tensor = super().forward(images_BCHW)
        if step == self.spiking.steps - 1:
            self.forget()
        return scores

    def forget(self) -> None:
        """Leaves nothing of one batch for the next."""
        for neuron in neurons(self):
            neuron.left = None


def neurons(model: nn.Module) -> Iterator[Neuron]:
    return (module for module in model.modules() if isinstance(module, Neuron))


def with_spikes(model: nn.Module, spiking: SpikingConfig) -> nn.Module:
    """The spiking form of a network of the table that has one, changed in place; itself if the rule is none.

    Names, shapes and initial values of its weights stay as they are.
    """
    if not spiking.is_on:
        return model
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if type(child) is nn.ReLU:
                setattr(module, name, Neuron(spiking.tau, through_time=spiking.rule == "bptt"))
    if not any(neurons(model)):
        raise ValueError(f"{type(model).__name__} has no spiking form: none of its modules is a ReLU")
    model.__class__ = type(f"Spiking{type(model).__name__}", (SpikingNetwork, type(model)), {})
    assert isinstance(model, SpikingNetwork)
    model.spiking = spiking
    return model


def without_spikes(model: nn.Module) -> nn.Module:
    """The network as it would be with ReLUs, with the same weights: itself if it does not spike, otherwise a copy."""
    if not isinstance(model, SpikingNetwork):
        return model
    plain = copy.deepcopy(model)
    for module in list(plain.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, Neuron):
                setattr(module, name, nn.ReLU())
    plain.__class__ = type(model).__mro__[2]  # after its own and SpikingNetwork
    return plain

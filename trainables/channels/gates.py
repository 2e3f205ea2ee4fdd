"""Gates of channels that depend on the image: each group of units has a light module that opens or closes its units.

A module takes the mean over all pixels of what the group's first layer reads, through two small linear layers with ReLU, and
gives one value z for each unit; its gate is 1 where z > 0. A channel is multiplied by its gate wherever a layer reads it, after
its norm layer and its ReLU. So a closed gate is a removed channel, also where several layers add to the channel; and it still
gets a gradient, which a ReLU after it would take away. Shapes: B images, U units of the network.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from trainables.channels.fitting import readers
from trainables.channels.units import STAYS, ChannelUnits

CLIP = 1.0  # |z| from which on a gate gets no gradient
START = 0.5  # of z: every gate is open at first, and gets gradients
SPREAD = 0.1  # of the second layer's weights at first, as a share of Kaiming's


def straight_through(z: Tensor) -> Tensor:
    """1 where z > 0, else 0; its gradient by z is 1 where |z| < CLIP, else 0 (clipped straight-through estimator)."""
    clipped = z.clamp(-CLIP, CLIP)
    return (z > 0).to(z.dtype) + (clipped - clipped.detach())


class ChannelGates(nn.Module):
    """The gate modules of a network, and the hooks by which they act on it.

    The network is not a part of it: its parameters are those of the gates alone, and nothing of it is left in the network
    after `remove`.
    """

    def __init__(self, model: nn.Module, units: ChannelUnits, width: int, generator: torch.Generator) -> None:
        super().__init__()
        self.units = units
        makers = {group.name: model.get_submodule(group.name) for group in units.groups}
        self.layers = nn.ModuleList()
        for group in units.groups:
            first, second = _linear(_features(makers[group.name]), width), _linear(width, group.size)
            for layer in (first, second):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
                nn.init.zeros_(layer.bias)
            with torch.no_grad():
                second.weight.mul_(SPREAD)
                second.bias.fill_(START)
            self.layers.append(nn.Sequential(first, nn.ReLU(), second))
        self.to(next(model.parameters()).device)
        self._z: dict[int, Tensor] = {}  # by the group's position, of the present batch
        self._handles: list[Any] = []
        self._images, self._open_U, self._z_U = 0, torch.zeros(0), torch.zeros(0)
        self._counting = False

    def install(self, model: nn.Module) -> None:
        """Lets the gates act on the network, until `remove`."""
        modules = dict(model.named_modules())
        hook = model.register_forward_pre_hook(lambda module, inputs: self._z.clear())
        self._handles = [hook, model.register_forward_hook(self._count)]
        for position, group in enumerate(self.units.groups):
            self._handles.append(modules[group.name].register_forward_pre_hook(self._gating(position)))
        for name in readers(model, self.units):
            unit_of_input = self.units.unit_of[f"{name}.weight", 1].repeat(getattr(modules[name], "groups", 1))
            self._handles.append(modules[name].register_forward_pre_hook(self._closing(name, unit_of_input)))

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles, self._z = [], {}

    def means(self) -> Tensor:
        """The share of the present batch's images for which each unit is open (U,), with gradients."""
        return torch.cat([straight_through(self._z[position]).mean(0) for position in range(len(self.layers))])

    def missing(self) -> list[str]:
        """First layers of the groups that had no gate in the last pass, as the network did not call them."""
        return [group.name for position, group in enumerate(self.units.groups) if position not in self._z]

    def over(self, run: Callable[[], object]) -> tuple[Tensor, Tensor, int]:
        """Of all images that `run` gives the network: for how many each unit is open and the mean of z, float64 (U,), and how
        many there are."""
        self._images = 0
        self._open_U, self._z_U = (torch.zeros(self.units.count, dtype=torch.float64) for _ in range(2))
        self._counting = True
        try:
            run()
        finally:
            self._counting = False
        return self._open_U, self._z_U / max(1, self._images), self._images

    def _count(self, module: nn.Module, inputs: tuple[Tensor, ...], outputs: object) -> None:
        if self._counting:
            z_BU = torch.cat([self._z[position] for position in range(len(self.layers))], 1).detach().double().cpu()
            self._images += len(z_BU)
            self._open_U += (z_BU > 0).sum(0)
            self._z_U += z_BU.sum(0)

    def _gating(self, position: int) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        """The hook of a group's first layer, which computes its gates at the layer's first call."""

        def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            if position not in self._z:
                with torch.autocast(inputs[0].device.type, enabled=False):
                    self._z[position] = self.layers[position](_pooled(module, inputs[0]).float())

        return hook

    def _closing(self, name: str, unit_of_input: Tensor) -> Callable[[nn.Module, tuple[Tensor, ...]], tuple[Tensor, ...]]:
        """The hook of a layer that reads units, which multiplies its inputs by their gates."""
        groups = [
            position
            for position, group in enumerate(self.units.groups)
            if bool(((unit_of_input >= group.start) & (unit_of_input < group.start + group.size)).any())
        ]
        starts = torch.cat([torch.tensor(list(self.units.groups[position].units)) for position in groups])
        column_of = {int(unit): column for column, unit in enumerate(starts)} | {STAYS: len(starts)}
        columns = torch.tensor([column_of[int(unit)] for unit in unit_of_input])

        def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            read, *others = inputs
            if early := [self.units.groups[position].name for position in groups if position not in self._z]:
                raise RuntimeError(f"{name} runs before {early[0]}, whose channels it reads")
            gates = [straight_through(self._z[position]) for position in groups]
            gates_BC = torch.cat([*gates, gates[0].new_ones(len(gates[0]), 1)], 1)[:, columns.to(read.device)]
            between = read.dim() - 2
            shape = (*gates_BC.shape, *[1] * between) if isinstance(module, nn.Conv2d) else (len(gates_BC), *[1] * between, -1)
            return read * gates_BC.view(shape).to(read.dtype), *others

        return hook


def _linear(features_in: int, features_out: int) -> nn.Linear:
    """Without PyTorch's own initialisation, which would draw from the training's random numbers."""
    layer: nn.Linear = nn.utils.skip_init(nn.Linear, features_in, features_out)
    return layer


def _features(layer: nn.Module) -> int:
    if isinstance(layer, nn.Conv2d):
        return layer.in_channels
    assert isinstance(layer, nn.Linear)
    return layer.in_features


def _pooled(layer: nn.Module, inputs: Tensor) -> Tensor:
    """The mean over all pixels, or places of a sequence, (B, features)."""
    if isinstance(layer, nn.Conv2d):
        return inputs.flatten(2).mean(2)
    return inputs.flatten(1, -2).mean(1) if inputs.dim() > 2 else inputs

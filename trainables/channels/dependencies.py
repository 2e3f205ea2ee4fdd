"""Finds the channel units of a network with torch-pruning's dependency graph (DepGraph, arXiv:2301.12900).

Only the groups are taken from there: which layers make a channel and which read it. Removal (removal.py) and its proof
(equality.py) are this project's.
"""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from trainables.channels.units import STAYS, ChannelUnits, Place, UnitGroup
from trainables.errors import ConfigError
from trainables.wording import first_line, listed, one_line

EXAMPLES = 2  # images that the network is traced with
SLICED = (nn.Conv2d, nn.Linear, nn.BatchNorm1d, nn.BatchNorm2d)
MAX_REASONS = 3


def find_units(model: nn.Module, image_shape: tuple[int, int, int], exclude: Sequence[str] = ()) -> ChannelUnits:
    """The units of a network, which is not changed.

    Args:
        exclude: shell patterns of layers that keep all their output channels. They may read fewer.

    Raises:
        ConfigError: the network cannot be traced, or no channel of it can be removed.
    """
    try:
        with _quiet(), torch.enable_grad():
            traced = copy.deepcopy(model).to("cpu", torch.float32).eval()
            for parameter in traced.parameters():
                parameter.requires_grad_()  # without a gradient nothing is traced
            layers = _Layers.of(traced)
            found = [_Group.of(group, layers) for group in _dependency_groups(traced, torch.zeros(EXAMPLES, *image_shape))]
            units = _units(found, list(layers.names.values()), tuple(exclude))
    except Exception as error:  # of many types, from the network's code too
        raise ConfigError(
            f"granularity: channel must have a network whose layers can be followed, got {one_line(first_line(error))}",
            "write granularity: weight, or a forward without decisions on values",
        ) from error
    if not units.groups:
        reasons = listed([f"{layer}: {reason}" for layer, reason in units.fixed.items()], MAX_REASONS) or "no layer is known"
        raise ConfigError(
            f"granularity: channel must have a network with channels to remove, got none ({reasons})",
            "write granularity: weight",
        )
    return units


def _units(found: list[_Group], order: list[str], exclude: tuple[str, ...]) -> ChannelUnits:
    """The units of groups, numbered in the order of the layers."""
    groups: list[UnitGroup] = []
    unit_of: dict[Place, Tensor] = {}
    fixed: dict[str, str] = {}
    for group in sorted((one for one in found if one.makers), key=lambda one: order.index(one.makers[0])):
        if problem := group.problem(exclude):
            fixed |= dict.fromkeys(group.makers, problem)
            continue
        start = sum(one.size for one in groups)
        groups.append(UnitGroup(name=group.makers[0], layers=group.makers, start=start, size=group.size))
        for member in group.members:
            for place, length, indices in member.places():
                units = unit_of.setdefault(place, torch.full((length,), STAYS))
                units[indices] = start + group.unit_of_channel[list(member.channels)]
    return ChannelUnits(groups=tuple(groups), unit_of=unit_of, fixed=fixed)


def _dependency_groups(traced: nn.Module, images: Tensor) -> list[Any]:
    """The groups of torch-pruning, each with all its channels."""
    from torch_pruning import DependencyGraph

    return list(DependencyGraph().build_dependency(traced, images).get_all_groups())


@contextmanager
def _quiet() -> Iterator[None]:
    """Without advice on parameters that no layer holds, which stay whole here."""
    level = logging.root.manager.disable
    with warnings.catch_warnings(action="ignore"):
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(level)


@dataclass(frozen=True)
class _Layers:
    """What is known of the layers beside their place in a group."""

    names: dict[nn.Module, str]
    shared: set[nn.Parameter]  # that several layers hold

    @classmethod
    def of(cls, model: nn.Module) -> _Layers:
        seen: set[nn.Parameter] = set()
        shared: set[nn.Parameter] = set()
        for module in model.modules():
            for parameter in module.parameters(recurse=False):
                (shared if parameter in seen else seen).add(parameter)
        return cls({module: name for name, module in model.named_modules()}, shared)


@dataclass(frozen=True)
class _Group:
    """A group of torch-pruning.

    Attributes:
        makers: the layers whose outputs its channels are, in the order of the network.
        unit_of_channel: for each channel of the first member its unit, from 0 on; int64.
    """

    members: list[_Member]
    makers: tuple[str, ...]
    unit_of_channel: Tensor

    @classmethod
    def of(cls, group: Any, layers: _Layers) -> _Group:
        members = [_Member(item.dep, tuple(item.idxs), tuple(item.root_idxs), layers) for item in group]
        names = {one.name for one in members if one.makes_channels}
        return cls(members, tuple(name for name in layers.names.values() if name in names), _tied(members))

    @property
    def size(self) -> int:
        return int(self.unit_of_channel.max()) + 1

    def problem(self, exclude: tuple[str, ...]) -> str:
        """Why its channels cannot be removed; empty if they can."""
        problems = (one.problem(exclude) for one in self.members)
        return next((problem for problem in problems if problem), "" if self.size > 1 else "they can only go all together")


@dataclass(frozen=True)
class _Member:
    """A layer of a group, or an operation between layers.

    Attributes:
        indices: its channels that are of the group.
        channels: the channels of the group's first layer that they belong to.
    """

    dependency: Any
    indices: tuple[int, ...]
    channels: tuple[int, ...]
    layers: _Layers

    @property
    def module(self) -> Any:
        return self.dependency.target.module

    @property
    def name(self) -> str:
        return self.layers.names.get(self.module, "")

    @cached_property
    def is_depthwise(self) -> bool:
        return isinstance(self.module, nn.Conv2d) and self.module.groups == self.module.out_channels > 1

    @cached_property
    def reads_channels(self) -> bool:
        """Whether they are its inputs; a depthwise convolution has outputs for them too."""
        return "in_channels" in self.dependency.handler.__name__ and not self.is_depthwise

    @cached_property
    def makes_channels(self) -> bool:
        return isinstance(self.module, nn.Conv2d | nn.Linear) and not self.reads_channels

    @cached_property
    def conv_groups(self) -> int:
        """Of a grouped convolution, all of whose groups must keep equally many channels; 1 for any other layer."""
        return int(self.module.groups) if isinstance(self.module, nn.Conv2d) and not self.is_depthwise else 1

    @cached_property
    def positions(self) -> list[int]:
        """The indices; those of a grouped convolution within its groups."""
        if self.conv_groups == 1:
            return list(self.indices)
        channels = self.module.in_channels if self.reads_channels else self.module.out_channels
        return [index % (channels // self.conv_groups) for index in self.indices]

    def problem(self, exclude: tuple[str, ...]) -> str:
        """Why the channels cannot be removed; empty if this member is no reason."""
        module = self.module
        own = [module] if isinstance(module, nn.Parameter) else list(module.parameters(recurse=False))
        if any(parameter in self.layers.shared for parameter in own):
            return f"{self.name} shares a weight with another layer"
        if self.makes_channels and any(fnmatchcase(self.name, pattern) for pattern in exclude):
            return f"prunable.exclude keeps {self.name} whole"
        if not self.dependency.target.outputs and not self.reads_channels:
            return "they are outputs of the network"
        if own and not isinstance(module, SLICED):
            return f"{self.name or 'a parameter'} ({type(module).__name__}) cannot lose channels"
        return ""

    def places(self) -> Iterator[tuple[Place, int, list[int]]]:
        """The dimensions of its tensors that have these channels: place, size, and the indices there."""
        prefix = f"{self.name}." if self.name else ""
        if self.reads_channels and isinstance(self.module, nn.Conv2d | nn.Linear):
            yield (f"{prefix}weight", 1), self.module.weight.shape[1], self.positions
            return
        own = dict(self.module.named_parameters(recurse=False)) | dict(self.module.named_buffers(recurse=False))
        for name, tensor in own.items():
            if tensor.dim():
                yield (f"{prefix}{name}", 0), tensor.shape[0], list(self.indices)


def _tied(members: Sequence[_Member]) -> Tensor:
    """For each channel of the group's first layer its unit, from 0 on; int64 (channels,)."""
    root = list(range(len(members[0].indices)))

    def find(channel: int) -> int:
        while root[channel] != channel:
            channel = root[channel]
        return channel

    for one in members:
        if one.conv_groups > 1:
            first: dict[int, int] = {}
            for position, channel in zip(one.positions, one.channels, strict=True):
                ends = find(first.setdefault(position, channel)), find(channel)
                root[max(ends)] = min(ends)
    heads = [find(channel) for channel in range(len(root))]
    number = {head: position for position, head in enumerate(dict.fromkeys(heads))}
    return torch.tensor([number[head] for head in heads])

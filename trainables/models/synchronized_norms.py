"""Batch norm of several workers: by the statistics of the whole batch, or each by those of its own part.

A network computes with its own layers; while the block of `synchronized_norms` runs, their forward pass takes the statistics of
all workers. The layers, their names and their buffers stay as they are, so files and counts do not know of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import zip_longest
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from trainables.errors import ConfigError
from trainables.models.weight_use import unchanged_buffers
from trainables.runtime.device import Runtime
from trainables.runtime.group import Group, group_of
from trainables.runtime.seeding import unchanged_random_numbers


@contextmanager
def synchronized_norms(model: nn.Module, runtime: Runtime) -> Iterator[None]:
    """Has batch norm in training mode use the statistics of all workers' images; does nothing unless the runtime says so.

    Raises:
        ConfigError: a batch norm layer has a forward pass of its own, or a batch takes other layers than the first one.
    """
    group = group_of(runtime)
    if group.workers == 1 or not runtime.sync_batch_norm:
        yield
        return
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, _BatchNorm)}
    for name, layer in layers.items():
        if type(layer).forward not in (_BatchNorm.forward, nn.SyncBatchNorm.forward) or "forward" in vars(layer):
            raise ConfigError(
                f"resources.sync_batch_norm: {name} must be a plain batch norm layer, got {type(layer).__name__} with a "
                "forward pass of its own",
                "write sync_batch_norm: false",
            )
    modes = model.training, *(layer.training for layer in layers.values())
    order = _Order(group, runtime.device, _FIRST_ORDERS.setdefault(model, {}), modes)
    hooks = [model.register_forward_pre_hook(order.begin), model.register_forward_hook(order.end)]
    for name, layer in layers.items():
        vars(layer)["forward"] = partial(_forward, layer, group, partial(order.take, name))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for layer in layers.values():
            del vars(layer)["forward"]


# By which modules are in training mode, the norm layers that the first batch has taken.
Orders = dict[tuple[bool, ...], list[str]]
_FIRST_ORDERS: WeakKeyDictionary[nn.Module, Orders] = WeakKeyDictionary()


class _Order:
    """The norm layers that a batch takes, compared before anything is sent.

    A worker that leaves one out, by chance or by its images, would add up its numbers with those of another layer. So the first
    batch is tried without the others, and the workers agree on its order; each compares its later batches with that.
    """

    def __init__(self, group: Group, device: str, first: Orders, modes: tuple[bool, ...]) -> None:
        self.group, self.device, self.first, self.modes = group, device, first, modes
        self.tried: list[str] | None = None  # in the batch that is tried without the others
        self.taken: int | None = None  # in this pass; None between passes, where a checkpoint may compute layers again

    def begin(self, model: nn.Module, arguments: Any) -> None:
        if self.tried is not None:
            return
        if self.modes not in self.first:
            self._agree(model, arguments)
        self.taken = 0

    def take(self, name: str) -> bool:
        """Whether the layer may be computed with the other workers; False while the first batch is tried."""
        if self.tried is not None:
            self.tried.append(name)
            return False
        if self.taken is not None:
            if self.first[self.modes][self.taken : self.taken + 1] != [name]:
                raise other_layers(name)
            self.taken += 1
        return True

    def end(self, *_: Any) -> None:
        taken, self.taken = self.taken, None
        if taken is not None and (left_out := self.first[self.modes][taken:]):
            raise other_layers(left_out[0])

    def _agree(self, model: nn.Module, arguments: Any) -> None:
        order: list[str] = []
        self.tried = order
        try:
            with unchanged_random_numbers(self.device), unchanged_buffers(model), torch.no_grad():
                model(*arguments)
        finally:
            self.tried = None
        for others in self.group.of_all(order):
            for ours, theirs in zip_longest(order, others):
                if ours != theirs:
                    raise other_layers(ours or theirs)
        self.first[self.modes] = order


def other_layers(name: str) -> ConfigError:
    """Of a network that takes a norm layer in some batches only, or in another order."""
    return ConfigError(
        f"resources.sync_batch_norm: the network must take the same norm layers in every batch, got batches with and without "
        f"{name}, or with another order",
        "multiply by 0 what a batch leaves out, or write sync_batch_norm: false",
    )


def average_statistics(model: nn.Module, runtime: Runtime, share: float) -> None:
    """Gives every worker the mean of all workers' running statistics, where each has those of its parts alone.

    Args:
        share: of this worker's part in every batch; by it the mean of instance norms is that of the whole batch.
    """
    group = group_of(runtime)
    if group.workers == 1:
        return
    kinds = _InstanceNorm if runtime.sync_batch_norm else _BatchNorm | _InstanceNorm
    layers = [layer for layer in model.modules() if isinstance(layer, kinds) and layer.running_mean is not None]
    statistics = [buffer for layer in layers for buffer in (layer.running_mean, layer.running_var) if buffer is not None]
    for buffer in statistics:
        buffer.mul_(share)
    group.sum_(statistics)
    group.take_first_([layer.num_batches_tracked for layer in layers if layer.num_batches_tracked is not None])


def _forward(layer: Any, group: Group, take: Callable[[], bool], input_BC: Tensor) -> Tensor:
    """Batch norm of the whole batch, of which this worker has a part: (B, C, ...) -> the same shape.

    With n_r values of a channel on worker r, mean m_r and variance v_r there, the mean is sum n_r m_r / n and the variance
    sum n_r (v_r + (m_r - mean)^2) / n, which unlike a sum of squares loses no digits. Gradients flow through both.
    """
    if not layer.training:
        return _BatchNorm.forward(layer, input_BC)
    if not take():
        return input_BC
    layer._check_input_dim(input_BC)
    values = input_BC.float()
    dimensions = [0, *range(2, input_BC.dim())]
    shape = [1, -1, *[1] * (input_BC.dim() - 2)]
    count = values.new_full((1,), input_BC.numel() // input_BC.shape[1])  # filled there: a copy would wait for the device
    var_C, mean_C = torch.var_mean(values, dimensions, correction=0)
    rows = [torch.cat([mean_C, var_C, count])] + [values.new_zeros(2 * len(mean_C) + 1)] * (group.workers - 1)
    table = summed(torch.stack(rows[1 : group.rank + 1] + rows[:1] + rows[group.rank + 1 :]), group)  # (workers, ...)
    means_WC, vars_WC = table[:, :-1].chunk(2, dim=1)
    counts_W1 = table[:, -1:].detach()
    total = counts_W1.sum()
    whole_mean_C = (means_WC * (counts_W1 / total)).sum(0)
    whole_var_C = ((vars_WC + (means_WC - whole_mean_C).square()) * (counts_W1 / total)).sum(0)
    if layer.track_running_stats and layer.running_mean is not None:
        _update(layer, whole_mean_C.detach(), whole_var_C.detach() * (total / (total - 1)))
    scale_C = (whole_var_C + layer.eps).rsqrt()
    if layer.affine:
        scale_C = scale_C * layer.weight
    shift_C = -whole_mean_C * scale_C
    if layer.affine:
        shift_C = shift_C + layer.bias
    return torch.addcmul(shift_C.view(shape), values, scale_C.view(shape)).to(input_BC.dtype)


def _update(layer: Any, mean_C: Tensor, var_C: Tensor) -> None:
    """The running statistics after another batch; `var_C` is the unbiased one."""
    layer.num_batches_tracked.add_(1)
    momentum = 1.0 / float(layer.num_batches_tracked) if layer.momentum is None else layer.momentum
    layer.running_mean.lerp_(mean_C.to(layer.running_mean), momentum)
    layer.running_var.lerp_(var_C.to(layer.running_var), momentum)


def summed(tensor: Tensor, group: Group) -> Tensor:
    """The sum over the workers, with gradients."""
    result: Tensor = _Sum.apply(tensor, group)
    return result


class _Sum(torch.autograd.Function):
    """The gradient of a sum over workers is the sum of the gradients, as each worker's loss depends on it."""

    @staticmethod
    def forward(context: Any, tensor: Tensor, group: Group) -> Tensor:
        context.group = group
        result = tensor.detach().clone()
        group.sum_([result])
        return result

    @staticmethod
    def backward(context: Any, grad: Tensor) -> Any:
        return _Sum.apply(grad, context.group), None

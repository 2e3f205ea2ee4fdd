"""Batch norm of several workers: by the statistics of the whole batch, or each by those of its own part.

A network computes with its own layers; while the block of `synchronized_norms` runs, their forward pass takes the statistics of
all workers. The layers, their names and their buffers stay as they are, so files and counts do not know of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from trainables.errors import ConfigError
from trainables.runtime.device import Runtime
from trainables.runtime.group import Group, group_of


@contextmanager
def synchronized_norms(model: nn.Module, runtime: Runtime) -> Iterator[None]:
    """Has batch norm in training mode use the statistics of all workers' images; does nothing unless the runtime says so.

    Raises:
        ConfigError: a batch norm layer has a forward pass of its own.
    """
    group = group_of(runtime)
    if group.workers == 1 or not runtime.sync_batch_norm:
        yield
        return
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, _BatchNorm)}
    for name, layer in layers.items():
        if type(layer).forward is not _BatchNorm.forward:
            raise ConfigError(
                f"resources.sync_batch_norm: {name} must be a plain batch norm layer, got {type(layer).__name__} with a "
                "forward pass of its own",
                "write sync_batch_norm: false",
            )
        vars(layer)["forward"] = partial(_forward, layer, group)
    try:
        yield
    finally:
        for layer in layers.values():
            del vars(layer)["forward"]


def average_statistics(model: nn.Module, group: Group) -> None:
    """Gives every worker the mean of all workers' running statistics; the same bits where they are the same."""
    layers = [layer for layer in model.modules() if isinstance(layer, _BatchNorm)] if group.workers > 1 else []
    buffers = [buffer for layer in layers for buffer in (layer.running_mean, layer.running_var) if buffer is not None]
    group.mean_(buffers)


def _forward(layer: Any, group: Group, input_BC: Tensor) -> Tensor:
    """Batch norm of the whole batch, of which this worker has a part: (B, C, ...) -> the same shape.

    With n_r values of a channel on worker r, mean m_r and variance v_r there, the mean is sum n_r m_r / n and the variance
    sum n_r (v_r + (m_r - mean)^2) / n, which unlike a sum of squares loses no digits. Gradients flow through both.
    """
    if not layer.training:
        return _BatchNorm.forward(layer, input_BC)
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

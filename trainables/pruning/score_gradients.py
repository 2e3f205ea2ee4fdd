"""Gradients for scores, computed without changing parameters, buffers, gradients or modes.

Shapes: B batch, C channels, H height, W width, K classes. Gradients are with respect to the prunable weights, at the masked
weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.batchnorm import _BatchNorm

from trainables.config.options import BatchNormMode
from trainables.errors import ConfigError
from trainables.models.loss_parts import Part, loss_parts
from trainables.models.losses import batch_loss
from trainables.models.synchronized_norms import synchronized_norms
from trainables.models.weight_use import node_names
from trainables.runtime.device import Runtime
from trainables.runtime.group import group_of

Batches = Iterable[tuple[Tensor, Tensor]]


def scoring_gradients(
    model: nn.Module,
    weights: Mapping[str, Tensor],
    batches: Batches,
    runtime: Runtime,
    batch_norm: BatchNormMode = "batch",
    temperature: float = 1.0,
    loss_name: str = "cross_entropy",
) -> tuple[Tensor, dict[str, Tensor]]:
    """Mean loss of logits / temperature and its gradient for every prunable weight, without dropout.

    Gradients are averaged over the images before any absolute value is taken.
    """
    mean = WeightedMean()
    with scoring_mode(model, batch_norm):
        for images, loss, grads in batch_gradients(model, weights, batches, runtime, temperature, loss_name):
            mean.add([loss, *grads], images)
    loss_mean, *grads = mean.value()
    return loss_mean, dict(zip(weights, grads, strict=True))


def hessian_gradient_products(
    model: nn.Module,
    weights: Mapping[str, Tensor],
    masks: Mapping[str, Tensor],
    batches: Sequence[tuple[Tensor, Tensor]],
    runtime: Runtime,
    batch_norm: BatchNormMode,
    temperature: float,
    loss_name: str = "cross_entropy",
) -> tuple[Tensor, dict[str, Tensor]]:
    """Mean loss, and H g for every prunable weight, with g the mean gradient of the kept weights and H the mean Hessian.

    A pruned weight is no longer a variable of the loss, so its gradient is not part of g. Several workers compute whole batches
    each, since a gradient of a gradient is not a sum of parts.
    """
    runtime = runtime.alone()
    loss_mean, grads = scoring_gradients(model, weights, batches, runtime, batch_norm, temperature, loss_name)
    direction = [grad * masks[name] for name, grad in grads.items()]
    mean = WeightedMean()
    with scoring_mode(model, batch_norm), twice_differentiable(model):
        for images, loss in losses(model, batches, runtime, temperature, loss_name):
            slopes = gradients(loss, weights, create_graph=True)
            along = torch.stack([(slope * step).sum() for slope, step in zip(slopes, direction, strict=True)]).sum()
            if "Error" in node_names(along):  # autograd would skip it, as if the second derivative were zero
                raise ConfigError(
                    "method grasp must have a network whose gradient can be differentiated again, got an operation that is "
                    "differentiable once (once_differentiable)",
                    "use another method, or give it a second derivative",
                )
            # Where the loss is linear in a weight, its gradient does not depend on the weight.
            mean.add(torch.autograd.grad(along, list(weights.values()), materialize_grads=True), images)
    return loss_mean, dict(zip(weights, mean.value(), strict=True))


def gradients(of: Tensor, by: Mapping[str, Tensor], create_graph: bool = False) -> Sequence[Tensor]:
    """The gradient with respect to each of the named tensors.

    Raises:
        ConfigError: some have none, such as the weights of a layer that is frozen or never called.
    """
    frozen = [name for name, tensor in by.items() if not tensor.requires_grad]
    if frozen:
        raise _without_gradient(frozen, "are frozen (requires_grad is False)")
    grads = torch.autograd.grad(of, list(by.values()), create_graph=create_graph, allow_unused=True)
    unused = [name for name, grad in zip(by, grads, strict=True) if grad is None]
    if unused:
        raise _without_gradient(unused, "do not reach the output")
    return grads


def _without_gradient(names: list[str], reason: str) -> ConfigError:
    return ConfigError(
        f"every prunable weight must get a gradient, but {', '.join(names)} {reason}",
        f"exclude the layers: prunable: {{exclude: [{', '.join(name.removesuffix('.weight') for name in names)}]}}",
    )


@contextmanager
def twice_differentiable(model: nn.Module) -> Iterator[None]:
    """Runs attention and recurrent layers with kernels that have a second derivative, which the fused kernels lack."""
    with ExitStack() as stack:
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        if any(isinstance(module, nn.RNNBase) for module in model.modules()):
            stack.enter_context(torch.backends.mkldnn.flags(enabled=False))
            stack.enter_context(torch.backends.cudnn.flags(enabled=False))
        yield


class WeightedMean:
    """The mean of lists of tensors, each weighted by the number of images in its batch."""

    def __init__(self) -> None:
        self.first = 0
        self.total = 0.0
        self.sums: list[Tensor] = []

    def add(self, values: Sequence[Tensor], images: int) -> None:
        self.first = self.first or images
        weight = images / self.first  # 1 for batches of equal size, which gives a plain mean without extra rounding
        weighted = values if weight == 1 else [value * weight for value in values]
        self.sums = [total + value for total, value in zip(self.sums, weighted, strict=True)] if self.sums else list(weighted)
        self.total += weight

    def value(self) -> list[Tensor]:
        return [total / self.total for total in self.sums]


def batch_gradients(
    model: nn.Module, by: Mapping[str, Tensor], batches: Batches, runtime: Runtime, temperature: float, loss_name: str
) -> Iterator[tuple[int, Tensor, Sequence[Tensor]]]:
    """Number of images, mean loss and its gradient with respect to each of the named tensors, of every batch.

    Several workers compute a part of each batch and have the same bits in the end.
    The gradient of a spiking network is the sum over time of the trial's rule; of sltt-k over all steps, as for sltt.
    """
    group = group_of(runtime)
    with synchronized_norms(model, runtime):
        for images, parts in _batch_parts(model, batches, runtime, temperature, loss_name):
            share = group.share(images)  # before the gradient: through norms the losses of the others are part of it
            shares = (loss if share == 1 else loss * share for loss, _ in parts)
            values = _sums([loss.detach(), *gradients(loss, by)] for loss in shares)
            group.sum_(values)
            loss_sum, *grads = values
            yield images, loss_sum, grads


def losses(
    model: nn.Module, batches: Batches, runtime: Runtime, temperature: float, loss_name: str
) -> Iterator[tuple[int, Tensor]]:
    """Number of images and mean loss of every batch, with its graph; several workers compute whole batches each."""
    for images, parts in _batch_parts(model, batches, runtime.alone(), temperature, loss_name):
        (loss,) = _sums([loss] for loss, _ in parts)
        yield images, loss


def _batch_parts(
    model: nn.Module, batches: Batches, runtime: Runtime, temperature: float, loss_name: str
) -> Iterator[tuple[int, Iterator[Part]]]:
    """Number of images and parts of the loss of every batch; of several workers each computes its part of the images."""
    group = group_of(runtime)
    mean_loss = batch_loss(loss_name)
    copies = {name: buffer.clone() for name, buffer in model.named_buffers()}  # BN updates its running statistics in them

    def forward(*arguments: Any) -> Tensor:
        logits: Tensor = torch.func.functional_call(model, copies, arguments)
        return logits

    def loss_of(logits_BK: Tensor, labels_B: Tensor) -> Tensor:
        return mean_loss(logits_BK / temperature, labels_B)

    for images_BCHW, labels_B in batches:
        part = group.part(images_BCHW), group.part(labels_B)
        yield len(labels_B), loss_parts(model, forward, *part, loss_of, runtime)


def _sums(rows: Iterable[Sequence[Tensor]]) -> list[Tensor]:
    """The sums over rows of tensors; the tensors of a single row as they are."""
    sums: list[Tensor] = []
    for row in rows:
        sums = [total + value for total, value in zip(sums, row, strict=True)] if sums else list(row)
    return sums


@contextmanager
def scoring_mode(model: nn.Module, batch_norm: BatchNormMode) -> Iterator[None]:
    """Eval mode for all modules except BN that uses batch statistics; afterwards the modes are restored."""
    modes = {module: module.training for module in model.modules()}
    try:
        for module in modes:
            module.training = batch_norm == "batch" and isinstance(module, _BatchNorm)
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode

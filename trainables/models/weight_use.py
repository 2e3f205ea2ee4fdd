"""Checks of how a network uses its prunable weights: whether they get a gradient, and whether their zeros have an effect.

A weight counts as sparse if the tensor that is multiplied with the images has its zeros. Where a layer computes another weight
from it (weight standardisation, low-rank products), pruning saves nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from trainables.findings import Finding
from trainables.wording import first_line, listed, one_line

MAX_NAMES = 6  # of layers in one message
LEAST_ZEROS = 0.4  # share of zeros in a tensor that counts as sparse, of half the weights, so that slices of a weight pass


def exclude_hint(names: list[str]) -> str:
    """The hint to exclude layers."""
    return f"exclude them with prunable.exclude: [{', '.join(names)}]"


def layer_of(weight: str) -> str:
    return weight.removesuffix(".weight")


def unprunable_layers(model: nn.Module, exclude: tuple[str, ...] = ()) -> list[Finding]:
    """Findings about layers whose weight is not a trainable parameter, so that no mask can keep it at zero."""
    computed, frozen = [], []
    for name, module in model.named_modules():
        if not isinstance(module, nn.Conv2d | nn.Linear) or any(fnmatchcase(name, pattern) for pattern in exclude):
            continue
        if not isinstance(module._parameters.get("weight"), nn.Parameter):
            computed.append(name)
        elif not module.weight.requires_grad:
            frozen.append(name)
    findings = []
    if computed:
        findings.append(
            Finding(
                check="parameters",
                severity="error",
                message=f"layers to prune must hold their weight as a parameter, got a computed one in "
                f"{listed(computed, MAX_NAMES)} (weight_norm, spectral_norm, parametrizations, torch.nn.utils.prune)",
                hint=f"remove the parametrisation, or {exclude_hint(computed)}",
                places=tuple(computed),
            )
        )
    if frozen:
        findings.append(
            Finding(
                check="gradients",
                severity="error",
                message=f"layers to prune must be trained, got requires_grad=False in {listed(frozen, MAX_NAMES)}",
                hint=f"unfreeze them, or {exclude_hint(frozen)}",
                places=tuple(frozen),
            )
        )
    return findings


def without_gradient(names: list[str]) -> Finding:
    """The finding that the loss does not depend on the weights of these layers."""
    return Finding(
        check="gradients",
        severity="error",
        message=f"layers to prune must get a gradient, got none in {listed(names, MAX_NAMES)} (never called, or detached)",
        hint=f"use them in forward, or {exclude_hint(names)}",
        places=tuple(names),
    )


def gradient_findings(loss: Tensor, weights: Mapping[str, Tensor]) -> list[Finding]:
    """Problems of the gradient of the loss by these weights."""
    if not loss.requires_grad:
        return [without_gradient([layer_of(name) for name in weights])]
    reentrant = "CheckpointFunctionBackward" in node_names(loss)
    try:
        grads = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
    except RuntimeError as error:
        return [gradient_failure(error)]
    missing = [layer_of(name) for name, grad in zip(weights, grads, strict=True) if grad is None]
    if missing and reentrant:
        return [gradient_failure(RuntimeError(f"none of {listed(missing, MAX_NAMES)} inside a reentrant checkpoint"))]
    return [without_gradient(missing)] if missing else []


def node_names(loss: Tensor) -> set[str]:
    """Names of the nodes in the autograd graph of a value."""
    visited, stack = {loss.grad_fn}, [loss.grad_fn]
    while stack:
        node = stack.pop()
        inputs = {one for one, _ in node.next_functions if one is not None} - visited if node is not None else set()
        visited |= inputs
        stack += inputs
    return {type(node).__name__ for node in visited}


def gradient_failure(error: Exception) -> Finding:
    """An error of autograd as a finding."""
    hint = "correct its forward"
    if "checkpoint" in str(error):
        hint = "call torch.utils.checkpoint.checkpoint with use_reentrant=False"
    elif "inplace" in str(error):
        hint = "do not change in place what the gradient needs"
    message = f"a gradient must be taken by its weights, got {one_line(first_line(error))}"
    return Finding(check="gradients", severity="error", message=message, hint=hint)


def densified_layers(model: nn.Module, weights: Mapping[str, Tensor], images_BCHW: Tensor) -> list[Finding]:
    """Findings about layers that multiply images with a tensor without the zeros of their masked weight.

    Tries training and eval mode, and changes the weights.
    """
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator).to(parameter.device, parameter.dtype)
            parameter.add_(0.01 * noise)
            if name in weights:
                mask = torch.rand(parameter.shape, generator=generator).to(parameter.device) < 0.5
                parameter.mul_(mask)
    densified: set[str] = set()
    for training in (False, True):
        images = images_BCHW.detach().clone().requires_grad_()
        with _WeightOperands(images, weights) as operands, torch.enable_grad():
            outputs = model.train(training)(images)
        del outputs
        densified |= operands.densified
    layers = [layer_of(name) for name in weights if name in densified]
    if not layers:
        return []
    return [
        Finding(
            check="sparse_weights",
            severity="error",
            message=f"layers to prune must multiply images with the weight itself, so that its zeros stay, got another tensor "
            f"without them in {listed(layers, MAX_NAMES)}",
            hint=f"use the weight as it is (no standardisation or product of weights in forward), or {exclude_hint(layers)}",
            places=tuple(layers),
        )
    ]


class _WeightOperands(TorchFunctionMode):
    """Inspects each operation with one operand that depends on the images and one that depends on weights alone."""

    def __init__(self, images: Tensor, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.images = images
        self.names = {id(weight): name for name, weight in weights.items()}
        self.sizes = {name: weight.numel() for name, weight in weights.items()}
        self.densified: set[str] = set()
        self._sources: dict[Any, frozenset[int]] = {}  # by graph node; as keys the nodes are not freed meanwhile

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if isinstance(result, Tensor):
            tensors = list(_tensors((args, kwargs)))
            if len(tensors) > 1:
                with torch._C.DisableTorchFunction():
                    self._inspect(tensors)
        return result

    def _inspect(self, tensors: list[Tensor]) -> None:
        sources = [self._sources_of(tensor) for tensor in tensors]
        if not any(id(self.images) in source for source in sources):
            return
        for tensor, source in zip(tensors, sources, strict=True):
            if id(self.images) in source or id(tensor) in self.names:
                continue
            for name in (self.names[one] for one in source if one in self.names):
                zeros = 1 - int(tensor.count_nonzero()) / max(1, tensor.numel())
                if tensor.numel() >= self.sizes[name] / 2 and zeros < LEAST_ZEROS:
                    self.densified.add(name)

    def _sources_of(self, tensor: Tensor) -> frozenset[int]:
        """Ids of the leaves that a tensor was computed from."""
        if tensor.grad_fn is None:
            return frozenset([id(tensor)]) if tensor.requires_grad else frozenset()
        root = tensor.grad_fn
        stack = [root]
        while stack:
            node = stack[-1]
            if node in self._sources:
                stack.pop()
                continue
            if hasattr(node, "variable"):
                self._sources[node] = frozenset([id(node.variable)])
                continue
            inputs = [one for one, _ in node.next_functions if one is not None]
            pending = [one for one in inputs if one not in self._sources]
            if pending:
                stack += pending
            else:
                self._sources[node] = frozenset().union(*(self._sources[one] for one in inputs))
        return self._sources[root]


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _tensors(one)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))


@contextmanager
def unchanged_buffers(model: nn.Module) -> Iterator[None]:
    """Restores all buffers: also those that are not in the state dict, or that a pass replaces by other tensors."""
    before = [
        (module, name, buffer, buffer.clone())
        for module in model.modules()
        for name, buffer in module.named_buffers(recurse=False)
    ]
    try:
        yield
    finally:
        for module, name, buffer, value in before:
            buffer.copy_(value)
            setattr(module, name, buffer)


@contextmanager
def unchanged_state(model: nn.Module) -> Iterator[None]:
    """Restores parameters, buffers and modes afterwards."""
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = {module: module.training for module in model.modules()}
    try:
        yield
    finally:
        model.load_state_dict(before)
        model.zero_grad(set_to_none=True)
        for module, mode in modes.items():
            module.training = mode

"""Gives the layers of a network the sizes of tensors with fewer channels."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


def resize(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Gives a network the tensors of a state dict, which may have fewer channels, in place.

    Raises:
        ValueError: the state is not that of this network with some channels removed.
    """
    resize_layers(model, state)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            tensor.copy_(state[name])


def resize_layers(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Gives the layers of a network the shapes of a state dict, on their own device. Raises as `resize` does."""
    if set(model.state_dict()) != set(state):
        raise ValueError(f"its tensors are not those of {type(model).__name__}")
    for name, module in model.named_modules():
        prefix = f"{name}." if name else ""
        changed = False
        for own, parameter in list(module.named_parameters(recurse=False)):
            if (shape := _smaller_shape(prefix + own, parameter, state[prefix + own])) is not None:
                setattr(module, own, nn.Parameter(parameter.new_empty(shape), requires_grad=parameter.requires_grad))
                changed = True
        for own, buffer in list(module.named_buffers(recurse=False)):
            if prefix + own in state and (shape := _smaller_shape(prefix + own, buffer, state[prefix + own])) is not None:
                setattr(module, own, buffer.new_empty(shape))
                changed = True
        if changed:
            _set_sizes(module)


def _smaller_shape(name: str, present: Tensor, given: Tensor) -> torch.Size | None:
    """The shape of a given tensor; None if it is the present one."""
    if given.shape == present.shape:
        return None
    if given.dim() != present.dim() or any(new > old for new, old in zip(given.shape, present.shape, strict=True)):
        raise ValueError(f"{name} must have at most the shape {tuple(present.shape)}, got {tuple(given.shape)}")
    return given.shape


def _set_sizes(module: nn.Module) -> None:
    """The numbers of channels that a layer says of itself."""
    if isinstance(module, nn.Conv2d):
        if module.groups == module.out_channels > 1:  # depthwise: every channel is a group
            module.groups = module.weight.shape[0]
        module.out_channels, module.in_channels = module.weight.shape[0], module.weight.shape[1] * module.groups
    elif isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
        module.num_features = len(next(value for value in module.state_dict().values() if value.dim()))
    else:
        raise ValueError(f"{type(module).__name__} cannot lose channels")

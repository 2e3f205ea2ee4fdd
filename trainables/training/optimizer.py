"""The SGD optimizer of a trial, and its momentum by the names of parameters."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trainables.config.trial import TrainingConfig


def make_optimizer(model: nn.Module, training: TrainingConfig, momentum: dict[str, Tensor] | None = None) -> torch.optim.SGD:
    """SGD over all parameters, with weight decay; `momentum` restores the buffers of `momentum_of`."""
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=training.lr,
        momentum=training.momentum,
        nesterov=training.nesterov,
        weight_decay=training.weight_decay,
        foreach=True,
    )
    for name, parameter in model.named_parameters():
        if momentum and name in momentum:
            buffer = torch.empty_like(parameter, requires_grad=False).copy_(momentum[name])  # in the weight's memory order
            optimizer.state[parameter]["momentum_buffer"] = buffer
    return optimizer


def momentum_of(optimizer: torch.optim.SGD, model: nn.Module) -> dict[str, Tensor]:
    """Parameter name -> momentum buffer; empty before the first step."""
    buffers = {name: optimizer.state[parameter].get("momentum_buffer") for name, parameter in model.named_parameters()}
    return {name: buffer for name, buffer in buffers.items() if buffer is not None}

"""The sum of the gradients of all workers of a trial, after each batch."""

from __future__ import annotations

import torch
from torch import nn

from trainables.runtime.group import Group


class GradientSum:
    """Gives every worker the sum of all workers' gradients, in one message; does nothing for one worker.

    A parameter has a gradient afterwards if it had one on some worker, as it would of the whole batch: the images of a part may
    leave out a layer. Others learn of it by counts in the message, which are read only where a gradient is missing.
    """

    def __init__(self, model: nn.Module, group: Group) -> None:
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.group = group

    def __call__(self) -> None:
        """Sums the gradients in place."""
        if self.group.workers == 1:
            return
        missing = [position for position, parameter in enumerate(self.parameters) if parameter.grad is None]
        count_P = torch.ones(len(self.parameters), device=self.parameters[0].device)
        if missing:
            count_P[missing] = 0.0
        grads = [torch.zeros_like(one) if one.grad is None else one.grad for one in self.parameters]
        self.group.sum_([*grads, count_P])
        for position in missing:
            if count_P[position] > 0:
                self.parameters[position].grad = grads[position]

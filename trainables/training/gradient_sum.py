"""The sum of the gradients of all workers of a trial, after each batch."""

from __future__ import annotations

import torch
from torch import nn

from trainables.runtime.group import Group


class GradientSum:
    """Gives every worker the sum of all workers' gradients, in one message; does nothing for one worker.

    Which parameters have a gradient is agreed on after the first batch, so that all workers send the same ones.
    """

    def __init__(self, model: nn.Module, group: Group) -> None:
        self.parameters = dict(model.named_parameters())
        self.group = group
        self.names: list[str] | None = None

    def __call__(self) -> None:
        """Sums the gradients in place.

        Raises:
            RuntimeError: a parameter without a gradient in the first batch has one now.
        """
        if self.group.workers == 1:
            return
        have = [name for name, parameter in self.parameters.items() if parameter.grad is not None]
        if self.names is None:
            on_some = set().union(*self.group.of_all(have))
            self.names = [name for name in self.parameters if name in on_some]
        if late := set(have) - set(self.names):
            raise RuntimeError(f"{', '.join(sorted(late))} must have a gradient in the first batch of an epoch or in none")
        for name in self.names:
            if self.parameters[name].grad is None:
                self.parameters[name].grad = torch.zeros_like(self.parameters[name])
        self.group.sum_([grad for name in self.names if (grad := self.parameters[name].grad) is not None])

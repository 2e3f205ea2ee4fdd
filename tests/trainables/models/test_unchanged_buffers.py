"""A pass on the side leaves no trace in a network's buffers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trainables.models.weight_use import unchanged_buffers


class Counting(nn.Module):
    """Changes one buffer in place, and replaces the other, which is not in the state dict."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("total", torch.zeros(()))
        self.register_buffer("last", torch.zeros(()), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        self.get_buffer("total").add_(1)
        self.last = self.get_buffer("last") + 1
        return images


def test_buffers_are_restored_whether_a_pass_changes_or_replaces_them() -> None:
    model = nn.Sequential(Counting())
    before = list(model.buffers())
    with unchanged_buffers(model):
        model(torch.ones(1))
        assert [float(buffer) for buffer in model.buffers()] == [1.0, 1.0]
    assert [float(buffer) for buffer in model.buffers()] == [0.0, 0.0]
    assert all(ours is theirs for ours, theirs in zip(model.buffers(), before, strict=True))

"""The gradient of a batch, taken part by part (models/loss_parts.py), and the time steps that have one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor, nn

from trainables.models.loss_parts import Part
from trainables.models.spiking import SpikingNetwork
from trainables.runtime.seeding import derived_seed


def backward(
    parts: Iterable[Part], penalty: Callable[[], Tensor | None] = lambda: None, share: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Adds the gradient of each part to those of the parameters; the loss and the scores (B, K), both without a graph.

    Args:
        share: what the images count in the whole batch, by which the gradient is multiplied, the loss is not.
        penalty: a term that joins the gradient, not the loss, once its part is computed; methods that have one know no spiking
            networks, so there is one part.
    """
    loss_sum: Tensor | None = None
    scores_sum: Tensor | None = None
    for loss, scores in parts:
        term = penalty()
        whole = loss if term is None else loss + term
        if whole.requires_grad:
            (whole if share == 1 else whole * share).backward()
        loss_sum = loss.detach() if loss_sum is None else loss_sum + loss.detach()
        scores_sum = scores.detach() if scores_sum is None else scores_sum + scores.detach()
    assert loss_sum is not None
    assert scores_sum is not None
    return loss_sum, scores_sum


def sampled_steps(model: nn.Module, seed: int, epoch: int) -> Iterator[frozenset[int] | None]:
    """For each batch of an epoch the time steps that have a gradient; None where all have.

    Rule sltt-k draws them without replacement, from the trial's seed and the epoch alone.
    """
    if not (isinstance(model, SpikingNetwork) and model.spiking.samples_steps):
        while True:
            yield None
    generator = torch.Generator().manual_seed(derived_seed(seed, "spiking steps", epoch))
    while True:
        order = torch.randperm(model.spiking.steps, generator=generator).tolist()
        yield frozenset(order[: model.spiking.sampled_steps])

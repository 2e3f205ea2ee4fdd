"""Traces of blocks of the Hessian, estimated from its products with random signs (Hutchinson)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from trainables.config.options import BatchNormMode
from trainables.pruning.masks import Masks
from trainables.pruning.score_gradients import WeightedMean, gradients, losses, scoring_mode, twice_differentiable
from trainables.pruning.scoring import Batch, ScoringContext
from trainables.runtime.seeding import derived_seed


def row_traces(
    context: ScoringContext, probes: int, score_batches: int, batch_norm: BatchNormMode, masks: Masks | None = None
) -> tuple[Tensor, dict[str, Tensor]]:
    """The mean loss, and for each weight the trace of the Hessian's block of each output channel, float64 (channels,).

    The estimate is the mean over probes of v_p . (H v)_p, with independent signs v over all prunable weights at once. It is
    unbiased; for one probe and a block p its variance is 2 sum of H_ij^2 over pairs i != j in p, and the sum of H_ij^2 over i
    in p and j outside. The signs depend on the trial's seed and the round.

    Args:
        masks: of the weights that count, where some filters have lost taps; all by default.
    """
    generator = torch.Generator().manual_seed(derived_seed(context.config.seed, f"curvature {context.round_}"))
    signs = [
        [(2 * torch.randint(0, 2, weight.shape, generator=generator) - 1).to(weight) for weight in context.weights.values()]
        for _ in range(probes)
    ]
    if masks is not None:
        signs = [[sign * masks[name] for name, sign in zip(context.weights, probe, strict=True)] for probe in signs]
    return traces_along(context, signs, context.batches(score_batches=score_batches), batch_norm)


def traces_along(
    context: ScoringContext, signs: Sequence[Sequence[Tensor]], batches: Iterable[Batch], batch_norm: BatchNormMode
) -> tuple[Tensor, dict[str, Tensor]]:
    """The same with given signs, one tensor for each weight and probe."""
    mean = WeightedMean()
    runtime, loss_name = context.runtime, context.config.training.loss
    with scoring_mode(context.model, batch_norm), twice_differentiable(context.model):
        for images, loss in losses(context.model, batches, runtime, 1.0, loss_name):
            slopes = gradients(loss, context.weights, create_graph=True)
            traces = [torch.zeros(len(weight), dtype=torch.float64) for weight in context.weights.values()]
            for probe in signs:
                along = torch.stack([(slope * sign).sum() for slope, sign in zip(slopes, probe, strict=True)]).sum()
                products = torch.autograd.grad(along, list(context.weights.values()), retain_graph=True, materialize_grads=True)
                for trace, sign, product in zip(traces, probe, products, strict=True):
                    trace += (sign * product).flatten(1).sum(1).double().cpu() / len(signs)
            mean.add([loss.detach(), *traces], images)
    loss_mean, *means = mean.value()
    return loss_mean, dict(zip(context.weights, means, strict=True))

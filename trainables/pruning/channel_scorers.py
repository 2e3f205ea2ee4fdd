"""Scorers of whole channels; `channel_selection.py` keeps the units with the highest scores.

Shapes: U channel units of the network (channels/units.py); scores are (U,) in float64. A unit is made by the filters of one or
several layers whose outputs are added; their scores are summed.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from trainables.channels.fitting import batches_to_fit, explained_shares
from trainables.channels.units import ChannelUnits
from trainables.config.methods import HapConfig, TaylorConfig
from trainables.pruning.curvature import row_traces
from trainables.pruning.score_gradients import batch_gradients, scoring_mode
from trainables.pruning.scoring import Scores, ScoringContext


def score_taylor(context: ScoringContext) -> Scores:
    """The mean over batches of |sum of gamma dL/dgamma + beta dL/dbeta| of a channel's norm layers; without any, of w dL/dw.

    To first order that is the change of the loss when the channel is removed. The absolute value is taken of each batch, before
    the mean. Source: the gradient criterion of When to Prune? (Shen et al., arXiv:2110.12007), as the same authors' code for
    HALP has it; the paper's text was not read.
    """
    options = context.options_as(TaylorConfig)
    units, model = _units(context), context.model
    norms = norm_parameters(model, units)
    named = {name: value for name, value in model.named_parameters() if name in norms} | dict(context.weights)
    total_U = torch.zeros(units.count, dtype=torch.float64)
    loss_sum, batches = torch.zeros(()), 0
    with scoring_mode(model, options.batch_norm):
        drawn = context.batches(score_batches=options.score_batches)
        loss_name = context.config.training.loss
        for _, loss, slopes in batch_gradients(model, named, drawn, context.runtime, 1.0, loss_name):
            grads = dict(zip(named, slopes, strict=True))
            products = {name: (value * grads[name]).detach().double().cpu() for name, value in named.items()}
            total_U += tied_sums(products, units, norms).abs()
            loss_sum, batches = loss_sum + loss.cpu(), batches + 1
    return Scores(scores=total_U / batches, loss=loss_sum / batches)


def score_hap(context: ScoringContext) -> Scores:
    """Tr(H_pp) / (2 p) * ||w_p||^2 of each filter w_p with p weights: its share of the loss by the mean of its curvature.

    The trace is Hutchinson's estimate with signs drawn for all prunable weights at once. Negative traces, which a loss that is
    not convex has, stay negative unless `hap.clamp` is set, so that these filters are pruned first. The p weights of an implant
    are those of its centre. Source: HAP (Yu et al., arXiv:2101.08940), section 3 and the authors' code, which leaves out the
    factor 1/2.
    """
    options = context.options_as(HapConfig)
    units = _units(context)
    masks = context.masks if options.implant else None
    loss, traces = row_traces(context, options.probes, options.score_batches, options.batch_norm, masks)
    sensitivity: dict[str, Tensor] = {}
    for name, weight in context.weights.items():
        rows = weight.detach().double().flatten(1).cpu()
        trace = traces[name].clamp(min=0) if options.clamp else traces[name]
        taps = context.masks[name].flatten(2).any(1).sum(1).cpu() if weight.dim() > 2 else torch.ones(len(rows))
        sensitivity[name] = trace / (2 * weight.shape[1] * taps.clamp(min=1)) * rows.square().sum(1)
    return Scores(scores=summed_rows(sensitivity, units), loss=loss)


def score_cap(context: ScoringContext) -> Scores:
    """What each channel explains of the outputs of the layers that read it, beyond better channels (channels/fitting.py).

    Source: CaP (Xie et al., arXiv:2108.13728), greedy forward selection, as in the authors' code; the paper's text beyond its
    abstract was not read.
    """
    count = batches_to_fit(context.train_images, context.config.training.batch_size)
    batches = (images for images, _ in context.batches(score_batches=count))
    return Scores(scores=explained_shares(context.model, _units(context), batches))


def summed_rows(rows: Mapping[str, Tensor], units: ChannelUnits) -> Tensor:
    """For each unit the sum of a value of each filter that makes it, float64 (U,).

    Args:
        rows: for each weight one value of each output channel, (channels,).
    """
    sums_U = torch.zeros(units.count, dtype=torch.float64)
    for group in units.groups:
        for layer in group.layers:
            name = f"{layer}.weight"
            sums_U.index_add_(0, units.unit_of[name, 0], rows[name].double().cpu())
    return sums_U


def norm_parameters(model: nn.Module, units: ChannelUnits) -> set[str]:
    """The scales and shifts of norm layers that have units."""
    layers = {name for name, module in model.named_modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)}
    return {name for name in units.tensors if name.rpartition(".")[0] in layers and name.endswith((".weight", ".bias"))}


def tied_sums(products: Mapping[str, Tensor], units: ChannelUnits, norms: set[str]) -> Tensor:
    """For each unit the sum over its norm layers; of a unit without any, over the weights of the filters that make it."""
    sums_U = torch.zeros(units.count, dtype=torch.float64)
    has_norm_U = torch.zeros(units.count, dtype=torch.bool)
    for name in sorted(norms):
        unit_of = units.unit_of[name, 0]
        present = unit_of >= 0
        sums_U.index_add_(0, unit_of[present], products[name][present])
        has_norm_U[unit_of[present]] = True
    rows = {name: value.flatten(1).sum(1) for name, value in products.items() if name not in norms}
    return torch.where(has_norm_U, sums_U, summed_rows(rows, units))


def _units(context: ScoringContext) -> ChannelUnits:
    assert context.units is not None, "a scorer of channels needs their units"
    return context.units

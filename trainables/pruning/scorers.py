"""The score of every surviving weight, by method: what `rounds.py` ranks.

Shapes: S surviving weights of the whole network, layer by layer; scores are (S,), and a higher score is kept longer. To add a
method is to add its options to config/methods.py and its function here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from trainables.config.methods import BatchNormMode
from trainables.config.trial import TrialConfig
from trainables.data.splits import Data
from trainables.pruning.drive import connection_sensitivity, drive_score, drive_terms
from trainables.pruning.masks import Masks, flattened
from trainables.pruning.score_gradients import batches_of_round, hessian_gradient_products, scoring_gradients
from trainables.pruning.sparsity_distributions import LayerCounts, counts_of_trial, erk, random_masks, round_to_total
from trainables.pruning.synflow import require_flow, synaptic_flow
from trainables.runtime.device import Runtime
from trainables.runtime.seeding import derived_seed


@dataclass(frozen=True, kw_only=True)
class ScoringContext:
    """What a round scores: the network with its masks applied.

    Attributes:
        alive: positions of the surviving weights in the flattened network; None is all.
        keep: weights that the round will keep.
        counts_of: kept weights by layer of another trial, by its key.
    """

    model: nn.Module
    weights: Mapping[str, Tensor]
    masks: Masks
    alive: Tensor | None
    keep: int
    data: Data
    config: TrialConfig
    round_: int
    runtime: Runtime
    counts_of: LayerCounts


@dataclass(frozen=True, kw_only=True)
class Scored:
    """Scores (S,), the loss that they were taken at (None without data), and the raw terms of a score that has several."""

    scores: Tensor
    loss: Tensor | None = None
    terms: dict[str, Tensor] = field(default_factory=dict)


def scored(subject: ScoringContext) -> Scored:
    """The scores of the trial's method."""
    return SCORERS[subject.config.method](subject)


def _drive(subject: ScoringContext) -> Scored:
    """Magnitude, connection and convergence sensitivity together (drive.py)."""
    loss, weights_S, grads_S = _weights_and_gradients(subject)
    terms = drive_terms(weights_S, grads_S)
    return Scored(scores=drive_score(terms, subject.config.drive), loss=loss, terms=terms)


def _snip(subject: ScoringContext) -> Scored:
    """|w dL/dw|, the size of dL/dc of a gate c = 1 on the weight (Lee et al., arXiv:1810.02340, equation 4).

    The scored weights are those that are trained; the authors' code scores another initialisation. Not divided by its sum,
    which changes no order.
    """
    loss, weights_S, grads_S = _weights_and_gradients(subject, subject.config.snip.batch_norm)
    return Scored(scores=connection_sensitivity(weights_S, grads_S), loss=loss)


def _grasp(subject: ScoringContext) -> Scored:
    """w (H g), kept from the highest: removing w changes the gradient's squared norm by about -2 w (H g), so what feeds the
    gradient flow stays (Wang et al., arXiv:2002.07376, equation 8; its score is -w (H g), the largest of which go)."""
    options = subject.config.grasp
    batches = list(batches_of_round(subject.data, subject.config, subject.round_))
    loss, products = hessian_gradient_products(
        subject.model,
        subject.weights,
        subject.masks,
        batches,
        subject.runtime,
        options.batch_norm,
        options.temperature,
        subject.config.training.loss,
    )
    scores = flattened(subject.weights, subject.alive) * flattened(products, subject.alive)
    return Scored(scores=scores, loss=loss)


def _synflow(subject: ScoringContext) -> Scored:
    if subject.round_ == 1:
        require_flow(subject.model, subject.weights, subject.data.image_shape)
    flow = synaptic_flow(subject.model, subject.weights, subject.data.image_shape)
    return Scored(scores=flattened(flow, subject.alive))


def _magnitude(subject: ScoringContext) -> Scored:
    return Scored(scores=flattened(subject.weights, subject.alive).abs())


def _random(subject: ScoringContext) -> Scored:
    """No order, or that of a random mask with as many weights of each layer as `random.layers` says."""
    config, weights = subject.config, subject.weights
    seed = derived_seed(config.seed, "random mask")
    sizes = {name: weight.numel() for name, weight in weights.items()}
    device = next(iter(weights.values())).device
    if config.random.layers == "uniform":
        generator = torch.Generator().manual_seed(seed)
        return Scored(scores=torch.rand(sum(sizes.values()), generator=generator, dtype=torch.float64).to(device))
    if config.random.layers == "erk":
        shapes = {name: tuple(weight.shape) for name, weight in weights.items()}
        counts = round_to_total(erk(shapes, subject.keep / sum(sizes.values())), sizes, subject.keep)
    else:
        counts = counts_of_trial(subject.counts_of(config.random.layers), config.random.layers, sizes, subject.keep)
    return Scored(scores=flattened(random_masks(weights, counts, seed)).double())


def _weights_and_gradients(subject: ScoringContext, batch_norm: BatchNormMode = "batch") -> tuple[Tensor, Tensor, Tensor]:
    """The loss over the round's images, and the surviving weights with their gradients, (S,) each."""
    batches = batches_of_round(subject.data, subject.config, subject.round_)
    loss_name = subject.config.training.loss
    loss, grads = scoring_gradients(subject.model, subject.weights, batches, subject.runtime, batch_norm, loss_name=loss_name)
    return loss, flattened(subject.weights, subject.alive), flattened(grads, subject.alive)


SCORERS: dict[str, Callable[[ScoringContext], Scored]] = {
    "drive": _drive,
    "snip": _snip,
    "grasp": _grasp,
    "synflow": _synflow,
    "magnitude": _magnitude,
    "random": _random,
    "imp": _magnitude,  # of weights that were trained to the end
}

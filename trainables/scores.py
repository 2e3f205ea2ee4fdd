"""The DRIVE score of every surviving weight, from its size and its gradient.

Scores are dicts of weight name -> tensor in the weight's shape and type; only entries where the mask is True mean anything.
A higher score is kept longer. Read by: pruning.py.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from trainables.config import DriveConfig, Normalize, derived_seed

TERMS = ("magnitude", "connection", "convergence")
CORRELATION_SAMPLE = 50_000  # surviving weights


def drive_terms(weights: Mapping[str, Tensor], grads: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """The three raw terms by name: |w|, |w g| and |g|, with g = dL/dw.

    |w g| is |dL/dc| of a gate c = 1 on the weight (connection sensitivity, SNIP, arXiv:1810.02340 eq. 4); |g| tells how far
    the weight is from convergence. Source: DRIVE, arXiv:2404.03687, as told by its abstract and public reviews.
    """
    return {
        "magnitude": {name: weight.detach().abs() for name, weight in weights.items()},
        "connection": {name: (weight.detach() * grads[name]).abs() for name, weight in weights.items()},
        "convergence": {name: grad.abs() for name, grad in grads.items()},
    }


def drive_score(terms: dict[str, dict[str, Tensor]], masks: dict[str, Tensor], config: DriveConfig) -> dict[str, Tensor]:
    """magnitude * N(|w|) + connection * N(|w g|) + convergence * N(|g|), N taken over the surviving weights of the network.

    How the paper combines and normalises its terms was not at hand: the sum, its factors and N are assumptions. A factor
    of zero leaves its term out. With one term left N cannot change the order and is left out too, so that (1, 0, 0) is
    exactly magnitude pruning and (0, 1, 0) exactly SNIP, without ties made by rounding.

    Returns:
        Name -> score; all-zero terms (all gradients zero) stay zero instead of dividing by zero.
    """
    factors = {name: float(getattr(config, name)) for name in TERMS if getattr(config, name) != 0}
    if len(factors) == 1:
        (only,) = factors
        return terms[only]
    total: dict[str, Tensor] = {}
    for name, factor in factors.items():
        for weight, value in normalized(terms[name], masks, config.normalize).items():
            total[weight] = total[weight].add(value, alpha=factor) if weight in total else value * factor
    return total


def normalized(term: dict[str, Tensor], masks: dict[str, Tensor], how: Normalize) -> dict[str, Tensor]:
    """One term on a common scale: divided by its mean or sum over the surviving weights, or replaced by its rank in (0, 1].

    Equal values share the mean of their ranks. "none" leaves the term as it is.
    """
    if how == "none":
        return term
    if how == "rank":
        alive = torch.cat([value[masks[name]] for name, value in term.items()])
        ranks = average_ranks(alive) / max(len(alive), 1)
        sizes = [int(masks[name].sum()) for name in term]
        ranked = {}
        for (name, value), part in zip(term.items(), ranks.split(sizes), strict=True):
            ranked[name] = torch.zeros_like(value)
            ranked[name][masks[name]] = part.to(value.dtype)
        return ranked
    sums = torch.stack([value.masked_fill(~masks[name], 0.0).sum() for name, value in term.items()])
    scale = sums.sum()
    if how == "mean":
        scale = scale / torch.stack([mask.sum() for mask in masks.values()]).sum().clamp(min=1)
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    return {name: value / scale for name, value in term.items()}


def average_ranks(values: Tensor) -> Tensor:
    """Ranks 1..n of a 1-D tensor, float64; equal values share the mean of their ranks."""
    order = torch.argsort(values)
    _, group, counts = torch.unique_consecutive(values[order], return_inverse=True, return_counts=True)
    last = counts.cumsum(0).double()
    mean_rank = last - (counts.double() - 1) / 2
    ranks = torch.empty(len(values), dtype=torch.float64, device=values.device)
    ranks[order] = mean_rank[group]
    return ranks


def rank_correlation(first: Tensor, second: Tensor) -> float:
    """Spearman's rank correlation of two 1-D tensors; NaN where one of them is constant, as there is no order to compare."""
    a, b = average_ranks(first), average_ranks(second)
    a, b = a - a.mean(), b - b.mean()
    scale = float(a.norm() * b.norm())
    return float(a @ b) / scale if scale > 0 else float("nan")


def term_correlations(
    score: dict[str, Tensor], terms: dict[str, dict[str, Tensor]], masks: dict[str, Tensor], seed: int
) -> dict[str, float]:
    """Rank correlation of the score with each of its terms: tells at once whether the other terms do anything.

    Taken over the surviving weights, or a seeded sample of CORRELATION_SAMPLE of them.
    """

    def alive(values: dict[str, Tensor]) -> Tensor:
        return torch.cat([value[masks[name]] for name, value in values.items()])

    flat = alive(score)
    sample = torch.arange(len(flat))
    if len(flat) > CORRELATION_SAMPLE:
        generator = torch.Generator().manual_seed(derived_seed(seed, "correlation sample"))
        sample = torch.randperm(len(flat), generator=generator)[:CORRELATION_SAMPLE]
    sample = sample.to(flat.device)
    return {name: rank_correlation(flat[sample], alive(term)[sample]) for name, term in terms.items()}

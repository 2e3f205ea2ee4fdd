"""The DRIVE score of every surviving weight, from its size and its gradient.

Shapes: S surviving weights of the whole network, layer by layer; terms and scores are (S,) in the weights' type. Pruned weights
have none: a round costs less the fewer are left. A higher score is kept longer.
"""

from __future__ import annotations

import torch
from torch import Tensor

from trainables.config.methods import DriveConfig, Normalize
from trainables.runtime.seeding import derived_seed

TERMS = ("magnitude", "connection", "convergence")
CORRELATION_SAMPLE = 50_000  # surviving weights


def drive_terms(weights_S: Tensor, grads_S: Tensor) -> dict[str, Tensor]:
    """The three raw terms by name: |w|, |w g| and |g|, with g = dL/dw.

    |w g| is |dL/dc| of a gate c = 1 on the weight (connection sensitivity, SNIP, arXiv:1810.02340 eq. 4); |g| tells how far
    the weight is from convergence. Source: DRIVE, arXiv:2404.03687, as told by its abstract and public reviews.
    """
    return {
        "magnitude": weights_S.abs(),
        "connection": connection_sensitivity(weights_S, grads_S),
        "convergence": grads_S.abs(),
    }


def connection_sensitivity(weights_S: Tensor, grads_S: Tensor) -> Tensor:
    """|w g|: SNIP's score, and one term of DRIVE's."""
    return (weights_S * grads_S).abs_()


def drive_score(terms: dict[str, Tensor], config: DriveConfig) -> Tensor:
    """magnitude * N(|w|) + connection * N(|w g|) + convergence * N(|g|), N taken over the surviving weights of the network.

    How the paper combines and normalises its terms was not at hand: the sum, its factors and N are assumptions. A factor
    of zero leaves its term out. With one term left N cannot change the order and is left out too, so that (1, 0, 0) is
    exactly magnitude pruning and (0, 1, 0) exactly SNIP, without ties made by rounding. All-zero terms (all gradients
    zero) stay zero instead of dividing by zero.
    """
    factors = {name: float(getattr(config, name)) for name in TERMS if getattr(config, name) != 0}
    if len(factors) == 1:
        (only,) = factors
        return terms[only]
    parts = (normalized(terms[name], config.normalize).mul(factor) for name, factor in factors.items())
    total = next(parts)
    for part in parts:
        total += part
    return total


def normalized(term_S: Tensor, how: Normalize) -> Tensor:
    """One term on a common scale: divided by its mean or sum, or replaced by its rank in (0, 1].

    Equal values share the mean of their ranks. "none" leaves the term as it is.
    """
    if how == "none":
        return term_S
    if how == "rank":
        return (average_ranks(term_S) / max(len(term_S), 1)).to(term_S.dtype)
    scale = term_S.sum()
    if how == "mean":
        scale = scale / max(len(term_S), 1)
    return term_S / torch.where(scale > 0, scale, torch.ones_like(scale))


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


def term_correlations(score_S: Tensor, terms: dict[str, Tensor], seed: int) -> dict[str, float]:
    """Rank correlation of the score with each of its terms: tells at once whether the other terms do anything.

    Taken over the surviving weights, or over CORRELATION_SAMPLE seeded draws from them.
    """
    if len(score_S) > CORRELATION_SAMPLE:
        generator = torch.Generator().manual_seed(derived_seed(seed, "correlation sample"))
        drawn = torch.randint(len(score_S), (CORRELATION_SAMPLE,), generator=generator).to(score_S.device)
        score_S, terms = score_S[drawn], {name: term[drawn] for name, term in terms.items()}
    return {name: rank_correlation(score_S, term) for name, term in terms.items()}

"""The DRIVE score of every surviving weight, from its magnitude and its gradient.

Shapes: S surviving weights of the whole network, layer by layer; terms and scores are (S,) in the weights' type. Pruned weights
have no score, so a round is cheaper the fewer are left. Higher scores are kept longer.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from trainables.config.methods import DriveConfig, Normalize
from trainables.pruning.rank_correlation import average_ranks

TERMS = ("magnitude", "connection", "convergence")


def drive_terms(weights_S: Tensor, grads_S: Tensor) -> dict[str, Tensor]:
    """The three raw terms by name: |w|, |w g| and |g|, with g = dL/dw.

    |w g| is |dL/dc| of a gate c = 1 on the weight (connection sensitivity, SNIP, arXiv:1810.02340 eq. 4); |g| measures
    how far the weight is from convergence. Source: DRIVE, arXiv:2404.03687, by its abstract and public reviews.
    """
    return {
        "magnitude": weights_S.abs(),
        "connection": connection_sensitivity(weights_S, grads_S),
        "convergence": grads_S.abs(),
    }


def connection_sensitivity(weights_S: Tensor, grads_S: Tensor) -> Tensor:
    """|w g|: the SNIP score, and one term of DRIVE."""
    return (weights_S * grads_S).abs_()


def drive_score(terms: dict[str, Tensor], config: DriveConfig) -> Tensor:
    """magnitude * N(|w|) + connection * N(|w g|) + convergence * N(|g|), with N over the surviving weights of the network.

    How the paper combines and normalises its terms is unknown to us: the sum, its factors and N are assumptions. A term with
    factor zero is skipped. A single term is not normalised, which would not change its order, so that (1, 0, 0) is exactly
    magnitude pruning and (0, 1, 0) exactly SNIP, without ties by rounding. All-zero terms (all gradients zero) stay zero
    instead of dividing by zero.
    """
    factors = {name: float(getattr(config, name)) for name in TERMS if getattr(config, name) != 0}
    if len(factors) == 1:
        (only,) = factors
        return terms[only]
    scaled = (normalized(terms[name], config.normalize).mul(factor) for name, factor in factors.items())
    total = next(scaled)
    for term in scaled:
        total += term
    return total


def normalized(term_S: Tensor, how: Normalize) -> Tensor:
    """One term on a common scale: divided by its mean or sum, or replaced by its rank in (0, 1].

    Equal values share the mean of their ranks. "none" leaves the term as it is. Raises KeyError for another name.
    """
    return NORMALIZERS[how](term_S)


def _divided(term_S: Tensor, scale: Tensor) -> Tensor:
    return term_S / torch.where(scale > 0, scale, torch.ones_like(scale))


NORMALIZERS: dict[Normalize, Callable[[Tensor], Tensor]] = {
    "mean": lambda term_S: _divided(term_S, term_S.sum() / max(len(term_S), 1)),
    "sum": lambda term_S: _divided(term_S, term_S.sum()),
    "rank": lambda term_S: (average_ranks(term_S) / max(len(term_S), 1)).to(term_S.dtype),
    "none": lambda term_S: term_S,
}

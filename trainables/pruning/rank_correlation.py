"""Rank correlation between a score and its terms."""

from __future__ import annotations

import torch
from torch import Tensor

from trainables.runtime.seeding import derived_seed

CORRELATION_SAMPLE = 50_000  # surviving weights


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
    """Spearman's rank correlation of two 1-D tensors; NaN if one is constant and so has no order."""
    a, b = average_ranks(first), average_ranks(second)
    a, b = a - a.mean(), b - b.mean()
    scale = float(a.norm() * b.norm())
    return float(a @ b) / scale if scale > 0 else float("nan")


def term_correlations(score_S: Tensor, terms: dict[str, Tensor], seed: int) -> dict[str, float]:
    """Rank correlation of the score with each of its terms; 1 means that the other terms have no effect.

    Computed over the surviving weights, or over CORRELATION_SAMPLE seeded draws from them.
    """
    if len(score_S) > CORRELATION_SAMPLE:
        generator = torch.Generator().manual_seed(derived_seed(seed, "correlation sample"))
        sample = torch.randint(len(score_S), (CORRELATION_SAMPLE,), generator=generator).to(score_S.device)
        score_S, terms = score_S[sample], {name: term[sample] for name, term in terms.items()}
    return {name: rank_correlation(score_S, term) for name, term in terms.items()}

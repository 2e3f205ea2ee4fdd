"""The loss terms of consensus gates: a reconstruction of arXiv:2302.10798 from its abstract, not the paper's equations.

Shapes: U gates of all layers; the mean of a gate over a batch is the share of images for which it is open.
"""

from __future__ import annotations

import torch
from torch import Tensor


def gate_polarization(mean_U: Tensor) -> Tensor:
    """Mean of m (1 - m) over the gates, in [0, 1/4]: 0 if and only if each gate decides alike for all images.

    Its gradient is (1 - 2 m) / U.
    """
    return (mean_U * (1 - mean_U)).mean()


def gate_activity(mean_U: Tensor, target: float) -> Tensor:
    """The squared distance of the share of open gates from a target."""
    return (mean_U.mean() - target).square()


def consensus_scores(open_U: Tensor, mean_z_U: Tensor) -> Tensor:
    """One score for each gate, float64 (U,): the number of images that it is open for, and among equals the order of z.

    Gates that are unanimous are equal, and without that their place in the network would decide.
    """
    ranks = mean_z_U.argsort(stable=True).argsort()
    return open_U.double() + ranks.double() / len(torch.atleast_1d(ranks))

"""The polarization regulariser (Zhuang et al., NeurIPS 2020): it drives scales of norm layers to 0 or to their limit.

R(gamma) = t sum |gamma_i| - sum |gamma_i - mean gamma|, with the mean over all prunable scales of the network. On [0, a]^n its
least values have a share of about 1/2 - t/4 of the scales at a and all others at 0; training may end in a local minimum.
Shapes: n scales of all layers.
"""

from __future__ import annotations

import torch
from torch import Tensor

BINS = 100  # of the histogram of a layer's scales on [0, limit]


def polarization(scales_n: Tensor, strength: float) -> Tensor:
    """R of the scales, a scalar; `strength` is t."""
    return strength * scales_n.abs().sum() - (scales_n - scales_n.mean()).abs().sum()


def polarization_gradient(scales_n: Tensor, strength: float) -> Tensor:
    """dR/dgamma (n,), the way through the mean included: t sign(g_i) - sign(g_i - mean) + mean_j sign(g_j - mean)."""
    away = (scales_n - scales_n.mean()).sign()
    return strength * scales_n.sign() - away + away.mean()


def scale_threshold(scales: Tensor, limit: float = 1.0) -> float:
    """The value above which a layer's scales are kept: where their histogram on [0, limit] has its first valley.

    That is the left edge of the first bin i + 1 with h[i+1] - h[i] <= 0 <= h[i+2] - h[i+1]; 0 if there is none.
    """
    counts = torch.histc(scales.detach().float().cpu(), bins=BINS, min=0.0, max=limit)
    steps = counts.diff()
    valleys = ((steps[:-1] <= 0) & (steps[1:] >= 0)).nonzero().flatten()
    return (int(valleys[0]) + 1) * limit / BINS if len(valleys) else 0.0

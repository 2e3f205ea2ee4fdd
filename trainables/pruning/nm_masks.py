"""N:M sparsity: the N largest of every M consecutive weights along the input channels (SR-STE, arXiv:2102.04010)."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Self

import torch
from torch import Tensor, nn

from trainables.config.methods import SrsteConfig
from trainables.config.trial import TrialConfig
from trainables.errors import ConfigError
from trainables.models.prunable import prunable_weights
from trainables.pruning.masks import Masks, apply_masks, num_kept
from trainables.pruning.sparse_trainers import MaskUpdater, SparseTraining

log = logging.getLogger(__name__)


class NMMasks(MaskUpdater):
    """SR-STE: the forward pass uses the N largest of every M weights, and the optimizer's step updates all of them.

    The gradient at the masked weights is passed to all weights, plus `decay` times each weight that is not kept.
    """

    def __init__(self, weights: Mapping[str, Tensor], options: SrsteConfig) -> None:
        super().__init__()
        self.weights = weights
        self.n, self.m = options.n_of_m
        self.decay = options.decay
        self._dense: list[Tensor] = []
        self._select()

    @classmethod
    def start(cls, training: SparseTraining) -> Self:
        config = training.config
        return cls(prunable_weights(training.model, config.prunable.exclude), _options(config))

    @classmethod
    def initial_masks(cls, model: nn.Module, config: TrialConfig) -> Masks:
        masks = pattern_masks(prunable_weights(model, config.prunable.exclude), *_options(config).n_of_m)
        _report_dense_layers(masks, config)
        return masks

    def before_forward(self) -> None:
        self._select()
        self._dense = [weight.detach().clone() for weight in self.weights.values()]
        apply_masks(self.weights, self.masks)

    def after_backward(self, step: int = 0) -> None:
        with torch.no_grad():
            for (name, weight), dense in zip(self.weights.items(), self._dense, strict=True):
                weight.copy_(dense)
                if weight.grad is not None:
                    weight.grad.add_(dense.masked_fill(self.masks[name], 0.0), alpha=self.decay)
        self._dense = []

    def after_step(self, step: int) -> None:
        self._select()

    def _select(self) -> None:
        self.masks = pattern_masks(self.weights, self.n, self.m)


def pattern_masks(weights: Mapping[str, Tensor], n: int, m: int) -> Masks:
    """The n largest of every m consecutive weights along the input channels; all if their number is not a multiple of m.

    Of equal weights the earlier is kept. The paper's code groups the flattened (height, width, channel) order instead, where
    a group of the first layer spans pixels; hardware requires groups of channels.
    """
    return {
        name: _n_largest_of_m(weight, n, m) if weight.shape[1] % m == 0 else torch.ones_like(weight, dtype=torch.bool)
        for name, weight in weights.items()
    }


def _n_largest_of_m(weight: Tensor, n: int, m: int) -> Tensor:
    channels_last = weight.detach().abs().movedim(1, -1)
    groups = channels_last.reshape(-1, m)
    kept = groups.sort(dim=1, descending=True, stable=True).indices[:, :n]
    mask = torch.zeros_like(groups, dtype=torch.bool).scatter_(1, kept, True)
    return mask.view(channels_last.shape).movedim(-1, 1).contiguous()


def _options(config: TrialConfig) -> SrsteConfig:
    assert isinstance(config.options, SrsteConfig)
    return config.options


def _report_dense_layers(masks: Masks, config: TrialConfig) -> None:
    """Warns if layers that stay dense keep the sparsity below the target by more than 0.01.

    Raises:
        ConfigError: no layer has a multiple of M input channels.
    """
    pattern = _options(config).pattern
    dense = [name for name, mask in masks.items() if bool(mask.all())]
    if len(dense) == len(masks):
        raise ConfigError(
            f"srste.pattern: no layer has a multiple of {pattern.partition(':')[2]} input channels, got {pattern}"
        )
    achieved = 1 - num_kept(masks) / sum(mask.numel() for mask in masks.values())
    if config.sparsity - achieved > 0.01:
        log.warning(
            "%s reaches sparsity %.3f and not %.3f: %s stay dense", pattern, achieved, config.sparsity, ", ".join(dense)
        )

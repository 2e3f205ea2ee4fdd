"""The method polarization: a regulariser drives scales of norm layers apart, then the channels with the lowest are removed."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor, nn

from trainables.channels.units import ChannelUnits
from trainables.config.methods import PolarizationConfig
from trainables.config.trial import TrialConfig
from trainables.errors import ConfigError
from trainables.pruning.channel_scorers import norm_parameters
from trainables.pruning.polarization import polarization_gradient, scale_threshold
from trainables.pruning.sparse_trainers import FixedMasks, SparseTraining


class PolarizedScales(FixedMasks):
    """Trains with the regulariser until the share `end` of all steps, removes channels, and trains on without it.

    The gradient of `penalty` * R joins that of the loss, and scales are clamped to [0, limit] after each step. A unit's score
    is the mean scale of its norm layers. Source: Zhuang et al., NeurIPS 2020, whose training starts with scales of 0.5 and cuts
    each layer at a valley of its histogram; here scales start as the warm-up left them, and the cut is that of the trial's
    target, which methods must share to be compared.
    """

    def __init__(self, training: SparseTraining) -> None:
        super().__init__(training.model, training.masks)
        self.training, self.options = training, _options(training)
        self.removal_step = training.step_at(self.options.end)
        self.removed = training.first_step >= self.removal_step
        parameters = dict(training.model.named_parameters())
        names = sorted(norm_parameters(training.model, _units(training)))
        self.scales = {name: parameters[name] for name in names if name.endswith(".weight")}

    @classmethod
    def check(
        cls, model: nn.Module, config: TrialConfig, units: ChannelUnits | None, image_shape: tuple[int, int, int]
    ) -> None:
        if units is None or not norm_parameters(model, units):
            raise ConfigError("method: polarization must have norm layers with scales after layers to prune, got none")

    @classmethod
    def start(cls, training: SparseTraining) -> Self:
        return cls(training)

    def after_backward(self, step: int = 0) -> None:
        if step == 0 or self.removed:
            return
        joined = torch.cat([scale.detach() for scale in self.scales.values()])
        slopes = self.options.penalty * polarization_gradient(joined, self.options.strength)
        parts = slopes.split([scale.numel() for scale in self.scales.values()])
        for scale, part in zip(self.scales.values(), parts, strict=True):
            scale.grad = part.clone() if scale.grad is None else scale.grad + part

    def after_step(self, step: int) -> None:
        if not self.removed:
            with torch.no_grad():
                for scale in self.scales.values():
                    scale.clamp_(0.0, self.options.limit)
            if step >= self.removal_step:
                self._remove()
        super().after_step(step)

    def _remove(self) -> None:
        selection, config = self.training.selection, self.training.config
        self.removed = True
        self.metrics["prune/scales_below_valley"] = self._below_valley()
        weights = {name: mask for name, mask in self.masks.items() if name not in self.scales and mask.dim() > 1}
        masks = selection.select(self._scores(), weights, config, 1)
        self.metrics |= selection.metrics(masks, config)
        self._set(selection.with_other_tensors(masks, self.training.model))

    def _scores(self) -> Tensor:
        """The mean scale of each unit's norm layers, float64 (U,); units without any are kept."""
        units = _units(self.training)
        sums_U, counts_U = (torch.zeros(units.count, dtype=torch.float64) for _ in range(2))
        for name, scale in self.scales.items():
            unit_of = units.unit_of[name, 0]
            present = unit_of >= 0
            sums_U.index_add_(0, unit_of[present], scale.detach().double().cpu()[present])
            counts_U.index_add_(0, unit_of[present], torch.ones(int(present.sum()), dtype=torch.float64))
        highest = torch.full_like(sums_U, self.options.limit + 1)
        return torch.where(counts_U > 0, sums_U / counts_U.clamp(min=1), highest)

    def _below_valley(self) -> float:
        """The share of scales that the authors' threshold of each layer would remove."""
        below = sum(int((scale <= scale_threshold(scale, self.options.limit)).sum()) for scale in self.scales.values())
        return below / sum(scale.numel() for scale in self.scales.values())


def _options(training: SparseTraining) -> PolarizationConfig:
    assert isinstance(training.config.options, PolarizationConfig)
    return training.config.options


def _units(training: SparseTraining) -> ChannelUnits:
    assert training.selection.units is not None, "polarization needs the units of channels"
    return training.selection.units

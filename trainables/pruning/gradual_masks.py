"""Masks that shrink during training: GMP (arXiv:1710.01878) and GraNet (arXiv:2106.10404)."""

from __future__ import annotations

import math
from typing import Self

from torch import Tensor, nn

from trainables.config.methods import GmpConfig, GranetConfig
from trainables.config.trial import TrialConfig
from trainables.errors import ConfigError
from trainables.models.prunable import prunable_weights
from trainables.models.weight_use import layer_of, without_gradient
from trainables.pruning.masks import Masks, flattened, full_masks, num_kept, surviving_indices, topk_masks
from trainables.pruning.sparse_trainers import FixedMasks, SparseTraining
from trainables.pruning.sparsity_distributions import erk, random_masks, round_to_total
from trainables.pruning.sparsity_schedules import kept_on_cubic_schedule
from trainables.runtime.seeding import derived_seed


class GmpMasks(FixedMasks):
    """Shrinks masks along a cubic during training.

    Update k of N comes after the share begin + (end - begin) k/N of all `steps`; updates due at the same step are merged.
    """

    def __init__(self, training: SparseTraining) -> None:
        super().__init__(training.model, training.masks)
        self.config, self.optimizer, self.steps = training.config, training.optimizer, training.steps
        self.options = _options(training.config)
        self.done = self._due(training.first_step)

    @classmethod
    def start(cls, training: SparseTraining) -> Self:
        return cls(training)

    @classmethod
    def initial_masks(cls, model: nn.Module, config: TrialConfig) -> Masks:
        weights = prunable_weights(model, config.prunable.exclude)
        return topk_masks(flattened(weights).abs(), full_masks(weights), _initial_count(weights, config))

    def after_step(self, step: int) -> None:
        if (due := self._due(step)) > self.done:
            self.done = due
            self._update(min(due, self.config.rounds), step)
        super().after_step(step)

    def _due(self, step: int) -> int:
        """Updates due by a step."""
        return min(self._paced(step), self.config.rounds)

    def _paced(self, step: int) -> int:
        begin = min(round(self.options.begin * self.steps), self.steps - 1)
        end = max(begin + 1, round(self.options.end * self.steps))
        return max(0, (step - begin) * self.config.rounds // (end - begin))

    def _update(self, round_: int, step: int) -> None:
        prunable = sum(weight.numel() for weight in self.weights.values())
        config = self.config
        count = kept_on_cubic_schedule(round_, config.rounds, self.options.initial_sparsity, config.sparsity, prunable)
        surviving = surviving_indices(self.masks, num_kept(self.masks))
        before = self.masks
        masks = self._regrow(topk_masks(flattened(self.weights, surviving).abs(), before, count), step)
        self._set(masks)
        for name, weight in self.weights.items():  # regrown weights start at zero, without momentum
            regrown = masks[name] & ~before[name]
            weight.detach().masked_fill_(regrown, 0.0)
            momentum = self.optimizer.state[weight].get("momentum_buffer")
            if momentum is not None:
                momentum.masked_fill_(regrown, 0.0)

    def _regrow(self, masks: Masks, step: int) -> Masks:
        return masks


class GranetMasks(GmpMasks):
    """GMP from a random mask; its updates replace some weights (`regrow`) until the end of training.

    GraNet's public code ends one update short of the target and counts updates in steps; here update N reaches it exactly.
    """

    def __init__(self, training: SparseTraining) -> None:
        super().__init__(training)
        self._slopes: dict[str, Tensor] = {}

    @classmethod
    def initial_masks(cls, model: nn.Module, config: TrialConfig) -> Masks:
        weights = prunable_weights(model, config.prunable.exclude)
        sizes = {name: weight.numel() for name, weight in weights.items()}
        count = _initial_count(weights, config)
        densities = erk({name: tuple(weight.shape) for name, weight in weights.items()}, count / sum(sizes.values()))
        return random_masks(weights, round_to_total(densities, sizes, count), derived_seed(config.seed, "first mask"))

    def after_backward(self, step: int = 0) -> None:
        # Before the optimizer's step, which with Nesterov momentum changes the gradients in place.
        if step < self.steps and self._due(step) > self.done:
            if missing := [layer_of(name) for name, weight in self.weights.items() if weight.grad is None]:
                raise ConfigError(f"model: {without_gradient(missing)}")
            self._slopes = {name: weight.grad.abs() for name, weight in self.weights.items() if weight.grad is not None}

    def _due(self, step: int) -> int:
        return self._paced(step)

    def _regrow(self, masks: Masks, step: int) -> Masks:
        if not self._slopes:
            return masks
        options = self.options
        assert isinstance(options, GranetConfig)
        share = regrown_share(step, self.steps, options.regrow)
        slopes, self._slopes = self._slopes, {}
        return {name: prune_and_regrow(weight, masks[name], slopes[name], share) for name, weight in self.weights.items()}


def _options(config: TrialConfig) -> GmpConfig:
    assert isinstance(config.options, GmpConfig)
    return config.options


def _initial_count(weights: dict[str, Tensor], config: TrialConfig) -> int:
    prunable = sum(weight.numel() for weight in weights.values())
    return kept_on_cubic_schedule(0, config.rounds, _options(config).initial_sparsity, config.sparsity, prunable)


def regrown_share(step: int, steps: int, first: float) -> float:
    """Share of the weights that GraNet replaces at a step: a cosine from `first` to a hundredth of it."""
    last = first / 100
    return last + (first - last) * (1 + math.cos(math.pi * step / steps)) / 2


def prune_and_regrow(weight: Tensor, mask: Tensor, slopes: Tensor, share: float) -> Tensor:
    """The mask without its floor(share * kept) smallest weights, and with as many pruned ones of the largest `slopes`.

    Weights that were just pruned may regrow. Of equal values the later is pruned and the earlier regrown.
    Source: GraNet, arXiv:2106.10404, section 3.2.
    """
    changed, sizes, slopes = mask.flatten().clone(), weight.detach().abs().flatten(), slopes.flatten()
    count = math.floor(share * int(changed.count_nonzero()))
    last_first = sizes.masked_fill(~changed, math.inf).flip(0).sort(stable=True).indices[:count]
    changed[len(changed) - 1 - last_first] = False
    changed[slopes.masked_fill(changed, -math.inf).sort(descending=True, stable=True).indices[:count]] = True
    return changed.view_as(mask)

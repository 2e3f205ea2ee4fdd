"""What happens to the masks while a network trains: nothing, or what GMP, GraNet and SR-STE do.

`train_epoch` calls `hide` before a step's forward pass, `reveal` before the optimizer's step and `enforce` after it; steps of
the sparse training count from 1.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from trainables.config.methods import GRADUAL, GranetConfig
from trainables.config.trial import TrialConfig
from trainables.errors import ConfigError
from trainables.models.prunable import prunable_weights
from trainables.models.weight_use import layer_of, without_gradient
from trainables.pruning.masks import Masks, apply_masks, flattened, full_masks, num_kept, surviving_indices, topk_masks
from trainables.pruning.sparsity_distributions import erk, random_masks, round_to_total
from trainables.pruning.sparsity_schedules import kept_on_cubic
from trainables.runtime.seeding import derived_seed

log = logging.getLogger(__name__)


class Masking:
    """Dense training: there are no masks."""

    masks: Masks

    def __init__(self) -> None:
        self.masks = {}

    def hide(self) -> None:
        """Before the forward pass: sets weights to what the network computes with."""

    def reveal(self, step: int = 0) -> None:
        """After the backward pass: gives back what `hide` took, for the optimizer. `step` is 0 outside of training."""

    def enforce(self, step: int) -> None:
        """After the optimizer's step."""

    @contextmanager
    def effective(self) -> Iterator[None]:
        """Inside, the weights are what the network computes with; for evaluation."""
        self.hide()
        try:
            yield
        finally:
            self.reveal()


class FixedMasks(Masking):
    """Pruned weights are zero after every step, so no gradient, decay or momentum brings them back."""

    def __init__(self, model: nn.Module, masks: Masks) -> None:
        super().__init__()
        parameters = dict(model.named_parameters())
        self.weights: dict[str, Tensor] = {name: parameters[name] for name in masks}
        self._set(masks)

    def enforce(self, step: int) -> None:
        if self._keep:
            torch._foreach_mul_(self._values, self._keep)

    def _set(self, masks: Masks) -> None:
        self.masks = masks
        self._values = [self.weights[name].detach() for name in masks]
        self._keep = [torch.empty_like(self.weights[name]).copy_(mask) for name, mask in masks.items()]  # in its memory order


class GradualMasks(FixedMasks):
    """GMP: masks shrink along a cubic during training; GraNet: and every update exchanges some weights (`regrow`).

    Update k of N comes after the share begin + (end - begin) k/N of all `steps`; updates that would fall on one step are one.
    GraNet goes on exchanging at the same pace until the training ends. Its public code ends one update short of the target and
    counts updates in steps; here update N lands on it exactly.
    """

    def __init__(
        self, model: nn.Module, masks: Masks, optimizer: torch.optim.SGD, config: TrialConfig, first_step: int, steps: int
    ) -> None:
        super().__init__(model, masks)
        self.config, self.optimizer, self.steps = config, optimizer, steps
        self.options = config.gmp if config.method == "gmp" else config.granet
        self.done = self._due(first_step)
        self._slopes: dict[str, Tensor] = {}

    def reveal(self, step: int = 0) -> None:
        # Before the step: with Nesterov's momentum the optimizer adds to the gradients in place.
        if isinstance(self.options, GranetConfig) and step < self.steps and self._due(step) > self.done:
            if missing := [layer_of(name) for name, weight in self.weights.items() if weight.grad is None]:
                raise ConfigError(f"model: {without_gradient(missing)}")
            self._slopes = {name: weight.grad.abs() for name, weight in self.weights.items() if weight.grad is not None}

    def enforce(self, step: int) -> None:
        if (due := self._due(step)) > self.done:
            self.done = due
            self._update(min(due, self.config.rounds), step)
        super().enforce(step)

    def _due(self, step: int) -> int:
        """Updates that have come by a step."""
        begin = min(round(self.options.begin * self.steps), self.steps - 1)
        end = max(begin + 1, round(self.options.end * self.steps))
        due = max(0, (step - begin) * self.config.rounds // (end - begin))
        return due if isinstance(self.options, GranetConfig) else min(due, self.config.rounds)

    def _update(self, round_: int, step: int) -> None:
        prunable = sum(weight.numel() for weight in self.weights.values())
        config = self.config
        count = kept_on_cubic(round_, config.rounds, self.options.initial_sparsity, config.sparsity, prunable)
        alive = surviving_indices(self.masks, num_kept(self.masks))
        before = self.masks
        masks = topk_masks(flattened(self.weights, alive).abs(), before, count)
        if isinstance(self.options, GranetConfig) and self._slopes:
            share = regrown_share(step, self.steps, self.options.regrow)
            masks = {name: exchanged(weight, masks[name], self._slopes[name], share) for name, weight in self.weights.items()}
            self._slopes = {}
        self._set(masks)
        for name, weight in self.weights.items():  # what grows back begins at zero and at rest
            came_back = masks[name] & ~before[name]
            weight.detach().masked_fill_(came_back, 0.0)
            momentum = self.optimizer.state[weight].get("momentum_buffer")
            if momentum is not None:
                momentum.masked_fill_(came_back, 0.0)


def regrown_share(step: int, steps: int, first: float) -> float:
    """Share of the weights that GraNet exchanges at a step: along a cosine from `first` to a hundredth of it."""
    last = first / 100
    return last + (first - last) * (1 + math.cos(math.pi * step / steps)) / 2


def exchanged(weight: Tensor, mask: Tensor, slopes: Tensor, share: float) -> Tensor:
    """The mask without its floor(share * kept) smallest weights, and with as many others of the largest `slopes`.

    What was let go is among the others. Equal values: the later weight goes, the earlier one comes.
    Source: GraNet, arXiv:2106.10404, section 3.2.
    """
    changed, sizes, slopes = mask.flatten().clone(), weight.detach().abs().flatten(), slopes.flatten()
    count = math.floor(share * int(changed.count_nonzero()))
    last_first = sizes.masked_fill(~changed, math.inf).flip(0).sort(stable=True).indices[:count]
    changed[len(changed) - 1 - last_first] = False
    changed[slopes.masked_fill(changed, -math.inf).sort(descending=True, stable=True).indices[:count]] = True
    return changed.view_as(mask)


class NMMasks(Masking):
    """SR-STE: the forward pass sees the N largest of every M weights, the step moves all of them.

    The gradient at the masked weights goes straight through to all, plus `decay` times each weight that is not kept.
    """

    def __init__(self, model: nn.Module, weights: Mapping[str, Tensor], config: TrialConfig) -> None:
        super().__init__()
        self.weights = weights
        self.n, self.m = config.srste.n_of_m
        self.decay = config.srste.decay
        self._dense: list[Tensor] = []
        self._choose()

    def hide(self) -> None:
        self._choose()
        self._dense = [weight.detach().clone() for weight in self.weights.values()]
        apply_masks(self.weights, self.masks)

    def reveal(self, step: int = 0) -> None:
        with torch.no_grad():
            for (name, weight), dense in zip(self.weights.items(), self._dense, strict=True):
                weight.copy_(dense)
                if weight.grad is not None:
                    weight.grad.add_(dense.masked_fill(self.masks[name], 0.0), alpha=self.decay)
        self._dense = []

    def enforce(self, step: int) -> None:
        self._choose()

    def _choose(self) -> None:
        self.masks = pattern_masks(self.weights, self.n, self.m)


def pattern_masks(weights: Mapping[str, Tensor], n: int, m: int) -> Masks:
    """Of every m weights in a row along the input channels the n largest; all where their number is no multiple of m.

    Equal weights: the earlier one is kept. The paper's code groups the flattened (height, width, channel) order instead, where
    a group of the first layer straddles pixels; hardware wants channels.
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


def first_masks(model: nn.Module, config: TrialConfig) -> Masks:
    """The masks that a method which prunes during training begins with."""
    weights = prunable_weights(model, config.prunable.exclude)
    sizes = {name: weight.numel() for name, weight in weights.items()}
    total = sum(sizes.values())
    if config.method == "srste":
        masks = pattern_masks(weights, *config.srste.n_of_m)
        _tell_what_stays_dense(masks, config)
        return masks
    if config.method == "granet":
        count = kept_on_cubic(0, config.rounds, config.granet.initial_sparsity, config.sparsity, total)
        densities = erk({name: tuple(weight.shape) for name, weight in weights.items()}, count / total)
        return random_masks(weights, round_to_total(densities, sizes, count), derived_seed(config.seed, "first mask"))
    if config.method == "gmp":
        count = kept_on_cubic(0, config.rounds, config.gmp.initial_sparsity, config.sparsity, total)
        return topk_masks(flattened(weights).abs(), full_masks(weights), count)
    return full_masks(weights)


def _tell_what_stays_dense(masks: Masks, config: TrialConfig) -> None:
    """A layer whose input channels are no multiple of M stays dense; little of the network is expected to.

    Raises:
        ConfigError: no layer takes the pattern.
    """
    pattern = config.srste.pattern
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


def make_masking(
    model: nn.Module, optimizer: torch.optim.SGD, masks: Masks, config: TrialConfig, first_step: int, steps: int
) -> Masking:
    """The masking of one epoch of sparse training.

    Args:
        first_step: steps of the sparse training that are done.
        steps: all of them.
    """
    if config.method == "dense":
        return Masking()
    if config.method == "srste":
        return NMMasks(model, prunable_weights(model, config.prunable.exclude), config)
    if config.method in GRADUAL:
        return GradualMasks(model, masks, optimizer, config, first_step, steps)
    return FixedMasks(model, masks)

"""The channels with the highest scores. A unit has the sum of its weights' scores, and goes with all that makes and reads it.

Shapes: S surviving weights and U channel units of the network (channels/units.py).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trainables.channels.equality import require_equality
from trainables.channels.fitting import fit_to_remaining
from trainables.channels.quantities import Size
from trainables.channels.removal import remove_units
from trainables.channels.units import STAYS, ChannelUnits
from trainables.config.trial import TrialConfig
from trainables.errors import ConfigError, NonFiniteError
from trainables.pruning.channel_latency import TableLatency, keep_within
from trainables.pruning.masks import Masks, flattened, num_kept
from trainables.pruning.sparsity_schedules import schedule_of, share_after_round
from trainables.pruning.timed_layers import LATENCY_METRIC
from trainables.runtime.seeding import derived_seed

ROUNDING = 1e-9  # by which a sum of products of floats may miss a share


@dataclass(frozen=True, kw_only=True)
class ChannelSelection:
    """The choice of channels of one network.

    Attributes:
        quantities: what a sparsity can be a share of, by name.
    """

    units: ChannelUnits
    quantities: Mapping[str, Size]
    image_shape: tuple[int, int, int]

    def require_reachable(self, config: TrialConfig) -> None:
        """Raises ConfigError if more is left even with one channel in each layer."""
        all_U = torch.ones(self.units.count, dtype=torch.bool)
        order = removal_order(torch.zeros(self.units.count), all_U, self.units)
        remove_until(self.quantities[config.quantity], _final_share(config), all_U, order, self.units, config)

    def survivors(self, masks: Masks, config: TrialConfig, round_: int) -> int:
        return num_kept(masks)

    def keep(self, masks: Masks, config: TrialConfig, round_: int) -> int:
        share = share_after_round(round_, config.rounds, config.sparsity, schedule_of(config))
        return round(share * sum(mask.numel() for mask in masks.values()))

    def select(self, scores: Tensor, masks: Masks, config: TrialConfig, round_: int) -> Masks:
        kept_U = self.kept_units(masks)
        scored = scores[kept_U] if config.pruning.scores_channels else scores
        if not bool(scored.isfinite().all()):
            what = "channels" if config.pruning.scores_channels else "weights"
            raise NonFiniteError(f"{int((~scored.isfinite()).sum())} scores of surviving {what} are not finite")
        if not config.pruning.is_ranking:
            scores_U = self._drawn_scores(config)
        else:
            scores_U = scores.double() if config.pruning.scores_channels else self.unit_scores(scores, masks)
        scores_U, kept_U = scores_U.cpu(), kept_U.cpu()
        quantity, last = self.quantities[config.quantity], round_ == config.rounds
        share = share_after_round(round_, config.rounds, config.sparsity, schedule_of(config))
        share = _final_share(config) if last else share
        if isinstance(quantity, TableLatency):
            kept_U = keep_within(quantity, share, scores_U, kept_U, self.units)
        # in order of the scores, also where no choice of the whole knapsack is fast enough
        order = removal_order(scores_U, kept_U, self.units)
        return self._masks(remove_until(quantity, share, kept_U, order, self.units, config), masks)

    def kept_units(self, masks: Masks) -> Tensor:
        """The units whose first layer has weights left, bool (U,)."""
        device = next(iter(masks.values())).device
        kept_U = torch.zeros(self.units.count, dtype=torch.bool, device=device)
        for group in self.units.groups:
            name = f"{group.name}.weight"
            rows = masks[name].flatten(1).any(1)
            unit_of_row = self.units.unit_of[name, 0].to(device)
            kept_U[unit_of_row[rows & (unit_of_row != STAYS)]] = True
        return kept_U

    def unit_scores(self, scores_S: Tensor, masks: Masks) -> Tensor:
        """The sum of the scores of all surviving weights of each unit, float64 (U,)."""
        surviving = flattened(masks)
        scores = torch.zeros(len(surviving), dtype=torch.float64, device=scores_S.device)
        scores = scores.masked_scatter_(surviving, scores_S.double())
        sums_U = torch.zeros(self.units.count + 1, dtype=torch.float64, device=scores_S.device)  # the last one is of STAYS
        for (name, mask), layer in zip(masks.items(), scores.split([mask.numel() for mask in masks.values()]), strict=True):
            for dim in range(mask.dim()):
                units = self.units.unit_of.get((name, dim))
                if units is not None:
                    others = [each for each in range(mask.dim()) if each != dim]
                    sums_U.index_add_(0, units.to(sums_U.device) % len(sums_U), layer.view(mask.shape).sum(others))
        return sums_U[:-1]

    def _drawn_scores(self, config: TrialConfig) -> Tensor:
        generator = torch.Generator().manual_seed(derived_seed(config.seed, "random mask"))
        return torch.rand(self.units.count, generator=generator, dtype=torch.float64)

    def shuffled(self, masks: Masks, seed: int) -> Masks:
        generator = torch.Generator().manual_seed(derived_seed(seed, "shuffle"))
        kept_U = self.kept_units(masks).cpu()
        for group in self.units.groups:
            order = torch.randperm(group.size, generator=generator)
            kept_U[group.start : group.start + group.size] = kept_U[group.start : group.start + group.size][order]
        return self._masks(kept_U, masks)

    def with_other_tensors(self, masks: Masks, model: nn.Module) -> Masks:
        kept_U = self.kept_units(masks)
        parameters = dict(model.named_parameters())
        others = [name for name in self.units.tensors if name in parameters and name not in masks]
        units = self.units.to(kept_U.device)
        return masks | {name: units.mask(name, parameters[name].shape, kept_U) for name in others}

    def fit_to_remaining(self, model: nn.Module, dense: nn.Module, masks: Masks, batches: Sequence[Tensor]) -> float:
        """Fits the layers that read removed channels to those that remain (channels/fitting.py); returns the share of error."""
        return fit_to_remaining(model, dense, self.units, self.kept_units(masks), batches)

    def finished(self, model: nn.Module, masks: Masks) -> nn.Module:
        """The smaller network.

        Raises:
            ConfigError: it is another function than the masked one.
        """
        kept_U = self.kept_units(masks)
        require_equality(model, self.units, self.image_shape, kept_U)
        smaller = copy.deepcopy(model)
        remove_units(smaller, self.units, kept_U)
        return smaller

    def metrics(self, masks: Masks) -> dict[str, float]:
        if "latency" not in self.quantities:
            return {}
        latency, kept_U = self.quantities["latency"], self.kept_units(masks).cpu()
        return {LATENCY_METRIC: latency.of(self.units, kept_U) / latency.of(self.units, torch.ones_like(kept_U))}

    def _masks(self, kept_U: Tensor, masks: Masks) -> Masks:
        device = next(iter(masks.values())).device
        units, kept_U = self.units.to(device), kept_U.to(device)
        return {name: units.mask(name, mask.shape, kept_U) for name, mask in masks.items()}


def _final_share(config: TrialConfig) -> float:
    return 1 - config.sparsity if config.target.latency is None else config.target.latency


def removal_order(scores_U: Tensor, kept_U: Tensor, units: ChannelUnits) -> Tensor:
    """The kept units that may go, lowest score first, int64; the best one of every group stays.

    Of equal scores the first ones stay longest.
    """
    may_go = kept_U.clone()
    for group in units.groups:
        scores = scores_U[group.start : group.start + group.size].masked_fill(
            ~kept_U[group.start : group.start + group.size], float("-inf")
        )
        may_go[group.start + int(scores.argmax())] = False
    ascending = scores_U.sort(descending=True, stable=True).indices.flip(0)
    return ascending[may_go[ascending]]


def remove_until(
    quantity: Size, share: float, kept_U: Tensor, order: Tensor, units: ChannelUnits, config: TrialConfig
) -> Tensor:
    """The kept units, bool (U,), after the fewest removals in this order that leave at most a share of the quantity.

    Raises:
        ConfigError: even with all of them gone more is left.
    """
    whole = quantity.of(units, torch.ones_like(kept_U))

    def without(count: int) -> Tensor:
        return kept_U.index_fill(0, order[:count], False)

    def suffices(count: int) -> bool:
        return quantity.of(units, without(count)) <= whole * share * (1 + ROUNDING)

    if not suffices(len(order)):
        least = quantity.of(units, without(len(order))) / whole
        key = "sparsity" if config.quantity == "weights" else f"target.{config.quantity}"
        raise ConfigError(
            f"{key}: one channel in each layer must stay, which is {least:.4f} of the {config.quantity.replace('_', '-')} "
            f"of {config.model}, got {share:.4g}",
            "prune less, or write granularity: weight",
        )
    return without(_first(suffices, len(order)))


def _first(suffices: Callable[[int], bool], most: int) -> int:
    """The smallest number up to `most` that suffices, by bisection."""
    low, high = 0, most
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if suffices(middle) else (middle + 1, high)
    return low

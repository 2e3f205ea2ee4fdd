"""The channels with the highest scores. A unit has the sum of its weights' scores, and goes with all that makes and reads it.

With implants (channels/implants.py) a unit may keep the centre taps of its filters instead; it may be removed later, and never
grows back. Shapes: S surviving weights and U channel units of the network (channels/units.py).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from trainables.channels.equality import require_equality
from trainables.channels.fitting import fit_to_remaining
from trainables.channels.implants import Remaining, implant_masks, implantable_units, implants_in
from trainables.channels.quantities import Size
from trainables.channels.removal import remove_units
from trainables.channels.units import STAYS, ChannelUnits
from trainables.config.trial import TrialConfig
from trainables.errors import ConfigError, NonFiniteError
from trainables.pruning.channel_latency import TableLatency, keep_within
from trainables.pruning.masks import Masks, flattened, num_kept
from trainables.pruning.sparsity_schedules import remaining_share, schedule_of, share_after_round
from trainables.pruning.timed_layers import LATENCY_METRIC
from trainables.runtime.seeding import derived_seed

ROUNDING = 1e-9  # by which a sum of products of floats may miss a share


@dataclass(frozen=True, kw_only=True)
class ChannelSelection:
    """The choice of channels of one network.

    Attributes:
        quantities: what a sparsity can be a share of, by name.
        implantable: the units that can be implants, bool (U,).
    """

    units: ChannelUnits
    quantities: Mapping[str, Size]
    image_shape: tuple[int, int, int]
    implantable: Tensor

    def require_reachable(self, config: TrialConfig) -> None:
        """Raises ConfigError if more is left even with one channel in each layer."""
        all_U = torch.ones(self.units.count, dtype=torch.bool)
        order = removal_order(torch.zeros(self.units.count), all_U, self.units)
        self._reduced(Remaining(kept=all_U, implants=~all_U), order, remaining_share(config, config.rounds), config)

    def survivors(self, masks: Masks, config: TrialConfig, round_: int) -> int:
        return num_kept(masks)

    def keep(self, masks: Masks, config: TrialConfig, round_: int) -> int:
        share = share_after_round(round_, config.rounds, config.sparsity, schedule_of(config))
        return round(share * sum(mask.numel() for mask in masks.values()))

    def select(self, scores: Tensor, masks: Masks, config: TrialConfig, round_: int) -> Masks:
        before = self.remaining(masks)
        scored = scores[before.kept] if config.pruning.scores_channels else scores
        if not bool(scored.isfinite().all()):
            what = "channels" if config.pruning.scores_channels else "weights"
            raise NonFiniteError(f"{int((~scored.isfinite()).sum())} scores of surviving {what} are not finite")
        if not config.pruning.is_ranking:
            scores_U = self._drawn_scores(config)
        else:
            scores_U = scores.double() if config.pruning.scores_channels else self.unit_scores(scores, masks)
        scores_U, share = scores_U.cpu(), remaining_share(config, round_)
        quantity = self.quantities[config.quantity]
        if isinstance(quantity, TableLatency):
            before = replace(before, kept=keep_within(quantity, share, scores_U, before.kept, self.units))
        # in order of the scores, also where no choice of the whole knapsack is fast enough
        order = removal_order(scores_U, before.kept, self.units)
        return self._masks(self._reduced(before, order, share, config), masks)

    def remaining(self, masks: Masks) -> Remaining:
        """The units that masks keep, and their implants."""
        return Remaining(kept=self.kept_units(masks).cpu(), implants=implants_in(masks, self.units, self.implantable))

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
        before = self.remaining(masks)
        order = [group.start + torch.randperm(group.size, generator=generator) for group in self.units.groups]
        new_U = torch.cat(order)
        return self._masks(Remaining(kept=before.kept[new_U], implants=before.implants[new_U]), masks)

    def metrics(self, masks: Masks, config: TrialConfig) -> dict[str, float]:
        figures = {}
        if config.options.implant_share():
            figures["prune/implants"] = float(self.remaining(masks).implants.sum())
        if "latency" in self.quantities:
            latency, kept_U = self.quantities["latency"], self.kept_units(masks).cpu()
            figures[LATENCY_METRIC] = latency.of(self.units, kept_U) / latency.of(self.units, torch.ones_like(kept_U))
        return figures

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

    def _masks(self, after: Remaining, masks: Masks) -> Masks:
        device = next(iter(masks.values())).device
        units, kept_U = self.units.to(device), after.kept.to(device)
        of_kept = {name: units.mask(name, mask.shape, kept_U) for name, mask in masks.items()}
        return implant_masks(of_kept, units, after.implants) if bool(after.implants.any()) else of_kept

    def _reduced(self, before: Remaining, order: Tensor, share: float, config: TrialConfig) -> Remaining:
        """The units that remain after the fewest changes, in the order of removal, that leave at most a share of the target.

        Of the units that are gone or among the first of the order, the share q of implants, those with the highest scores, keep
        their centres where they can. Where all together leave too much, implants go too, in the same order.

        Raises:
            ConfigError: even with all of them gone more is left.
        """
        quantity = self.quantities[config.quantity]
        whole = quantity.of(self.units, torch.ones_like(before.kept))

        def after(changes: int) -> Remaining:
            return changed(before, order, changes, config.options.implant_share(), self.implantable)

        def size(changes: int) -> float:
            left = after(changes)
            return quantity.of(self.units, left.kept, left.implants)

        most = 2 * len(order)
        if size(most) > whole * share * (1 + ROUNDING):
            key = "sparsity" if config.quantity == "weights" else f"target.{config.quantity}"
            raise ConfigError(
                f"{key}: one channel in each layer must stay, which is {size(most) / whole:.4f} of the "
                f"{config.quantity.replace('_', '-')} of {config.model}, got {share:.4g}",
                "prune less, or write granularity: weight",
            )
        return after(_first(lambda changes: size(changes) <= whole * share * (1 + ROUNDING), most))


def require_implantable(config: TrialConfig, model: nn.Module, units: ChannelUnits) -> None:
    """Raises ConfigError if the trial asks for implants and no unit of the network can be one."""
    if config.options.implant_share() and not bool(implantable_units(model, units).any()):
        raise ConfigError(
            f"{config.option_block}.implant: the network must have channels that k x k convolutions alone make, with odd k > 1 "
            f"and padding k // 2, got none in {config.model}",
            "remove it",
        )


def changed(before: Remaining, order: Tensor, changes: int, implant_share: float, implantable_U: Tensor) -> Remaining:
    """What remains after so many changes, in the order of removal; each leaves no more of any unit than the one before.

    The first len(order) changes affect one unit each. Of all A units that are affected or were gone before,
    floor((1 - q) A) are gone, and so are those that cannot be implants. Each further change removes an implant.
    """
    affected = min(changes, len(order))
    gone_before = int((~before.kept).sum())
    gone = math.floor((1 - implant_share) * (gone_before + affected) + ROUNDING) - gone_before
    gone = min(affected, max(0, gone) + changes - affected)
    band = order[gone:affected]
    kept_U = before.kept.index_fill(0, order[:gone], False).index_fill(0, band[~implantable_U[band]], False)
    implants_U = before.implants.index_fill(0, band[implantable_U[band]], True) & kept_U
    return Remaining(kept=kept_U, implants=implants_U)


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


def _first(suffices: Callable[[int], bool], most: int) -> int:
    """The smallest number up to `most` that suffices, by bisection."""
    low, high = 0, most
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if suffices(middle) else (middle + 1, high)
    return low

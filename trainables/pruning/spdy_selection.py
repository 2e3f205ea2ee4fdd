"""SPDY: each layer keeps as many weights as cost the least accuracy within a time (Frantar and Alistarh, arXiv:2201.13096).

The error of a layer at its j-th of n options is c (j / (n - 1))^2; the coefficients c are all 1, or searched
(coefficient_search.py). Within a layer the highest scores of the trial's method survive, whatever it is. Unlike in the authors'
code, times are rounded up, so that a budget is never exceeded, and layers that stay dense count in the fixed time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from torch import Tensor

from trainables.config.trial import TrialConfig
from trainables.errors import ConfigError
from trainables.pruning.budget import InfeasibleBudgetError, cheapest_options
from trainables.pruning.masks import Masks, num_kept
from trainables.pruning.selection import WeightSelection, highest_by_layer, kept_by_layer
from trainables.pruning.sparsity_schedules import remaining_share
from trainables.pruning.timed_layers import LATENCY_METRIC, TimedLayers


@dataclass(frozen=True, kw_only=True)
class SpdySelection(WeightSelection):
    """The choice of weights of one network.

    Attributes:
        coefficients: weight of each layer's error, by the name of its weight; 1 where there is none.
    """

    timed: TimedLayers
    coefficients: Mapping[str, float] = field(default_factory=dict)

    def with_coefficients(self, coefficients: Mapping[str, float]) -> SpdySelection:
        return replace(self, coefficients=coefficients)

    def require_reachable(self, config: TrialConfig) -> None:
        """Raises ConfigError if the fastest options of all layers are slower than the target."""
        self.counts(remaining_share(config, config.rounds))

    def survivors(self, masks: Masks, config: TrialConfig, round_: int) -> int:
        return num_kept(masks)

    def keep(self, masks: Masks, config: TrialConfig, round_: int) -> int:
        return sum(self.counts(remaining_share(config, round_), kept_by_layer(masks)).values())

    def select(self, scores: Tensor, masks: Masks, config: TrialConfig, round_: int) -> Masks:
        return highest_by_layer(scores, masks, self.counts(remaining_share(config, round_), kept_by_layer(masks)))

    def metrics(self, masks: Masks, config: TrialConfig) -> dict[str, float]:
        return {LATENCY_METRIC: self.timed.time(kept_by_layer(masks)) / self.timed.whole}

    def counts(self, share: float, surviving: Mapping[str, int] | None = None) -> dict[str, int]:
        """Weights that each layer keeps within a share of the dense network's time.

        Args:
            surviving: what the layers still have; none gets more.

        Raises:
            ConfigError: no choice is so fast.
        """
        times, costs, counts = [], [], []
        for name, layer in self.timed.layers.items():
            most, weight = layer.counts[0] if surviving is None else surviving[name], self.coefficients.get(name, 1.0)
            allowed = [index for index, count in enumerate(layer.counts) if count <= most]
            times.append([layer.times[index] for index in allowed])
            costs.append([weight * layer.errors[index] for index in allowed])
            counts.append([layer.counts[index] for index in allowed])
        budget = share * self.timed.whole - self.timed.fixed
        try:
            chosen = cheapest_options(times, costs, budget)
        except InfeasibleBudgetError as error:
            least = (error.least + self.timed.fixed) / self.timed.whole
            raise ConfigError(
                f"target.latency: by the timing table at least {least:.4f} of the time of the dense network remains, got "
                f"{share:.4g}",
                "allow more time, or give a table with higher sparsities",
            ) from error
        return {name: layer[index] for name, layer, index in zip(self.timed.layers, counts, chosen, strict=True)}

"""The values of a group's configurations as parts: what a configuration adds, what a seed adds to all of them, and noise.

Accuracies are compared by seeds, since all configurations of a seed share its initialisation, its data order and its warm-up.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.search.racing import Noise, adjusted_means

Values = Mapping[int, Mapping[int, float]]  # configuration -> seed -> value, larger is better


@dataclass(frozen=True, kw_only=True)
class Fit:
    """The least-squares fit of value = configuration + seed + noise.

    Attributes:
        means: configuration -> its mean over seeds, without what its own seeds add to all configurations alike.
        seeds: configuration -> how many it has.
        noise: of one value; without freedom if there are too few values to tell.
        seed_variance: of what a seed adds to all configurations alike, beyond noise.
        blocks: number of seeds of all configurations together.
    """

    means: Mapping[int, float]
    seeds: Mapping[int, int]
    noise: Noise
    seed_variance: float
    blocks: int

    @property
    def leader(self) -> int:
        """The configuration with the highest mean; of equals the first."""
        return max(self.means, key=lambda number: (self.means[number], -number))

    def variance_of_mean(self, number: int) -> float:
        """Of a configuration's mean, apart from the seeds' part."""
        return self.noise.deviation**2 / self.seeds[number]

    def reach(self, first: int, second: int, level: float) -> float:
        """What the difference of two means exceeds by noise with probability `level`; infinite where noise is not known."""
        if not self.noise.freedom:
            return math.inf
        from scipy.special import stdtrit  # the inverse of Student's t

        error = math.sqrt(self.variance_of_mean(first) + self.variance_of_mean(second))
        return float(stdtrit(self.noise.freedom, 1 - level)) * error


def fit(values: Values) -> Fit:
    """The fit. Where configurations have no seeds in common, directly or through others, seeds count as noise.

    Args:
        values: at least one for each configuration.
    """
    seeds = {number: len(row) for number, row in values.items()}
    blocks = len({seed for row in values.values() for seed in row})
    if len(values) == 1 or not _is_connected(values):
        means = {number: statistics.fmean(row.values()) for number, row in values.items()}
        noise = _noise(values, means, {}, sum(seeds.values()) - len(values))
        return Fit(means=means, seeds=seeds, noise=noise, seed_variance=0.0, blocks=blocks)
    means = adjusted_means(values)
    effects = _seed_effects(values, means)
    noise = _noise(values, means, effects, sum(seeds.values()) - len(values) - blocks + 1)
    return Fit(means=means, seeds=seeds, noise=noise, seed_variance=_seed_variance(values, effects, noise), blocks=blocks)


def _is_connected(values: Values) -> bool:
    """Whether every two configurations are linked by seeds that they, or others between them, share."""
    rows = [set(row) for row in values.values()]
    reached, left = rows[0], rows[1:]
    while linked := [row for row in left if row & reached]:
        reached = reached.union(*linked)
        left = [row for row in left if not row & reached]
    return not left


def _seed_effects(values: Values, means: Mapping[int, float]) -> dict[int, float]:
    residuals: dict[int, list[float]] = {}
    for number, row in values.items():
        for seed, value in row.items():
            residuals.setdefault(seed, []).append(value - means[number])
    return {seed: statistics.fmean(row) for seed, row in residuals.items()}


def _noise(values: Values, means: Mapping[int, float], effects: Mapping[int, float], freedom: int) -> Noise:
    if freedom <= 0:
        return Noise(0.0, 0)
    squares = sum(
        (value - means[number] - effects.get(seed, 0.0)) ** 2 for number, row in values.items() for seed, value in row.items()
    )
    return Noise(math.sqrt(squares / freedom), freedom)


def _seed_variance(values: Values, effects: Mapping[int, float], noise: Noise) -> float:
    """By the spread of the seeds' effects, less the part of noise in it; 0 if nothing is left."""
    if len(effects) < 2 or not noise.freedom:
        return 0.0
    counts = [sum(seed in row for row in values.values()) for seed in effects]
    by_noise = noise.deviation**2 * statistics.fmean(1 / count for count in counts)
    return max(0.0, statistics.variance(effects.values()) - by_noise)

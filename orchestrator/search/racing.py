"""Staged seeds: which of several configurations is best, judged by seeds that all of them have.

All contenders run the same seeds, so what a seed does to all alike cancels out. After each further seed every contender is
compared with the leader by a paired t-test whose noise is pooled over the contenders (a randomised block design: seeds are the
blocks). A contender is *worse* at the confidence of the race, divided by the number of comparisons and of looks (Bonferroni).
It is *behind*, and gets no more seeds, at the lower confidence of a single comparison; that is a decision about where to spend
epochs, and no finding.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

CHANCE = 0.2
ITERATIONS = 10_000  # of the fit of an incomplete design, which converges quickly unless few seeds link the configurations
SETTLED = 1e-12  # a fit that changes less than this has converged


class Outcome(StrEnum):
    """Why a group ended."""

    BETTER = "better"  # one configuration is better than every other
    INDIFFERENT = "indifferent"  # no other is better by more than the indifference
    UNDECIDED = "undecided"  # the seeds are used up, or the others were behind, and some cannot be told from the leader
    BUDGET = "budget"
    EXPLORED = "explored"  # no staged seeds were asked for
    NOTHING = "nothing"  # no configuration has a result


@dataclass(frozen=True, kw_only=True)
class RaceRule:
    """When a race ends.

    Attributes:
        confidence: of the whole race, over all comparisons and looks.
        looks: how often the contenders are compared at most.
        comparisons: contenders of the first look, less one.
        chance: a contender is behind if it is better than the leader with less than this probability.
    """

    confidence: float
    looks: int
    comparisons: int
    chance: float = CHANCE

    @property
    def level(self) -> float:
        """The significance level of one comparison at one look."""
        return (1 - self.confidence) / (max(1, self.comparisons) * max(1, self.looks))


@dataclass(frozen=True, kw_only=True)
class Look:
    """What one look shows.

    Attributes:
        leader: number of the configuration with the best mean.
        bounds: contender -> the smallest and largest value that its mean may have above the leader's.
        worse: contenders that are worse than the leader at the level of the rule.
        behind: others that get no more seeds.
    """

    leader: int
    bounds: Mapping[int, tuple[float, float]]
    worse: tuple[int, ...]
    behind: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Noise:
    """Standard deviation of one value apart from the parts of its seed and its configuration, with its degrees of freedom."""

    deviation: float
    freedom: int

    def reach(self, seeds: int, level: float) -> float:
        """What a difference of two means over so many seeds exceeds with probability `level`; infinite without freedom."""
        if not self.freedom:
            return math.inf
        from scipy.special import stdtrit  # the inverse of Student's t

        return float(stdtrit(self.freedom, 1 - level)) * self.deviation * math.sqrt(2 / seeds)


def noise_of(values: Mapping[int, Sequence[float]]) -> Noise:
    """The noise of a complete block design: all configurations have the same seeds, in the same order."""
    rows = list(values.values())
    seeds = len(rows[0])
    freedom = (len(rows) - 1) * (seeds - 1)
    if not freedom:
        return Noise(0.0, 0)
    columns = [statistics.fmean(row[seed] for row in rows) for seed in range(seeds)]
    grand = statistics.fmean(columns)
    squares = 0.0
    for row in rows:
        mean = statistics.fmean(row)
        squares += sum((value - mean - column + grand) ** 2 for value, column in zip(row, columns, strict=True))
    return Noise(math.sqrt(squares / freedom), freedom)


def look(values: Mapping[int, Sequence[float]], rule: RaceRule) -> Look:
    """Compares the contenders.

    Args:
        values: configuration -> its values, larger is better, for the same seeds in the same order.
    """
    means = {number: statistics.fmean(row) for number, row in values.items()}
    leader = max(means, key=lambda number: (means[number], -number))
    seeds, noise = len(values[leader]), noise_of(values)
    bounds = bounds_above(values, leader, noise.reach(seeds, rule.level))
    worse = tuple(number for number, (_, upper) in bounds.items() if upper < 0)
    left = [number for number in bounds if number not in worse]
    if noise.freedom:
        margin = noise.reach(seeds, rule.chance)
        behind = tuple(number for number in left if means[number] + margin < means[leader])
    else:  # one seed shows no noise: the better half goes on
        ranked = sorted(left, key=lambda number: (-means[number], number))
        behind = tuple(sorted(ranked[max(1, (len(values) + 1) // 2 - 1) :]))
    return Look(leader=leader, bounds=bounds, worse=worse, behind=behind)


def bounds_above(values: Mapping[int, Sequence[float]], leader: int, reach: float) -> dict[int, tuple[float, float]]:
    """Each other configuration -> the least and the most by which its mean may be above the leader's.

    With a level that is divided by the number of configurations the best of all is above the leader by no more than the largest
    of these bounds, even though the leader was chosen by the same values (Hsu, Multiple Comparisons, 1996: comparisons with the
    best).
    """
    leading = statistics.fmean(values[leader])
    differences = {number: statistics.fmean(row) - leading for number, row in values.items() if number != leader}
    return {number: (difference - reach, difference + reach) for number, difference in differences.items()}


def adjusted_means(values: Mapping[int, Mapping[int, float]]) -> dict[int, float]:
    """Configuration -> its mean, without what its seeds add to all configurations alike.

    The least-squares fit of value = configuration + seed, where the parts of the seeds sum to 0; with the same seeds for all it
    is the plain mean.

    Args:
        values: configuration -> seed -> value; every configuration has at least one.
    """
    seeds = sorted({seed for row in values.values() for seed in row})
    effects = dict.fromkeys(seeds, 0.0)
    means: dict[int, float] = {}
    for _ in range(ITERATIONS):
        means = {
            number: statistics.fmean(value - effects[seed] for seed, value in row.items()) for number, row in values.items()
        }
        residuals = {seed: [row[seed] - means[number] for number, row in values.items() if seed in row] for seed in seeds}
        raw = {seed: statistics.fmean(row) for seed, row in residuals.items()}
        centre = statistics.fmean(raw.values()) if raw else 0.0
        before, effects = effects, {seed: effect - centre for seed, effect in raw.items()}
        if all(math.isclose(effect, before[seed], rel_tol=0, abs_tol=SETTLED) for seed, effect in effects.items()):
            break
    return means

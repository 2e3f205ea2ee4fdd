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


def look(values: Mapping[int, Sequence[float]], rule: RaceRule) -> Look:
    """Compares the contenders.

    Args:
        values: configuration -> its values, larger is better, for the same seeds in the same order.
    """
    means = {number: statistics.fmean(row) for number, row in values.items()}
    leader = max(means, key=lambda number: (means[number], -number))
    others = [number for number in values if number != leader]
    error, freedom = _standard_error(values, means)
    reach = _quantile(freedom, 1 - rule.level) * error if freedom else math.inf
    bounds = {number: (means[number] - means[leader] - reach, means[number] - means[leader] + reach) for number in others}
    worse = tuple(number for number in others if bounds[number][1] < 0)
    left = [number for number in others if number not in worse]
    if freedom:
        margin = _quantile(freedom, 1 - rule.chance) * error
        behind = tuple(number for number in left if means[number] + margin < means[leader])
    else:  # one seed shows no noise: the better half goes on
        ranked = sorted(left, key=lambda number: (-means[number], number))
        behind = tuple(sorted(ranked[max(1, (len(values) + 1) // 2 - 1) :]))
    return Look(leader=leader, bounds=bounds, worse=worse, behind=behind)


def _standard_error(values: Mapping[int, Sequence[float]], means: Mapping[int, float]) -> tuple[float, int]:
    """Standard error of the difference of two means, and its degrees of freedom; 0 of them with one seed or contender."""
    rows = list(values.values())
    seeds, contenders = len(rows[0]), len(rows)
    freedom = (contenders - 1) * (seeds - 1)
    if not freedom:
        return 0.0, 0
    columns = [statistics.fmean(row[seed] for row in rows) for seed in range(seeds)]
    grand = statistics.fmean(columns)
    squares = sum(
        (row[seed] - means[number] - columns[seed] + grand) ** 2 for number, row in values.items() for seed in range(seeds)
    )
    return math.sqrt(2 * squares / freedom / seeds), freedom


def _quantile(freedom: int, probability: float) -> float:
    from scipy.special import stdtrit  # the inverse of Student's t

    return float(stdtrit(freedom, probability))

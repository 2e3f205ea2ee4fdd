"""Which configuration of a group is best, how sure that is, and which cheaper one is not worse."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from orchestrator.recommendation.estimate import LEVEL, Estimate, estimate
from orchestrator.recommendation.fit import Fit, Values, fit

FEW_SEEDS = 16  # so many more are worth the advice to run them
LEAST_FREEDOM = 3  # of the noise, for a choice to be called settled


class Certainty(StrEnum):
    """How sure a recommendation is."""

    SETTLED = "settled"  # no other configuration is better by more than the indifference
    MORE_SEEDS = "more seeds"  # a few more seeds would settle it
    UNCLEAR = "unclear"  # it would take many more
    UNKNOWN = "unknown"  # too few values to know the noise
    ALONE = "alone"  # there is no other configuration


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The best configuration of a group.

    Attributes:
        best: its number.
        estimate: what it will give on further seeds.
        certainty: of the choice, at 95 %, corrected for the number of configurations.
        rivals: other configuration -> by how much it may be better, if by more than the indifference.
        worst_surplus: the most by which another configuration may be better; not below 0, None where noise is not known.
        more_seeds: that would probably settle it, for each of the rivals and the best; None where that cannot be told.
        cheapest: the cheapest configuration that is not shown to be worse by more than the indifference; the best itself if no
            cheaper one is, and where noise is not known.
    """

    best: int
    estimate: Estimate
    certainty: Certainty
    rivals: Mapping[int, float]
    worst_surplus: float | None
    more_seeds: int | None
    cheapest: int
    fit: Fit


def choose(values: Values, costs: Mapping[int, float], indifference: float, best: int | None = None) -> Choice:
    """The choice among configurations with at least one value each.

    Args:
        costs: configuration -> what it costs, in any unit.
        indifference: difference that does not matter, in the unit of the values.
        best: the configuration that a search has recommended; by default the one with the highest mean.
    """
    fitted = fit(values)
    leader = fitted.leader if best is None else best
    surplus = _surplus(fitted, leader)
    contenders = frozenset({leader, *(number for number, most in surplus.items() if most >= 0)})
    rivals = {number: most for number, most in surplus.items() if most > indifference}
    known = bool(fitted.noise.freedom)
    chosen = Choice(
        best=leader,
        estimate=estimate(fitted, leader, contenders),
        certainty=Certainty.SETTLED,
        rivals=rivals,
        worst_surplus=max(0.0, *surplus.values(), 0.0) if known else None,
        more_seeds=0,
        cheapest=_cheapest(fitted, leader, costs, indifference) if known else leader,
        fit=fitted,
    )
    if len(values) == 1:
        return replace(chosen, certainty=Certainty.ALONE, more_seeds=None)
    if not known:
        return replace(chosen, certainty=Certainty.UNKNOWN, more_seeds=None)
    if not rivals:
        return (
            chosen if fitted.noise.freedom >= LEAST_FREEDOM else replace(chosen, certainty=Certainty.UNKNOWN, more_seeds=None)
        )
    more = _more_seeds(fitted, leader, rivals, indifference)
    few = more is not None and more <= FEW_SEEDS
    return replace(chosen, certainty=Certainty.MORE_SEEDS if few else Certainty.UNCLEAR, more_seeds=more)


def _surplus(fitted: Fit, leader: int) -> dict[int, float]:
    """Each other configuration -> the most by which it may be better than the leader.

    Comparisons with the best (Hsu, Multiple Comparisons, 1996), with Bonferroni's correction for their number: the best of all
    is above the leader by no more than the largest of these.
    """
    level = LEVEL / max(1, len(fitted.means) - 1)
    return {
        number: mean - fitted.means[leader] + fitted.reach(number, leader, level)
        for number, mean in fitted.means.items()
        if number != leader
    }


def _more_seeds(fitted: Fit, leader: int, rivals: Mapping[int, float], indifference: float) -> int | None:
    """The smallest number of further seeds of the leader and its rivals after which none of these could still be better.

    If their means stay as they are. None if the leader's mean is not above those of all rivals, less the indifference.
    """
    level = LEVEL / max(1, len(fitted.means) - 1)
    gap = min(fitted.means[leader] - fitted.means[number] for number in rivals) + indifference
    if gap <= 0:
        return None
    from scipy.special import stdtrit

    normal = float(stdtrit(1e6, 1 - level))
    needed = math.ceil(2 * (normal * fitted.noise.deviation / gap) ** 2)
    fewest = min(fitted.seeds[number] for number in (leader, *rivals))
    return max(1, needed - fewest)


def _cheapest(fitted: Fit, leader: int, costs: Mapping[int, float], indifference: float) -> int:
    """By the interval of each paired difference, which reaches above minus the indifference."""
    good = [
        number
        for number, mean in fitted.means.items()
        if number == leader or mean - fitted.means[leader] + fitted.reach(number, leader, LEVEL / 2) > -indifference
    ]
    return min(good, key=lambda number: (costs[number], -fitted.means[number], number))

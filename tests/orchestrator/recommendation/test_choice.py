"""The choice of a configuration: against Student's t by hand, and on groups whose truth is known."""

from __future__ import annotations

import math
import random
import statistics

import pytest

from orchestrator.recommendation.choice import Certainty, Choice, choose
from orchestrator.recommendation.fit import Values
from tests.benchmarks.recommendation import score
from tests.support.synthetic_sweeps import synthetic_group

ALIKE = {0: [80.1, 80.9, 80.6], 1: [80.0, 81.0, 80.2], 2: [70.0, 71.0, 70.1]}


def rows(values: dict[int, list[float]]) -> Values:
    return {number: dict(enumerate(row)) for number, row in values.items()}


def chosen(values: dict[int, list[float]], indifference: float = 0.2, costs: dict[int, float] | None = None) -> Choice:
    return choose(rows(values), costs or dict.fromkeys(values, 1.0), indifference)


def test_single_configuration_has_the_interval_of_student() -> None:
    row = [80.0, 81.0, 82.5, 80.5]
    choice = chosen({0: row})
    reach = 3.1824 * statistics.stdev(row) / 2  # t of 3 degrees of freedom
    assert choice.certainty is Certainty.ALONE
    assert choice.estimate.interval == pytest.approx((81 - reach, 81 + reach), rel=1e-4)


def test_one_seed_has_no_interval() -> None:
    choice = chosen({0: [80.0], 1: [81.0]})
    assert (choice.best, choice.certainty, choice.estimate.interval) == (1, Certainty.UNKNOWN, None)
    assert (choice.cheapest, choice.more_seeds, choice.worst_surplus) == (1, None, None)


def test_two_seeds_of_two_configurations_settle_nothing() -> None:
    choice = chosen({0: [80.0, 81.0], 1: [70.0, 71.0]})
    assert choice.certainty is Certainty.UNKNOWN


def test_far_better_configuration_is_settled() -> None:
    values = {0: [80.0, 81.1, 80.2, 80.9], 1: [70.1, 71.0, 70.0, 71.0], 2: [60.0, 61.0, 60.1, 61.1]}
    choice = chosen(values)
    assert (choice.best, choice.certainty, choice.rivals) == (0, Certainty.SETTLED, {})
    assert choice.estimate.mean == pytest.approx(80.55)  # no contender, so nothing is corrected


def test_rivals_may_be_better_by_more_than_the_indifference() -> None:
    choice = chosen(ALIKE)
    assert (choice.best, set(choice.rivals)) == (0, {1})
    assert choice.certainty is Certainty.MORE_SEEDS
    assert choice.worst_surplus == pytest.approx(choice.rivals[1])
    assert chosen(ALIKE, indifference=1.0).certainty is Certainty.SETTLED


def test_best_of_equal_ones_is_drawn_towards_their_mean() -> None:
    draw = random.Random(3)
    values = {number: [80 + draw.gauss(0, 1) for _ in range(3)] for number in range(30)}
    choice = chosen(values)
    raw = statistics.fmean(values[choice.best])
    assert raw - 80 > 0.6
    assert choice.estimate.mean - 80 < 0.5 * (raw - 80)


@pytest.mark.parametrize("gap", [0.0, 0.3])
def test_more_seeds_are_about_as_many_as_it_takes(gap: float) -> None:
    draw = random.Random(0)
    values = {number: [80 - gap * number + draw.gauss(0, 0.4) for _ in range(4)] for number in range(3)}
    choice = chosen(values)
    assert choice.more_seeds is not None
    needed = 4 + choice.more_seeds
    level, margin = 0.05 / 2, min(choice.fit.means[choice.best] - choice.fit.means[one] for one in choice.rivals) + 0.2
    normal = statistics.NormalDist().inv_cdf(1 - level)

    def reach(seeds: int) -> float:
        return normal * choice.fit.noise.deviation * math.sqrt(2 / seeds)

    assert reach(needed) <= margin
    assert choice.more_seeds == 1 or margin < reach(needed - 1)


def test_cheapest_is_not_shown_to_be_worse() -> None:
    costs = {0: 20.0, 1: 12.0, 2: 3.0}
    choice = chosen(ALIKE, costs=costs)
    assert (choice.best, choice.cheapest) == (0, 1)  # the cheapest of all is ten points worse
    assert chosen(ALIKE, costs={0: 5.0, 1: 12.0, 2: 9.0}).cheapest == 0


def test_search_keeps_its_own_choice() -> None:
    choice = choose(rows(ALIKE), dict.fromkeys(ALIKE, 1.0), 0.2, best=1)
    assert (choice.best, set(choice.rivals)) == (1, {0})


def test_choice_does_not_depend_on_the_order_of_configurations() -> None:
    group = synthetic_group("surface", 4, random.Random(5))
    costs = {number: float(number % 5) for number in group.truth}
    turned = {number: group.values[number] for number in sorted(group.values, reverse=True)}
    first, second = (choose(values, costs, 0.2) for values in (group.values, turned))
    assert (first.best, first.cheapest, first.certainty) == (second.best, second.cheapest, second.certainty)
    assert first.estimate.mean == pytest.approx(second.estimate.mean)


@pytest.mark.parametrize(("kind", "seeds"), [("equal", 4), ("surface", 4), ("plateau", 3), ("two", 8)])
def test_interval_holds_the_truth_as_often_as_it_says(kind: str, seeds: int) -> None:
    one = score(kind, seeds, 120)
    assert one.coverage >= 0.88  # 95 % less three and a half standard errors of 120 draws
    assert one.coverage > one.plain or kind == "two"

"""Ray Tune's early-stopping rules behind the interface of a search, without Ray."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Callable

import numpy as np
import pytest

from orchestrator.execution.search_start import early_stoppers
from orchestrator.scheduling.early_stopping import RayEarlyStopper, asha, median
from orchestrator.search.early_stopping import asha_rungs
from orchestrator.search.groups import groups_of
from tests.support.synthetic_grid import spec_with


@pytest.mark.parametrize("grace", [1, 2, 3])
@pytest.mark.parametrize("reduction", [2, 3, 4])
def test_search_asks_at_every_rung_of_rays_bracket(grace: int, reduction: int) -> None:
    for epochs in (*range(grace + 1, 40), 81, 82, 243, 244, 1000):
        (bracket,) = asha("max", grace, reduction, epochs).scheduler._brackets
        rungs = {milestone for milestone, _ in bracket._rungs if milestone < epochs}
        assert set(asha_rungs(grace, reduction, epochs)) == rungs


@pytest.mark.parametrize("mode", ["max", "min"])
def test_asha_stops_what_is_below_the_quantile_of_its_rung(mode: str) -> None:
    generator = random.Random(0)
    stopper = asha(mode, 2, 3, 8)
    seen: list[float] = []
    sign = 1 if mode == "max" else -1
    for number in range(40):
        value = generator.random()
        stopper.add(str(number))
        cutoff = np.percentile(seen, 100 * (1 - 1 / 3)) if seen else -math.inf
        assert stopper.should_stop(str(number), 2, value) is bool(sign * value < cutoff)
        seen.append(sign * value)


@pytest.mark.parametrize("mode", ["max", "min"])
def test_median_rule_compares_with_the_median_of_running_means(mode: str) -> None:
    """With at least three others that got as far, as Ray's rule asks for."""
    generator = random.Random(1)
    sign = 1 if mode == "max" else -1
    stopper, curves = median(mode, 2), dict[str, list[float]]()
    stops = 0
    for number in range(30):
        key = str(number)
        stopper.add(key)
        curves[key] = []
        for epoch in range(1, 6):
            value = generator.random() + 0.1 * sign * epoch
            others = [curve for other, curve in curves.items() if other != key and len(curve) >= epoch]
            curves[key].append(value)
            expected = False
            if epoch >= 2 and len(others) >= 3:
                middle = statistics.median(sign * statistics.fmean(curve[1:epoch]) for curve in others)
                expected = max(sign * one for one in curves[key]) < middle
            assert stopper.should_stop(key, epoch, value) is expected
            if expected:
                stops += 1
                break
        else:
            stopper.finish(key, 6, value)
            curves[key].append(value)
    assert 0 < stops < 30


def test_value_that_is_no_number_stops_and_leaves_no_trace() -> None:
    for stopper in (asha("max", 1, 2, 8), median("max", 1)):
        for key in "abcd":
            stopper.add(key)
            assert not stopper.should_stop(key, 1, 0.5)
        stopper.add("e")
        for value in (math.nan, math.inf, -math.inf):
            assert stopper.should_stop("e", 1, value)
        stopper.add("f")
        assert not stopper.should_stop("f", 1, 0.5)


@pytest.mark.parametrize("rule", ["asha", "median"])
def test_trial_may_go_on_against_the_rule(rule: str) -> None:
    stopper = asha("max", 1, 2, 8) if rule == "asha" else median("max", 1)
    for key in "abcd":
        stopper.add(key)
        for epoch in range(1, 5):
            assert not stopper.should_stop(key, epoch, 0.9)
    stopper.add("late")
    assert stopper.should_stop("late", 1, 0.1)
    assert stopper.should_stop("late", 2, 0.1)
    stopper.finish("late", 8, 0.1)


@pytest.mark.parametrize("make", [lambda: asha("max", 1, 2, 9), lambda: median("max", 1)])
def test_rule_that_is_refilled_decides_as_the_old_one(make: Callable[[], RayEarlyStopper]) -> None:
    generator = random.Random(2)
    first = make()
    calls = []
    for number in range(30):
        key = str(number)
        first.add(key)
        calls.append(("add", key, 0, 0.0))
        for epoch in (1, 2, 4, 8):
            value = generator.random()
            calls.append(("ask", key, epoch, value))
            if first.should_stop(key, epoch, value):
                break
        else:
            first.finish(key, 9, value)
            calls.append(("finish", key, 9, value))
        second = make()
        for what, trial, epoch, value in calls:
            if what == "add":
                second.add(trial)
                second.add(trial)  # a second time has no effect
            elif what == "ask":
                second.should_stop(trial, epoch, value)
            else:
                second.finish(trial, epoch, value)
        for stopper in (first, second):
            stopper.add(f"probe {number}")
        value = generator.random()
        assert first.should_stop(f"probe {number}", 1, value) == second.should_stop(f"probe {number}", 1, value)
        calls += [("add", f"probe {number}", 0, 0.0), ("ask", f"probe {number}", 1, value)]


def test_every_group_has_a_rule_of_its_own() -> None:
    keys = {"early_stopping": {"name": "asha", "reduction": 2}, "seeds": {"first": 1, "most": 1}}
    spec = spec_with({**keys, "search": {"sparsity": [0.9, 0.98]}})
    make = early_stoppers(spec)
    assert make is not None
    one, other = (make(group) for group in groups_of(spec))
    for key in "abc":
        one.add(key)
        one.should_stop(key, 1, 0.9)
    other.add("d")
    one.add("d")
    assert not other.should_stop("d", 1, 0.1)
    assert one.should_stop("d", 1, 0.1)
    assert early_stoppers(spec_with()) is None


def test_longest_trial_of_the_axes_may_train_to_its_end() -> None:
    keys = {"early_stopping": {"name": "asha", "reduction": 2}, "seeds": {"first": 1, "most": 1}}
    spec = spec_with({**keys, "search": {"training.epochs": [4, 16]}})
    make = early_stoppers(spec)
    assert make is not None
    stopper = make(groups_of(spec)[0])
    stopper.add("a")
    assert not any(stopper.should_stop("a", epoch, 0.5) for epoch in (1, 2, 4, 8))

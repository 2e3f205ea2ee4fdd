"""Rounds follow from seed and number, and meet every fault; what damages and shifts does so."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.chaos.faults.damage import DAMAGES
from tests.chaos.faults.table import FAULTS
from tests.chaos.ground import Clock, write_clock
from tests.chaos.plan import MOST_FAULTS, RoundPlan, plan_round
from tests.chaos.round import Outcome
from tests.chaos.table import line_of, table_of


def planned(number: int, storages: tuple[str, ...] = ("folder", "s3")) -> RoundPlan:
    return plan_round(3, number, storages=list(storages), events=40, seconds=20.0)


def test_a_round_follows_from_its_seed_and_number() -> None:
    assert planned(7) == planned(7)
    assert planned(7) != planned(8)


def test_every_fault_is_met_where_it_fits() -> None:
    plans = [planned(number) for number in range(2 * len(FAULTS))]
    met = Counter(fault.name for plan in plans for _, fault in plan.faults)
    assert met.keys() == FAULTS.keys()
    assert min(met.values()) >= 2
    for plan in plans:
        assert 1 <= len(plan.faults) <= MOST_FAULTS
        assert all(fault.fits(plan.setting) for _, fault in plan.faults)
        assert all(0 <= moment.events <= 40 and moment.seconds <= 20 for moment, _ in plan.faults)
    assert {plan.setting.storage for plan in plans} == {"folder", "s3"}
    assert {planned(number, ("s3",)).setting.storage for number in range(20)} == {"s3"}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damage_changes_a_file(name: str) -> None:
    content = bytes(range(200))
    for seed in range(50):
        assert DAMAGES[name](content, random.Random(seed)) != content
        assert isinstance(DAMAGES[name](b"", random.Random(seed)), bytes)


def test_a_clock_jumps_in_processes_that_run(tmp_path: Path) -> None:
    clock = write_clock(tmp_path, "driver")
    script = "import time; print(time.time()); input(); print(time.time(), time.time_ns() / 1e9, time.monotonic() >= 0)"
    command = [sys.executable, "-c", script]
    environment = os.environ | clock.environment
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout
        before = float(process.stdout.readline())
        clock.jump(3600)
        after, _ = process.communicate("\n")
    assert isinstance(clock, Clock)
    seconds, nanoseconds, _ = after.split()
    assert 3600 <= float(seconds) - before < 3660
    assert abs(float(seconds) - float(nanoseconds)) < 1


def test_the_table_counts_hits_rounds_and_failures() -> None:
    first = Outcome(plan=planned(1), injections=[("a", True), ("a", False)], codes=[-9, 0], texts=["a (event 3)"], seconds=2.0)
    second = Outcome(plan=planned(2), injections=[("a", True), ("b", True)], codes=[0, None], problems=["lost"])
    assert line_of(first).startswith("round   1 seed 3: a (event 3) | ")
    assert line_of(first).endswith("2 attempts (-9 0), 2.0 s, ok")
    assert line_of(second).endswith("2 attempts (0 hung), 0.0 s, FAILED")
    rows = [line.split() for line in table_of([first, second])][1:]
    assert rows == [["a", "2", "1", "2", "1"], ["b", "1", "0", "1", "1"], ["in", "all", "3", "1", "2", "1"]]

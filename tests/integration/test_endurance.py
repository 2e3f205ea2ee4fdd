"""Short forms of the acceptance runs on load, outages, memory and killed drivers; their figures are in tests/acceptance."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import pytest

from tests.acceptance import large_sweep, load, memory, outages

pytestmark = pytest.mark.long


def test_points_of_stages_arrive_once(tmp_path: Path) -> None:
    figures = load.run(tmp_path, Namespace(stages=4, minutes=0.1, rate=20.0, slots=None))
    assert figures["points in MLflow"] == 4 * (120 + 5)
    assert float(figures["longest block of a stage, s"]) < outages.LONGEST_BLOCK_S


@pytest.mark.parametrize("kind", outages.FAULTS)
def test_an_outage_loses_nothing_and_holds_up_no_stage(tmp_path: Path, kind: str) -> None:
    seen = outages.run(tmp_path, kind, seconds=8.0, rate=20.0)
    assert (seen["lost"], seen["twice"]) == (0, 0)
    assert seen["block_s"] < outages.LONGEST_BLOCK_S


def test_memory_of_the_driver_does_not_grow_with_its_events(tmp_path: Path) -> None:
    looks = memory.run(tmp_path, Namespace(events=4000, trials=2, slots=2, rate=100.0))
    assert memory.slope(looks, "driver") < 1000  # 2,600 when Tune keeps each report


def test_killed_drivers_lose_no_trial(tmp_path: Path) -> None:
    large_sweep.run(tmp_path, Namespace(trials=24, kills=2, slots=2, sleep=1.0, ready=4))

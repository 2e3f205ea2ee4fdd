"""How long something may be silent, and the clock that does not count what its reader missed."""

from __future__ import annotations

import pytest

from orchestrator.process.patience import FUNCTION_S, LONGEST_GAP_S, SHORTEST_S, START_S, AttentiveClock, limit_s
from orchestrator.scheduling.watchdog import Watchdog


@pytest.mark.parametrize(
    ("stage_timeout", "least", "limit"),
    [
        (None, START_S, SHORTEST_S),
        (10, START_S, START_S),
        (900, START_S, 900),
        (900, FUNCTION_S, FUNCTION_S),
        (9e3, FUNCTION_S, 9e3),
    ],
)
def test_limit_is_that_of_the_sweep_file_but_leaves_time_to_start(
    stage_timeout: float | None, least: float, limit: float
) -> None:
    assert limit_s(stage_timeout, least) == limit


def test_a_driver_that_was_stopped_for_an_hour_blames_no_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("orchestrator.process.patience.time.monotonic", lambda: now[0])
    dog = Watchdog(timeout_s=30, clock=AttentiveClock())
    dog.begin("a", "trial")
    dog.hear("a")
    now[0] = 3600.0
    assert dog.silent() == []
    for _ in range(40):  # from now on it listens
        now[0] += 1.0
        silent = dog.silent()
    assert [one.run for one in silent] == ["a"]
    assert silent[0].seconds == pytest.approx(40 + LONGEST_GAP_S)

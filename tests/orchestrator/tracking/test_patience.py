"""A wait lasts as long as there is progress, up to a longest time."""

from __future__ import annotations

import pytest

from orchestrator.tracking.patience import Patience


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr("orchestrator.tracking.patience.time.monotonic", lambda: now[0])
    return now


def test_progress_prolongs_the_wait_and_a_standstill_ends_it(clock: list[float]) -> None:
    waiting = Patience(stalled_s=10.0, most_s=100.0)
    for step in range(9):
        assert not waiting.is_over(step)
        clock[0] += 9.0
    assert not waiting.is_over(8)
    clock[0] += 1.0
    assert waiting.is_over(8)


def test_the_longest_time_ends_it_in_spite_of_progress(clock: list[float]) -> None:
    waiting = Patience(stalled_s=10.0, most_s=25.0)
    for step, over in enumerate((False, False, False, True)):
        assert waiting.is_over(step) is over
        clock[0] += 9.0


def test_a_count_that_begins_anew_is_progress(clock: list[float]) -> None:
    waiting = Patience(stalled_s=10.0, most_s=100.0)
    assert not waiting.is_over(500)
    clock[0] += 9.0
    assert not waiting.is_over(0)
    clock[0] += 9.0
    assert not waiting.is_over(0)
    clock[0] += 1.0
    assert waiting.is_over(0)

"""Which stages count as hung: silence against the limit, and no false alarms on healthy stages of any length."""

from __future__ import annotations

import random
import statistics

import pytest

from orchestrator.process.patience import SHORTEST_S, START_S
from orchestrator.scheduling.watchdog import FACTOR, Watchdog
from trainables.runtime.heartbeat import INTERVAL_S


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def watching(timeout_s: float | None = None) -> tuple[Watchdog, Clock]:
    clock = Clock()
    return Watchdog(timeout_s=timeout_s, clock=clock), clock


def test_silence_is_found_at_the_limit() -> None:
    dog, clock = watching(timeout_s=30)
    for run in ("a", "b"):
        dog.begin(run, "trial")
        dog.hear(run)
    clock.now = 20
    dog.hear("b")
    clock.now = 30
    assert dog.silent() == []
    clock.now = 30.5
    (silence,) = dog.silent()
    assert (silence.run, silence.seconds, silence.limit_s) == ("a", 30.5, 30)
    assert str(silence) == "it reported nothing for 30 s (limit 30 s)"
    dog.end("a")
    assert dog.silent() == []


def test_the_first_report_has_time_to_come() -> None:
    dog, clock = watching(timeout_s=30)
    dog.begin("a", "trial")
    clock.now = START_S
    assert dog.silent() == []
    clock.now = START_S + 1
    assert [silence.run for silence in dog.silent()] == ["a"]


@pytest.mark.parametrize("durations", [[10.0, 20.0, 30.0], [100.0, 3000.0, 4000.0]])
def test_the_limit_follows_the_finished_stages_of_its_kind(durations: list[float]) -> None:
    dog, clock = watching()
    assert dog.limit_s("trial") == SHORTEST_S
    for number, seconds in enumerate(durations):
        dog.begin(str(number), "trial")
        clock.now += seconds
        dog.end(str(number), finished=True)
    dog.begin("failed", "trial")
    clock.now += 1e6
    dog.end("failed")
    assert dog.limit_s("trial") == max(SHORTEST_S, FACTOR * statistics.median(durations))
    assert dog.limit_s("warmup") == SHORTEST_S


def test_the_first_stages_of_a_kind_have_the_time_that_was_predicted() -> None:
    dog, clock = watching()
    dog.begin("long", "trial", predicted_s=3600.0)
    dog.begin("short", "trial", predicted_s=1.0)
    clock.now = SHORTEST_S + 1
    assert [silence.run for silence in dog.silent()] == ["short"]
    clock.now = FACTOR * 3600.0 + 1
    assert [silence.run for silence in dog.silent()] == ["long", "short"]
    dog.begin("b", "trial", predicted_s=3600.0)
    clock.now += 10.0
    dog.end("b", finished=True)
    assert dog.limit_s("trial", 3600.0) == SHORTEST_S, "what finished tells more"


def test_no_healthy_stage_is_ended() -> None:
    """2,000 stages from a second to ten hours, 20 at once, which say at least every few minutes that they work."""
    dog, clock = watching()
    draw = random.Random(0)
    lengths = [10 ** draw.uniform(0, 4.55) for _ in range(2000)]
    alarms, running = 0, dict[str, tuple[float, float]]()  # run -> end, next report
    waiting = [(str(number), length) for number, length in enumerate(lengths)]
    while waiting or running:
        while waiting and len(running) < 20:
            run, length = waiting.pop()
            dog.begin(run, draw.choice(["trial", "warmup"]))
            running[run] = clock.now + length, clock.now + draw.uniform(0, 100)
        clock.now = min(min(end, report) for end, report in running.values())
        alarms += len(dog.silent())
        for run, (end, report) in list(running.items()):
            if end <= clock.now:
                dog.end(run, finished=True)
                del running[run]
            elif report <= clock.now:
                dog.hear(run)
                running[run] = end, clock.now + draw.uniform(INTERVAL_S, SHORTEST_S - INTERVAL_S)  # a slow batch
    assert alarms == 0

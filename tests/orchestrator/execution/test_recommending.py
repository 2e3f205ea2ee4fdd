"""The recommendations in the state of a running sweep: when they are made again, and what does not stop a sweep."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator.execution import recommending
from orchestrator.execution.recommending import Recommender
from orchestrator.state.sweep_state import SweepState, TrialStatus


class Lock:
    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


@pytest.fixture
def driver() -> Any:
    """The parts of a driver that are used."""
    said: list[str] = []
    writer = SimpleNamespace(lock=Lock(), changed=lambda: None)
    return SimpleNamespace(
        folder=None, state=SweepState(sweep="s"), writer=writer, said=said, screen=SimpleNamespace(print=said.append)
    )


def test_recommendations_are_made_again_when_trials_have_finished(driver: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []

    def recorded(*arguments: Any) -> list[Any]:
        calls.append(arguments)
        return []

    monkeypatch.setattr(recommending, "recommended", recorded)
    recommender = Recommender(driver=driver)
    for _ in range(3):
        recommender.not_before = 0.0
        recommender.on_tick()
    assert len(calls) == 1
    driver.state.trials["k"] = TrialStatus(key="k", name="k", state="finished", config={})
    recommender.not_before = 0.0
    recommender.on_tick()
    assert len(calls) == 2


def test_failure_is_said_once_and_stops_nothing(driver: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> Any:
        raise ZeroDivisionError("no numbers")

    monkeypatch.setattr(recommending, "recommended", fails)
    driver.state.recommendations = [{"group": "before"}]
    recommender = Recommender(driver=driver)
    recommender.update()
    recommender.update()
    assert driver.said == ["no recommendations: no numbers"]
    assert driver.state.recommendations == [{"group": "before"}]

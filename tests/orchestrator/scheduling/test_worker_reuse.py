"""A worker that is free gets a stage that has none, on a real Ray whose workers, but for the first one, start slowly."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ray import tune

from orchestrator.cluster import connection
from orchestrator.cluster.capacity import ClusterCapacity
from orchestrator.cluster.connection import connect_to_cluster, ray_environment
from orchestrator.scheduling.queued_stage import QueuedStage
from orchestrator.scheduling.stage_queue import StageQueue
from orchestrator.scheduling.tune_adapter import Hooks, StageSearcher, run_stages
from tests import ROOT

SLOTS = 3
STAGES = 40
STAGE_S = 0.5


class SlowStart:
    """Is loaded at once by the driver and by the first worker, and after a while by every other one."""

    def __init__(self, first: Path) -> None:
        self.first = first
        self.driver = os.getpid()

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ = state
        if os.getpid() == self.driver:
            return
        try:
            self.first.touch(exist_ok=False)
        except FileExistsError:
            time.sleep(5)


def stage_of(slow: SlowStart) -> Callable[[dict[str, Any]], None]:
    def stage(config: dict[str, Any]) -> None:
        assert slow.first.exists()
        tune.report({"event": "begun", "node": "any", "pid": os.getpid(), "stacks": -1})
        time.sleep(STAGE_S)
        tune.report({"event": "ended", "status": "finished", "message": ""})

    return stage


@pytest.mark.long
def test_a_free_worker_does_not_end_one_that_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # workers find the stage of this file
    monkeypatch.setattr(connection, "processors", lambda: SLOTS)
    trials = {name: QueuedStage(kind="trial", key=name, name=name, config={}, work=1) for name in map(str, range(STAGES))}
    queue = StageQueue(warmups={}, trials=trials)
    began: list[tuple[str, int]] = []
    under_way: list[int] = []

    def note(entry: QueuedStage, report: dict[str, Any]) -> None:
        if report["event"] == "begun":
            began.append((entry.name, report["pid"]))

    hooks = Hooks(note, lambda: under_way.append(len(searcher.running)), lambda: None)
    with ray_environment(()), connect_to_cluster(None):
        watch = ClusterCapacity(cpus=1, gpus=0, local=True, notify=print)
        watch.refresh()
        searcher = StageSearcher(queue, hooks, watch)
        stage = tune.with_resources(stage_of(SlowStart(tmp_path / "first")), {"CPU": 1})
        run_stages(stage, searcher, str(tmp_path), lambda: hooks.traceback is not None)
    assert hooks.traceback is None
    assert max(under_way) == SLOTS, "no stage is handed out before there is room for it"
    assert {entry.state for entry in trials.values()} == {"finished"}
    firsts = {pid: name for name, pid in reversed(began)}
    assert sorted(firsts.values()) == [str(number) for number in range(SLOTS)], (
        "each worker begins with the stage for which it was started"
    )
    later = [int(name) for name, _ in began if name not in firsts.values()]
    # Tune hears of what happens at the same time in any order.
    assert all(abs(number - place) < SLOTS for place, number in enumerate(later, start=SLOTS)), later

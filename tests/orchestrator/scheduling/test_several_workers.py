"""Stages of several workers: how many fit, what they reserve, and what the loss or the hang of one of them leads to."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cluster.capacity import ClusterCapacity
from orchestrator.cluster.process_ending import Worker
from orchestrator.execution.sweep import _placement
from orchestrator.planning.resolved_settings import ResolvedSettings
from orchestrator.scheduling.hang_ender import hang_of
from orchestrator.scheduling.queued_stage import QueuedStage
from orchestrator.scheduling.stage_queue import StageQueue
from orchestrator.scheduling.tune_adapter import Hooks, StageSearcher
from orchestrator.scheduling.watchdog import Silence
from trainables.errors import FailureKind
from trainables.runtime import group

BEGUN = {"event": "begun", "node": "a", "pid": 1, "stacks": -1, "peers": [{"node": "b", "pid": 2, "stacks": -1}]}


def capacity_of(workers: int, room: dict[str, int]) -> ClusterCapacity:
    """Nodes of which each has room for so many workers; it is not counted again."""
    capacity = ClusterCapacity(cpus=1, gpus=0, workers=workers, local=False, notify=lambda line: None, driver_node="home")
    capacity.room, capacity.alive = room, frozenset(room)
    capacity.slots, capacity._refreshed_at = capacity.slots_on(room), time.monotonic() + 3600
    return capacity


def searching(workers: int, room: dict[str, int]) -> StageSearcher:
    stage = QueuedStage(kind="trial", key="x", name="x", config={}, work=1)
    hooks = Hooks(lambda *_: None, lambda: None, lambda: None)
    return StageSearcher(StageQueue(warmups={}, trials={"x": stage}), hooks, capacity_of(workers, room))


def begun(searcher: StageSearcher, run: str = "id") -> QueuedStage:
    searcher.queue.trials["x"].not_before = 0.0
    assert searcher.suggest(run) is not None
    searcher.on_trial_result(run, BEGUN)
    return searcher.queue.trials["x"]


@pytest.mark.parametrize(
    ("workers", "room", "slots"),
    [(1, {"a": 2, "b": 1}, 3), (2, {"a": 2, "b": 1}, 1), (2, {"a": 1, "b": 1}, 1), (3, {"a": 1, "b": 1}, 0), (2, {"a": 9}, 4)],
)
def test_workers_of_a_stage_may_be_on_several_nodes(workers: int, room: dict[str, int], slots: int) -> None:
    assert capacity_of(workers, room).slots == slots


def test_stage_reserves_a_bundle_for_each_worker_and_all_avoid_the_excluded_nodes() -> None:
    resolved = ResolvedSettings(device="cuda", cpus_per_trial=6.0, gpus_per_trial=3.0, workers=3)
    group = _placement(resolved, {"avoided": ["a", "b"]})
    assert group.bundles == [{"CPU": 2.0, "GPU": 1.0}] * 3
    assert group._kwargs == {"bundle_label_selector": [{"ray.io/node-id": "!in(a,b)"}] * 3}
    assert group.strategy == "PACK"
    alone = _placement(ResolvedSettings(device="cuda", gpus_per_trial=0.25), {"whole_gpu": True})
    assert alone.bundles == [{"CPU": 1.0, "GPU": 1.0}]


def test_lost_peer_is_a_lost_worker_unless_its_node_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its node is known only after a while, so nothing is decided before."""
    lost = {"event": "ended", "status": "lost", "message": "worker 2 of 2 was lost"}
    searcher = searching(2, {"a": 1, "b": 1})
    stage = begun(searcher)
    searcher.on_trial_result("id", lost)
    searcher.on_trial_complete("id", lost)
    assert [(entry[1], entry[3]) for entry in searcher.lost_workers] == [(frozenset("ab"), lost["message"])]
    searcher.capacity.alive = frozenset("a")
    monkeypatch.setattr("ray.nodes", list)  # which no longer knows its address
    searcher.resolve_lost_workers()
    assert (stage.last_failure, stage.worker_failures, stage.node_failures) == (FailureKind.NODE_LOST, 0, 1)
    searcher.capacity.alive = frozenset("ab")
    begun(searcher, "again")
    searcher.on_trial_result("again", lost)
    searcher.lost_workers = [(*searcher.lost_workers[0][:2], time.monotonic() - 1, searcher.lost_workers[0][3])]
    searcher.resolve_lost_workers()
    assert (stage.last_failure, stage.worker_failures, stage.node_failures) == (FailureKind.WORKER_LOST, 1, 1)
    assert stage.message == lost["message"]


@pytest.mark.parametrize(("report", "excluded"), [({"node": "b"}, {"b"}), ({}, {"a"})])
def test_node_of_the_worker_that_lacks_something_is_excluded(report: dict[str, Any], excluded: set[str]) -> None:
    searcher = searching(2, {"a": 1, "b": 1, "c": 2})
    begun(searcher)
    found: set[str] = set()
    searcher.capacity.exclude_node = lambda node, reason: found.add(node)  # type: ignore[method-assign]
    searcher.on_trial_result("id", {"event": "ended", "status": "misplaced", "message": "no data"} | report)
    assert found == excluded


def answer(letter: str, state: str, place: str = "") -> dict[str, Any]:
    return {"letter": letter, "state": state, "place": place, "stacks": f"stacks of {letter}", "ended": True}


def test_message_of_a_hang_names_the_worker_that_held_up_the_others() -> None:
    workers = [Worker(node=node, pid=1, stacks=1) for node in "abb"]
    waiting, stopped = answer("S", "it was waiting"), answer("T", "it was stopped by a signal (SIGSTOP)")
    silence = Silence(run="id", seconds=12, limit_s=10)
    hang = hang_of(silence, workers, [waiting, stopped, waiting])
    assert hang.message == (
        "it reported nothing for 12 s (limit 10 s), worker 2 of 3: it was stopped by a signal (SIGSTOP); "
        "workers 1 and 3 of 3: it was waiting"
    )
    assert hang.nodes == {"b"}
    assert hang.stacks.split("\n\n")[1] == "worker 2 of 3\nstacks of T"
    assert hang_of(silence, workers, [waiting, waiting, waiting]).nodes == {"a", "b"}
    assert hang_of(silence, workers[:1], [waiting]).message == "it reported nothing for 12 s (limit 10 s), it was waiting"


def test_worker_that_waits_for_the_others_holds_up_nobody() -> None:
    """On a GPU it waits busily, while the one to blame may sleep."""
    workers = [Worker(node=node, pid=1, stacks=1) for node in "abc"]
    place = f"{Path(group.__file__).name} line 88 (total)"
    waiting, asleep = (
        answer("R", f"it was busy in {place}", place),
        answer("S", "it was waiting in net.py line 3 (forward)", "net.py line 3"),
    )
    hang = hang_of(Silence(run="id", seconds=12, limit_s=10), workers, [waiting, asleep, waiting])
    assert hang.nodes == {"b"}
    assert ", worker 2 of 3: it was waiting in net.py" in hang.message


def test_stage_that_hung_avoids_a_node_only_if_all_its_workers_fit_elsewhere() -> None:
    for room, avoided in (({"a": 1, "b": 1, "c": 1}, []), ({"a": 1, "b": 1, "c": 2}, ["a", "b"])):
        searcher = searching(2, room)
        searcher.queue.trials["x"].hung_on = frozenset("ab")
        assert searcher.suggest("id")["avoided"] == avoided

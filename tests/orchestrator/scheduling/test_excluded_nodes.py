"""Nodes that are left out: how the stages that wait because of them go on, and which nodes are left out. On a real Ray."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray
from ray import tune

from orchestrator.cluster import node_checks
from orchestrator.cluster.capacity import ClusterCapacity
from orchestrator.cluster.connection import connect_to_cluster, ray_environment
from orchestrator.cluster.node_checks import NodeReport
from orchestrator.cluster.remote_call import only_on
from orchestrator.cluster.shared_storage_probe import SharedStorageProbe
from orchestrator.cluster.watched_process import HungProcessError, WatchedProcess
from orchestrator.scheduling.queued_stage import QueuedStage
from orchestrator.scheduling.stage_queue import StageQueue
from orchestrator.scheduling.tune_adapter import Hooks, PendingTrialScheduler, StageSearcher, run_stages
from orchestrator.storage.factory import open_storage
from trainables.errors import FailureKind
from trainables.runtime.heartbeat import beat


@pytest.fixture(scope="module")
def node() -> Iterator[str]:
    """The only node of a Ray of our own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        with ray_environment(()), connect_to_cluster(None):
            yield str(ray.get_runtime_context().get_node_id())


def searching(*keys: str, **options: Any) -> StageSearcher:
    trials = {key: QueuedStage(kind="trial", key=key, name=key, config={}, work=1) for key in keys}
    capacity = ClusterCapacity(cpus=1, gpus=0, local=False, notify=lambda line: None, **options)
    return StageSearcher(StageQueue(warmups={}, trials=trials), Hooks(lambda *_: None, lambda: None, lambda: None), capacity)


@pytest.mark.extended
def test_stages_of_a_lost_node_start_on_a_readmitted_node(node: str, tmp_path: Path) -> None:
    """Ten stages are handed out while the node is left out and another one is there; then that one is lost."""
    searcher = searching(*"abcdefghij")
    capacity, queue = searcher.capacity, searcher.queue
    capacity.refresh()
    capacity.exclude_node(node, "it has no data")
    capacity.slots, capacity._refreshed_at = 1, time.monotonic() + 3600  # another node, until the next look
    started_at = time.monotonic()

    def tick() -> None:
        assert time.monotonic() - started_at < 120, "no stage began"
        if len(searcher.running) >= 8 and capacity._refreshed_at > time.monotonic():
            capacity._refreshed_at = float("-inf")  # the other node is lost
            capacity._excluded_until[node] = time.monotonic() + 3  # and these ten minutes are nearly over
        capacity.refresh()

    def stage(config: dict[str, Any]) -> None:
        tune.report({"event": "begun", "node": "any", "pid": 1, "stacks": -1})
        tune.report({"event": "ended", "status": "finished", "message": ""})

    def placement(config: dict[str, Any]) -> Any:
        avoided = config["avoided"]
        elsewhere = {"bundle_label_selector": [{"ray.io/node-id": f"!in({','.join(avoided)})"}]} if avoided else {}
        return tune.PlacementGroupFactory([{"CPU": 1}], **elsewhere)

    hooks = searcher.hooks
    hooks.on_tick = tick
    run_stages(tune.with_resources(stage, placement), searcher, str(tmp_path), lambda: hooks.traceback is not None)
    assert hooks.traceback is None
    assert [(entry.state, entry.attempt, entry.worker_failures) for entry in queue.trials.values()] == [("finished", 1, 0)] * 10


def test_silent_or_hanging_node_is_left_out_but_not_a_lost_one(node: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def well() -> NodeReport:
        return NodeReport()

    def unable() -> NodeReport:
        raise PermissionError("no right to read /data")

    def slow() -> NodeReport:
        time.sleep(600)
        return NodeReport()

    monkeypatch.setattr(node_checks, "alive_nodes", lambda: [{"NodeID": name} for name in ("well", "unable", "hung")])
    messages: list[str] = []
    answering = {"well": well, "unable": unable, "lost": unable, "hung": slow}
    processes = {name: WatchedProcess(600.0, num_cpus=0, **only_on(node)) for name in answering}
    asked = {name: processes[name].work.call.remote(function) for name, function in answering.items()}
    reports = node_checks._collect_reports(asked, messages.append, lambda: False, processes, timeout_s=10.0)
    assert reports["well"] == NodeReport()
    assert "no right to read /data" in str(reports["unable"].error)
    assert "has not answered 10 s after the first node" in str(reports["hung"].error)
    assert "lost" not in reports
    assert messages == ["node lost was lost while it checked the storage and the data"]
    processes["hung"].kill()


def test_reports_that_were_taken_are_let_go(node: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    searcher = searching("a")
    held: list[int] = []
    choose = PendingTrialScheduler.choose_trial_to_run

    def chosen(self: PendingTrialScheduler, controller: Any) -> Any:
        trial = choose(self, controller)
        held.extend(map(len, controller._actor_manager._tracked_actors_to_task_futures.values()))
        return trial

    def stage(config: dict[str, Any]) -> None:
        tune.report({"event": "begun", "node": "any", "pid": 1, "stacks": -1})
        for _ in range(30):
            tune.report({"event": "alive"})
        tune.report({"event": "ended", "status": "finished", "message": ""})

    monkeypatch.setattr(PendingTrialScheduler, "choose_trial_to_run", chosen)
    searcher.capacity.refresh()
    searcher.hooks.on_tick = searcher.capacity.refresh
    run_stages(tune.with_resources(stage, {"CPU": 1}), searcher, str(tmp_path), lambda: False)
    assert searcher.queue.trials["a"].state == "finished"
    assert len(held) > 30
    assert max(held) <= 2


def test_process_that_runs_users_code_is_ended_when_it_hangs(node: str) -> None:
    """What no other thread can answer is found too, here C code that holds Python's lock."""

    def answer_slowly() -> str:
        for _ in range(4):
            time.sleep(0.4)
            beat()
        return "done"

    def hold_python() -> None:
        mutex = ctypes.create_string_buffer(64)
        for _ in range(2):
            ctypes.PyDLL(None).pthread_mutex_lock(mutex)

    process = WatchedProcess(1.0, num_cpus=0, **only_on(node))

    def answered(function: Any) -> Any:
        answer = process.work.call.remote(function)
        while not ray.wait([answer], timeout=0.2)[0]:
            process.look()
        return process.result(answer)

    assert answered(answer_slowly) == "done"
    with pytest.raises(HungProcessError, match=r"^a hang: nothing happened for 1 s, it was waiting in test_excl.*hold_python"):
        answered(hold_python)
    process.kill()


def test_the_files_of_many_nodes_are_looked_for_at_the_same_time(tmp_path: Path) -> None:
    created = SharedStorageProbe.create(open_storage(str(tmp_path), create=True))
    folder = replace(created, visibility_timeout_s=0.5)
    assert folder.check("a") is None
    started_at = time.monotonic()
    lost = {f"n{number}" for number in range(20)}
    assert folder.missing({"a", *lost}) == lost
    assert time.monotonic() - started_at < 5
    patient = replace(created, visibility_timeout_s=20.0)
    started_at = time.monotonic()
    assert patient.missing(lost, interrupted=lambda: True) == lost
    assert time.monotonic() - started_at < 10


def test_trial_whose_file_no_node_has_fails_and_excludes_no_node() -> None:
    searcher = searching("x", "y", driver_node="home", alive=frozenset("ab"), room={"a": 1, "b": 1}, slots=2)
    searcher.capacity._refreshed_at = time.monotonic() + 3600
    report = {"event": "ended", "status": "unprovided", "message": "model: module:nets.wide: no such file"}
    for number, (place, state, avoided) in enumerate([("a", "waiting", ["a"]), ("b", "failed", [])]):
        searcher.queue.trials["x"].not_before = 0.0
        searcher.queue.trials["y"].not_before = float("inf")
        trial = f"id-{number}"
        assert searcher.suggest(trial)["stage"]["key"] == "x"
        searcher.on_trial_result(trial, {"event": "begun", "node": place, "pid": 1, "stacks": -1})
        until = searcher.capacity._excluded_until
        exclude = lambda node, reason, until=until: until.update({node: time.monotonic() + 60})  # noqa: E731
        searcher.capacity.exclude_node = exclude  # type: ignore[method-assign]
        searcher.on_trial_result(trial, report)
        entry = searcher.queue.trials["x"]
        assert (entry.state, searcher.capacity.excluded_nodes()) == (state, avoided)
    assert (entry.failure, entry.message) == (FailureKind.CONFIG, report["message"])

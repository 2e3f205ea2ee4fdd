"""What a sweep asks of a cluster that grows, and what it does to stay small beside many slots."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from orchestrator.cluster.capacity import ClusterCapacity
from orchestrator.errors import SetupError
from orchestrator.execution.autotune import _largest_node, chosen_device
from orchestrator.execution.driver import Driver
from orchestrator.execution.sweep import _settings
from orchestrator.planning.plan import make_plan
from orchestrator.planning.resolved_settings import merge_settings
from orchestrator.scheduling.queued_stage import QueuedStage
from orchestrator.scheduling.stage_queue import StageQueue
from orchestrator.scheduling.tune_adapter import Hooks, StageSearcher
from orchestrator.spec.loader import load_spec
from orchestrator.spec.schema import Resources
from orchestrator.state.sweep_folder import SweepFolder
from orchestrator.storage.factory import open_storage
from orchestrator.storage.layout import StageFolders
from tests.support.cli import tiny_sweep
from tests.support.trials import DIGITS, tiny_config, tiny_settings
from trainables.config.keys import canonical
from trainables.data.staging import StagedDataset
from trainables.worker.stage import Stage
from trainables.worker.trainable import execute_stage


@pytest.mark.parametrize(
    ("local", "most", "handed_out"), [(True, None, 2), (False, None, 10), (True, 4, 4), (False, 1, 1), (False, 99, 12)]
)
def test_max_in_flight_is_what_fits_plus_pending_stages(local: bool, most: int | None, handed_out: int) -> None:
    """As many as fit; on a cluster eight more, which an autoscaler sees; or as the user says."""
    trials = {key: QueuedStage(kind="trial", key=key, name=key, config={}, work=1) for key in "abcdefghijkl"}
    watch = ClusterCapacity(cpus=1, gpus=0, local=local, notify=print, max_concurrent=most, driver_node="here", slots=2)
    searcher = StageSearcher(StageQueue(warmups={}, trials=trials), Hooks(lambda *_: None, lambda: None, lambda: None), watch)
    suggested = [searcher.suggest(f"id-{number}") for number in range(14)]
    assert [one is not None for one in suggested] == [True] * handed_out + [False] * (14 - handed_out)
    searcher.on_trial_result("id-0", {"event": "ended", "status": "finished", "message": ""})
    assert searcher.suggest("id-14") is None, "its worker is not free yet"
    searcher.on_trial_complete("id-0", {"event": "ended"})
    assert (searcher.suggest("id-15") is not None) == (handed_out < len(trials))


@pytest.mark.parametrize(("seconds", "reports"), [(0.0, 2), (3600.0, 0)])
def test_stages_report_progress_no_more_often_than_requested(seconds: float, reports: int, tmp_path: Path) -> None:
    storage = open_storage(str(tmp_path), create=True)
    storage.write_json("sweeps/s/trials.json", {})
    rarely = {"checkpoint_seconds": 60.0, "metrics_seconds": 60.0}
    settings = tiny_settings(StageFolders(storage, "s"), progress_seconds=seconds, **rarely)
    sent: list[dict[str, Any]] = []
    stage = Stage(kind="trial", key="k", name="n", config=canonical(tiny_config()), attempt=1)
    ended = execute_stage(stage, settings, sent.append)
    assert ended["status"] == "finished", ended["message"]
    assert [one["event"] for one in sent].count("progress") == reports
    assert [one["event"] for one in sent].count("alive") == 1  # at its first batch


def test_stages_report_less_often_the_more_run_at_once(tmp_path: Path) -> None:
    plan = make_plan(load_spec(str(tiny_sweep(tmp_path))), open_storage(str(tmp_path / "runs")))
    driver = cast(Driver, SimpleNamespace(folder=SweepFolder(open_storage(str(tmp_path / "runs"), create=True), "s")))
    data = StagedDataset(source=DIGITS)
    choices = merge_settings(plan.spec.resources, {"device": "cpu", "precision": "fp32"})
    intervals = [_settings(driver, plan, choices, data, slots).progress_seconds for slots in (0, 8, 200, 1000)]
    assert intervals == [1, 1, 1, 5]


def test_a_cluster_that_may_grow_needs_no_gpu_yet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("ray.cluster_resources", dict)
    folder = SweepFolder(open_storage(str(tmp_path)), "s")
    assert chosen_device(folder, Resources(device="cuda", max_concurrent=4), joined=True) == "cuda"
    with pytest.raises(SetupError, match="the cluster has none"):
        chosen_device(folder, Resources(device="cuda"), joined=True)


def test_shares_must_be_written_without_a_node_to_measure_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.nodes", list)
    with pytest.raises(SetupError, match="as numbers"):
        _largest_node("GPU", "CPU", ())

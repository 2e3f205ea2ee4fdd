"""Links into the MLflow UI: short, whatever the size of the sweep, and only to what is there."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import UserError
from orchestrator.state.sweep_state import SweepState, TrialStatus
from orchestrator.tracking.links import links, run_url
from orchestrator.tracking.shared_views import TAG
from orchestrator.tracking.sweep_summary import RecommendedTrial, SweepSummary
from tests.support.mlflow_stores import Content, new_target, recorded
from tests.support.tracked_sweep import TrackedSweep, item, open_sync

SPARSITIES = [0.5, 0.9, 0.95, 0.98, 0.995]


def trial(number: int, sparsity: float) -> TrialStatus:
    return TrialStatus(
        key=f"{number:016x}",
        name=f"trial-{number}",
        state="finished",
        config={"method": "drive", "sparsity": sparsity, "model": "convnet"},
        mlflow_run_id=f"{number:032x}",
    )


def test_links_are_short_with_500_trials(tracked: TrackedSweep, tmp_path: Path) -> None:
    target, one = new_target(tmp_path), item("w02-r0")
    sync = open_sync(target, tracked.storage)
    sync.finish(one)
    for sparsity in SPARSITIES:
        params = {"method": "drive", "sparsity": repr(sparsity), "warmup_epochs": "1"}
        sync.start(replace(one, key=repr(sparsity), name=f"s{sparsity}", params=params))
    state = SweepState(sweep="tiny", experiment_id=sync.experiment_id, parent_run_id=sync.parent_run_id)
    state.trials = {one.key: one for one in (trial(number, SPARSITIES[number % 5]) for number in range(500))}
    with pytest.raises(UserError, match=r"lacks the views of sweep 'tiny' .*; `drive-sweep sync tiny"):
        links(target.uri, state)
    trials = (RecommendedTrial(group="s0.9", alias="best-s90", trial_key=one.key, network="convnet", sentence="this one"),)
    page = {"report.html": b"<p>"}
    summary = SweepSummary(metrics={"best/s0.9/val_accuracy": 0.5}, step=1, recommended=trials, artifacts=page)
    sync.summarize(summary)
    shown = links(target.uri, state)
    compared = [f"compare at {sparsity}" for sparsity in SPARSITIES]
    assert list(shown) == ["the sweep's run", "its report", "trials, best first", *compared, "all sweeps", "model tiny-convnet"]
    assert max(len(url) - len(target.uri) for url in shown.values()) < 150
    calls = recorded(sync).calls
    sync.summarize(replace(summary, recommended=()))
    assert calls == ["get_experiment"], "equal views are not sent again"
    sync.registry.client.delete_registered_model_tag("tiny-convnet", "drive.experiment")
    assert list(links(target.uri, state)) == list(shown)[:-1], "that model is somebody else's"


def test_views_filter_sort_and_chart_what_varies(tracked: TrackedSweep, tmp_path: Path) -> None:
    target, one = new_target(tmp_path), item("w02-r0")
    sync = open_sync(target, tracked.storage)
    for warmup in ("0", "2"):
        params = {"method": "drive", "sparsity": "0.9", "warmup_epochs": warmup, "prune_iterations": "10", "seed": warmup}
        sync.start(replace(one, key=warmup, name=warmup, params=params))
    sync.summarize(SweepSummary())
    tags = Content(target).client.get_experiment(sync.experiment_id).tags
    views: dict[str, Any] = {name.removeprefix(TAG): json.loads(text) for name, text in tags.items() if name.startswith(TAG)}
    assert list(views) == ["drive-tiny", "drive-tiny-s0.9"]
    view = views["drive-tiny-s0.9"]
    query = view["searchFilter"]
    assert {run.info.run_name for run in Content(target).client.search_runs([sync.experiment_id], query)} == {"0", "2"}
    assert view["selectedColumns"][2:] == ["params.`warmup_epochs`", "params.`seed`"]
    assert [chart["type"] for chart in view["compareRunCharts"]] == ["PARALLEL"], "a surface needs both axes"
    assert view["compareRunCharts"][0]["selectedParams"] == ["warmup_epochs"]


def test_a_link_opens_the_training_view() -> None:
    assert run_url("http://h:5000/", "7", "a") == "http://h:5000/#/experiments/7/runs/a?workflowType=machine_learning"

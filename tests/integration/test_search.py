"""Real searches on real Ray and a local MLflow: killed, continued, widened; each compared with an undisturbed one.

The long form, with five kills, is tests/acceptance/killed_search.py.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.cli import digests, drive_sweep, kill_all, start, status, wait_for
from tests.support.s3_server import BUCKET, s3_server
from tests.support.searched_sweep import (
    assert_runs,
    assert_same_course,
    decisions,
    searched_sweep,
    stopped_trials,
    sweep_runs,
    timeless,
)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    storage = tmp_path_factory.mktemp("undisturbed") / "runs"
    drive_sweep("run", small(storage.parent), "--storage", storage, "--quiet")
    return storage


def small(folder: Path) -> Path:
    return searched_sweep(folder, configurations=7, seeds=2, epochs=4)


@pytest.mark.long
def test_search_ends_with_a_recommendation_for_each_group(undisturbed: Path) -> None:
    course = decisions(undisturbed)
    assert {one["group"] for one in course if one["kind"] == "end"} == {"s0.9", "s0.98"}
    stopped = [one["key"] for one in course if one["kind"] == "result" and one["state"] == "stopped"]
    state = status("searched", undisturbed)
    assert stopped
    assert state["stopped"] == len(stopped)
    assert state["finished"] == state["total"] - len(stopped)
    record = json.loads((undisturbed / "trials" / stopped[0] / "stopped.json").read_text())
    assert (record["sweep"], record["epoch"] in (1, 3)) == ("searched", True)
    assert (undisturbed / "trials" / stopped[0] / "checkpoint").exists()
    assert_same_course(undisturbed, undisturbed)


@pytest.mark.long
def test_ended_search_runs_again_without_a_change(undisturbed: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in undisturbed.rglob("*") if path.is_file()}
    assert "nothing to do" in drive_sweep("resume", "searched", "--storage", undisturbed).stderr
    assert {path: path.stat().st_mtime_ns for path in undisturbed.rglob("*") if path.is_file()} == before


@pytest.mark.long
def test_killed_search_takes_the_same_course(undisturbed: Path, tmp_path: Path) -> None:
    storage = tmp_path / "runs"
    process = start("run", small(tmp_path), "--storage", storage)
    log = storage / "sweeps" / "searched" / "decisions.jsonl"
    wait_for(lambda: log.exists() and len(decisions(storage)) >= 9, every_s=0.01)
    kill_all(process)
    kept = decisions(storage)
    assert kept == decisions(undisturbed)[: len(kept)]
    drive_sweep("resume", "searched", "--storage", storage, "--quiet")
    assert_same_course(storage, undisturbed)


@pytest.mark.long
def test_killed_search_on_an_object_store_takes_the_same_course(undisturbed: Path, tmp_path: Path) -> None:
    from mlflow import MlflowClient

    tracking, bucket = f"sqlite:///{tmp_path}/mlflow.db", f"s3://{BUCKET}/runs"
    MlflowClient(tracking).create_experiment("drive-sweep", str(tmp_path / "artifacts"))
    course = decisions(undisturbed)
    with s3_server(tmp_path) as store:

        def written() -> list[dict[str, Any]]:
            key = "runs/sweeps/searched/decisions.jsonl"
            return timeless(store.content(key).decode()) if store.objects(key) else []

        options = ("--storage", bucket, "--tracking-uri", tracking)
        process = start("run", small(tmp_path), *options, environment=store.environment)
        wait_for(lambda: len(written()) >= 9, timeout_s=300, every_s=0.1)
        kill_all(process)
        kept = written()
        assert kept == course[: len(kept)]
        assert len(kept) < len(course)
        drive_sweep("resume", "searched", "--storage", bucket, "--quiet", environment=store.environment)
        assert written() == course
        assert digests("searched", bucket, store.environment) == digests("searched", undisturbed)
        state = status("searched", bucket, store.environment)
        assert state["search"] == status("searched", undisturbed)["search"]
        reports = [
            json.loads(drive_sweep("report", "searched", "--storage", storage, "--json", environment=store.environment).stdout)
            for storage in (bucket, undisturbed)
        ]
        assert reports[0]["search"] == reports[1]["search"]
        stops = {key.split("/")[2] for key in store.objects("runs/trials/") if key.endswith("/stopped.json")}
    assert stops == stopped_trials(course)
    assert_runs(tracking, {trial["key"] for trial in state["trials"]}, stops)


@pytest.mark.long
def test_more_configurations_take_an_ended_search_on(undisturbed: Path) -> None:
    before = decisions(undisturbed)
    file = searched_sweep(undisturbed.parent, configurations=8, seeds=2, epochs=4)
    drive_sweep("run", file, "--storage", undisturbed, "--quiet")
    after = decisions(undisturbed)
    assert after[: len(before)] == before
    assert [one["configuration"] for one in after[len(before) :] if one["kind"] == "configuration"] == [7, 7]
    assert sum(one["kind"] == "end" for one in after) == 4


@pytest.mark.long
def test_stopped_trials_are_taken_on_to_their_end(undisturbed: Path) -> None:
    """Last of this file, since it changes the sweep of all others."""
    before = decisions(undisturbed)
    stopped = {one["key"] for one in before if one["kind"] == "result" and one["state"] == "stopped"}
    options = ("resume", "searched", "--storage", undisturbed)
    assert f"{len(stopped)} stopped early and kept so" in drive_sweep(*options, "--dry-run").stderr
    planned = json.loads(drive_sweep(*options, "--continue-stopped", "--dry-run", "--json").stdout)
    assert (set(planned["trials"]), planned["from_checkpoint"]) == (stopped, len(stopped))
    drive_sweep(*options, "--continue-stopped", "--quiet")
    state = status("searched", undisturbed)
    assert (state["finished"], state["stopped"]) == (state["total"], 0)
    assert decisions(undisturbed) == before
    assert not list(undisturbed.glob("trials/*/stopped.json"))
    runs = sweep_runs(f"sqlite:///{undisturbed}/mlflow.db")
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert not any("drive.stopped" in run.data.tags for run in runs)
    report = json.loads(drive_sweep("report", "searched", "--storage", undisturbed, "--json").stdout)
    assert [group["stopped_early"] for group in report["search"]["groups"]] == [[], []]
    assert stopped <= {key for setting in report["settings"] for key in setting["trials"]}
    assert "nothing to do" in drive_sweep(*options, "--continue-stopped").stderr

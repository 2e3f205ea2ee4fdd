"""The doctor on this machine, and on a real cluster of broken nodes; what `run` does with such nodes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.diagnostics.doctor import run_checks
from tests.support.cli import ask, drive_sweep, kill_all, start, status, tiny_sweep, wait_for
from tests.support.faulty_nodes import Broken, broken_cluster, namespaces_work

DEAD_SERVER = "http://127.0.0.1:9"


def checks(*arguments: object, expect: int, **options: Any) -> dict[str, list[dict[str, Any]]]:
    """The doctor's checks by name."""
    results: dict[str, list[dict[str, Any]]] = {}
    command = drive_sweep if options else ask
    for check in json.loads(command("doctor", *arguments, "--json", expect=expect, **options).stdout):
        results.setdefault(check["check"], []).append(check)
    return results


def test_all_is_well_on_this_machine_and_nothing_is_left_behind(tmp_path: Path) -> None:
    storage = tmp_path / "runs"
    answer = ask("doctor", tiny_sweep(tmp_path), "--storage", storage)
    assert "FAIL" not in answer.stdout
    for line in ("runs can be read and written", "artifacts can be written, read and removed", "7 trials are planned"):
        assert line in answer.stdout
    assert not list((storage / "doctor").iterdir())
    assert not list(storage.glob("artifacts/*/artifacts/*"))


@pytest.mark.extended
def test_doctor_gives_a_hint_for_each_problem(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    data = "dataset={name: cifar10, root: /nowhere}"
    storage = tmp_path / "file" / "runs"
    results = checks(tiny_sweep(tmp_path), "--set", data, "--storage", storage, "--tracking-uri", DEAD_SERVER, expect=3)
    assert "cannot be written" in results["storage"][0]["message"]
    assert "--storage" in results["storage"][0]["way_out"]
    assert DEAD_SERVER in results["tracking"][0]["message"]
    assert "start the server" in results["tracking"][0]["way_out"]
    assert results["versions"][0]["ok"]
    results = checks(tiny_sweep(tmp_path), "--set", data, "--storage", tmp_path / "runs", expect=3)
    assert "no folder '/nowhere'" in results["data"][0]["message"]
    assert "give the folder of cifar10" in " ".join((results["data"][0]["message"], results["data"][0]["way_out"]))


@pytest.mark.extended
@pytest.mark.process
def test_doctor_runs_all_checks_after_a_failed_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_ENDPOINT_URL": "http://127.0.0.1:9"}
    for name, value in keys.items():
        monkeypatch.setenv(name, value)
    results = {check.name: check for check in run_checks(None, "s3://lab/runs", f"sqlite:///{tmp_path}/m.db", None)}
    assert "cannot connect to http://127.0.0.1:9" in results["storage"].message
    assert results["tracking"].ok
    assert results["versions"].ok


@pytest.mark.long
def test_runs_of_a_killed_driver_are_ended(tmp_path: Path) -> None:
    from orchestrator.tracking.client import TrackingTarget
    from tests.support.mlflow_stores import Content

    storage = tmp_path / "runs"

    def states() -> set[str]:
        target = TrackingTarget(uri=f"sqlite:///{storage}/mlflow.db", experiment="drive-sweep", artifact_root=None)
        return {run.info.status for run in Content(target).runs}

    process = start("run", tiny_sweep(tmp_path, epochs=60), "--storage", storage, "--set", "search.warmup_epochs=[0]")
    wait_for(lambda: "mlflow_run_id" in _state(storage) and '"mlflow_run_id": "' in _state(storage))
    kill_all(process)
    assert "RUNNING" in states()
    found = checks("--storage", storage, expect=3)["orphans"]
    assert any(one["message"].startswith("run left RUNNING without a driver: ") for one in found)
    assert "RUNNING" in states(), "nothing is changed without --fix"
    mended = checks("--storage", storage, "--fix", expect=0)["orphans"]
    assert any(one["message"].startswith("run left RUNNING") and one["way_out"].startswith("mended") for one in mended)
    assert "RUNNING" not in states()
    assert "orphans" not in checks("--storage", storage, expect=0)


def _state(storage: Path) -> str:
    file = storage / "sweeps" / "tiny" / "state.json"
    return file.read_text() if file.exists() else ""


# A cluster


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broken]:
    if not namespaces_work():
        pytest.skip("mount namespaces (unshare -m) need root")
    with broken_cluster(tmp_path_factory.mktemp("broken")) as cluster:
        yield cluster


@pytest.mark.long
def test_doctor_names_each_broken_node_with_a_hint(broken: Broken, tmp_path: Path) -> None:
    environment = broken.nodes.environment
    results = checks(*broken.options(tmp_path), "--tracking-uri", DEAD_SERVER, expect=3, timeout_s=600, environment=environment)
    failed = {
        (one["check"], one["message"].partition(":")[0].removeprefix("node ")): one
        for many in results.values()
        for one in many
        if not one["ok"]
    }
    unshared = failed.pop(("storage", broken.unshared.address))
    assert "the driver's probe file is missing" in unshared["message"]
    assert unshared["way_out"] == "mount the same folder"
    locked = failed.pop(("storage", broken.read_only.address))
    assert "Read-only file system" in locked["message"]
    assert locked["way_out"].startswith("let trials read and write there")
    (served,) = [one for one in results["data"] if broken.without_data.address in one["message"]]
    assert served["message"].endswith("gets the decoded images through Ray")  # as in a run
    fake = failed.pop(("gpu", broken.read_only.address))
    assert "Ray counts 1 GPUs, CUDA sees 0" in fake["message"]
    tracking = failed.pop(("tracking", f"tracking {DEAD_SERVER.partition(':')[0]}"))
    assert tracking["way_out"].startswith("start the server")
    assert not failed
    assert len([one for one in results["clock"] if one["ok"]]) == 4
    assert not list((broken.storage / "doctor").iterdir())


@pytest.mark.long
def test_sweep_is_refused_while_a_node_lacks_the_storage(broken: Broken, tmp_path: Path) -> None:
    answer = drive_sweep("run", *broken.options(tmp_path), "--quiet", expect=3, environment=broken.nodes.environment)
    assert f"node {broken.unshared.address}: storage {broken.storage} is a different folder on this node" in answer.stderr
    assert f"node {broken.read_only.address}: storage {broken.storage}: doctor/" in answer.stderr
    assert "cannot be written: Read-only file system" in answer.stderr
    assert "Traceback" not in answer.stderr
    assert not list(broken.storage.glob("trials/*"))


@pytest.mark.long
def test_node_without_data_computes_with_the_fetched_images(
    broken: Broken, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for node in (broken.well, broken.unshared, broken.read_only):
        node.kill()
    for name, value in broken.nodes.environment.items():
        monkeypatch.setenv(name, value)
    shutil.rmtree(broken.storage / "trials", ignore_errors=True)
    answer = drive_sweep("run", *broken.options(tmp_path), timeout_s=600)
    assert f"node {broken.without_data.address} does not have the data; it gets the decoded images" in answer.stderr
    state = status("tiny", broken.storage)
    assert (state["finished"], state["failed"]) == (3, 0)
    monkeypatch.delenv("RAY_AUTH_MODE")
    key = state["trials"][0]["key"]
    again = drive_sweep("trial", key, "--storage", broken.storage)  # with the data themselves
    assert "the record is reproduced" in again.stderr

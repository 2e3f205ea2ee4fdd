"""A repair leaves alone what a running sweep uses, on whichever host, and no sweep begins while it mends."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.diagnostics.agreement import agreement_checks
from orchestrator.errors import SetupError
from orchestrator.repair import repair as engine
from orchestrator.repair import trial_records
from orchestrator.repair.repair import findings, repair
from orchestrator.repair.table import FAMILIES
from orchestrator.state.driver_lease import LeaseTimes
from orchestrator.state.driver_liveness import this_driver
from orchestrator.state.gc_lease import gc_lease
from orchestrator.state.sweep_folder import SweepFolder
from orchestrator.storage.base import Storage
from orchestrator.storage.layout import archive_trial, trial_file
from tests.support.mlflow_stores import Content
from tests.support.trials import all_files
from tests.support.whole_sweep import target_of
from trainables.records.file_names import METRICS, RESULT

TIMES = LeaseTimes(settle_s=0.2, renew_interval_s=0.2, release_timeout_s=1.0)


def damaged(folder: SweepFolder) -> str:
    """The key of a trial whose metrics are damaged."""
    key = folder.storage.names("trials")[0]
    folder.storage.write(trial_file(key, METRICS), b"foreign")
    return key


def run_elsewhere(folder: SweepFolder) -> None:
    """A driver on another host runs the sweep."""
    state = folder.read_state()
    assert state is not None
    state.driver = this_driver() | {"host": "elsewhere", "process_table": "another"}
    folder.write_state(state)


def files(folder: SweepFolder) -> dict[str, bytes]:
    return {path: content for path, content in all_files(folder.storage).items() if "mlflow.db" not in path}


def test_a_sweep_that_runs_on_another_host_is_left_alone(folder: SweepFolder) -> None:
    damaged(folder)
    folder.request_stop()
    content = Content(target_of(folder))
    run = next(run for run in content.runs if run.data.tags["drive.role"] == "trial")
    content.client.update_run(run.info.run_id, status="RUNNING")
    run_elsewhere(folder)
    before = files(folder)
    assert not list(findings(folder.storage))
    assert not list(repair(folder.storage, TIMES))
    assert files(folder) == before
    assert content.client.get_run(run.info.run_id).info.status == "RUNNING"
    (check,) = agreement_checks(folder.storage, fix=True, times=TIMES)
    assert check.ok
    assert check.message.startswith("sweep 'whole' is running (process")
    assert "on elsewhere): neither it nor the trials that it uses were compared" in check.message


def test_a_trial_that_a_running_sweep_shares_is_left_alone(folder: SweepFolder) -> None:
    other = SweepFolder(folder.storage, "other")
    for name in ("spec.json", "trials.json", "state.json"):
        folder.storage.write(other.file(name), folder.storage.read(folder.file(name)) or b"")
    run_elsewhere(other)
    key = damaged(folder)
    assert not [one for one in repair(folder.storage, TIMES) if one.check == "records"]
    assert folder.storage.exists(trial_file(key, RESULT))


def test_no_sweep_begins_while_a_repair_mends(folder: SweepFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []

    def archive(storage: Storage, key: str) -> None:
        with pytest.raises(SetupError, match="`doctor --fix`"), folder.driver_lease(TIMES):
            pass
        tried.append(key)
        archive_trial(storage, key)

    monkeypatch.setattr(engine, "FAMILIES", [one for one in FAMILIES if one.check == "records"])
    monkeypatch.setattr(trial_records, "archive_trial", archive)
    key = damaged(folder)
    assert [one.mended for one in repair(folder.storage, TIMES)] == [True]
    assert tried == [key]


def test_a_sweep_that_is_taken_first_is_not_mended(folder: SweepFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "FAMILIES", [one for one in FAMILIES if one.check == "records"])
    key = damaged(folder)
    with gc_lease(folder.storage):  # it keeps repairs and sweeps from beginning
        (one,) = repair(folder.storage, TIMES)
    assert not one.mended
    assert "gc" in one.problem
    assert folder.storage.exists(trial_file(key, RESULT))


@pytest.mark.extended
@pytest.mark.parametrize("any_storage", [pytest.param("s3", marks=pytest.mark.server)], indirect=True)
def test_an_object_store_is_repaired_too(
    whole: SweepFolder, any_storage: Storage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(engine, "FAMILIES", [one for one in FAMILIES if one.check not in ("orphans", "registry")])
    folder = SweepFolder(any_storage, whole.name)
    for top in ("trials", "warmups", "sweeps"):
        for path in whole.storage.files(top):
            any_storage.write(path, whole.storage.read(path) or b"")
    gone = this_driver() | {"host": "elsewhere", "process_table": "another", "owner": "x", "heartbeat": 1.0}
    any_storage.write_json(folder.file("driver.json"), gone)
    any_storage.write("sweeps/other/sweep.yaml", b"name: other\n")
    damaged(folder)
    kinds = ["half-made sweep", "damaged record", "stale lease"]
    found = [one.mismatch.kind for one in findings(any_storage)]
    assert found == kinds
    mended = list(repair(any_storage, TIMES))
    assert all(one.mended for one in mended), mended
    assert {*kinds[:2], "stale state"} <= {one.mismatch.kind for one in mended}
    assert not list(findings(any_storage))
    assert any_storage.read("sweeps/.aside/other-1/sweep.yaml") == b"name: other\n"

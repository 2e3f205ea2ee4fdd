"""`sync` holds the sweep, so that no run is made twice."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest

from orchestrator.errors import SetupError
from orchestrator.execution.sync import sync_sweep
from orchestrator.housekeeping.renaming import rename_sweep
from orchestrator.repair.repair import findings
from orchestrator.state.sweep_folder import SweepFolder
from orchestrator.storage.factory import open_storage
from orchestrator.tracking.client import TrackingTarget
from tests.support.cli import start
from tests.support.mlflow_stores import Content, new_target
from tests.support.whole_sweep import target_of, whole_sweep


def test_a_sync_beside_another_process_is_refused(tmp_path: Path) -> None:
    folder = whole_sweep(tmp_path, track=False)
    with folder.driver_lease(), pytest.raises(SetupError, match=r"`sync`, .* hold a sweep too, and end by themselves"):
        sync_sweep(folder)
    assert not Path(folder.storage.root, "mlflow.db").exists()


@pytest.mark.process
@pytest.mark.long
def test_two_syncs_at_the_same_moment_make_each_run_once(tmp_path: Path) -> None:
    folder = whole_sweep(tmp_path, track=False)
    new_target(Path(folder.storage.root))
    processes = [start("sync", folder.name, "--storage", folder.storage.root) for _ in range(2)]
    answers = [process.communicate(timeout=120)[0] for process in processes]
    assert [line for line in answers if "runs of whole" in line], answers
    assert all(process.returncode == 0 or "[sweep-running]" in line for process, line in zip(processes, answers, strict=True))
    state = SweepFolder(folder.storage, folder.name).read_state()
    assert state is not None
    runs = Counter(run.info.run_name for run in Content(target_of(folder)).runs)
    assert runs == Counter([folder.name, *(one.name for one in state.all_stages())])
    assert all(one.mlflow_run_id for one in state.all_stages())


@pytest.mark.process
@pytest.mark.slow
def test_sweeps_of_one_name_in_two_storages_never_mix_on_a_server(tmp_path: Path) -> None:
    first = whole_sweep(tmp_path / "a", track=False)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    second = SweepFolder(open_storage(str(tmp_path / "b" / "runs")), first.name)
    shared = TrackingTarget(uri=new_target(tmp_path / "server").uri, experiment="drive-sweep", artifact_root=None)
    for folder in (first, second):
        spec = folder.storage.read_json(folder.file("spec.json"))
        spec["tracking"]["uri"] = shared.uri
        folder.storage.write_json(folder.file("spec.json"), spec)
    sync_sweep(first)
    before = Content(shared).plain(ids=True)
    with pytest.raises(SetupError, match="experiment 'drive-sweep' has a sweep 'whole' of another storage") as raised:
        sync_sweep(second)
    assert raised.value.code == "sweep-name-taken"
    assert "drive-sweep rename whole NEW" in raised.value.hint
    found = {one.mismatch.kind for one in findings(second.storage)}  # the runs of the other storage are none of its
    assert found == {"run that MLflow lacks"}
    assert Content(shared).plain(ids=True) == before

    renamed = rename_sweep(second.storage, "whole", "other")
    sync_sweep(renamed)
    sync_sweep(first)
    runs = Content(shared).runs
    names = Counter(run.data.tags["drive.sweep"] for run in runs)
    assert names == {"whole": 5, "other": 5}
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert not any("drive.superseded" in run.data.tags for run in runs)
    assert len({(run.data.tags["drive.sweep"], run.data.tags["drive.storage"]) for run in runs}) == 2

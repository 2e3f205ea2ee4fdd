"""`sync` holds the sweep, so that no run is made twice."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from orchestrator.errors import SetupError
from orchestrator.execution.sync import sync_sweep
from orchestrator.state.sweep_folder import SweepFolder
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

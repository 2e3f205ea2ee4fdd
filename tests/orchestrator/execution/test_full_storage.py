"""A disk that fills while a sweep runs: it stops in order, says so in its records, and ends alike once there is room."""

from __future__ import annotations

import json
from contextlib import chdir
from pathlib import Path

import pytest

from orchestrator.errors import SetupError
from orchestrator.execution.driver import Driver, initial_state, make_queue
from orchestrator.execution.full_storage import full_explained
from orchestrator.planning.plan import make_plan
from orchestrator.scheduling.queued_stage import StageState
from orchestrator.spec.loader import load_spec
from orchestrator.state.space_reserve import SpaceReserve
from orchestrator.state.state_writer import StateWriter
from orchestrator.state.sweep_folder import SweepFolder
from orchestrator.storage.factory import open_storage
from orchestrator.terminal.progress import Screen
from orchestrator.tracking.plan_runs import planned_runs, sweep_run_spec
from orchestrator.tracking.process import TrackingProcess
from tests.support.cli import digests, drive_sweep, start, status, tiny_sweep, wait_for
from tests.support.small_disks import small_disk
from trainables.errors import FailureKind, StorageFullError


def test_a_driver_on_a_full_disk_says_so_in_state_and_log(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", kibibytes=512) as disk:
        storage = open_storage(str(disk.folder / "runs"), create=True)
        plan = make_plan(load_spec(str(tiny_sweep(tmp_path))), storage, hash_data=True)
        folder, queue = SweepFolder(storage, "tiny"), make_queue(plan, storage, lambda key: True)
        state = initial_state(plan, None, queue)
        SpaceReserve(folder).take(20_000)
        writer = StateWriter(folder, state)
        writer.start()
        tracking = TrackingProcess(sweep_run_spec(plan, storage))  # not started: it takes what it is told
        driver = Driver(
            folder=folder,
            state=state,
            writer=writer,
            tracking=tracking,
            items=planned_runs(plan),
            screen=Screen(quiet=True),
            queue=queue,
        )
        queue.on_change = driver.on_change
        stage = queue.next_stage()
        assert stage is not None
        queue.on_start(stage)
        disk.fill()
        with pytest.raises(StorageFullError):
            folder.write_state(state)
        queue.on_end(stage, FailureKind.STORAGE_FULL, "checkpoint cannot be written: No space left on device")
        writer.close()
        assert (queue.next_stage(), queue.done, driver.stop_deadline is not None) == (None, True, True)
        assert writer.problem is None
        after = folder.read_state()
        assert after is not None
        (stopped,) = [one for one in after.all_stages() if one.state == StageState.STOPPED.value]
        assert stopped.error == "checkpoint cannot be written: No space left on device"
        assert "its storage can take no more: checkpoint cannot" in (storage.read(folder.file("sweep.log")) or b"").decode()


def test_the_error_says_how_the_sweep_goes_on() -> None:
    folder = SweepFolder(open_storage("/nowhere"), "tiny")
    with (
        pytest.raises(
            SetupError, match=r"x is full; free space .*`drive-sweep gc.*`.* then `drive-sweep resume tiny"
        ) as raised,
        full_explained(folder),
    ):
        raise StorageFullError("x is full")
    assert (raised.value.code, raised.value.exit_code) == ("storage-full", 3)


@pytest.mark.long
@pytest.mark.ray
@pytest.mark.process
def test_a_sweep_whose_disk_fills_stops_and_ends_alike_when_there_is_room(tmp_path: Path) -> None:
    """It needs what `plan` has said, MLflow's files included; on the other disk somebody else takes all room."""
    whole, elsewhere = tmp_path / "whole", f"sqlite:///{tmp_path}/mlflow.db"
    with chdir(tmp_path), small_disk(tmp_path / "disk", kibibytes=8192) as disk:
        file = tiny_sweep(tmp_path, epochs=20)
        planned = json.loads(drive_sweep("plan", file, "--storage", whole, "--json").stdout)
        drive_sweep("run", file, "--storage", whole)
        written = sum(path.lstat().st_blocks * 512 for path in whole.rglob("*"))
        assert 0.7 < planned["needed_bytes"] / written < 1.5

        runs = disk.folder / "runs"
        process = start("run", file, "--storage", runs, "--tracking-uri", elsewhere)
        wait_for(lambda: len(list(runs.glob("trials/*/checkpoint"))) > 1)
        disk.fill()
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 3
        assert f"then `drive-sweep resume tiny --storage {runs}` [storage-full]" in output
        assert not [path for path in runs.rglob(".*") if path.suffix == ".partial"]
        state = status("tiny", runs)
        assert state["running"] == 0
        assert state["finished"] < state["total"]
        assert "No space left on device" in (runs / "sweeps/tiny/sweep.log").read_text()

        (disk.folder / "filler").unlink()
        drive_sweep("resume", "tiny", "--storage", runs)
        assert digests("tiny", runs) == digests("tiny", whole)

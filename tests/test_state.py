"""Sweep folders, storage and drivers: who is alive, what is written whole, what a newer version left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator import state as module
from orchestrator.errors import SetupError, UserError
from orchestrator.state import (
    StateWriter,
    SweepFolder,
    SweepState,
    TrialStatus,
    driver_alive,
    open_sweep,
    this_driver,
)
from orchestrator.store import Storage, TrialFolder, open_storage
from trainables.failures import SupersededError


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return open_storage(str(tmp_path / "runs"), create=True)


def test_this_process_is_an_alive_driver() -> None:
    assert driver_alive(this_driver())


def test_a_driver_whose_process_ended_is_dead_at_once_on_its_own_host() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert not driver_alive(this_driver() | {"pid": ended.pid})


def test_another_process_with_the_same_id_is_not_the_driver() -> None:
    assert not driver_alive(this_driver() | {"pid_started": "1"})


def test_a_driver_on_another_host_is_judged_by_its_heartbeat() -> None:
    elsewhere = this_driver() | {"host": "elsewhere"}
    assert driver_alive(elsewhere)
    assert not driver_alive(elsewhere | {"heartbeat": time.time() - module.DEAD_AFTER_S - 1})


def test_trials_that_ran_under_a_dead_driver_are_waiting(storage: Storage) -> None:
    folder = SweepFolder(storage, "s")
    state = SweepState(sweep="s", driver=this_driver() | {"pid_started": "1"})
    state.trials["k"] = TrialStatus(key="k", name="n", state="running", config={})
    folder.write_state(state)
    read = folder.read_state()
    assert read is not None
    assert read.trials["k"].state == "waiting"
    folder.refuse_second_driver()


def test_a_second_driver_is_refused_with_the_way_out(storage: Storage) -> None:
    folder = SweepFolder(storage, "s")
    folder.write_state(SweepState(sweep="s", driver=this_driver()))
    with pytest.raises(SetupError, match=rf"being run by process {os.getpid()} on .*drive-sweep stop s"):
        folder.refuse_second_driver()


def test_the_writer_keeps_a_heartbeat_and_ends_without_a_driver(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HEARTBEAT_S", 0.05)
    monkeypatch.setattr(module, "WRITE_S", 0.05)
    folder = SweepFolder(storage, "s")
    writer = StateWriter(folder, SweepState(sweep="s"))
    writer.start()
    first = json.loads(storage.read("sweeps/s/state.json") or b"")["driver"]["heartbeat"]
    time.sleep(0.5)
    later = folder.read_state()
    assert later is not None
    assert later.driver["heartbeat"] > first
    writer.close()
    last = folder.read_state()
    assert last is not None
    assert last.driver == {}


def test_an_unknown_sweep_names_those_that_there_are(storage: Storage) -> None:
    storage.write_json("sweeps/known/trials.json", {})
    with pytest.raises(UserError, match=r"no sweep 'unknown' .* sweeps there: known"):
        open_sweep(storage, "unknown")


def test_a_newer_layout_is_refused(storage: Storage) -> None:
    storage.write_json("storage.json", {"layout": 99})
    with pytest.raises(SetupError, match="layout 99, this version knows 1; update"):
        open_storage(storage.root)


def test_object_stores_are_refused_in_words() -> None:
    with pytest.raises(UserError, match="'s3://bucket/sweeps' is not a folder"):
        open_storage("s3://bucket/sweeps")


def test_a_storage_that_cannot_be_made_is_an_environment_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SetupError, match=r"cannot be written: .* give another folder with --storage"):
        open_storage(str(tmp_path / "file" / "runs"), create=True)


def test_a_file_is_replaced_at_once_and_a_failed_write_leaves_the_old_one(storage: Storage) -> None:
    storage.write("folder/name", b"old")

    def refuse() -> None:
        raise SupersededError("late")

    with pytest.raises(SupersededError):
        storage.write("folder/name", b"new", before_publish=refuse)
    assert storage.read("folder/name") == b"old"
    assert os.listdir(storage.path("folder")) == ["name"]


def test_an_older_attempt_publishes_and_removes_nothing_once_a_newer_has_begun(storage: Storage) -> None:
    older, newer = TrialFolder(storage, "k", 1), TrialFolder(storage, "k", 2)
    older.begin()
    older.publish("checkpoint", b"old")
    newer.begin()
    attempts: list[Callable[[], None]] = [
        lambda: older.publish("checkpoint", b"late"),
        lambda: older.remove("checkpoint"),
        older.begin,
    ]
    for late in attempts:
        with pytest.raises(SupersededError, match="attempt 2 has begun, attempt 1 gives up"):
            late()
    assert newer.read("checkpoint") == b"old"

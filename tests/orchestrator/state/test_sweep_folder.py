"""Sweep folders, storage and drivers: who is alive, what is written whole, what a newer version left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import SetupError, UserError
from orchestrator.state import sweep_state
from orchestrator.state.driver_lease import LEASE_TTL_S
from orchestrator.state.driver_liveness import driver_alive, this_driver
from orchestrator.state.state_writer import StateWriter
from orchestrator.state.sweep_folder import SweepFolder, open_sweep
from orchestrator.state.sweep_state import SweepState, TrialStatus, WarmupStatus
from orchestrator.storage.base import Storage
from orchestrator.storage.factory import open_storage
from orchestrator.storage.local import LocalStorage
from tests.support.cli import wait_for


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return open_storage(str(tmp_path / "runs"), create=True)


def test_this_process_is_an_alive_driver() -> None:
    assert driver_alive(this_driver())


def test_driver_whose_process_ended_is_dead_at_once_on_its_host() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert not driver_alive(this_driver() | {"pid": ended.pid})


def test_another_process_with_the_same_id_is_not_the_driver() -> None:
    assert not driver_alive(this_driver() | {"pid_started": "1"})


def test_a_driver_on_another_host_is_judged_by_its_heartbeat() -> None:
    elsewhere = this_driver() | {"process_table": "another boot pid:[4026531836]", "pid_started": "1"}
    assert driver_alive(elsewhere)
    assert not driver_alive(elsewhere | {"heartbeat": time.time() - LEASE_TTL_S - 1})


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_driver_in_a_container_named_like_its_host_is_alive(storage: Storage) -> None:
    """It has another process table, where its id is nobody's here."""
    inside = "import json; from orchestrator.state.driver_liveness import this_driver; print(json.dumps(this_driver()))"
    namespaces = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc"]
    result = subprocess.run([*namespaces, sys.executable, "-c", inside], capture_output=True, text=True, check=False)
    if result.returncode:
        pytest.skip(f"namespaces are not allowed here: {result.stderr.strip()}")
    driver = json.loads(result.stdout)
    assert (driver["host"], driver["pid"]) == (this_driver()["host"], 1)
    assert driver_alive(driver)
    assert not driver_alive(driver | {"heartbeat": time.time() - LEASE_TTL_S - 1})


def test_driver_alive_without_process_table_uses_the_heartbeat(storage: Storage) -> None:
    folder, driver = SweepFolder(storage, "s"), this_driver()
    del driver["process_table"]
    driver["pid_started"] = "1"
    folder.write_state(SweepState(sweep="s", driver=driver))
    read = folder.read_state()
    assert read is not None
    assert driver_alive(read.driver)
    assert not driver_alive(read.driver | {"heartbeat": time.time() - LEASE_TTL_S - 1})


def test_trials_that_ran_under_a_dead_driver_are_waiting(storage: Storage) -> None:
    folder = SweepFolder(storage, "s")
    state = SweepState(sweep="s", driver=this_driver() | {"pid_started": "1"})
    state.trials["k"] = TrialStatus(key="k", name="n", state="running", config={})
    folder.write_state(state)
    read = folder.read_state()
    assert read is not None
    assert read.trials["k"].state == "waiting"
    folder.require_no_driver()


def test_second_driver_is_refused_with_a_hint(storage: Storage) -> None:
    folder = SweepFolder(storage, "s")
    folder.write_state(SweepState(sweep="s", driver=this_driver()))
    with pytest.raises(SetupError, match=rf"being run by process {os.getpid()} on .*drive-sweep stop s"):
        folder.require_no_driver()


def test_the_writer_keeps_a_heartbeat_and_ends_without_a_driver(storage: Storage) -> None:
    folder = SweepFolder(storage, "s")
    writer = StateWriter(folder, SweepState(sweep="s"), heartbeat_interval_s=0.05, write_interval_s=0.05)
    writer.start()
    first = json.loads(storage.read("sweeps/s/state.json") or b"")["driver"]["heartbeat"]
    wait_for(lambda: on_disk(folder)["driver"]["heartbeat"] > first)
    writer.close()
    last = folder.read_state()
    assert last is not None
    assert last.driver == {}


class SlowStorage(LocalStorage):
    """A folder that takes its time for each file."""

    def write(self, name: str, content: bytes, before_publish: Callable[[], None] = lambda: None) -> None:
        time.sleep(0.2)
        LocalStorage.write(self, name, content, before_publish)


def test_heartbeats_are_no_rarer_where_a_writing_takes_long(tmp_path: Path) -> None:
    folder = SweepFolder(SlowStorage(str(tmp_path)), "s")
    writer = StateWriter(folder, SweepState(sweep="s"), heartbeat_interval_s=0.25)
    writer.start()
    beats = {on_disk(folder)["driver"]["heartbeat"]}
    for _ in range(3):
        writer.changed()
        wait_for(lambda: on_disk(folder)["driver"]["heartbeat"] not in beats, timeout_s=2)
        beats.add(on_disk(folder)["driver"]["heartbeat"])
    writer.close()
    assert on_disk(folder)["driver"] == {}


def large_state(trials: int) -> SweepState:
    """A state whose values are not easy to encode, with as many trials and a trunk for every fifth."""
    state = SweepState(sweep="s", tracking_error='server says "no"\n', tracking_pending=3, parent_run_id="p")
    for index in range(trials):
        key = f"{index:016x}"
        state.trials[key] = TrialStatus(
            key=key,
            name=f"w{index}-é",
            state="waiting",
            config={"sparsity": 0.9, "training": {"milestones": None, "lr": 1e-30}},
            metrics={"val/loss": float("inf"), "val/accuracy": 0.1 + 0.2},
            error='a "quoted" \\ line\nand another' if index % 2 else None,
        )
        if index % 5 == 0:
            state.warmups[f"w{key}"] = WarmupStatus(key=f"w{key}", name="trunk", state="waiting", epochs=4)
    return state


def hasty_writer(folder: SweepFolder, state: SweepState) -> StateWriter:
    """A writer that writes whenever something changed, and only then."""
    return StateWriter(folder, state, heartbeat_interval_s=1e6, write_interval_s=0.0, write_interval_factor=0.0)


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Keys of the entries that were made into JSON."""
    keys: list[str] = []

    def noting(value: Any) -> Any:
        keys.extend([value.key] if hasattr(value, "key") else [])
        return asdict(value)

    monkeypatch.setattr(sweep_state, "asdict", noting)
    return keys


def on_disk(folder: SweepFolder) -> Any:
    content = folder.storage.read_json(folder.file("state.json"))
    content.pop("state_sha256")
    return content


def test_reported_changes_are_written_and_read_back_unchanged(storage: Storage) -> None:
    folder, state = SweepFolder(storage, "s"), large_state(20)
    writer = hasty_writer(folder, state)
    writer.start()
    assert on_disk(folder) == asdict(state)
    assert folder.read_state() == state
    trial, trunk = state.trials[f"{7:016x}"], state.warmups[f"w{5:016x}"]
    with writer.lock:
        trial.state, trial.error, trial.position = "running", 'ende "\u2028"', 3
        trial.metrics |= {"train/loss": 1.5}
        trunk.state, trunk.trained_epochs = "running", 2
        state.tracking_pending, state.experiment_id = 9, "12"
    writer.changed(trial)
    writer.changed(trunk)
    wait_for(lambda: folder.read_state() == state)
    with writer.lock:
        state.tracking_pending = 0  # told of the sweep, not of an entry
    writer.changed()
    wait_for(lambda: folder.read_state() == state)
    writer.close()
    assert state.driver == {}
    assert on_disk(folder) == asdict(state)


def test_unreported_change_is_written_at_the_end(storage: Storage) -> None:
    folder, state = SweepFolder(storage, "s"), large_state(10)
    writer = hasty_writer(folder, state)
    writer.start()
    silent, reported = state.trials[f"{1:016x}"], state.trials[f"{2:016x}"]
    silent.position, reported.position = 5, 6
    writer.changed(reported)
    wait_for(lambda: on_disk(folder)["trials"][reported.key]["position"] == 6)
    assert on_disk(folder)["trials"][silent.key]["position"] == 0
    writer.close()
    assert on_disk(folder)["trials"][silent.key]["position"] == 5
    assert on_disk(folder) == asdict(state)


@pytest.mark.parametrize("trials", [10, 1000])
def test_write_encodes_the_changed_entries_alone(trials: int, storage: Storage, encoded: list[str]) -> None:
    folder, state = SweepFolder(storage, "s"), large_state(trials)
    writer = hasty_writer(folder, state)
    writer.start()
    everything = [*state.trials, *state.warmups]
    assert encoded == everything
    encoded.clear()
    changed = [f"{index:016x}" for index in (3, 4, 3)]
    for place, key in enumerate(changed, start=1):
        state.trials[key].position = place
        writer.changed(state.trials[key])
        wait_for(lambda key=key, place=place: on_disk(folder)["trials"][key]["position"] == place)
    assert encoded == changed
    encoded.clear()
    state.tracking_pending = 77
    writer.changed()
    wait_for(lambda: on_disk(folder)["tracking_pending"] == 77)
    assert encoded == []
    writer.close()
    assert encoded == everything


def test_an_unknown_sweep_names_those_that_there_are(storage: Storage) -> None:
    storage.write_json("sweeps/known/trials.json", {})
    with pytest.raises(UserError, match=r"no sweep 'unknown' .* sweeps there: known"):
        open_sweep(storage, "unknown")


def test_a_newer_layout_is_refused(storage: Storage) -> None:
    storage.write_json("storage.json", {"layout": 99})
    with pytest.raises(SetupError, match="layout 99, this version knows 1; update"):
        open_storage(storage.root)


def test_storage_that_cannot_be_created_is_an_environment_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SetupError, match=r"cannot be written: .* give another folder with --storage"):
        open_storage(str(tmp_path / "file" / "runs"), create=True)

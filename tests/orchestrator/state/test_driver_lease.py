"""Only one process drives a sweep, on every storage and whoever is late."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import threading
import time
from dataclasses import replace

import pytest

from orchestrator.errors import SetupError
from orchestrator.state.driver_lease import LeaseTimes
from orchestrator.state.driver_liveness import this_driver
from orchestrator.state.sweep_folder import SweepFolder
from orchestrator.storage.base import Storage
from orchestrator.storage.s3 import S3Storage
from tests.support.cli import wait_for

QUICK = LeaseTimes(settle_s=0.5, renew_interval_s=0.5)


@pytest.fixture
def storage(any_storage: Storage) -> Storage:
    return any_storage


@pytest.fixture
def without_locks(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> Storage:
    def no_locks(file: int, operation: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    return storage


@pytest.mark.slow
def test_driver_lease_goes_to_one_of_several_that_start_together(without_locks: Storage) -> None:
    folder, events, ready = SweepFolder(without_locks, "s"), [], threading.Barrier(3)

    def drive() -> None:
        ready.wait()
        try:
            with folder.driver_lease(QUICK):
                events.append("held")
                wait_for(lambda: len(events) == 3)  # so that the others find it held
        except SetupError as error:
            events.append(str(error))

    drivers = [threading.Thread(target=drive) for _ in range(3)]
    for driver in drivers:
        driver.start()
    for driver in drivers:
        driver.join()
    assert sorted(events)[0] == "held"
    assert all(f"being run by process {os.getpid()} on" in line for line in sorted(events)[1:])
    with folder.driver_lease(QUICK):
        pass


def test_driver_lease_expires_without_heartbeats(without_locks: Storage) -> None:
    folder, claim = SweepFolder(without_locks, "s"), "sweeps/s/driver.json"
    elsewhere = this_driver() | {"host": "elsewhere", "process_table": "another", "owner": "other"}
    without_locks.write_json(claim, elsewhere)
    with pytest.raises(SetupError, match=r"on elsewhere, last heartbeat \d+ s ago"), folder.driver_lease(QUICK):
        pass
    without_locks.write_json(claim, elsewhere | {"heartbeat": time.time() - 31})
    with folder.driver_lease(QUICK):
        assert without_locks.read_json(claim)["pid"] == os.getpid()
    assert without_locks.read(claim) is None


def test_driver_that_lost_its_lease_exits(s3: S3Storage) -> None:
    script = (
        "import sys, time\nfrom orchestrator.state.driver_lease import LeaseTimes\n"
        "from orchestrator.state.sweep_folder import SweepFolder\n"
        "from orchestrator.storage.factory import open_storage\n"
        "with SweepFolder(open_storage(sys.argv[1]), 's').driver_lease(LeaseTimes(renew_interval_s=0.2)):\n"
        "    print('held', flush=True)\n    time.sleep(60)\n"
    )
    driver = subprocess.Popen(
        [sys.executable, "-c", script, s3.root], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert driver.stdout is not None
    assert driver.stdout.readline() == "held\n"
    beats = {s3.read_json("sweeps/s/driver.json")["heartbeat"]}
    wait_for(lambda: s3.read_json("sweeps/s/driver.json")["heartbeat"] not in beats)  # it is renewed
    late = this_driver() | {"owner": "other"}
    s3.write_json("sweeps/s/driver.json", late)  # once, as by a write that was late: it is put right
    wait_for(lambda: s3.read_json("sweeps/s/driver.json")["owner"] != "other", timeout_s=20)
    time.sleep(0.5)
    assert driver.poll() is None
    while driver.poll() is None:  # a living one holds on to it
        s3.write_json("sweeps/s/driver.json", late)
    _, error = driver.communicate(timeout=30)
    assert driver.returncode == 3
    assert f"lost the driver lease to process {os.getpid()} on" in error
    assert error.endswith("exiting [lease-lost]\n")


def test_driver_lease_written_late_gives_up(s3: S3Storage) -> None:
    """The first write takes longer than `settle_s`, and replaces the file of a driver that came meanwhile."""
    times = replace(QUICK, renew_interval_s=1.5)
    slow, events = S3Storage(s3.root, s3.endpoint, s3.region), list[str]()
    prompt = slow.write_json

    def late(name: str, content: object) -> None:
        winner.start()
        wait_for(lambda: events == ["held"])
        slow.write_json = prompt  # type: ignore[method-assign]
        slow.write_json(name, content)

    def win() -> None:
        with SweepFolder(s3, "s").driver_lease(times):
            events.append("held")
            ended.wait(30)
        events.append("ended in its own time")

    winner, ended = threading.Thread(target=win), threading.Event()
    slow.write_json = late  # type: ignore[method-assign]
    try:
        with pytest.raises(SetupError, match="being run by"), SweepFolder(slow, "s").driver_lease(times):
            pass
    finally:
        ended.set()
        winner.join()
    assert events == ["held", "ended in its own time"]


def test_driver_lease_of_another_is_not_released(s3: S3Storage) -> None:
    claim, other = "sweeps/s/driver.json", this_driver() | {"owner": "other"}
    with SweepFolder(s3, "s").driver_lease(replace(QUICK, renew_interval_s=60.0)):
        s3.write_json(claim, other)
    assert s3.read_json(claim) == other

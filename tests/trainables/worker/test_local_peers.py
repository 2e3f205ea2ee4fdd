"""Workers of a trial as processes of one machine: they end with the first worker, and only by it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from trainables.worker.local_peers import LocalPeers

pytestmark = [pytest.mark.process, pytest.mark.server]

# A first worker whose other one sleeps.
FIRST = """
from tests.trainables.worker.test_local_peers import sleep
from trainables.worker.local_peers import LocalPeers

if __name__ == "__main__":
    peers = LocalPeers(2)
    peers.begin(sleep)
    print(*peers.pids(), flush=True)
    peers.poll(600)
"""


def sleep(rank: int) -> dict[str, Any]:
    print("sleeps", flush=True)
    time.sleep(600)
    return {}


@pytest.mark.slow
def test_signals_for_all_processes_are_the_first_workers_business() -> None:
    """A worker goes on after Ctrl-C, which a terminal sends to it too, and may start processes that load data."""
    peers = LocalPeers(2)
    peers.begin(_sum_loaded)
    (pid,) = peers.pids()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(pid, number)
    while peers.working():
        peers.poll(1.0)
    assert peers.poll(0) == {1: {"status": "finished", "sum": 6}}
    peers.end()
    assert not _is_running(pid)


def _sum_loaded(rank: int) -> dict[str, Any]:
    loader = DataLoader(TensorDataset(torch.arange(4)), num_workers=1)
    return {"status": "finished", "sum": int(sum(batch for (batch,) in loader))}


@pytest.mark.slow
def test_workers_end_when_the_first_is_killed_whatever_they_do() -> None:
    first = subprocess.Popen([sys.executable, "-c", FIRST], stdout=subprocess.PIPE, text=True)
    assert first.stdout is not None
    pid = int(first.stdout.readline())
    assert first.stdout.readline() == "sleeps\n"
    first.kill()
    first.wait()
    deadline = time.monotonic() + 20
    while _is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _is_running(pid)


def _is_running(pid: int) -> bool:
    with suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False

"""The other workers of a trial as its first worker sees them: how they live, end, fail and are interrupted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from orchestrator.storage.layout import StageFolders
from tests import ROOT
from tests.support.trials import RUNTIME, new_storage, tiny_config, tiny_settings
from trainables.config.keys import canonical
from trainables.data.splits import load_data
from trainables.errors import ConfigError, NonFiniteError, OtherWorkerError, WorkerLostError
from trainables.runtime.heartbeat import heard_by
from trainables.worker.local_peers import LocalPeers
from trainables.worker.peers import GIVE_UP_S, joining, leading, led
from trainables.worker.stage import Stage, SweepSettings
from trainables.worker.trainable import prepare_part

CONFIG = tiny_config()
TWO = replace(RUNTIME, workers=2)

pytestmark = [pytest.mark.process, pytest.mark.server]


@pytest.mark.slow
def test_interruption_at_the_terminal_is_left_to_the_first_worker(pair: LocalPeers) -> None:
    with leading(TWO, pair, wait_in_group, 0.5) as group:
        assert group.layout == "2"
        os.kill(pair.pids()[0], signal.SIGINT)
        os.kill(pair.pids()[0], signal.SIGHUP)
        wait_until(lambda: not pair.working())
        # Nobody is left to watch, so nothing asks for outcomes again and again.
        wait_until(lambda: "other workers" not in {thread.name for thread in threading.enumerate()})
    assert pair.poll(0) == {1: {"status": "finished"}}


def wait_in_group(rank: int, seconds: float, address: str, port: int) -> dict[str, Any]:
    with joining(TWO, rank, address, port):
        time.sleep(seconds)
    return {"status": "finished"}


def wait_until(holds: Callable[[], bool]) -> None:
    until = time.monotonic() + 20.0
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.mark.slow
def test_others_that_prepare_long_are_alive(pair: LocalPeers, tmp_path: Path) -> None:
    settings = tiny_settings(StageFolders(new_storage(tmp_path), None), runtime=TWO)
    stage = Stage(kind="trial", key="0" * 16, name="tiny", config=canonical(CONFIG), attempt=1)
    heard: list[float] = []
    with (
        heard_by(lambda: heard.append(time.monotonic()), 0.1),
        pytest.raises(OtherWorkerError, match="no image"),
        led(stage, settings, pair, prepare_in_vain, wait_in_group),
    ):
        raise AssertionError
    assert len(heard) >= 2


@pytest.mark.slow
def test_others_read_their_data_before_the_first_waits_for_them(tmp_path: Path) -> None:
    settings = tiny_settings(StageFolders(new_storage(tmp_path), None), runtime=TWO)
    stage = Stage(kind="trial", key="0" * 16, name="tiny", config=canonical(CONFIG), attempt=1)
    load_data.cache_clear()
    assert prepare_part(1, stage, settings)["status"] == "finished"
    assert load_data.cache_info().misses == 1
    load_data(CONFIG.dataset, settings.data.prepare(), TWO.device, TWO.threads)  # as a trial does
    assert load_data.cache_info().hits == 1


def prepare_in_vain(rank: int, stage: Stage, settings: SweepSettings) -> dict[str, Any]:
    time.sleep(1.5)
    return {"status": "data", "message": "no image"}


@pytest.mark.slow
def test_what_follows_from_a_lost_worker_is_a_lost_worker(pair: LocalPeers) -> None:
    """On a GPU the sums that break off leave any numbers behind, from which any error may follow."""

    def lose_and_diverge() -> None:
        with leading(TWO, pair, wait_in_group, 60.0):
            os.kill(pair.pids()[0], signal.SIGKILL)
            wait_until(lambda: not torch.distributed.is_initialized())
            raise NonFiniteError("the training loss became nan")

    with pytest.raises(WorkerLostError, match="worker 2 of 2 was lost"):
        lose_and_diverge()


@pytest.mark.slow
def test_failure_of_a_worker_that_has_not_come_is_known_at_once(pair: LocalPeers) -> None:
    began = time.monotonic()
    with pytest.raises(OtherWorkerError, match="worker 2 of 2: no such interface"), leading(TWO, pair, fail_to_join):
        raise AssertionError
    assert time.monotonic() - began < GIVE_UP_S / 2
    pair.end()


def fail_to_join(rank: int, address: str, port: int) -> dict[str, Any]:
    return {"status": "setting", "message": "no such interface"}


@pytest.mark.slow
def test_worker_that_died_between_two_parts_is_lost(pair: LocalPeers) -> None:
    pair.begin(do_nothing)
    wait_until(lambda: bool(pair.poll(0.1)))
    os.kill(pair.pids()[0], signal.SIGKILL)
    wait_until(lambda: not pair._processes[1][0].is_alive())
    pair.begin(do_nothing)
    wait_until(lambda: bool(pair.poll(0.1)))
    assert pair.poll(0)[1]["status"] == "lost"
    pair.end()


def do_nothing(rank: int) -> dict[str, Any]:
    return {"status": "finished", "message": ""}


SCRIPT = """
import time
from trainables.worker.local_peers import LocalPeers

def hold(rank):
    time.sleep(60.0)

if __name__ == "__main__":
    peers = LocalPeers(2)
    peers.begin(hold)
    print(peers.pids()[0], flush=True)
    time.sleep(60.0)
"""


@pytest.mark.slow
def test_worker_ends_with_the_first_even_while_it_waits(tmp_path: Path) -> None:
    (tmp_path / "first.py").write_text(SCRIPT)
    command = [sys.executable, str(tmp_path / "first.py")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)}) as first:
        assert first.stdout is not None
        other = int(first.stdout.readline())
        time.sleep(1.0)  # until it holds
        first.kill()
    wait_until(lambda: not Path(f"/proc/{other}").exists())


def test_gpus_that_are_not_there_are_refused() -> None:
    found = torch.cuda.device_count()
    with pytest.raises(ConfigError, match=f"must be at most the GPUs of this machine, {found}, got {found + 2}"):
        LocalPeers(found + 2, "cuda")

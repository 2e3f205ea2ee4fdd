"""Workers of a trial as processes of this machine, without Ray."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from threading import Thread
from typing import Any

from trainables.errors import ConfigError
from trainables.worker.peers import LOST, Outcome, Part

# A terminal, or a cluster's manager, sends them to all processes at once: the first worker alone decides what they mean.
OF_THE_FIRST = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}


@dataclass
class LocalPeers:
    """The other workers of a trial of so many (Peers); they start when they are needed first.

    Attributes:
        device: on GPUs each has the one of its rank.
        shares_gpus: has them take the GPUs in turns where there are fewer; else that is an error.
    """

    workers: int
    device: str = "cpu"
    address: str = "127.0.0.1"
    shares_gpus: bool = False
    _processes: dict[int, tuple[BaseProcess, Connection]] = field(default_factory=dict)
    _outcomes: dict[int, Outcome] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raises ConfigError if this machine has fewer GPUs than the trial has workers."""
        if self.device != "cuda" or self.shares_gpus:
            return
        import torch

        if (found := torch.cuda.device_count()) < self.workers:
            raise ConfigError(
                f"resources.gpus_per_trial: must be at most the GPUs of this machine, {found}, got {self.workers}",
                "take a machine with as many, or a cluster with `run`",
            )

    def begin(self, part: Part, *arguments: Any) -> None:
        self._outcomes = {}
        for rank in range(1, self.workers):
            if rank not in self._processes:
                self._processes[rank] = self._start(rank)
            with suppress(OSError):  # it was lost meanwhile, which `poll` will see
                self._processes[rank][1].send((part, arguments))

    def poll(self, seconds: float) -> dict[int, Outcome]:
        open_ones = {connection: rank for rank, (_, connection) in self._processes.items() if rank not in self._outcomes}
        for connection in wait(list(open_ones), seconds) if open_ones else ():
            assert isinstance(connection, Connection)
            rank = open_ones[connection]
            try:
                self._outcomes[rank] = connection.recv()
            except (EOFError, OSError):
                self._outcomes[rank] = LOST
        return dict(self._outcomes)

    def working(self) -> bool:
        return len(self._outcomes) < self.workers - 1

    def end(self) -> None:
        for rank in range(1, self.workers):
            self._outcomes.setdefault(rank, LOST)
        for process, connection in self._processes.values():
            process.kill()
            connection.close()
        for process, _ in self._processes.values():
            process.join()
        self._processes = {}
        atexit.unregister(self.end)

    def pids(self) -> list[int]:
        """Of the processes, by rank."""
        return [process.pid or 0 for _, (process, _) in sorted(self._processes.items())]

    def _gpu(self, rank: int) -> str | None:
        if self.device != "cuda":
            return None
        import torch

        visible = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(torch.cuda.device_count())))
        names = visible.split(",")
        return names[rank % len(names)]

    def _start(self, rank: int) -> tuple[BaseProcess, Connection]:
        here, there = multiprocessing.Pipe()
        context = multiprocessing.get_context("spawn")
        # No daemon, which could not start loaders.
        process = context.Process(target=_serve, args=(rank, self._gpu(rank), there))
        atexit.register(self.end)  # before `multiprocessing` waits for it
        resource_tracker.ensure_running()  # which lets signals through when it starts
        with _blocked(OF_THE_FIRST):
            process.start()
        there.close()
        return process, here


@contextmanager
def _blocked(signals: set[signal.Signals]) -> Iterator[None]:
    """Holds these signals back; a process that starts in the block never gets them, until it unblocks them itself."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(rank: int, gpu: str | None, connection: Connection) -> None:
    """Does one part after another until the first worker has gone.

    Args:
        gpu: the only one that it sees; None for all.
    """
    for number in OF_THE_FIRST:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, OF_THE_FIRST)  # of processes that this one starts
    Thread(target=_end_with_first, name="first worker", daemon=True).start()
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    while True:
        try:
            part, arguments = connection.recv()
        except (EOFError, OSError):
            return
        outcome = part(rank, *arguments)
        try:
            connection.send(outcome)
        except OSError:
            return


def _end_with_first() -> None:
    """Ends this process when the first worker has gone, whatever it waits for."""
    first = multiprocessing.parent_process()
    assert first is not None
    first.join()
    os._exit(1)

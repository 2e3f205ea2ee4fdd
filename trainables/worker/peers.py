"""The other workers of a trial of several, as its first worker leads them through a stage.

A worker that fails or is lost ends the stage: what it reports, or that it is gone, is the stage's failure. The trial then goes
on from its checkpoint, with new workers where these are gone.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any, Protocol

from trainables.config.keys import from_canonical
from trainables.config.trial import TrialConfig
from trainables.errors import FailureKind, OtherWorkerError, TrialError, WorkerLostError, kind_of
from trainables.preflight.network_case import adjusted_runtime
from trainables.runtime.device import Runtime
from trainables.runtime.group import Group, joined, leave, lost, open_store
from trainables.runtime.heartbeat import beat
from trainables.runtime.machine import processor
from trainables.runtime.placement import place_of_process
from trainables.worker.group_folders import GroupFolders
from trainables.worker.stage import Stage, SweepSettings

# Of a worker's part of something: "status" and "message"; of a failure also "place", "traceback", "node" and "address".
Outcome = dict[str, Any]
Part = Callable[..., Outcome]  # what a worker does
LOST: Outcome = {"status": FailureKind.WORKER_LOST.value, "message": ""}
FINISHED = "finished"
ENDED = (FINISHED, FailureKind.STOPPED)

POLL_S = 0.5
PREPARE_S = 3600.0  # that the others may take to decode a data set, of which this process hears nothing, before silence counts
EXPLAIN_S = 15.0  # from a broken connection until the worker's outcome is known
END_S = 30.0  # for the others to end after the first
GIVE_UP_S = 60.0  # from the failure of a worker until the first must have noticed, or its process ends


class Peers(Protocol):
    """The processes of the other workers.

    Attributes:
        address: of this host, as they reach it.
    """

    address: str

    def begin(self, part: Part, *arguments: Any) -> None:
        """Has each do its part of something: part(rank, *arguments)."""

    def poll(self, seconds: float) -> dict[int, Outcome]:
        """The outcomes by rank of those that have ended or are lost; waits so long for another one."""

    def working(self) -> bool:
        """Whether some have not ended."""

    def end(self) -> None:
        """Kills the processes; the next part is done by new ones."""


@contextmanager
def led(stage: Stage, settings: SweepSettings, peers: Peers, prepare: Part, work: Part) -> Iterator[SweepSettings]:
    """Has the others take part in the stage while the block runs it as the first worker, with the settings that it gives.

    Args:
        prepare: a worker's look for its inputs, before anybody waits for it: prepare(rank, stage, settings).
        work: its part of the stage: work(rank, stage, settings, address, port).

    Raises:
        TrialError: another worker has failed, or is lost.
    """
    peers.begin(prepare, stage, settings)
    began = time.monotonic()
    while peers.working():
        peers.poll(POLL_S)
        if time.monotonic() - began < PREPARE_S:
            beat()
    if failure := _failure(peers, settings.runtime.workers):
        peers.end()
        raise failure
    with leading(stage_runtime(stage, settings), peers, work, stage, settings) as group:
        yield replace(settings, folders=GroupFolders(settings.folders, group))


@contextmanager
def leading(runtime: Runtime, peers: Peers, work: Part, *arguments: Any) -> Iterator[Group]:
    """Makes this process the first worker of a group while the block runs, and has the others do work(rank, *arguments,
    address, port), which makes them its other workers by `joining`.

    Raises:
        TrialError: another worker has failed, or is lost.
    """
    store = open_store(peers.address, runtime.workers)
    peers.begin(work, *arguments, peers.address, store.port)
    watch = _Watch(peers, runtime)
    try:
        with joining(runtime, 0, peers.address, store, watch.explain, watch.failed.is_set) as group:
            try:
                yield group
            except Exception as error:
                if watch.failure is not None and kind_of(error) is not watch.failure.kind:
                    raise watch.failure from error  # whatever has followed from it
                raise
    finally:
        watch.finish()


@contextmanager
def following(rank: int, stage: Stage, settings: SweepSettings, address: str, port: int) -> Iterator[SweepSettings]:
    """Makes this process another worker of the stage while the block runs it, with the settings that it gives.

    It writes nothing, so it need not prepare to.
    """
    with joining(stage_runtime(stage, settings), rank, address, port) as group:
        folders = GroupFolders(settings.folders, group)
        yield replace(settings, folders=folders, checkpoint_seconds=float("inf"), metrics_seconds=float("inf"))


def stage_runtime(stage: Stage, settings: SweepSettings) -> Runtime:
    """The runtime of a stage's network."""
    return adjusted_runtime(settings.runtime, from_canonical(TrialConfig, stage.config), settings.adjustments)


def joining(
    runtime: Runtime,
    rank: int,
    address: str,
    store: Any,
    explain: Callable[[], TrialError] = lost,
    has_failed: Callable[[], bool] = lambda: False,
) -> AbstractContextManager[Group]:
    """Makes this process a worker of the runtime's group while the block runs; see `joined`."""
    place = place_of_process(processor(runtime.device), on_gpu=runtime.device == "cuda")
    return joined(rank, runtime.workers, place, address, store, explain=explain, has_failed=has_failed)


class _Watch:
    """Watches the other workers from a thread, and breaks the connection to them as soon as one has failed."""

    def __init__(self, peers: Peers, runtime: Runtime) -> None:
        self.peers, self.runtime = peers, runtime
        self.failure: TrialError | None = None
        self.failed, self.over = threading.Event(), threading.Event()
        self.thread = threading.Thread(target=self._look, daemon=True, name="other workers")
        self.thread.start()

    def explain(self) -> TrialError:
        """The failure of another worker that has broken the connection."""
        self.failed.wait(EXPLAIN_S)
        return self.failure or WorkerLostError("the connection to another worker of the trial was lost")

    def finish(self) -> None:
        """Waits until the others have ended, and kills those that do not."""
        self.over.set()
        self.thread.join()
        deadline = time.monotonic() + END_S
        while self.peers.working() and time.monotonic() < deadline:
            self.peers.poll(POLL_S)
        if self.peers.working():
            self.peers.end()

    def _look(self) -> None:
        try:
            self.failure = self._first_failure()
        except Exception as error:  # an unwatched worker could be waited for without end
            self.failure = WorkerLostError(f"other workers cannot be watched: {type(error).__name__}: {error}")
        if self.failure is None:
            return
        self.peers.end()
        self.failed.set()
        # On a GPU the first would wait for the lost one for ever. In a thread, as NCCL itself may hang.
        ending = threading.Thread(target=leave, daemon=True, name="end of the connection")
        ending.start()
        if not self.over.wait(GIVE_UP_S):
            print(f"{self.failure}; its first worker does not notice, so its process ends", file=sys.stderr, flush=True)
            os._exit(1)
        ending.join()

    def _first_failure(self) -> TrialError | None:
        """The failure that ends the stage; None once the others or the stage have ended."""
        while not (failure := _failure(self.peers, self.runtime.workers, POLL_S)):
            if self.over.is_set() or not self.peers.working():
                return None
        time.sleep(POLL_S)  # one worker's failure is that of all others: which one has a reason of its own?
        return _failure(self.peers, self.runtime.workers) or failure


def _failure(peers: Peers, workers: int, seconds: float = 0.0) -> TrialError | None:
    """The failure of another worker, rather one with a reason than a lost connection; None without any, after so long.

    A worker that was asked to stop has not failed: the first stops at the same boundary, once it has written the checkpoint.
    """
    failed = {rank: outcome for rank, outcome in sorted(peers.poll(seconds).items()) if outcome["status"] not in ENDED}
    if not failed:
        return None
    is_lost = {rank: outcome["status"] == FailureKind.WORKER_LOST for rank, outcome in failed.items()}
    rank = min(failed, key=lambda rank: (is_lost[rank], is_lost[rank] and bool(failed[rank]["message"])))
    outcome, name = failed[rank], f"worker {rank + 1} of {workers}"
    if is_lost[rank]:
        return WorkerLostError(f"{name} was lost")
    if outcome.get("address", peers.address) != peers.address:
        name += f" on {outcome['address']}"
    origin = {key: outcome.get(key, "") for key in ("node", "place", "traceback")}
    return OtherWorkerError(FailureKind(outcome["status"]), f"{name}: {outcome['message']}", **origin)

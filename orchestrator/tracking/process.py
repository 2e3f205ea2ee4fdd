"""The tracking thread in a process of its own, so that the driver's Python is free for Ray.

The child runs the same TrackingThread. Calls go to it as pickled frames through its standard input; its status comes back
through its standard output. It ends when the pipe closes, and with a driver that is killed, so a sweep never has two writers.
"""

from __future__ import annotations

import ctypes
import math
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO

from orchestrator.process.import_paths import ROOT
from orchestrator.tracking.background_sync import TrackingThread
from orchestrator.tracking.client import import_mlflow
from orchestrator.tracking.patience import Patience
from orchestrator.tracking.protocol import Tracking
from orchestrator.tracking.records import RunSpec
from orchestrator.tracking.sweep_run import SweepRunSpec
from orchestrator.tracking.sweep_summary import SweepSummary
from trainables.records.metrics import Point

# Only the two packages are imported from the folder of this code: neither its other files nor the current folder may shadow a
# module. Not -m, since frames name their classes by module.
CHILD = (
    "import sys; sys.path.insert(0, sys.argv[2]); import orchestrator, trainables; del sys.path[0]; "
    f"from {__name__} import main; main()"
)
REPORT_INTERVAL_S = 0.1
CLOSE_TIMEOUT_S = 2.0  # for the child to end by itself
_PR_SET_PDEATHSIG = 1  # prctl.h of Linux


@dataclass(kw_only=True)
class _Status:
    """What the child reports: how many calls it has taken, and the status of its thread."""

    calls: int
    pending: int
    last_error: str | None
    run_ids: dict[str, str]  # new ones
    experiment_id: str
    parent_run_id: str
    database: int | None
    cpu_seconds: float
    flushes: int
    progress: int
    messages: list[str]  # new ones


class TrackingProcess(Tracking):
    """Takes updates of a sweep's items at any time, and has a child process send them; see `Tracking`."""

    def __init__(self, sweep_run: SweepRunSpec) -> None:
        self.last_error: str | None = None
        self.run_ids: dict[str, str] = {}
        self.experiment_id = ""
        self.parent_run_id = ""
        self.database: int | None = None
        self.cpu_seconds = 0.0
        self._messages: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._sweep_run = sweep_run
        self._child: subprocess.Popen[bytes] | None = None
        self._calls: queue.SimpleQueue[tuple[str, tuple[Any, ...]] | None] = queue.SimpleQueue()
        self._sent = self._acknowledged = self._pending = 0  # calls sent and acknowledged; events that wait in the child
        self._flushes = self._flushed = self._progress = 0
        self._closed = self._lost = False

    def start(self) -> None:
        self._child = subprocess.Popen(
            [sys.executable, "-P", "-c", CHILD, str(os.getpid()), str(ROOT)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for the driver
        )
        for work in (self._send, self._receive):
            threading.Thread(target=work, name=f"mlflow {work.__name__}", daemon=True).start()

    def start_item(self, item: RunSpec) -> None:
        self._call("start_item", item, int(time.time() * 1000))

    def points(self, item: RunSpec, points: Sequence[Point]) -> None:
        self._call("points", item, list(points))

    def finish(self, item: RunSpec) -> None:
        self._call("finish", item)

    def fail(self, item: RunSpec, message: str) -> None:
        self._call("fail", item, message)

    def stop(self, item: RunSpec) -> None:
        self._call("stop", item)

    def reconcile(self, items: Sequence[tuple[RunSpec, str]]) -> None:
        self._call("reconcile", list(items))

    def summarize(self, summary: SweepSummary) -> None:
        self._call("summarize", summary)

    def close_sweep(self, status: str, summary: SweepSummary) -> None:
        self._call("close_sweep", status, summary)

    def take_messages(self) -> list[str]:
        """Messages on what was done to the store, since the last call."""
        return [self._messages.get() for _ in range(self._messages.qsize())]

    @property
    def pending(self) -> int:
        """Events that are not in MLflow yet."""
        return self._sent - self._acknowledged + self._pending

    @property
    def progress(self) -> int:
        return self._progress

    def flush(self, stalled_s: float, most_s: float = math.inf, give_up: Callable[[], bool] = lambda: False) -> bool:
        """See `Tracking`; also gives up when `give_up` says so, which is asked again and again."""
        patience = Patience(stalled_s, most_s)
        self._flushes += 1
        self._calls.put(("flush", (stalled_s, most_s)))
        while self._flushed < self._flushes and not self._lost and not patience.is_over(self.progress) and not give_up():
            time.sleep(0.02)
        return not self.pending

    def close(self) -> None:
        """Ends the process; what is pending stays so. A request that hangs is cut off."""
        self._closed = True
        self._calls.put(None)
        if self._child is not None:
            try:
                self._child.wait(timeout=CLOSE_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._child.kill()
                self._child.wait()

    def _call(self, name: str, *arguments: Any) -> None:
        self._sent += 1
        self._calls.put((name, arguments))

    def _send(self) -> None:
        assert self._child is not None
        assert self._child.stdin is not None
        with suppress(OSError), self._child.stdin as pipe:  # `_receive` reports a lost child
            pickle.dump(self._sweep_run, pipe)
            while (call := self._calls.get()) is not None:
                pickle.dump(call, pipe)
                pipe.flush()

    def _receive(self) -> None:
        assert self._child is not None
        assert self._child.stdout is not None
        with suppress(EOFError, OSError, pickle.UnpicklingError), self._child.stdout as pipe:
            while True:
                status: _Status = pickle.load(pipe)
                self.run_ids |= status.run_ids
                self.experiment_id, self.parent_run_id = status.experiment_id, status.parent_run_id
                self.last_error, self.cpu_seconds, self.database = status.last_error, status.cpu_seconds, status.database
                for notify in status.messages:
                    self._messages.put(notify)
                self._pending, self._acknowledged, self._flushed = status.pending, status.calls, status.flushes
                self._progress = status.progress
        self._lost = True
        if not self._closed:
            self.last_error = "the process that writes to MLflow has ended"


class _Child:
    """The other end: hands the calls to a TrackingThread and reports its status."""

    def __init__(self, calls: BinaryIO, reports: BinaryIO) -> None:
        sweep_run: SweepRunSpec = pickle.load(calls)
        uri = sweep_run.target.uri
        self.messages: list[str] = []
        open_sync = partial(sweep_run.open, notify=self._notify)
        self.thread = TrackingThread(open_sync, import_first=lambda: import_mlflow(uri))
        self.calls, self.reports = calls, reports
        self.lock = threading.Lock()
        self.taken = self.flushes = 0
        self.reported: _Status | None = None
        self.reported_ids: dict[str, str] = {}
        self.reported_messages = 0

    def _notify(self, message: str) -> None:
        if message not in self.messages:  # what goes wrong each time is said once
            self.messages.append(message)

    def run(self) -> None:
        """Until the driver closes its end."""
        self.thread.start()
        threading.Thread(target=self._report_loop, name="report", daemon=True).start()
        with suppress(EOFError):
            while True:
                name, arguments = pickle.load(self.calls)
                if name == "flush":
                    self.thread.flush(*arguments)
                    self.flushes += 1
                else:
                    with self.lock:
                        getattr(self.thread, name)(*arguments)
                        self.taken += 1

    def _report_loop(self) -> None:
        with suppress(OSError):
            while True:
                self._report()
                time.sleep(REPORT_INTERVAL_S)

    def _report(self) -> None:
        thread = self.thread
        with self.lock:  # else a call could be counted neither as sent nor as pending
            new = {key: run_id for key, run_id in dict(thread.run_ids).items() if self.reported_ids.get(key) != run_id}
            messages = self.messages[self.reported_messages :]
            status = _Status(
                calls=self.taken,
                flushes=self.flushes,
                progress=thread.progress,
                messages=messages,
                pending=thread.pending,
                last_error=thread.last_error,
                run_ids=new,
                experiment_id=thread.experiment_id,
                parent_run_id=thread.parent_run_id,
                database=thread.database,
                cpu_seconds=thread.cpu_seconds,
            )
        if status != self.reported:
            pickle.dump(status, self.reports)
            self.reports.flush()
            self.reported_ids |= new
            self.reported_messages += len(messages)
            self.reported = status


def _end_with(driver: int) -> None:
    """A driver that is killed takes this process with it, on Linux; elsewhere the closed pipe ends it soon after."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != driver:
        os._exit(0)


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the driver decides when to end
    _end_with(int(sys.argv[1]))
    reports = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever prints must not get between the frames
    _Child(sys.stdin.buffer, reports).run()
    os._exit(0)  # without waiting for a request that hangs

"""The background thread that keeps MLflow up to date while trials run.

It never raises into the driver and never blocks it. Updates are queued, batched per run, and sent about once a second. While
the server is away they wait; `sync` restores from the trial folders what is not sent at the end.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from orchestrator.back_off import BackOff
from orchestrator.tracking.client import import_mlflow
from orchestrator.tracking.patience import Patience
from orchestrator.tracking.protocol import Tracking
from orchestrator.tracking.records import RunSpec
from orchestrator.tracking.run_sync import RunSync
from orchestrator.tracking.sweep_summary import SweepSummary
from trainables.records.metrics import Point

UpdateKey = tuple[str, str]  # role and key of an item

BACK_OFF = BackOff((1.0, 2.0, 4.0, 8.0, 16.0, 30.0))
FLUSH_INTERVAL_S = 0.2  # between attempts while `flush` waits
MAX_FAILED_ATTEMPTS = 3  # after which `flush` gives up
FIRST: UpdateKey = ("reconcile", "")  # sent before the updates of items
LAST: UpdateKey = ("sweep", "")  # sent after them

log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class _PendingUpdate:
    """What MLflow does not know yet of one item, or of the whole sweep.

    Attributes:
        started_ms: when the item started, if MLflow does not know it.
        end: brings the run to its final state, the start and the points of this update included.
        waits_for_others: it is sent after everything else.
        events: how many calls of the driver this stands for.
    """

    item: RunSpec | None = None
    started_ms: int | None = None
    points: list[Point] = field(default_factory=list)
    end: Callable[[RunSync, _PendingUpdate], object] | None = None
    waits_for_others: bool = False
    events: int = 1
    failures: int = 0
    not_before: float = 0.0

    def add(self, later: _PendingUpdate) -> None:
        """Adds what happened afterwards; of starts and ends only the last one counts."""
        if later.started_ms is not None:
            self.started_ms, self.end = self.started_ms or later.started_ms, None
        self.points += later.points  # in place: an outage may last for hours
        self.end = later.end or self.end
        self.waits_for_others = self.waits_for_others or later.waits_for_others
        self.events += later.events

    def send(self, sync: RunSync) -> None:
        if self.end is not None:
            self.end(sync, self)
        elif self.item and self.started_ms is not None:
            sync.start(self.item, self.started_ms, self.points)
        elif self.item:
            sync.add_points(self.item, self.points)

    def on_failure(self) -> None:
        self.failures += 1
        self.not_before = time.monotonic() + BACK_OFF.delay_s(self.failures)


class TrackingThread(Tracking):
    """Takes updates of a sweep's items at any time, and sends them to MLflow. See `Tracking` for its attributes."""

    def __init__(
        self,
        open_sync: Callable[[], RunSync],
        interval_s: float = 1.0,
        import_first: Callable[[], None] = import_mlflow,
        flush_interval_s: float = FLUSH_INTERVAL_S,
    ) -> None:
        """`open_sync` makes a RunSync and opens its sweep; it is called in the thread, again after an outage."""
        self.last_error: str | None = None
        self.run_ids: dict[str, str] = {}
        self.experiment_id = ""
        self.parent_run_id = ""
        self.database: int | None = None
        self.cpu_seconds = 0.0
        self._open_sync = open_sync
        self._import_first = import_first
        self._imported_at: float | None = None  # time.process_time()
        self._interval_s = interval_s
        self._flush_interval_s = flush_interval_s
        self._sync: RunSync | None = None
        self._lock = threading.Lock()
        self._updates: dict[UpdateKey, _PendingUpdate] = {}
        self._sending = 0
        self._sent = 0
        self._changed: set[UpdateKey] = set()  # items that the driver has reported since it called `reconcile`
        self._states: dict[UpdateKey, tuple[RunSpec, str]] = {}  # of all items, as the driver reported them last
        self._replaced = False
        self._wake = threading.Event()
        self._flushing = False
        self._closed = False
        self._failed_attempts = 0
        self._thread = threading.Thread(target=self._run, name="mlflow", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def start_item(self, item: RunSpec, started_ms: int | None = None) -> None:
        self._add(_PendingUpdate(item=item, started_ms=started_ms or int(time.time() * 1000)), state="running")

    def points(self, item: RunSpec, points: Sequence[Point]) -> None:
        self._add(_PendingUpdate(item=item, points=list(points)))

    def finish(self, item: RunSpec) -> None:
        self._end(item, "finished", lambda sync, update: sync.finish(item, update.started_ms, update.points))

    def fail(self, item: RunSpec, message: str) -> None:
        self._end(item, "failed", lambda sync, update: sync.fail(item, message, update.started_ms, update.points))

    def stop(self, item: RunSpec) -> None:
        self._end(item, "stopped", lambda sync, update: sync.stop(item, update.started_ms, update.points))

    def reconcile(self, items: Sequence[tuple[RunSpec, str]]) -> None:
        """Brings MLflow up to date with the states as they are now, before the updates that come later."""
        states = list(items)
        with self._lock:
            self._changed.clear()
            self._states = {(item.role, item.key): (item, state) for item, state in states}

        def send(sync: RunSync, update: _PendingUpdate) -> None:
            with self._lock:
                changed = set(self._changed)  # if this is late or repeated, their state is out of date
            sync.reconcile([(item, "running" if (item.role, item.key) in changed else state) for item, state in states])

        self._add(_PendingUpdate(end=send), FIRST)

    def summarize(self, summary: SweepSummary) -> None:
        """Brings what is shown of the sweep as a whole up to date; of several that wait, the last one counts."""
        self._add(_PendingUpdate(end=lambda sync, update: sync.summarize(summary)), LAST)

    def close_sweep(self, status: str, summary: SweepSummary) -> None:
        """Ends the sweep's run after all other updates."""
        end = _PendingUpdate(end=lambda sync, update: sync.close_sweep(status, summary), waits_for_others=True)
        self._add(end, LAST)

    @property
    def pending(self) -> int:
        with self._lock:
            return sum(update.events for update in self._updates.values()) + self._sending

    @property
    def progress(self) -> int:
        sync = self._sync
        return self._sent + (sync.items_done if sync else 0)

    def flush(self, stalled_s: float, most_s: float = math.inf) -> bool:
        patience = Patience(stalled_s, most_s)
        before = self._failed_attempts
        self._flushing = True
        self._wake.set()
        while self.pending and self._thread.is_alive() and not patience.is_over(self.progress):
            if self._failed_attempts - before >= MAX_FAILED_ATTEMPTS:
                break
            time.sleep(0.02)
        self._flushing = False
        return not self.pending

    def close(self) -> None:
        """Ends the thread; what is pending stays so. A request that hangs is abandoned."""
        self._closed = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout=2.0)

    def _end(self, item: RunSpec, state: str, end: Callable[[RunSync, _PendingUpdate], object]) -> None:
        self._add(_PendingUpdate(item=item, end=end), state=state)

    def _add(self, update: _PendingUpdate, key: UpdateKey | None = None, state: str = "") -> None:
        with self._lock:
            if update.item:
                key = (update.item.role, update.item.key)
                self._changed.add(key)
                if state:
                    self._states[key] = (update.item, state)
            assert key is not None
            if key in self._updates:
                self._updates[key].add(update)
            else:
                self._updates[key] = update

    def _run(self) -> None:
        failures = 0
        while not self._closed:
            pause_s = BACK_OFF.delay_s(failures) if failures else self._interval_s
            self._wake.wait(min(pause_s, self._flush_interval_s) if self._flushing else pause_s)
            self._wake.clear()
            before = self.pending
            try:
                self._send_all()
                failures = 0
            except Exception as error:  # whatever it is, the sweep goes on without MLflow, and its status shows the reason
                failures = failures + 1 if self._sync is None else 0
                if self.last_error is None:
                    log.info("MLflow: %s", error)
                self.last_error = str(error) or type(error).__name__
                if self.pending >= before:
                    self._failed_attempts += 1
            if not self.pending:
                self.last_error = None
            self._count_cpu()

    def _count_cpu(self) -> None:
        if self._imported_at is not None:
            self.cpu_seconds = time.process_time() - self._imported_at

    def _send_all(self) -> None:
        """Sends what is due. What fails is put back and does not hold up the rest; the first failure is raised at the end.

        Raises at once if MLflow cannot be reached.
        """
        if self._sync and self._sync.is_replaced():
            self._sync, self._replaced = None, True
        if not self.pending and self._sync:
            return
        problem: Exception | None = None
        with self._lock:
            keys = sorted(self._updates, key=lambda key: (key == LAST, key != FIRST))
        for key in keys:
            sync = self._sync = self._sync or self._open()
            update = self._take(key)
            if update is None:
                continue
            try:
                update.send(sync)
            except Exception as error:
                problem = problem or error
                update.on_failure()
                self._put_back(key, update)
                self._refresh(sync, update.item)  # what it knows may be wrong now
            else:
                self._sent += update.events
            self._count_cpu()
            with self._lock:
                self._sending = 0
            self.run_ids |= sync.run_ids() if update.item is None else _run_id(sync, update.item)
        self._sync = self._sync or self._open()
        if problem:
            raise problem

    def _open(self) -> RunSync:
        if self._imported_at is None:
            self._import_first()
            self._imported_at = time.process_time()
        sync = self._open_sync()
        if self._replaced or self.database not in (None, sync.database):  # it lacks what was sent to the former one
            with self._lock:
                states = list(self._states.values())
            sync.reconcile(states)
            self.run_ids |= sync.run_ids()
            self._replaced = False
        self.database = sync.database
        self.experiment_id, self.parent_run_id = sync.experiment_id, sync.parent_run_id
        return sync

    def _refresh(self, sync: RunSync, item: RunSpec | None) -> None:
        try:
            sync.refresh(item)
        except Exception:
            self._sync = None
            raise

    def _take(self, key: UpdateKey) -> _PendingUpdate | None:
        with self._lock:
            update = self._updates[key]
            is_early = update.waits_for_others and any(
                other != LAST and not self._updates[other].failures for other in self._updates
            )
            if is_early or (time.monotonic() < update.not_before and not self._flushing):
                return None
            del self._updates[key]
            self._sending = update.events
            return update

    def _put_back(self, key: UpdateKey, update: _PendingUpdate) -> None:
        with self._lock:
            if later := self._updates.get(key):
                update.add(later)
            self._updates[key] = update
            self._sending = 0


def _run_id(sync: RunSync, item: RunSpec) -> dict[str, str]:
    run = sync.runs.by_key.get((item.role, item.key))
    return {item.key: run.run_id} if run else {}

"""The background thread that keeps MLflow up to date while trials run.

Nothing here raises into the driver or waits for the tracking server: news are noted at once and sent about once a second,
all of one run together. While the server is away they wait, and what is left at the end `sync` makes up from the trial
folders.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from orchestrator.tracking.client import import_mlflow
from orchestrator.tracking.records import RunSpec
from orchestrator.tracking.run_sync import RunSync
from trainables.records.metrics import Point

BACK_OFF_S = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
HURRY_S = 0.2  # between attempts while `flush` waits
FRUITLESS_ATTEMPTS = 3  # after which `flush` gives up
FIRST, LAST = ("reconcile", ""), ("sweep", "")  # keys of what is sent before and after the news of items

log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class _PendingUpdate:
    """What MLflow does not know yet of one item, or of the whole sweep.

    Attributes:
        begun_ms: when the item began, if that is news.
        end: brings the run to its final state, the beginning and the points of these news included.
        events: how many calls of the driver this stands for.
    """

    item: RunSpec | None = None
    begun_ms: int | None = None
    points: list[Point] = field(default_factory=list)
    end: Callable[[RunSync, _PendingUpdate], object] | None = None
    events: int = 1
    failures: int = 0
    not_before: float = 0.0

    def add(self, later: _PendingUpdate) -> None:
        """Takes in what happened afterwards; of begin and end only the last one counts."""
        if later.begun_ms is not None:
            self.begun_ms, self.end = self.begun_ms or later.begun_ms, None
        self.points = self.points + later.points
        self.end = later.end or self.end
        self.events += later.events

    def send(self, mirror: RunSync) -> None:
        if self.end is not None:
            self.end(mirror, self)
        elif self.item and self.begun_ms is not None:
            mirror.start(self.item, self.begun_ms, self.points)
        elif self.item:
            mirror.add_points(self.item, self.points)

    def failed(self) -> None:
        self.not_before = time.monotonic() + BACK_OFF_S[min(self.failures, len(BACK_OFF_S) - 1)]
        self.failures += 1


class TrackingThread:
    """Takes news of a sweep's items at any time, and brings them to MLflow.

    Attributes:
        last_error: why an attempt failed; None again when all is sent.
        run_ids: trial key or warm-up key -> run id.
        experiment_id, parent_run_id: empty until MLflow was reached for the first time.
        database: number of the database that these are in; see RunSync.
        cpu_seconds: CPU time of the process since mlflow was imported, which takes seconds; opening the store counts.
    """

    def __init__(
        self,
        mirror_factory: Callable[[], RunSync],
        interval_s: float = 1.0,
        import_first: Callable[[], None] = import_mlflow,
    ) -> None:
        """`mirror_factory` makes a RunSync and opens its sweep; it is called in the thread, again after an outage."""
        self.last_error: str | None = None
        self.run_ids: dict[str, str] = {}
        self.experiment_id = ""
        self.parent_run_id = ""
        self.database: int | None = None
        self.cpu_seconds = 0.0
        self._factory = mirror_factory
        self._import_first = import_first
        self._imported_at: float | None = None  # time.process_time()
        self._interval_s = interval_s
        self._mirror: RunSync | None = None
        self._lock = threading.Lock()
        self._news: dict[tuple[str, str], _PendingUpdate] = {}
        self._sending = 0
        self._told: set[tuple[str, str]] = set()
        self._states: dict[tuple[str, str], tuple[RunSpec, str]] = {}  # of all items, as the driver told them last
        self._replaced = False
        self._wake = threading.Event()
        self._in_a_hurry = False
        self._closed = False
        self._fruitless = 0
        self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def start_item(self, item: RunSpec, begun_ms: int | None = None) -> None:
        self._note(_PendingUpdate(item=item, begun_ms=begun_ms or int(time.time() * 1000)), state="running")

    def points(self, item: RunSpec, points: Sequence[Point]) -> None:
        self._note(_PendingUpdate(item=item, points=list(points)))

    def finish(self, item: RunSpec) -> None:
        self._note(
            _PendingUpdate(item=item, end=lambda mirror, news: mirror.finish(item, news.begun_ms, news.points)),
            state="finished",
        )

    def fail(self, item: RunSpec, message: str) -> None:
        self._note(
            _PendingUpdate(item=item, end=lambda mirror, news: mirror.fail(item, message, news.begun_ms, news.points)),
            state="failed",
        )

    def stop(self, item: RunSpec) -> None:
        self._note(
            _PendingUpdate(item=item, end=lambda mirror, news: mirror.stop(item, news.begun_ms, news.points)), state="stopped"
        )

    def reconcile(self, items: Sequence[tuple[RunSpec, str]]) -> None:
        """Brings MLflow up to date with the states as they are now, before the news that come later."""
        states = list(items)
        with self._lock:
            self._told.clear()
            self._states = {(item.role, item.key): (item, state) for item, state in states}

        def send(mirror: RunSync, news: _PendingUpdate) -> None:
            with self._lock:
                told = set(self._told)  # if this is late or repeated, their state is out of date
            mirror.reconcile([(item, "running" if (item.role, item.key) in told else state) for item, state in states])

        self._note(_PendingUpdate(end=send), FIRST)

    def close_sweep(self, status: str, artifacts: dict[str, bytes]) -> None:
        """Ends the sweep's run after all other news."""
        self._note(_PendingUpdate(end=lambda mirror, news: mirror.close_sweep(status, artifacts)), LAST)

    @property
    def pending(self) -> int:
        """Events that are not in MLflow yet."""
        with self._lock:
            return sum(news.events for news in self._news.values()) + self._sending

    def flush(self, deadline_s: float) -> bool:
        """Waits until everything is in MLflow, and returns whether it is; gives up early if attempts get nowhere."""
        deadline = time.monotonic() + deadline_s
        before = self._fruitless
        self._in_a_hurry = True
        self._wake.set()
        while self.pending and self._thread.is_alive() and time.monotonic() < deadline:
            if self._fruitless - before >= FRUITLESS_ATTEMPTS:
                break
            time.sleep(0.02)
        self._in_a_hurry = False
        return not self.pending

    def close(self) -> None:
        """Ends the thread; what is pending stays so. A request that hangs is left to itself."""
        self._closed = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout=2.0)

    def _note(self, news: _PendingUpdate, key: tuple[str, str] | None = None, state: str = "") -> None:
        with self._lock:
            if news.item:
                key = (news.item.role, news.item.key)
                self._told.add(key)
                if state:
                    self._states[key] = (news.item, state)
            assert key is not None
            if key in self._news:
                self._news[key].add(news)
            else:
                self._news[key] = news

    def _work(self) -> None:
        failures = 0
        while not self._closed:
            pause = BACK_OFF_S[min(failures, len(BACK_OFF_S)) - 1] if failures else self._interval_s
            self._wake.wait(min(pause, HURRY_S) if self._in_a_hurry else pause)
            self._wake.clear()
            before = self.pending
            try:
                self._send_all()
                failures = 0
            except Exception as error:  # whatever it is, the sweep goes on without MLflow, and the reason is told
                failures = failures + 1 if self._mirror is None else 0
                if self.last_error is None:
                    log.info("MLflow: %s", error)
                self.last_error = str(error) or type(error).__name__
                if self.pending >= before:
                    self._fruitless += 1
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
        if self._mirror and self._mirror.is_replaced():
            self._mirror, self._replaced = None, True
        if not self.pending and self._mirror:
            return
        problem: Exception | None = None
        with self._lock:
            keys = sorted(self._news, key=lambda key: (key == LAST, key != FIRST))
        for key in keys:
            mirror = self._mirror = self._mirror or self._open()
            news = self._take(key)
            if news is None:
                continue
            try:
                news.send(mirror)
            except Exception as error:
                problem = problem or error
                news.failed()
                self._put_back(key, news)
                self._refresh(mirror, news.item)  # what it knows may be wrong now
            self._count_cpu()
            with self._lock:
                self._sending = 0
            self.run_ids |= mirror.run_ids() if news.item is None else _run_id(mirror, news.item)
        self._mirror = self._mirror or self._open()
        if problem:
            raise problem

    def _open(self) -> RunSync:
        if self._imported_at is None:
            self._import_first()
            self._imported_at = time.process_time()
        mirror = self._factory()
        if self._replaced or self.database not in (None, mirror.database):  # it does not know what was sent to the former one
            with self._lock:
                states = list(self._states.values())
            mirror.reconcile(states)
            self.run_ids |= mirror.run_ids()
            self._replaced = False
        self.database = mirror.database
        self.experiment_id, self.parent_run_id = mirror.experiment_id, mirror.parent_run_id
        return mirror

    def _refresh(self, mirror: RunSync, item: RunSpec | None) -> None:
        try:
            mirror.refresh(item)
        except Exception:
            self._mirror = None
            raise

    def _take(self, key: tuple[str, str]) -> _PendingUpdate | None:
        with self._lock:
            news = self._news[key]
            untried = key == LAST and any(other != LAST and not self._news[other].failures for other in self._news)
            if untried or (time.monotonic() < news.not_before and not self._in_a_hurry):
                return None
            del self._news[key]
            self._sending = news.events
            return news

    def _put_back(self, key: tuple[str, str], news: _PendingUpdate) -> None:
        with self._lock:
            if later := self._news.get(key):
                news.add(later)
            self._news[key] = news
            self._sending = 0


def _run_id(mirror: RunSync, item: RunSpec) -> dict[str, str]:
    run = mirror.runs.by_key.get((item.role, item.key))
    return {item.key: run.run_id} if run else {}

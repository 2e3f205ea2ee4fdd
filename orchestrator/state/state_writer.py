"""Writes state.json in the background, as often as the storage allows."""

from __future__ import annotations

import threading
import time

from orchestrator.state.driver_liveness import this_driver
from orchestrator.state.sweep_folder import SweepFolder
from orchestrator.state.sweep_state import SweepState, TrialStatus, WarmupStatus, state_to_bytes

WRITE_INTERVAL_S = 2.0
WRITE_INTERVAL_FACTOR = 20.0  # times the duration of the last write: writes take at most a twentieth of the time
HEARTBEAT_INTERVAL_S = 10.0
CLOSE_TIMEOUT_S = 5.0  # for the last write, if the storage hangs


class StateWriter:
    """Keeps state.json up to date from a thread, so that a slow storage never blocks the driver.

    Change the state under `lock`, then call `changed` with the entry. Other entries are not encoded again: with thousands of
    trials that alone would keep a processor busy.

    Attributes:
        problem: why the last write failed; None if it did not.
    """

    def __init__(
        self,
        folder: SweepFolder,
        state: SweepState,
        heartbeat_interval_s: float = HEARTBEAT_INTERVAL_S,
        write_interval_s: float = WRITE_INTERVAL_S,
        write_interval_factor: float = WRITE_INTERVAL_FACTOR,
    ) -> None:
        self.folder = folder
        self.state = state
        self.heartbeat_interval_s = heartbeat_interval_s
        self.write_interval_s = write_interval_s
        self.write_interval_factor = write_interval_factor
        self.lock = threading.Lock()
        self.problem: OSError | None = None
        self._texts: dict[str, str] = {}  # key of a trial or warm-up -> its JSON
        self._changed = threading.Event()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="state-writer", daemon=True)

    def start(self) -> None:
        with self.lock:
            self.state.driver = this_driver() | {"storage": self.folder.storage.root}
        self._write()
        self._thread.start()

    def changed(self, entry: TrialStatus | WarmupStatus | None = None) -> None:
        """Schedules a write because of a change to an entry, or to the sweep itself."""
        if entry is not None:
            with self.lock:
                self._texts.pop(entry.key, None)
        self._changed.set()

    def close(self) -> None:
        """Writes the last state, without a driver; waits for that no longer than CLOSE_TIMEOUT_S."""
        self._closed.set()
        self._changed.set()
        self._thread.join(CLOSE_TIMEOUT_S)

    def _run(self) -> None:
        """Writes until `close`, and once more then. No other thread writes, so an older state never replaces a newer one."""
        started = time.monotonic()
        while not self._closed.is_set():
            self._changed.wait(timeout=max(0.0, started + self.heartbeat_interval_s - time.monotonic()))
            self._changed.clear()
            started = time.monotonic()
            self._write()
            seconds = time.monotonic() - started
            pause = max(self.write_interval_s, self.write_interval_factor * seconds)
            self._closed.wait(timeout=min(pause, max(0.0, self.heartbeat_interval_s - seconds)))
        with self.lock:
            self.state.driver = {}
            self._texts.clear()
        self._write()

    def _write(self) -> None:
        with self.lock:
            if self.state.driver:
                self.state.driver["heartbeat"] = time.time()
            content = state_to_bytes(self.state, self._texts)
        try:
            self.folder.storage.write(self.folder.file("state.json"), content)
            self.problem = None
        except OSError as error:  # the next change tries again, and results do not depend on this file
            self.problem = error
            self.state.tracking_error = f"state.json cannot be written: {error}"

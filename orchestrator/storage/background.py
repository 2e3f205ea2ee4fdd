"""Background threads for slow storages, so that callers do not wait: polling for files, and appending to texts."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from trainables.errors import StorageError

if TYPE_CHECKING:
    from orchestrator.storage.base import Storage

POLL_INTERVAL_S = 2.0
POLL_TIMEOUT_S = 1.0  # for the answer to one look
APPEND_INTERVAL_S = 5.0


def run_with_timeout(seconds: float, action: Callable[[], object]) -> None:
    """Runs an action whose failure does not matter; after a timeout it continues in a daemon thread."""

    def attempt() -> None:
        with suppress(StorageError):
            action()

    thread = threading.Thread(target=attempt, name="storage", daemon=True)
    thread.start()
    thread.join(seconds)


class ExistencePoller:
    """Polls for expected files in a background thread, so that a storage which hangs never blocks the caller."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self.existing: set[str] = set()
        self.polled_at: dict[str, float] = {}
        self.thread: threading.Thread | None = None

    def exists(self, name: str) -> bool:
        """The last answer, at most POLL_INTERVAL_S old. A failure counts as no: the next write will raise it."""
        due = time.monotonic() - self.polled_at.get(name, -POLL_INTERVAL_S) >= POLL_INTERVAL_S
        if due and not (self.thread and self.thread.is_alive()):
            self.thread = threading.Thread(target=self._poll, args=(name,), name="existence-poller", daemon=True)
            self.thread.start()
            self.thread.join(POLL_TIMEOUT_S)
        return name in self.existing

    def _poll(self, name: str) -> None:
        with suppress(StorageError):
            if self.storage.exists(name):
                self.existing.add(name)
            else:
                self.existing.discard(name)
        self.polled_at[name] = time.monotonic()


class BufferedAppend:
    """A growing text in a storage that cannot append: kept in memory, and written as a whole after the earlier content."""

    def __init__(self, storage: Storage, name: str, interval_s: float = APPEND_INTERVAL_S) -> None:
        self.storage = storage
        self.name = name
        self.interval_s = interval_s
        self.before: bytes | None = None
        self.text = ""
        self.sent = 0
        self.lock = threading.Lock()
        self.sending = threading.Lock()
        self.timer: threading.Timer | None = None

    def add(self, text: str) -> None:
        with self.lock:
            self.text += text
            if self.timer is None:
                self.timer = threading.Timer(self.interval_s, self.send)
                self.timer.daemon = True
                self.timer.start()

    def send(self) -> None:
        """Writes all of the text; where that fails, the next call does it."""
        with self.sending:
            with self.lock:
                text, self.timer = self.text, None
            if len(text) == self.sent:
                return
            with suppress(StorageError):
                if self.before is None:
                    self.before = self.storage.read(self.name) or b""
                self.storage.write(self.name, self.before + text.encode())
                self.sent = len(text)

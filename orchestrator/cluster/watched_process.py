"""A process of the cluster that runs users' code before a sweep, and is ended if it gives no sign of life."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import ray

from orchestrator.cluster.process_ending import ProcessEnding, Worker
from orchestrator.process.patience import SIGNS_OF_LIFE, AttentiveClock, hang
from trainables.runtime.heartbeat import INTERVAL_S, heard_by
from trainables.runtime.stacks import stacks_on_signal

POLL_S = 0.1


class HungProcessError(Exception):
    """The process gave no sign of life for too long, and was ended; the message says where it was.

    Attributes:
        stacks: of its threads.
    """

    def __init__(self, message: str, stacks: str) -> None:
        super().__init__(message)
        self.stacks = stacks


class _Work:
    """The actor in that process: calls run one after the other in one thread, and another thread tells of them."""

    def __init__(self, signs_s: float) -> None:
        self.signs_s = signs_s
        self.subject: Any = None
        self.heard: float | None = None  # the last sign of life of a call that runs

    @ray.method(concurrency_group="pulse")  # type: ignore[untyped-decorator]
    def pulse(self) -> dict[str, Any]:
        """Where this process is, and for how long its call has been silent; None between calls."""
        heard = self.heard
        silent_s = None if heard is None else time.monotonic() - heard
        node = str(ray.get_runtime_context().get_node_id())
        return {"node": node, "pid": os.getpid(), "stacks": stacks_on_signal(), "silent_s": silent_s}

    def create(self, make: Callable[..., Any], *arguments: Any) -> None:
        self.subject = self.call(make, *arguments)

    def ask(self, method: str, *arguments: Any) -> Any:
        return self.call(getattr(self.subject, method), *arguments)

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        self._hear()
        try:
            with heard_by(self._hear, self.signs_s):
                return function(*arguments)
        finally:
            self.heard = None

    def _hear(self) -> None:
        self.heard = time.monotonic()


class WatchedProcess:
    """The driver's side.

    Attributes:
        limit_s: seconds without a sign of life after which a call counts as hung; it waits for its resources without limit.
        work: the actor, whose methods are called as usual.
    """

    def __init__(self, limit_s: float, **options: Any) -> None:
        self.limit_s = limit_s
        actor = ray.remote(concurrency_groups={"pulse": 1}, **options)(_Work)
        self.work = actor.remote(min(INTERVAL_S, limit_s / SIGNS_OF_LIFE))
        self._pulse = self.work.pulse.remote()
        self._worker: Worker | None = None
        self._clock = AttentiveClock()
        self._heard = self._clock()
        self._ending: ProcessEnding | None = None

    def look(self) -> None:
        """Listens for a sign of life; to be called every second or so while a call runs.

        Raises:
            HungProcessError: there was none for too long.
        """
        now = self._clock()
        if self._ending is not None:
            if (answers := self._ending.answers()) is not None:
                raise HungProcessError(hang(self.limit_s, answers[0]["state"]), answers[0]["stacks"])
        elif ray.wait([self._pulse], timeout=0)[0]:
            self._listen(now)
        elif self._worker is not None and now - self._heard > self.limit_s:
            self._ending = ProcessEnding(self._worker)

    def _listen(self, now: float) -> None:
        try:
            pulse = ray.get(self._pulse)
        except ray.exceptions.RayError:  # its call fails too, and says so
            return
        self._worker = Worker(node=pulse["node"], pid=pulse["pid"], stacks=pulse["stacks"])
        self._heard = max(self._heard, now - (pulse["silent_s"] or 0.0))
        if now - self._heard > self.limit_s:
            self._ending = ProcessEnding(self._worker)
        self._pulse = self.work.pulse.remote()

    def result(self, call: Any) -> Any:
        """The result of a call that has ended.

        Raises:
            HungProcessError: it ended since the process was killed for its silence.
            ray.exceptions.RayError: it failed.
        """
        try:
            return ray.get(call)
        except ray.exceptions.RayActorError:
            while self._ending is not None:  # until its node has said where it hung
                self.look()
                time.sleep(POLL_S)
            raise

    def kill(self) -> None:
        ray.kill(self.work)

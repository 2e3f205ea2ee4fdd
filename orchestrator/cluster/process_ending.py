"""Has a node end one of its processes that hangs, without waiting for it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from orchestrator.cluster.remote_call import call_on, is_answered, reason_of, result_of
from orchestrator.process.hung_process import end_hung_process

GIVE_UP_S = 60.0  # after which a node that does not answer, or a process that does not end, is left alone


@dataclass(frozen=True, kw_only=True)
class Worker:
    """A process of the cluster, and the descriptor of its stacks."""

    node: str
    pid: int
    stacks: int


class ProcessEnding:
    """The end of a process, from the request until its node has answered."""

    def __init__(self, worker: Worker) -> None:
        self._call = call_on(worker.node, end_hung_process, worker.pid, worker.stacks)
        self._since = time.monotonic()
        self._answer: dict[str, Any] | None = None

    @property
    def is_late(self) -> bool:
        return time.monotonic() - self._since > GIVE_UP_S

    def answer(self) -> dict[str, Any] | None:
        """What `end_hung_process` returned, or why the node did not do it; None while it may still answer."""
        if self._answer is None and is_answered(self._call):
            try:
                self._answer = result_of(self._call)
            except Exception as error:  # the node is lost, or its call failed
                self._answer = {"state": f"its node could not end it: {reason_of(error)}", "stacks": ""}
        if self._answer is None and self.is_late:
            self._answer = {"state": "its node did not answer", "stacks": ""}
        return self._answer

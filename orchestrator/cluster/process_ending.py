"""Has nodes end processes that hang, without waiting for them: all workers of a stage together."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.cluster.remote_call import call_on, is_answered, reason_of, result_of
from orchestrator.process.hung_process import end_hung_processes

GIVE_UP_S = 60.0  # after which a node that does not answer, or a process that does not end, is left alone


@dataclass(frozen=True, kw_only=True)
class Worker:
    """A process of the cluster, and the descriptor of its stacks."""

    node: str
    pid: int
    stacks: int


class ProcessEnding:
    """The end of processes, from the request until their nodes have answered."""

    def __init__(self, *workers: Worker) -> None:
        self.workers = workers
        self._calls = [
            _NodeEnding(node, [one for one in workers if one.node == node]) for node in {one.node for one in workers}
        ]
        self._since = time.monotonic()

    @property
    def is_late(self) -> bool:
        return time.monotonic() - self._since > GIVE_UP_S

    def answers(self) -> list[dict[str, Any]] | None:
        """What `end_hung_process` returned for each, or why its node did not do it; None while one may still answer."""
        answers: dict[Worker, dict[str, Any]] = {}
        for call in self._calls:
            if (of_node := call.answers(self.is_late)) is None:
                return None
            answers |= zip(call.workers, of_node, strict=True)
        return [answers[worker] for worker in self.workers]


class _NodeEnding:
    """The end of the processes of one node."""

    def __init__(self, node: str, workers: Sequence[Worker]) -> None:
        self.workers = workers
        self._call = call_on(node, end_hung_processes, [(one.pid, one.stacks) for one in workers])
        self._answers: list[dict[str, Any]] | None = None

    def answers(self, is_late: bool) -> list[dict[str, Any]] | None:
        if self._answers is None and is_answered(self._call):
            try:
                self._answers = result_of(self._call)
            except Exception as error:  # the node is lost, or its call failed
                self._answers = self._unanswered(f"its node could not end it: {reason_of(error)}")
        if self._answers is None and is_late:
            self._answers = self._unanswered("its node did not answer")
        return self._answers

    def _unanswered(self, state: str) -> list[dict[str, Any]]:
        return [{"state": state, "stacks": "", "letter": "", "place": ""} for _ in self.workers]

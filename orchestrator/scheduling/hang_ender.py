"""Ends the workers of stages that hang: asks their node for the stacks and to kill the process, without waiting for it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from orchestrator.cluster.hung_worker import end_hung_worker
from orchestrator.cluster.remote_call import call_on, is_answered, reason_of, result_of
from orchestrator.scheduling.watchdog import Silence, Watchdog

GIVE_UP_S = 60.0  # after which a node that does not answer, or a process that does not end, is left alone


@dataclass(frozen=True, kw_only=True)
class Worker:
    """Where a stage runs, and the descriptor of its process's stacks."""

    node: str
    pid: int
    stacks: int


@dataclass(frozen=True, kw_only=True)
class Hang:
    """Why a stage was ended, in one line, and the stacks of its process."""

    message: str
    stacks: str


@dataclass(kw_only=True)
class _Ending:
    """A worker that is being ended; `answer` is that of its node."""

    silence: Silence
    call: Any
    since: float
    answer: dict[str, Any] | None = None

    def hang(self) -> Hang:
        answer = self.answer or {"state": "its node did not answer", "stacks": ""}
        details = [str(self.silence), *([answer["state"]] if answer["state"] else [])]
        return Hang(message=", ".join(details), stacks=answer["stacks"])


@dataclass
class HangEnder:
    """The workers of all running stages, by the id of their run."""

    watchdog: Watchdog
    workers: dict[str, Worker] = field(default_factory=dict)
    endings: dict[str, _Ending] = field(default_factory=dict)

    def begin(self, run: str, kind: str, worker: Worker) -> None:
        self.workers[run] = worker
        self.watchdog.begin(run, kind)

    def hear(self, run: str) -> None:
        self.watchdog.hear(run)

    def end(self, run: str, *, finished: bool) -> None:
        """Forgets a run that has reported its end, even if its worker is just being ended."""
        self.lose(run, finished=finished)
        self.endings.pop(run, None)

    def lose(self, run: str, *, finished: bool = False) -> None:
        """Watches no longer a run whose process is gone; why it was ended, if it was, can be taken."""
        self.watchdog.end(run, finished=finished)
        self.workers.pop(run, None)

    def look(self) -> list[str]:
        """Begins to end the workers of silent stages, and returns the runs whose workers do not end: to be given up."""
        for silence in self.watchdog.silent():
            if silence.run not in self.endings:
                worker = self.workers[silence.run]
                call = call_on(worker.node, end_hung_worker, worker.pid, worker.stacks)
                self.endings[silence.run] = _Ending(silence=silence, call=call, since=time.monotonic())
        return [run for run, ending in self.endings.items() if _is_late(ending)]

    def take(self, run: str) -> Hang | None:
        """Why a run was ended, once its node has answered; None until then."""
        ending = self.endings[run]
        self._take_answer(ending)
        if ending.answer is None and not _is_late(ending):
            return None
        del self.endings[run]
        return ending.hang()

    def _take_answer(self, ending: _Ending) -> None:
        if ending.answer is None and is_answered(ending.call):
            try:
                ending.answer = result_of(ending.call)
            except Exception as error:  # the node is lost, or its call failed
                ending.answer = {"state": f"its node could not end it: {reason_of(error)}", "stacks": ""}


def _is_late(ending: _Ending) -> bool:
    return time.monotonic() - ending.since > GIVE_UP_S

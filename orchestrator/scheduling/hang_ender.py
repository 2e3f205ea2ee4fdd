"""Ends the workers of stages that hang, and keeps why until it is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from orchestrator.cluster.process_ending import ProcessEnding, Worker
from orchestrator.scheduling.watchdog import Silence, Watchdog

# The states of a process, as Linux names them: of workers that wait for each other the first ones hold up the rest.
ORDER = {letter: order for order, letter in enumerate("TtDRS")}
MEETING = "group.py ", "placement.py "  # a worker that is there waits for the others, on a GPU in state R


@dataclass(frozen=True, kw_only=True)
class Hang:
    """Why a stage was ended, in one line, the stacks of its processes, and the nodes of those that held it up."""

    message: str
    stacks: str
    nodes: frozenset[str]


@dataclass
class HangEnder:
    """The workers of all running stages, by the id of their run."""

    watchdog: Watchdog
    workers: dict[str, tuple[Worker, ...]] = field(default_factory=dict)
    endings: dict[str, tuple[Silence, ProcessEnding]] = field(default_factory=dict)

    def begin(self, run: str, kind: str, workers: Sequence[Worker], predicted_s: float | None = None) -> None:
        self.workers[run] = tuple(workers)
        self.watchdog.begin(run, kind, predicted_s)

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
                self.endings[silence.run] = silence, ProcessEnding(*self.workers[silence.run])
        return [run for run, (_, ending) in self.endings.items() if ending.is_late]

    def take(self, run: str) -> Hang | None:
        """Why a run was ended, once its nodes have answered; None until then."""
        silence, ending = self.endings[run]
        answers = ending.answers()
        if answers is None:
            return None
        del self.endings[run]
        return hang_of(silence, ending.workers, answers)


def hang_of(silence: Silence, workers: Sequence[Worker], answers: Sequence[dict[str, Any]]) -> Hang:
    """The hang of a stage by the states of its workers, those that held it up first.

    A worker that was stopped, or is not where workers wait, holds up the others; where all do the same, each may be to blame.

    Args:
        answers: of `end_hung_process`, for each worker.
    """
    orders = [(answer["place"].startswith(MEETING), ORDER.get(answer["letter"], len(ORDER))) for answer in answers]
    to_blame = frozenset(worker.node for worker, order in zip(workers, orders, strict=True) if order == min(orders))
    if len(workers) == 1:
        return Hang(message=f"{silence}, {answers[0]['state']}", stacks=answers[0]["stacks"], nodes=to_blame)
    states: dict[str, list[int]] = {}
    for index in sorted(range(len(workers)), key=lambda index: orders[index]):
        states.setdefault(answers[index]["state"], []).append(index + 1)
    seen = "; ".join(f"{worker_text(numbers, len(workers))}: {state}" for state, numbers in states.items())
    stacks = [f"{worker_text([number], len(workers))}\n{answer['stacks']}" for number, answer in enumerate(answers, 1)]
    return Hang(message=f"{silence}, {seen}", stacks="\n\n".join(stacks), nodes=to_blame)


def worker_text(numbers: Sequence[int], count: int) -> str:
    """Such as "worker 2 of 4" or "workers 1, 3 and 4 of 4"."""
    *others, last = map(str, numbers)
    return f"workers {', '.join(others)} and {last} of {count}" if others else f"worker {last} of {count}"

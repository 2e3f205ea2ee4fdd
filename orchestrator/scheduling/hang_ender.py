"""Ends the workers of stages that hang, and keeps why until it is asked for."""

from __future__ import annotations

from dataclasses import dataclass, field

from orchestrator.cluster.process_ending import ProcessEnding, Worker
from orchestrator.scheduling.watchdog import Silence, Watchdog


@dataclass(frozen=True, kw_only=True)
class Hang:
    """Why a stage was ended, in one line, and the stacks of its process."""

    message: str
    stacks: str


@dataclass
class HangEnder:
    """The workers of all running stages, by the id of their run."""

    watchdog: Watchdog
    workers: dict[str, Worker] = field(default_factory=dict)
    endings: dict[str, tuple[Silence, ProcessEnding]] = field(default_factory=dict)

    def begin(self, run: str, kind: str, worker: Worker, predicted_s: float | None = None) -> None:
        self.workers[run] = worker
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
                self.endings[silence.run] = silence, ProcessEnding(self.workers[silence.run])
        return [run for run, (_, ending) in self.endings.items() if ending.is_late]

    def take(self, run: str) -> Hang | None:
        """Why a run was ended, once its node has answered; None until then."""
        silence, ending = self.endings[run]
        answer = ending.answer()
        if answer is None:
            return None
        del self.endings[run]
        return Hang(message=", ".join(filter(None, (str(silence), answer["state"]))), stacks=answer["stacks"])

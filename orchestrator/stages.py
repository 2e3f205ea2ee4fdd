"""Which stage runs next: longest trunk first, a trial when its snapshot is there, failures again by their kind.

Pure bookkeeping without Ray. Trunks and trials are entries with a state; a trial waits for the snapshot at its longest
length, which its trunk announces. The gate is advisory: if nothing runs and trials wait, they are let go, since a trial
can train its own warm-up (trainables/warmup.py). Read by: scheduling.py.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

ACTIVE_STATES = ("handed out", "running")
BACK_OFF_S = (1, 2, 5, 10, 30, 60)


@dataclass(kw_only=True)
class Entry:
    """A trunk or a trial of the sweep, and how it fares.

    Attributes:
        key: trial key, or warm-up key of a trunk.
        warmup_key: the trunk that a trial waits for; None if it needs none or warm-ups are not shared.
        lengths: warm-up lengths that a trial reads, or that a trunk publishes.
        work: epochs and rounds, to let long ones begin first.
        state: "waiting", "handed out" (to Tune), "running", "finished", "failed" or "stopped".
        losses: attempts that ended because the process was lost, which are limited; lost nodes are not counted.
        whole_gpu: run alone on a GPU, after it was out of memory once.
        not_before: monotonic time before which it is not tried again.
    """

    kind: str
    key: str
    name: str
    config: dict[str, Any]
    work: int
    warmup_key: str | None = None
    lengths: tuple[int, ...] = ()
    state: str = "waiting"
    attempt: int = 0
    losses: int = 0
    node_losses: int = 0
    whole_gpu: bool = False
    not_before: float = 0.0
    message: str = ""
    failure: str = ""

    @property
    def longest(self) -> int:
        return max(self.lengths, default=0)


@dataclass(kw_only=True)
class StageQueue:
    """The stages of one sweep.

    `on_change` is called with every entry whose state changed; `newest_attempt` tells the newest attempt at a trial on record.
    """

    trunks: dict[str, Entry]
    trials: dict[str, Entry]
    most_losses: int = 10
    on_change: Callable[[Entry], None] = lambda entry: None
    newest_attempt: Callable[[str], int] = lambda key: 0
    stopping: bool = False
    landed: dict[str, int] = field(default_factory=dict)  # warm-up key -> longest snapshot announced

    def next_entry(self) -> Entry | None:
        """The entry to run now, marked as handed out, with a new attempt; None if there is none at the moment."""
        if self.stopping:
            return None
        now = time.monotonic()
        waiting = [entry for entry in self._entries() if entry.state == "waiting"]
        due = [entry for entry in waiting if entry.not_before <= now]
        ready = [entry for entry in due if entry.kind == "trunk" or self._snapshot_landed(entry)]
        if not ready and not self._active() and not any(entry.kind == "trunk" for entry in waiting):
            ready = due
        if not ready:
            return None
        chosen = max(ready, key=lambda entry: (entry.kind == "trunk", entry.longest * (entry.kind == "trunk"), entry.work))
        chosen.state, chosen.message, chosen.failure = "handed out", "", ""
        # Somebody else may have tried since: another sweep with the same trial, or the command `trial`.
        chosen.attempt = max(chosen.attempt, self.newest_attempt(chosen.key)) + 1
        return chosen

    def begun(self, entry: Entry) -> None:
        """A worker has taken the entry up; until then it waits in Tune's own queue."""
        entry.state = "running"
        self.on_change(entry)

    @property
    def done(self) -> bool:
        """Nothing runs and nothing will."""
        if self.stopping:
            return not self._active()
        return not any(entry.state in ("waiting", *ACTIVE_STATES) for entry in self._entries())

    def snapshot_landed(self, warmup_key: str, epoch: int) -> None:
        self.landed[warmup_key] = max(epoch, self.landed.get(warmup_key, 0))

    def ended(self, entry: Entry, status: str, message: str = "") -> None:
        """Takes note of how a stage ended.

        status: "finished", "stopped", "superseded", "lost" (process), "lost_node", "oom", or a kind of failure that would
        only repeat itself.
        """
        entry.message = message
        if status == "finished":
            entry.state = "finished"
            if entry.kind == "trunk":
                self.snapshot_landed(entry.key, entry.longest)
        elif status in ("stopped", "superseded"):
            entry.state = "stopped"
        elif status == "lost_node":
            self._again(entry, entry.node_losses)
            entry.node_losses += 1
        elif status == "lost" and entry.losses < self.most_losses:
            self._again(entry, entry.losses)
            entry.losses += 1
        elif status == "oom" and not entry.whole_gpu:
            entry.whole_gpu = True
            self._again(entry, 0)
        else:
            self._fail(entry, status, message)
        self.on_change(entry)

    def _again(self, entry: Entry, times: int) -> None:
        entry.state = "waiting"
        entry.not_before = time.monotonic() + BACK_OFF_S[min(times, len(BACK_OFF_S) - 1)]

    def _fail(self, entry: Entry, kind: str, message: str) -> None:
        entry.state, entry.failure = "failed", kind
        if entry.kind == "trunk":
            for trial in self.trials.values():
                if trial.warmup_key == entry.key and trial.state == "waiting" and not self._snapshot_landed(trial):
                    trial.state, trial.failure = "failed", kind
                    trial.message = f"its warm-up {entry.name} failed: {message}"
                    self.on_change(trial)

    def _entries(self) -> list[Entry]:
        return [*self.trunks.values(), *self.trials.values()]

    def _active(self) -> bool:
        return any(entry.state in ACTIVE_STATES for entry in self._entries())

    def _snapshot_landed(self, trial: Entry) -> bool:
        """Whether the snapshot is there, or no trunk of this sweep will make it."""
        trunk = self.trunks.get(trial.warmup_key or "")
        return trunk is None or self.landed.get(trunk.key, 0) >= trial.longest or trunk.state == "stopped"

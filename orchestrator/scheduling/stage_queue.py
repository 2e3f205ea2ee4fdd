"""Which stage runs next: longest trunk first, a trial when its snapshot is there, failures again by their kind.

Pure bookkeeping without Ray. Trunks and trials are entries with a state; a trial waits for the snapshot at its longest
length, which its trunk announces. The gate is advisory: if nothing runs and trials wait, they are let go, since a trial
can train its own warm-up (trainables/trial/warmup.py). A step costs the same with ten trials and with ten thousand.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from trainables.errors import StorageError

ACTIVE_STATES = ("handed out", "running")
BACK_OFF_S = (1, 2, 5, 10, 30, 60)


@dataclass(kw_only=True)
class QueuedStage:
    """A trunk or a trial of the sweep, and how it fares.

    Attributes:
        key: trial key, or warm-up key of a trunk.
        warmup_key: the trunk that a trial waits for; None if it needs none or warm-ups are not shared.
        lengths: warm-up lengths that a trial reads, or that a trunk publishes.
        work: epochs and rounds, to let long ones begin first.
        state: "waiting", "handed out" (to Tune), "running", "finished", "failed" or "stopped".
        losses: attempts that ended because the process or the storage was lost, which are limited; lost nodes are not counted.
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

    `on_change` is called with every entry whose state changed; `newest_attempt` tells the newest attempt at a trial on record,
    or raises StorageError: then nothing is handed out for some time.
    `whole_gpu_helps`: trials share GPUs, so one that is out of memory gets a second chance alone.
    """

    trunks: dict[str, QueuedStage]
    trials: dict[str, QueuedStage]
    most_losses: int = 10
    on_change: Callable[[QueuedStage], None] = lambda entry: None
    newest_attempt: Callable[[str], int] = lambda key: 0
    whole_gpu_helps: bool = True
    stopping: bool = False
    landed: dict[str, int] = field(default_factory=dict)  # warm-up key -> longest snapshot announced
    _ready: list[tuple[tuple[int, ...], QueuedStage]] = field(default_factory=list)  # a heap, the next one first
    _gated: dict[str, list[QueuedStage]] = field(default_factory=dict)  # warm-up key -> trials that wait for a snapshot
    _active: set[tuple[str, str]] = field(default_factory=set)
    _places: dict[tuple[str, str], int] = field(default_factory=dict)  # equal ones run in the order of the plan
    _unanswered: int = 0  # times in a row that the storage did not tell the newest attempt
    _not_before: float = 0.0  # monotonic time before which nothing is handed out

    def __post_init__(self) -> None:
        for entry in (*self.trunks.values(), *self.trials.values()):
            self._places[entry.kind, entry.key] = len(self._places)
            if entry.state == "waiting":
                self._wait(entry)

    def next_entry(self) -> QueuedStage | None:
        """The entry to run now, marked as handed out, with a new attempt; None if there is none at the moment."""
        if self.stopping or time.monotonic() < self._not_before:
            return None
        if not self._ready and not self._active:
            for warmup_key in list(self._gated):
                self._release(warmup_key, everything=True)
        chosen = self._first_due()
        if chosen is None:
            return None
        try:  # Somebody else may have tried since: another sweep with the same trial, or the command `trial`.
            newest = self.newest_attempt(chosen.key)
        except StorageError as error:
            self._hold(chosen, str(error))
            return None
        self._unanswered = 0
        chosen.state, chosen.message, chosen.failure = "handed out", "", ""
        self._active.add((chosen.kind, chosen.key))
        chosen.attempt = max(chosen.attempt, newest) + 1
        return chosen

    def returned(self, entry: QueuedStage) -> None:
        """Takes back an entry that no worker has taken up, as if it had not been handed out."""
        self._active.discard((entry.kind, entry.key))
        entry.state, entry.attempt = "waiting", entry.attempt - 1
        self._push(entry)

    def _hold(self, entry: QueuedStage, message: str) -> None:
        """Hands out nothing for some time: an attempt whose number the storage does not tell would be refused."""
        self._not_before = time.monotonic() + BACK_OFF_S[min(self._unanswered, len(BACK_OFF_S) - 1)]
        self._unanswered += 1
        self._push(entry)
        entry.message = message
        self.on_change(entry)

    def _first_due(self) -> QueuedStage | None:
        """The first ready entry whose time has come, taken out; those that wait for another try are few."""
        now = time.monotonic()
        early = []
        chosen = None
        while self._ready and chosen is None:
            rank, entry = heapq.heappop(self._ready)
            if entry.not_before > now:
                early.append((rank, entry))
            else:
                chosen = entry
        for item in early:
            heapq.heappush(self._ready, item)
        return chosen

    def begun(self, entry: QueuedStage) -> None:
        """A worker has taken the entry up; until then it waits in Tune's own queue."""
        entry.state = "running"
        self.on_change(entry)

    @property
    def done(self) -> bool:
        """Nothing runs and nothing will."""
        return not self._active and (self.stopping or not (self._ready or self._gated))

    def snapshot_landed(self, warmup_key: str, epoch: int) -> None:
        if epoch > self.landed.get(warmup_key, 0):
            self.landed[warmup_key] = epoch
            self._release(warmup_key)

    def ended(self, entry: QueuedStage, status: str, message: str = "") -> None:
        """Takes note of how a stage ended.

        status: "finished", "stopped", "superseded", "lost" (process), "storage" (out of reach), "lost_node", "misplaced" (on a
        node that cannot run it), "oom", or a kind of failure that would only repeat itself.
        """
        self._active.discard((entry.kind, entry.key))
        entry.message = message
        if status == "finished":
            entry.state = "finished"
            if entry.kind == "trunk":
                self.snapshot_landed(entry.key, entry.longest)
        elif status in ("stopped", "superseded"):
            entry.state = "stopped"
            if entry.kind == "trunk":
                self._release(entry.key)
        elif status == "lost_node":
            self._again(entry, entry.node_losses)
            entry.node_losses += 1
        elif status == "misplaced":
            self._again(entry, 0)
        elif status in ("lost", "storage") and entry.losses < self.most_losses:
            self._again(entry, entry.losses)
            entry.losses += 1
        elif status == "oom" and self.whole_gpu_helps and not entry.whole_gpu:
            entry.whole_gpu = True
            self._again(entry, 0)
        else:
            self._fail(entry, status, message)
        self.on_change(entry)

    def _again(self, entry: QueuedStage, times: int) -> None:
        entry.state = "waiting"
        entry.not_before = time.monotonic() + BACK_OFF_S[min(times, len(BACK_OFF_S) - 1)]
        self._wait(entry)

    def _fail(self, entry: QueuedStage, kind: str, message: str) -> None:
        entry.state, entry.failure = "failed", kind
        if entry.kind == "trunk":
            for trial in self._gated.pop(entry.key, ()):
                trial.state, trial.failure = "failed", kind
                trial.message = f"its warm-up {entry.name} failed: {message}"
                self.on_change(trial)

    def _wait(self, entry: QueuedStage) -> None:
        """Puts a waiting entry where `next_entry` finds it, or behind the snapshot that it needs."""
        if entry.kind == "trunk" or self._snapshot_landed(entry):
            self._push(entry)
        else:
            self._gated.setdefault(str(entry.warmup_key), []).append(entry)

    def _push(self, entry: QueuedStage) -> None:
        is_trunk = entry.kind == "trunk"
        rank = (-is_trunk, -entry.longest * is_trunk, -entry.work, self._places[entry.kind, entry.key])
        heapq.heappush(self._ready, (rank, entry))

    def _release(self, warmup_key: str, everything: bool = False) -> None:
        """Lets the trials go whose snapshot is there, or all that wait for this trunk."""
        for trial in self._gated.pop(warmup_key, ()):
            self._push(trial) if everything else self._wait(trial)

    def _snapshot_landed(self, trial: QueuedStage) -> bool:
        """Whether the snapshot is there, or no trunk of this sweep will make it."""
        trunk = self.trunks.get(trial.warmup_key or "")
        return trunk is None or self.landed.get(trunk.key, 0) >= trial.longest or trunk.state == "stopped"

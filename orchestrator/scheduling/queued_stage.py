"""A stage in the queue: a shared warm-up or a trial, with its state and its failures so far."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal

from trainables.errors import FailureKind


class StageState(StrEnum):
    """The state of a stage. All but DISPATCHED are stored in state.json."""

    WAITING = "waiting"
    DISPATCHED = "dispatched"  # handed to Tune, no worker has taken it up
    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    STOPPED = "stopped"

    @property
    def is_active(self) -> bool:
        return self in (StageState.DISPATCHED, StageState.RUNNING)


@dataclass(kw_only=True)
class QueuedStage:
    """A shared warm-up or a trial of the sweep, with its state.

    Attributes:
        key: trial key or warm-up key.
        warmup_key: the warm-up that a trial waits for; None if it needs none or warm-ups are not shared.
        lengths: warm-up lengths that a trial reads, or that a warm-up publishes.
        rungs: sparse epochs after which a trial waits for the decision whether it goes on.
        dispatched_lengths: those of the last attempt; others may be added while it runs.
        work: epochs and rounds, to start long stages first.
        worker_failures: attempts that ended because the process or the storage was lost; they are limited.
        node_failures: attempts that ended because the node was lost; they are not.
        whole_gpu: run alone on a GPU, after it was out of memory once.
        not_before: time of the queue's clock before which it is not tried again.
        failure: why it failed; None in other states.
    """

    kind: Literal["warmup", "trial"]
    key: str
    name: str
    config: dict[str, Any]
    work: int
    warmup_key: str | None = None
    lengths: tuple[int, ...] = ()
    rungs: tuple[int, ...] = ()
    dispatched_lengths: tuple[int, ...] = ()
    state: StageState = StageState.WAITING
    attempt: int = 0
    worker_failures: int = 0
    node_failures: int = 0
    whole_gpu: bool = False
    not_before: float = 0.0
    message: str = ""
    failure: FailureKind | None = None

    @property
    def is_warmup(self) -> bool:
        return self.kind == "warmup"

    @property
    def longest(self) -> int:
        return max(self.lengths, default=0)

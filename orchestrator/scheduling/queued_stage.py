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
        lengths: warm-up lengths that a trial reads, or that a warm-up publishes; of an automatic one the most.
        rules: those that choose the length of an automatic warm-up (`warmup_rule`), as canonical configurations.
        rungs: sparse epochs after which a trial waits for the decision whether it goes on.
        dispatched_lengths, dispatched_rules: those of the last attempt; others may be added while it runs.
        work: epochs and rounds, to start long stages first.
        worker_failures: attempts that ended because the process or the storage was lost; they are limited.
        node_failures: attempts that ended because the node was lost; they are not.
        hung_on: nodes on which an attempt reported nothing for too long.
        whole_gpu: run alone on a GPU, after it was out of memory once.
        not_before: time of the queue's clock before which it is not tried again.
        place: FILE:LINE at which its last attempt failed; empty where that is not known.
        failure: why it failed; None in other states.
        last_failure: why its last attempt ended, whatever followed; None of one that succeeded.
    """

    kind: Literal["warmup", "trial"]
    key: str
    name: str
    config: dict[str, Any]
    work: int
    warmup_key: str | None = None
    lengths: tuple[int, ...] = ()
    rules: tuple[dict[str, Any], ...] = ()
    rungs: tuple[int, ...] = ()
    dispatched_lengths: tuple[int, ...] = ()
    dispatched_rules: tuple[dict[str, Any], ...] = ()
    state: StageState = StageState.WAITING
    attempt: int = 0
    worker_failures: int = 0
    node_failures: int = 0
    hangs: int = 0
    hung_on: frozenset[str] = frozenset()
    whole_gpu: bool = False
    not_before: float = 0.0
    message: str = ""
    place: str = ""
    failure: FailureKind | None = None
    last_failure: FailureKind | None = None

    @property
    def is_warmup(self) -> bool:
        return self.kind == "warmup"

    @property
    def longest(self) -> int:
        return max(self.lengths, default=0)

    def published_after(self, epochs: int) -> int:
        """The longest length that a running warm-up has published; what its rules choose is known when it has ended."""
        return max((n for n in self.lengths if n <= epochs and not (self.rules and n == self.longest)), default=0)

    def dispatch(self) -> None:
        """Begins another attempt, at what the stage has to do by now."""
        self.dispatched_lengths, self.dispatched_rules = self.lengths, self.rules

    def join(self, other: QueuedStage) -> None:
        """Takes over what another stage of the same warm-up publishes, or what a trial of it needs."""
        self.lengths = tuple(sorted({*self.lengths, *other.lengths}))
        self.rules = (*self.rules, *(rule for rule in other.rules if rule not in self.rules))

    @property
    def has_new_rules(self) -> bool:
        """Whether rules were added since the last attempt."""
        return any(rule not in self.dispatched_rules for rule in self.rules)

"""Which stage runs next: warm-ups before trials, the longest first, a trial once its snapshot is published.

Pure bookkeeping without Ray. A trial waits for the snapshot of its longest length, which its warm-up announces. If nothing runs
and trials still wait, they are released: a trial can train its warm-up itself (trainables/trial/warmup.py). What follows a
failure is decided in retry_policy.py. A stage that another sweep computes waits for that, and then takes up what it left.

A step costs the same with ten trials and with ten thousand.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from orchestrator.scheduling.queued_stage import QueuedStage, StageState
from orchestrator.scheduling.retry_policy import BACK_OFF, Action, Counter, Decision, RetryContext, decide
from trainables.errors import FailureKind, StorageError

ELSEWHERE_DELAY_S = 15.0  # until the queue looks again whether another sweep computes a stage


@dataclass(kw_only=True)
class StageQueue:
    """The stages of one sweep.

    Attributes:
        on_change: called with every stage whose state changed.
        newest_attempt: the newest recorded attempt at a trial; after a StorageError nothing is dispatched for some time.
        computing_elsewhere: the other sweep that runs the trial or warm-up of a key; empty if none does. Raises StorageError.
        can_retry_on_whole_gpu: trials share GPUs, so one that is out of memory gets a second try alone.
        clock: seconds that only grow.
        refill: called when nothing is ready; may add stages.
        stopping: nothing new begins, and what runs was asked to stop.
        paused: nothing new begins, and what runs goes on.
        published: warm-up key -> longest snapshot announced.
    """

    warmups: dict[str, QueuedStage]
    trials: dict[str, QueuedStage]
    max_worker_failures: int = 10
    on_change: Callable[[QueuedStage], None] = lambda stage: None
    newest_attempt: Callable[[str], int] = lambda key: 0
    computing_elsewhere: Callable[[str], str] = lambda key: ""
    can_retry_on_whole_gpu: bool = True
    clock: Callable[[], float] = time.monotonic
    refill: Callable[[], None] = lambda: None
    stopping: bool = False
    paused: bool = False
    published: dict[str, int] = field(default_factory=dict)
    _ready: list[tuple[tuple[int, ...], QueuedStage]] = field(default_factory=list)  # a heap, the next one first
    _blocked: dict[str, list[QueuedStage]] = field(default_factory=dict)  # warm-up key -> trials that wait for a snapshot
    _active: set[tuple[str, str]] = field(default_factory=set)
    _plan_order: dict[tuple[str, str], int] = field(default_factory=dict)
    _failed_lookups: int = 0  # of the newest attempt, in a row
    _paused_until: float = 0.0

    def __post_init__(self) -> None:
        for stage in self.stages():
            self._plan_order[stage.kind, stage.key] = len(self._plan_order)
            if stage.state is StageState.WAITING:
                self._enqueue(stage)

    def stages(self) -> list[QueuedStage]:
        return [*self.warmups.values(), *self.trials.values()]

    def active(self) -> list[QueuedStage]:
        """The stages that are dispatched or run."""
        return [(self.warmups if kind == "warmup" else self.trials)[key] for kind, key in self._active]

    def next_stage(self) -> QueuedStage | None:
        """The stage to run now, marked as dispatched, with a new attempt; None if there is none at the moment."""
        if self.closed or self.clock() < self._paused_until:
            return None
        if not self._ready:
            self.refill()
        if not self._ready and not self._active:
            for warmup_key in list(self._blocked):
                self._release(warmup_key, everything=True)
        while (stage := self._pop_due()) is not None:
            try:
                elsewhere = self.computing_elsewhere(stage.key)
                # The command `trial`, or another sweep with the same trial, may have made an attempt since.
                newest = self.newest_attempt(stage.key)
            except StorageError as error:
                self._pause_dispatch(stage, str(error))
                return None
            self._failed_lookups = 0
            if not elsewhere:
                break
            self._wait_for(stage, elsewhere)
        if stage is None:
            return None
        stage.state, stage.message, stage.place, stage.failure = StageState.DISPATCHED, "", "", None
        self._active.add((stage.kind, stage.key))
        stage.attempt = max(stage.attempt, newest) + 1
        stage.dispatch()
        return stage

    @property
    def occupied(self) -> int:
        """Stages that run, or that could."""
        return len(self._active) + len(self._ready)

    @property
    def blocked(self) -> int:
        """Trials that wait for a snapshot."""
        return sum(map(len, self._blocked.values()))

    def refill_if_idle(self) -> None:
        """Asks for more stages when there is nothing left, so that `done` says whether there are any."""
        if not self._active and not self._ready and not self._blocked and not self.closed:
            self.refill()

    def add(self, trial: QueuedStage, warmup: QueuedStage | None) -> None:
        """Adds a trial while the queue runs, with the warm-up that publishes its snapshots if it shares one."""
        if warmup is not None:
            self._add_warmup(warmup)
        self.trials[trial.key] = trial
        self._plan_order[trial.kind, trial.key] = len(self._plan_order)
        self._enqueue(trial)

    def _add_warmup(self, warmup: QueuedStage) -> None:
        """Adds a warm-up, or what one of the same key lacks; it goes on from its longest snapshot."""
        present = self.warmups.get(warmup.key)
        if present is None:
            self.warmups[warmup.key] = warmup
            self._plan_order[warmup.kind, warmup.key] = len(self._plan_order)
            self._push(warmup)
            return
        present.join(warmup)
        present.work = max(present.work, warmup.work)
        if present.state in (StageState.FINISHED, StageState.STOPPED) and self._has_more_to_do(present):
            present.state = StageState.WAITING
            self._push(present)

    def requeue(self, stage: QueuedStage) -> None:
        """Takes back a stage that no worker has taken up, as if it had not been dispatched."""
        self._active.discard((stage.kind, stage.key))
        stage.state, stage.attempt = StageState.WAITING, stage.attempt - 1
        self._push(stage)

    def on_start(self, stage: QueuedStage) -> None:
        """A worker has taken the stage up; until then it waits in Tune's own queue."""
        stage.state = StageState.RUNNING
        self.on_change(stage)

    @property
    def done(self) -> bool:
        """Whether nothing runs and nothing will."""
        return not self._active and (self.closed or not (self._ready or self._blocked))

    @property
    def closed(self) -> bool:
        """Whether nothing new begins."""
        return self.stopping or self.paused

    @property
    def has_waiting(self) -> bool:
        """Whether trials have not begun that would."""
        return any(trial.state in (StageState.WAITING, StageState.DISPATCHED) for trial in self.trials.values())

    def on_snapshot(self, warmup_key: str, epoch: int) -> None:
        """A snapshot was published; trials that need no longer one are released."""
        if epoch > self.published.get(warmup_key, 0):
            self.published[warmup_key] = epoch
            self._release(warmup_key)

    def on_end(
        self, stage: QueuedStage, failure: FailureKind | None = None, message: str = "", *, has_other_node: bool = False
    ) -> None:
        """An attempt has ended, with a kind of failure unless the stage is finished."""
        self._active.discard((stage.kind, stage.key))
        stage.message, stage.last_failure = message, failure
        if failure is None:
            self._finish(stage)
        else:
            self._apply(stage, decide(failure, self._retry_context(stage, has_other_node)))
        self.on_change(stage)

    def _retry_context(self, stage: QueuedStage, has_other_node: bool) -> RetryContext:
        return RetryContext(
            worker_failures=stage.worker_failures,
            node_failures=stage.node_failures,
            hangs=stage.hangs,
            max_worker_failures=self.max_worker_failures,
            can_use_whole_gpu=self.can_retry_on_whole_gpu and not stage.whole_gpu,
            has_other_node=has_other_node,
        )

    def _apply(self, stage: QueuedStage, decision: Decision) -> None:
        if decision.action is Action.FAIL:
            self._fail(stage, decision.kind)
        elif decision.action in (Action.STOP, Action.STOP_SWEEP):
            self.stopping = self.stopping or decision.action is Action.STOP_SWEEP
            self._stop(stage)
        else:
            self._retry(stage, decision)

    def _finish(self, stage: QueuedStage) -> None:
        stage.state = StageState.FINISHED
        if stage.is_warmup:
            self._finish_warmup(stage)

    def _finish_warmup(self, stage: QueuedStage) -> None:
        """Announces the snapshots; lengths that were added while it ran are trained next."""
        self.on_snapshot(stage.key, max(stage.dispatched_lengths, default=0))
        if self._has_more_to_do(stage):
            stage.state = StageState.WAITING
            self._push(stage)

    def _has_more_to_do(self, warmup: QueuedStage) -> bool:
        return self.published.get(warmup.key, 0) < warmup.longest or warmup.has_new_rules

    def _stop(self, stage: QueuedStage) -> None:
        stage.state = StageState.STOPPED
        if stage.is_warmup:
            self._release(stage.key)

    def _fail(self, stage: QueuedStage, kind: FailureKind) -> None:
        stage.state, stage.failure = StageState.FAILED, kind
        if stage.is_warmup:
            for trial in self._blocked.pop(stage.key, ()):
                trial.state, trial.failure, trial.last_failure = StageState.FAILED, kind, kind
                trial.message, trial.place = f"its warm-up {stage.name} failed: {stage.message}", stage.place
                self.on_change(trial)

    def _retry(self, stage: QueuedStage, decision: Decision) -> None:
        stage.worker_failures += decision.counter is Counter.WORKER_FAILURES
        stage.node_failures += decision.counter is Counter.NODE_FAILURES
        stage.hangs += decision.counter is Counter.HANGS
        stage.whole_gpu = stage.whole_gpu or decision.action is Action.RETRY_ON_WHOLE_GPU
        stage.state = StageState.WAITING
        stage.not_before = self.clock() + decision.delay_s
        self._enqueue(stage)

    def _pause_dispatch(self, stage: QueuedStage, message: str) -> None:
        """Dispatches nothing for some time: without the newest attempt's number the storage would reject the next one."""
        self._failed_lookups += 1
        self._paused_until = self.clock() + BACK_OFF.delay_s(self._failed_lookups)
        self._push(stage)
        stage.message, stage.last_failure = message, FailureKind.STORAGE
        self.on_change(stage)

    def _wait_for(self, stage: QueuedStage, sweep: str) -> None:
        """Leaves a stage to the sweep that computes it, until that has ended."""
        stage.not_before = self.clock() + ELSEWHERE_DELAY_S
        self._push(stage)
        message = f"sweep {sweep!r} computes it; waits for that"
        if stage.message != message:
            stage.message, stage.last_failure = message, None
            self.on_change(stage)

    def _pop_due(self) -> QueuedStage | None:
        """Takes out the first ready stage whose time has come; those that wait for another try are few."""
        now = self.clock()
        early = []
        due = None
        while self._ready and due is None:
            rank, stage = heapq.heappop(self._ready)
            if stage.not_before > now:
                early.append((rank, stage))
            else:
                due = stage
        for item in early:
            heapq.heappush(self._ready, item)
        return due

    def _enqueue(self, stage: QueuedStage) -> None:
        """Makes a waiting stage ready, or blocks it until its snapshot is published."""
        if stage.is_warmup or self._has_snapshot(stage):
            self._push(stage)
        else:
            self._blocked.setdefault(str(stage.warmup_key), []).append(stage)

    def _push(self, stage: QueuedStage) -> None:
        is_warmup = stage.is_warmup
        rank = (-is_warmup, -stage.longest * is_warmup, -stage.work, self._plan_order[stage.kind, stage.key])
        heapq.heappush(self._ready, (rank, stage))

    def _release(self, warmup_key: str, everything: bool = False) -> None:
        """Releases the trials whose snapshot is published, or all that wait for this warm-up."""
        put = self._push if everything else self._enqueue
        for trial in self._blocked.pop(warmup_key, ()):
            put(trial)

    def _has_snapshot(self, trial: QueuedStage) -> bool:
        """Whether the snapshot is published, or no warm-up of this sweep will publish it."""
        warmup = self.warmups.get(trial.warmup_key or "")
        return warmup is None or self.published.get(warmup.key, 0) >= trial.longest or warmup.state is StageState.STOPPED

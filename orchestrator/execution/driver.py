"""The driver's bookkeeping: copies what stages report to state.json, sweep.log, MLflow and the screen. Imports no Ray."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

from orchestrator.execution.events import EventFile
from orchestrator.planning.entries import PlannedTrial, PlannedWarmup
from orchestrator.planning.plan import Plan
from orchestrator.scheduling.queued_stage import QueuedStage, StageState
from orchestrator.scheduling.stage_queue import StageQueue
from orchestrator.search.groups import groups_of
from orchestrator.state.other_sweeps import OtherSweeps
from orchestrator.state.space_reserve import SpaceReserve
from orchestrator.state.state_writer import StateWriter
from orchestrator.state.sweep_folder import SweepFolder
from orchestrator.state.sweep_state import SweepState, TrialStatus, WarmupStatus
from orchestrator.storage.background import run_with_timeout
from orchestrator.storage.base import Storage
from orchestrator.storage.layout import TrialFolder, newest_attempt
from orchestrator.terminal.progress import Screen
from orchestrator.tracking.process import TrackingProcess
from orchestrator.tracking.records import RunSpec
from trainables.config.keys import canonical, complete, warmup_rule
from trainables.config.trial import TrialConfig
from trainables.errors import FailureKind, StaleAttemptError, StorageError, StorageFullError
from trainables.records.failure_record import publish_failure
from trainables.records.metrics import Point, points_from_json
from trainables.runtime.secrets import without_secrets

STOP_CHECK_INTERVAL_S = 0.5


class StageObserver(Protocol):
    """What a search wants to know of the stages."""

    def on_start(self, stage: QueuedStage) -> None:
        """A worker has taken the stage up."""

    def on_points(self, stage: QueuedStage, points: Sequence[Point]) -> None:
        """The stage reported points."""

    def on_end(self, stage: QueuedStage) -> None:
        """The stage is finished, failed for good, or stopped."""


@dataclass(kw_only=True)
class Driver:
    """Bookkeeping of one sweep while it runs.

    Attributes:
        search: the search that the sweep is, if it is one.
        on_failure: called with every trial that has failed for good.
        events: where events are written that the user asked for.
        stop_grace_s: how long stages have to leave a checkpoint after a request to stop.
        full: why the sweep stops, if its storage can take no more.
    """

    folder: SweepFolder
    state: SweepState
    writer: StateWriter
    tracking: TrackingProcess
    items: dict[str, RunSpec]
    screen: Screen
    queue: StageQueue
    search: StageObserver | None = None
    on_failure: Callable[[QueuedStage], None] = lambda trial: None
    events: EventFile = field(default_factory=EventFile)
    stop_grace_s: float = 10.0
    full: StorageFullError | None = None
    signal: int | None = None
    stop_deadline: float | None = None
    last_stop_check: float = 0.0
    _began: float = field(default_factory=time.monotonic)
    _stages_began: dict[str, float] = field(default_factory=dict)
    _backlog_error: str | None = None

    def __post_init__(self) -> None:
        self._seconds_before = self.state.progress.seconds

    def on_change(self, stage: QueuedStage) -> None:
        """A stage changed its state: it started, ended, or waits for a retry."""
        status = self._status(stage)
        status.state = stage.state.value
        status.error = stage.message or None
        if isinstance(status, TrialStatus):
            status.failure, status.place = stage.failure and stage.failure.value, stage.place
        self._count_time(status)
        if self.search is not None and not stage.state.is_active and stage.state is not StageState.WAITING:
            self.search.on_end(stage)
        item = self.items[stage.key]
        if stage.state is StageState.RUNNING:
            if self.search is not None:
                self.search.on_start(stage)
            self.tracking.start_item(item)
            self._write_event(stage, "started", attempt=stage.attempt)
        elif stage.state is StageState.FINISHED:
            self.tracking.finish(item)
            self._log_finish(stage, status)
        elif stage.state is StageState.FAILED:
            self.tracking.fail(item, stage.message)
            self._log_failure(stage, f"{stage.name} failed ({stage.failure}): {stage.message}")
            if not stage.is_warmup:
                self.on_failure(stage)
        elif stage.state is StageState.STOPPED:
            if stage.last_failure is FailureKind.STORAGE_FULL:
                self.on_full(StorageFullError(stage.message))
            self.tracking.stop(item)
            self.log(f"{stage.name} stopped: {status.error}")
            early = isinstance(status, TrialStatus) and status.was_stopped_early
            self._write_event(stage, "stopped", reason=status.error, early=early)
        elif stage.last_failure is None:
            self.log(f"{stage.name}: {stage.message}")
        else:
            self._log_failure(stage, f"{stage.name} will be tried again: {stage.message}")
        self.writer.changed(status)

    def _count_time(self, status: TrialStatus | WarmupStatus) -> None:
        """Counts the time that a stage holds a slot, by a clock that never jumps."""
        now = time.monotonic()
        with self.writer.lock:
            if status.state == StageState.RUNNING.value:
                status.started, self._stages_began[status.key] = time.time(), now
            elif status.started is not None:
                status.seconds += now - self._stages_began.pop(status.key)
                status.started = None

    def _log_finish(self, stage: QueuedStage, status: TrialStatus | WarmupStatus) -> None:
        line = f"{stage.name} finished"
        self.folder.log(line)
        if isinstance(status, WarmupStatus):
            self._write_event(stage, "finished", epochs=stage.longest, seconds=status.seconds)
        else:
            accuracy = status.metrics.get("val/accuracy")
            self._write_event(stage, "finished", val_accuracy=accuracy, seconds=status.seconds)
            line += "" if accuracy is None else f", val/accuracy {accuracy:.4f}"
        self.screen.print_finish(line, self.state)

    def _log_failure(self, stage: QueuedStage, line: str) -> None:
        kind, retry = stage.last_failure, stage.state is StageState.WAITING
        self.state.progress.last_error = line.partition("\n")[0]
        self.log(line)
        self._write_event(stage, "failed", kind=kind and kind.value, message=stage.message, retry=retry)

    def _write_event(self, stage: QueuedStage, what: str, **facts: Any) -> None:
        self.events.write(f"{stage.kind}_{what}", key=stage.key, name=stage.name, **facts)

    def on_report(self, stage: QueuedStage, report: dict[str, Any]) -> None:
        """A stage reported points, its position, or warnings."""
        status = self._status(stage)
        for line in report.get("log", ()):
            self.log(f"{stage.name}: {line}")
        points = [points_from_json(point) for point in report.get("points", ())]
        if points:
            self.tracking.points(self.items[stage.key], points)
            if self.search is not None:
                self.search.on_points(stage, points)
        with self.writer.lock:
            if "position" in report:
                status.position = int(report["position"])
            if isinstance(status, WarmupStatus):
                status.trained_epochs += int(report.get("trained_epochs", 0))
            else:
                status.phase = report.get("phase", status.phase)
                status.metrics |= {point.key: point.value for point in points}
                if "model_sha256" in report:
                    status.metrics, status.model_sha256 = dict(report["metrics"]), report["model_sha256"]
        self.writer.changed(status)

    def on_hang(self, stage: QueuedStage, message: str, stacks: str) -> None:
        """A stage reported nothing for too long, and its process was ended; the log and its record get the stacks."""
        self.announce(f"{stage.name} hung in {self._place(stage)}: {message}")
        self.folder.log(f"{stage.name}: the stacks of its process\n{stacks or 'are not known'}")
        if stage.is_warmup:
            return
        files = TrialFolder(self.folder.storage, stage.key, stage.attempt, self.folder.name)
        with suppress(StaleAttemptError, StorageError):
            publish_failure(files, FailureKind.HANG, f"{message}; stage_timeout in the sweep file sets the limit", stacks)

    def _place(self, stage: QueuedStage) -> str:
        """Where a stage was when it last said so."""
        status = self._status(stage)
        phase = "warmup" if isinstance(status, WarmupStatus) else status.phase
        return f"phase {phase} after {status.position}" if phase else "its first phase"

    def on_tick(self) -> None:
        """Looks for requests to stop, and draws."""
        now = time.monotonic()
        self.state.progress.seconds = self._seconds_before + now - self._began
        if now - self.last_stop_check >= STOP_CHECK_INTERVAL_S:
            self.last_stop_check = now
            if self.signal is not None or self.folder.storage.poll_exists(self.folder.file("stop")):
                self.request_stop()
            self.update_tracking_status()
        self.screen.draw(self.state)

    def request_stop(self) -> None:
        """Dispatches nothing more and asks the running stages for checkpoints, for as long as the grace period lasts."""
        if self.stop_deadline is None:
            self.queue.stopping = True
            self.stop_deadline = time.monotonic() + self.stop_grace_s
            self.log("stopping: waiting for checkpoints")
            # Without the file the stages are cut off at the deadline.
            run_with_timeout(self.stop_grace_s / 2, self.folder.request_stop)

    def on_full(self, error: StorageFullError) -> None:
        """The storage can take no more: stops the sweep, with the reserve for its last state and log."""
        if self.full is None:
            self.full = error
            SpaceReserve(self.folder).release()
            self.state.progress.last_error = error.message
            self.announce(f"the sweep stops, since its storage can take no more: {error.message}")
            self.request_stop()

    def update_tracking_status(self) -> None:
        """Copies what the tracking process reports into the state."""
        with self.writer.lock:
            self.state.tracking_pending = self.tracking.pending
            self.state.tracking_error = self.tracking.last_error and without_secrets(self.tracking.last_error)
            self.state.tracking_cpu_seconds = self.tracking.cpu_seconds
            if self.tracking.database is not None:
                self.state.tracking_database = self.tracking.database
            self.state.parent_run_id = self.tracking.parent_run_id or self.state.parent_run_id
            self.state.experiment_id = self.tracking.experiment_id or self.state.experiment_id
        error, pending = self.state.tracking_error, self.state.tracking_pending
        if error != self._backlog_error and (error or not pending):
            self._backlog_error = error
            self.events.write("tracking_backlog", pending=pending, error=error)
        for message in self.tracking.take_messages():
            self.announce(message)
        for key, run_id in dict(self.tracking.run_ids).items():
            status = self.state.trials.get(key) or self.state.warmups.get(key)
            if status is not None and status.mlflow_run_id != run_id:
                status.mlflow_run_id = run_id
                self.writer.changed(status)

    @property
    def stop_deadline_passed(self) -> bool:
        return self.stop_deadline is not None and time.monotonic() > self.stop_deadline

    def mark_interrupted(self) -> None:
        """Stages that still run when the sweep ends were cut off; they continue from their checkpoints."""
        for stage in self.queue.stages():
            if stage.state.is_active:
                stage.state, stage.message = StageState.STOPPED, "interrupted; continues from its last checkpoint"
                self.on_change(stage)

    def announce(self, line: str) -> None:
        """Writes a line to the screen and to the sweep's log."""
        self.folder.log(line)
        self.screen.print(line)

    def _status(self, stage: QueuedStage) -> TrialStatus | WarmupStatus:
        return self.state.warmups[stage.key] if stage.is_warmup else self.state.trials[stage.key]

    def log(self, line: str) -> None:
        self.folder.log(line)
        self.screen.print_event(line)


def initial_state(plan: Plan, before: SweepState | None, queue: StageQueue) -> SweepState:
    """Every trial and warm-up of the plan: finished, waiting because it is in the queue, or as it was before this run."""
    state = SweepState(sweep=plan.spec.name, search=_search_summary(plan, before), settled=plan.settled)
    state.groups = [group.name for group in groups_of(plan.spec)]
    old_trials, old_warmups = (before.trials, before.warmups) if before else ({}, {})
    if before:
        state.progress.seconds = before.progress.seconds
        state.parent_run_id, state.experiment_id = before.parent_run_id, before.experiment_id
        state.tracking_database = before.tracking_database
    for trial in plan.trials:
        old = old_trials.get(trial.key)
        status = TrialStatus(key=trial.key, name=trial.name, state="waiting", config=complete(trial.config))
        if trial.result is not None:
            status.state = "finished"
            status.metrics, status.model_sha256 = trial.result["metrics"], trial.result["model_sha256"]
        elif old is not None:
            status.metrics = old.metrics
            if trial.key not in queue.trials and old.state in ("failed", "stopped"):
                status.state, status.error, status.failure, status.place = old.state, old.error, old.failure, old.place
        if trial.key in plan.stopped and trial.key not in queue.trials:
            stop = plan.stopped[trial.key]
            status.state, status.error, status.rung = "stopped", stop.reason, stop.epoch
        if old is not None:
            status.mlflow_run_id, status.seconds = old.mlflow_run_id, old.seconds
        state.trials[trial.key] = status
    for warmup in plan.warmups() if plan.spec.share_warmups else ():
        done = all(
            trial.result is not None for trial in plan.trials if trial.uses_shared_warmup and trial.warmup_key == warmup.key
        )
        warmup_status = WarmupStatus(
            key=warmup.key, name=warmup.name, state="finished" if done else "waiting", epochs=warmup.lengths[-1]
        )
        old_warmup = old_warmups.get(warmup.key)
        if old_warmup is not None:
            warmup_status.mlflow_run_id, warmup_status.seconds = old_warmup.mlflow_run_id, old_warmup.seconds
            if warmup.key not in queue.warmups and not done:
                warmup_status.state, warmup_status.error = old_warmup.state, old_warmup.error
        state.warmups[warmup.key] = warmup_status
    return state


def _search_summary(plan: Plan, before: SweepState | None) -> dict[str, str]:
    """What the groups of a search were doing, until it says so itself; empty without a search."""
    known = before.search if before else {}
    return {group.name: known.get(group.name, "has not begun") for group in groups_of(plan.spec)} if plan.spec.is_search else {}


def make_queue(plan: Plan, storage: Storage, selected: Callable[[str], bool]) -> StageQueue:
    """The stages of the selected unfinished trials, and the warm-ups that they need."""
    trials = {trial.key: queued_trial(trial, plan) for trial in plan.unfinished if selected(trial.key)}
    needed = Counter(stage.warmup_key for stage in trials.values())
    warmups = {warmup.key: queued_warmup(warmup, trials) for warmup in plan.warmups() if needed[warmup.key]}
    return StageQueue(
        warmups=warmups,
        trials=trials,
        max_worker_failures=plan.spec.retries.lost,
        newest_attempt=lambda key: newest_attempt(storage, key),
        computing_elsewhere=OtherSweeps(storage=storage, sweep=plan.spec.name).computing,
    )


def queued_trial(trial: PlannedTrial, plan: Plan) -> QueuedStage:
    if trial.key in plan.accepted.finished or trial.key in plan.accepted.stopped:
        raise RuntimeError(f"trial {trial.key} was made with earlier files, and would run with the present ones")
    return QueuedStage(
        kind="trial",
        key=trial.key,
        name=trial.name,
        config=canonical(trial.config),
        work=trial.config.rounds + 10 * (trial.config.level_epochs + trial.config.sparse_epochs),
        warmup_key=plan.shared_warmup_key(trial),
        lengths=trial.config.warmup_lengths,
        rules=rules_of(trial.config),
    )


def rules_of(config: TrialConfig) -> tuple[dict[str, Any], ...]:
    """The rule that chooses the length of the trial's warm-up, if it is automatic."""
    return (canonical(warmup_rule(config)),) if config.warmup.auto else ()


def queued_warmup(warmup: PlannedWarmup, trials: dict[str, QueuedStage]) -> QueuedStage:
    stage = QueuedStage(kind="warmup", key=warmup.key, name=warmup.name, config=canonical(warmup.config), work=0)
    for trial in trials.values():
        if trial.warmup_key == warmup.key:
            stage.join(trial)
    stage.work = 10 * stage.longest
    return stage

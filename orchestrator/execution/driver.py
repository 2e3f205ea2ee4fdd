"""What the driver does with news from the stages: state.json, sweep.log, MLflow and the screen.

Knows no Ray.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from orchestrator.planning.plan import Plan, PlannedWarmup
from orchestrator.scheduling.stage_queue import ACTIVE_STATES, QueuedStage, StageQueue
from orchestrator.state.state_writer import StateWriter
from orchestrator.state.sweep_folder import SweepFolder
from orchestrator.state.sweep_state import SweepState, TrialStatus, WarmupStatus
from orchestrator.storage.background import run_with_timeout
from orchestrator.storage.base import Storage
from orchestrator.storage.layout import newest_attempt
from orchestrator.terminal.progress import Screen
from orchestrator.tracking.process import TrackingProcess
from orchestrator.tracking.records import RunSpec
from trainables.config.keys import canonical, complete
from trainables.records.metrics import points_from_json

STOP_CHECK_S = 0.5


@dataclass(kw_only=True)
class Driver:
    """Bookkeeping of one sweep while it runs.

    Attributes:
        stop_grace_s: how long stages have to leave a checkpoint after a request to stop.
    """

    folder: SweepFolder
    state: SweepState
    writer: StateWriter
    tracking: TrackingProcess
    items: dict[str, RunSpec]
    screen: Screen
    queue: StageQueue
    stop_grace_s: float = 10.0
    signal: int | None = None
    stop_deadline: float | None = None
    last_stop_check: float = 0.0

    def on_change(self, entry: QueuedStage) -> None:
        """An entry's state changed: it began, ended, or waits for another try."""
        status = self._status(entry)
        status.state = entry.state
        status.error = entry.message or None
        item = self.items[entry.key]
        if entry.state == "running":
            self.tracking.start_item(item)
        elif entry.state == "finished":
            self.tracking.finish(item)
            self._log(f"{entry.name} finished")
        elif entry.state == "failed":
            self.tracking.fail(item, entry.message)
            self._log(f"{entry.name} failed ({entry.failure}): {entry.message}")
        elif entry.state == "stopped":
            self.tracking.stop(item)
            self._log(f"{entry.name} stopped: {entry.message}")
        else:
            self._log(f"{entry.name} will be tried again: {entry.message}")
        self.writer.changed(status)

    def on_report(self, entry: QueuedStage, report: dict[str, Any]) -> None:
        """A stage told something: points, where it stands, warnings."""
        status = self._status(entry)
        for line in report.get("log", ()):
            self._log(f"{entry.name}: {line}")
        points = [points_from_json(point) for point in report.get("points", ())]
        if points:
            self.tracking.points(self.items[entry.key], points)
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

    def on_tick(self) -> None:
        """Looks for requests to stop, and draws."""
        now = time.monotonic()
        if now - self.last_stop_check >= STOP_CHECK_S:
            self.last_stop_check = now
            asked = self.signal is not None or self.folder.storage.poll_exists(self.folder.file("stop"))
            if asked:
                self.begin_stop()
            self.take_tracking_news()
        self.screen.draw(self.state)

    def begin_stop(self) -> None:
        """Hands out nothing more and asks the running stages to leave checkpoints, for as long as the grace lasts."""
        if self.stop_deadline is None:
            self.queue.stopping = True
            self.stop_deadline = time.monotonic() + self.stop_grace_s
            self._log("stopping: waiting for checkpoints")
            # Without the file the stages are cut off when the grace ends.
            run_with_timeout(self.stop_grace_s / 2, self.folder.request_stop)

    def take_tracking_news(self) -> None:
        """Copies what the tracking thread knows into the state."""
        with self.writer.lock:
            self.state.tracking_pending = self.tracking.pending
            self.state.tracking_error = self.tracking.last_error
            self.state.tracking_cpu_seconds = self.tracking.cpu_seconds
            if self.tracking.database is not None:
                self.state.tracking_database = self.tracking.database
            self.state.parent_run_id = self.tracking.parent_run_id or self.state.parent_run_id
            self.state.experiment_id = self.tracking.experiment_id or self.state.experiment_id
        for remark in self.tracking.take_remarks():
            self.tell(remark)
        for key, run_id in dict(self.tracking.run_ids).items():
            status = self.state.trials.get(key) or self.state.warmups.get(key)
            if status is not None and status.mlflow_run_id != run_id:
                status.mlflow_run_id = run_id
                self.writer.changed(status)

    @property
    def out_of_time(self) -> bool:
        return self.stop_deadline is not None and time.monotonic() > self.stop_deadline

    def interrupt_running(self) -> None:
        """Entries that still run when the sweep ends were cut off; they continue from their checkpoints."""
        for entry in [*self.queue.trunks.values(), *self.queue.trials.values()]:
            if entry.state in ACTIVE_STATES:
                entry.state, entry.message = "stopped", "interrupted; continues from its last checkpoint"
                self.on_change(entry)

    def tell(self, line: str) -> None:
        """A line for the screen and for the sweep's log."""
        self.folder.log(line)
        self.screen.say(line)

    def _status(self, entry: QueuedStage) -> TrialStatus | WarmupStatus:
        return self.state.warmups[entry.key] if entry.kind == "trunk" else self.state.trials[entry.key]

    def _log(self, line: str) -> None:
        self.folder.log(line)
        self.screen.note(line)


def initial_state(plan: Plan, before: SweepState | None, queue: StageQueue) -> SweepState:
    """Every trial and trunk of the plan: finished, waiting because it is in the queue, or as it was before this run."""
    state = SweepState(sweep=plan.spec.name)
    old_trials, old_warmups = (before.trials, before.warmups) if before else ({}, {})
    if before:
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
                status.state, status.error = old.state, old.error
        status.mlflow_run_id = old.mlflow_run_id if old else None
        state.trials[trial.key] = status
    for warmup in plan.warmups() if plan.spec.share_warmups else ():
        done = all(trial.result is not None for trial in plan.trials if trial.shares and trial.warmup_key == warmup.key)
        trunk = WarmupStatus(
            key=warmup.key, name=warmup.name, state="finished" if done else "waiting", epochs=warmup.lengths[-1]
        )
        known = old_warmups.get(warmup.key)
        if known is not None:
            trunk.mlflow_run_id = known.mlflow_run_id
            if warmup.key not in queue.trunks and not done:
                trunk.state, trunk.error = known.state, known.error
        state.warmups[warmup.key] = trunk
    return state


def make_queue(plan: Plan, storage: Storage, chosen: Callable[[str], bool]) -> StageQueue:
    """The stages of the unfinished trials that were chosen, and the trunks that they need."""
    trials: dict[str, QueuedStage] = {}
    share = plan.spec.share_warmups
    for trial in plan.unfinished:
        if not chosen(trial.key):
            continue
        trials[trial.key] = QueuedStage(
            kind="trial",
            key=trial.key,
            name=trial.name,
            config=canonical(trial.config),
            work=trial.config.rounds + 10 * (trial.config.level_epochs + trial.config.sparse_epochs),
            warmup_key=trial.warmup_key if share and trial.shares else None,
            lengths=trial.config.warmup_lengths,
        )
    needed = Counter(entry.warmup_key for entry in trials.values())
    trunks = {warmup.key: _trunk(warmup, trials) for warmup in plan.warmups() if needed[warmup.key]}
    return StageQueue(
        trunks=trunks,
        trials=trials,
        most_losses=plan.spec.retries.lost,
        newest_attempt=lambda key: newest_attempt(storage, key),
    )


def _trunk(warmup: PlannedWarmup, trials: dict[str, QueuedStage]) -> QueuedStage:
    lengths = {length for trial in trials.values() if trial.warmup_key == warmup.key for length in trial.lengths}
    return QueuedStage(
        kind="trunk",
        key=warmup.key,
        name=warmup.name,
        config=canonical(warmup.config),
        work=10 * max(lengths),
        lengths=tuple(sorted(lengths)),
    )

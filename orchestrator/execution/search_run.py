"""Runs a search beside the driver: its trials join the queue as they are begun, and their results go back to it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from orchestrator.execution.driver import Driver, queued_trial, queued_warmup
from orchestrator.execution.sweep_files import GrowingTrials
from orchestrator.planning.entries import PlannedTrial
from orchestrator.planning.plan import Plan
from orchestrator.scheduling.queued_stage import QueuedStage, StageState
from orchestrator.search import records
from orchestrator.search.decided_trials import TrialNames, reason_tags, stop_tags
from orchestrator.search.decisions import Decision, Kind
from orchestrator.search.factory import rungs_of
from orchestrator.search.group_search import AGAIN
from orchestrator.search.search import Search, SearchTrial
from orchestrator.search.space import values_text
from orchestrator.search.stop_record import stop_record
from orchestrator.state.sweep_state import TrialStatus, WarmupStatus
from orchestrator.state.trial_results import read_results
from orchestrator.storage.layout import trial_file
from orchestrator.tracking.plan_runs import planned_runs
from trainables.config.keys import complete
from trainables.config.metric_names import CHOSEN_WARMUP
from trainables.records.file_names import STOPPED
from trainables.records.metrics import Point

MAX_SNAPSHOTS = 16  # of a warm-up that later trials may share; with more lengths only those that are needed are kept


@dataclass(kw_only=True)
class SearchRun:
    """The search of a running sweep.

    Attributes:
        plan: grows with the search.
        trials: keeps trials.json up to date.
        slots: how many trials may run now; no more are begun, so that proposals know as many results as possible.
        started: when each running trial was taken up, by the driver's clock.
        continued: trials that were stopped early, and are taken on to their end; the search's decisions stay.
    """

    driver: Driver
    plan: Plan
    search: Search
    names: TrialNames
    trials: GrowingTrials
    slots: Callable[[], int]
    clock: Callable[[], float] = time.monotonic
    started: dict[str, float] = field(default_factory=dict)
    continued: frozenset[str] = frozenset()

    def begin(self) -> None:
        """Settles what happened while no driver ran, and takes over the trials that are in the queue already."""
        queued = self.driver.queue.trials
        changed = self._changed_keys()
        self.search.begin_again(changed)
        for key in changed.values():
            item = self.driver.items[key]
            self.driver.items[key] = replace(item, tags=item.tags | reason_tags(AGAIN))
        self.continued = frozenset(
            key for key in queued if {trial.state for trial in self.search.trials(key)} == {records.STOPPED}
        )
        for key in {trial.key for _, trial in self.search.unfinished()}:
            planned = self.plan.trial(key)
            if planned.result is not None:
                self.search.finish(key, planned.result["metrics"], 0.0)
            elif self.search.stop_reason(key):
                self._stop(key)
                self.driver.tracking.stop(self.driver.items[key])
        for key, stage in self.driver.queue.trials.items():
            self.search.retry(key)
            has_rungs = self.search.trials(key) and key not in self.continued
            stage.rungs = rungs_of(self.plan.spec, self.plan.trial(key).config) if has_rungs else ()
        self.driver.queue.refill = self.refill
        self.search.on_decision = self.on_decision

    def _changed_keys(self) -> dict[str, str]:
        """Key in the search -> key in the plan, of trials whose files have changed; those that were stopped early stay so."""
        planned = {trial.config: trial.key for trial in self.plan.trials}
        return {
            trial.key: planned[trial.config]
            for group in self.search.groups
            for trial in group.trials()
            if trial.state != records.STOPPED and planned.get(trial.config, trial.key) != trial.key
        }

    def refill(self) -> None:
        """Adds the next trials of the search to the queue, one for each free slot."""
        queue = self.driver.queue
        slots = self.slots()
        while not queue.closed and queue.occupied < slots and queue.occupied + queue.blocked < 2 * slots:
            begun = self.search.next_trial()
            if begun is None:
                self._show()
                return
            self._add(begun)

    def on_decision(self, decision: Decision) -> None:
        """Shows a decision in the sweep's log and in the status."""
        self.driver.events.write("decision", **json.loads(decision.to_line()))
        if decision.kind in LOGGED:
            self.driver.log(describe(decision))
        self._show()
        self.driver.writer.changed()

    def _show(self) -> None:
        state = self.driver.state
        state.search, state.settled = self.search.summary(), self.search.is_done

    def on_start(self, stage: QueuedStage) -> None:
        self.started[stage.key] = self.clock()

    def on_points(self, stage: QueuedStage, points: Sequence[Point]) -> None:
        """Decides at the rungs among these points, and asks the trial to stop where it falls behind."""
        if not stage.rungs or not self.search.trials(stage.key):
            return
        warmup = self._warmup_epochs(stage, points)
        objective = next(iter(self.plan.spec.objective))
        for point in sorted(points, key=lambda one: one.step):
            if (
                point.key == objective
                and point.step - warmup in stage.rungs
                and self.search.at_rung(stage.key, point.step - warmup, point.value)
            ):
                self.driver.folder.request_stop(stage.key)

    def _warmup_epochs(self, stage: QueuedStage, points: Sequence[Point]) -> int:
        """Epochs of the trial's warm-up; of an automatic one those that it chose."""
        metrics = self.driver.state.trials[stage.key].metrics | {point.key: point.value for point in points}
        return int(metrics.get(CHOSEN_WARMUP, self.plan.trial(stage.key).config.warmup_epochs))

    def on_end(self, stage: QueuedStage) -> None:
        """Tells the search how a trial ended."""
        if not self.search.trials(stage.key):
            return
        seconds = self.clock() - self.started.pop(stage.key, self.clock())
        if stage.state is StageState.FINISHED:
            self.search.finish(stage.key, self.driver.state.trials[stage.key].metrics, seconds)
        elif stage.state is StageState.FAILED:
            self.search.fail(stage.key, stage.message, self._epochs(stage.key), seconds)
        elif stage.state is StageState.STOPPED and stopped_early(self.driver, stage.key):
            self._stop(stage.key, seconds)

    def _epochs(self, key: str) -> int:
        """Epochs besides its warm-up that a trial has reported."""
        status = self.driver.state.trials[key]
        if status.phase == "level":
            return status.position
        return self.plan.trial(key).config.level_epochs + status.position if status.phase == "train" else 0

    def _stop(self, key: str, seconds: float = 0.0) -> None:
        """Records that a trial was stopped early; its checkpoint stays."""
        trial, reason = self.search.furthest(key), self.search.stop_reason(key)
        epoch = max(trial.rungs)
        content = stop_record(self.plan.spec.name, epoch, trial.rungs[epoch], reason)
        self.driver.folder.storage.write(trial_file(key, STOPPED), content)
        status = self.driver.state.trials[key]
        status.state, status.error, status.rung = StageState.STOPPED.value, reason, epoch
        item = self.driver.items[key]
        self.driver.items[key] = replace(item, tags=item.tags | stop_tags(reason, epoch))
        self.driver.writer.changed(status)
        self.search.stop(key, epoch, seconds)

    def _add(self, begun: SearchTrial) -> None:
        """Adds a trial to the plan, the state, MLflow and, unless it is finished, the queue."""
        planned = self.plan.planned(begun.config, self.names.of(begun.config), begun.key, self._result(begun))
        if begun.key in self.driver.state.trials:  # stopped early in another group; it goes on from its checkpoint
            self.driver.folder.withdraw_stop(begun.key)
        self.plan = self.plan.with_trial(planned)
        status = TrialStatus(key=planned.key, name=planned.name, state="waiting", config=complete(planned.config))
        items = planned_runs(replace(self.plan, trials=(planned,), tags={planned.key: reason_tags(begun.reason)}))
        self.driver.items.update(items)
        if planned.result is not None:
            status.state = "finished"
            status.metrics, status.model_sha256 = planned.result["metrics"], planned.result["model_sha256"]
            self.driver.tracking.finish(self.driver.items[planned.key])
        with self.driver.writer.lock:
            self.driver.state.trials[planned.key] = status
        self.trials.update(self.plan)
        if planned.result is None:
            stage = queued_trial(planned, self.plan)
            stage.rungs = rungs_of(self.plan.spec, planned.config)
            self.driver.queue.add(stage, self._warmup(planned, stage))
        self.driver.writer.changed(status)

    def _result(self, begun: SearchTrial) -> dict[str, Any] | None:
        if not begun.is_finished:
            return None
        return read_results(self.driver.folder.storage, [begun.key])[0].get(begun.key)

    def _warmup(self, planned: PlannedTrial, stage: QueuedStage) -> QueuedStage | None:
        """The stage of the trial's shared warm-up, with a snapshot at every length that later trials may want."""
        if stage.warmup_key is None:
            return None
        warmup = next(one for one in replace(self.plan, trials=(planned,)).warmups() if one.key == stage.warmup_key)
        queued = queued_warmup(warmup, {planned.key: stage})
        for config in self.names.with_automatic_warmup(planned.config.seed):
            if self.plan.keys_of(config)[1] == queued.key:  # now, since for later ones the warm-up is trained again
                queued.join(queued_trial(self.plan.planned(config, ""), self.plan))
        others = self.names.warmup_lengths
        if len(others) <= MAX_SNAPSHOTS:
            queued.lengths = tuple(sorted({*queued.lengths, *(one for one in others if 0 < one < queued.longest)}))
        if queued.key not in self.driver.state.warmups:
            with self.driver.writer.lock:
                self.driver.state.warmups[queued.key] = WarmupStatus(
                    key=queued.key, name=queued.name, state="waiting", epochs=queued.longest
                )
        known = self.driver.state.warmups[queued.key]
        known.epochs = max(known.epochs, queued.longest)
        return queued


def search_plan(driver: Driver, plan: Plan) -> Plan:
    """The plan at the end of a run, with the trials that a search has begun; trials.json holds it too."""
    if not isinstance(driver.search, SearchRun):
        return plan
    driver.search.trials.write(driver.search.plan)
    return driver.search.plan


def stopped_early(driver: Driver, key: str) -> bool:
    """Whether a trial was stopped by the search in this run, and so by no user or signal."""
    run = driver.search
    return isinstance(run, SearchRun) and key not in run.continued and bool(run.search.stop_reason(key))


LOGGED = (Kind.CONFIGURATION, Kind.BUDGET, Kind.RULED_OUT, Kind.BEHIND, Kind.END)  # an early stop is logged with its trial


def describe(decision: Decision) -> str:
    """A decision as a line of the sweep's log."""
    values = values_text(decision.values)
    recommended = f", recommended is configuration {decision.configuration} with {values}" if values else ""
    texts = {
        Kind.CONFIGURATION: f"tries configuration {decision.configuration} with {values}",
        Kind.RULED_OUT: "rules out",
        Kind.BEHIND: "gives no more seeds",
        Kind.BUDGET: "begins nothing new",
        Kind.END: f"ends ({decision.state}){recommended}",
    }
    return f"{decision.group or 'the search'} {texts[decision.kind]}: {decision.reason}"

"""The adapter to Ray Tune: a searcher that suggests the next stage, and a scheduler that calls the driver at every step.

stage_queue.py decides which stage runs, and retry_policy.py what a failure leads to. This file decides what depends on
the nodes: whether a lost process lost its node too, and which nodes a stage must avoid. The rest works around pitfalls of
Tune 2.60: a hook that raises would end the whole sweep, so hooks catch the error, remember it and stop; a stage that fails in a
known way ends normally with a status, so an error that Tune sees means a lost process. No other file uses private attributes of
Tune.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from ray import tune
from ray.tune.execution import class_cache
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from orchestrator.cluster.capacity import ClusterCapacity, address_of
from orchestrator.cluster.process_ending import Worker
from orchestrator.scheduling.hang_ender import HangEnder
from orchestrator.scheduling.queued_stage import QueuedStage
from orchestrator.scheduling.retry_policy import POLICIES, Action
from orchestrator.scheduling.stage_queue import StageQueue
from orchestrator.scheduling.watchdog import Watchdog
from trainables.errors import FailureKind

NODE_FAILURE_GRACE_S = 20.0  # from the loss of a process until Ray reports that of its node: 5 health checks of 3 s
FINISHED = "finished"  # the status of a stage that did not fail


class Hooks:
    """Callbacks of the driver.

    Attributes:
        on_report: takes a stage's report, its end included.
        on_tick: called a few times a second, also while nothing happens.
        predict: how many seconds a stage will take, where that is known.
        on_hang: takes a stage that was ended because it hung, why, and the stacks of its process.
        on_bug: called once, when one of the others or the queue has raised; must stop the sweep in an orderly way.
        error, traceback: that error; None while there is none.
    """

    def __init__(
        self,
        on_report: Callable[[QueuedStage, dict[str, Any]], None],
        on_tick: Callable[[], None],
        on_bug: Callable[[], None],
        on_hang: Callable[[QueuedStage, str, str], None] = lambda stage, message, stacks: None,
        predict: Callable[[QueuedStage], float | None] = lambda stage: None,
    ) -> None:
        self.on_report = on_report
        self.on_hang = on_hang
        self.predict = predict
        self.on_tick = on_tick
        self.on_bug = on_bug
        self.error: Exception | None = None
        self.traceback: str | None = None

    def guarded(self, call: Callable[..., None], *arguments: Any) -> None:
        """Runs driver code inside a hook of Tune; an error is kept for later, as it must not leave the hook."""
        try:
            call(*arguments)
        except Exception as error:
            if self.error is None:
                self.error, self.traceback = error, traceback.format_exc()
                self.on_bug()


class StageSearcher(Searcher):  # type: ignore[misc]
    """Suggests the next ready stage as the configuration of a new Tune trial, up to the capacity's limit.

    Attributes:
        in_flight: Tune's trials from the suggestion until the worker is free again.
        running: Tune's trial -> its stage, until the end is reported.
        nodes: Tune's trial -> the nodes of its workers; before it started, the nodes that it may start on.
        lost_workers: stages of which a process was lost, with their nodes, the time by which to decide, and what happened.
        missing_on_nodes: stage key -> nodes that lack a file of this stage.
        hangs: ends the workers of stages that hang.
        hung: Tune's trial -> a stage whose workers were ended so, until their nodes have said how.
    """

    def __init__(self, queue: StageQueue, hooks: Hooks, capacity: ClusterCapacity, watchdog: Watchdog | None = None) -> None:
        super().__init__(metric="event", mode="max")
        self.queue = queue
        self.hooks = hooks
        self.capacity = capacity
        self.in_flight: set[str] = set()
        self.running: dict[str, QueuedStage] = {}
        self.nodes: dict[str, frozenset[str]] = {}
        self.lost_workers: list[tuple[QueuedStage, frozenset[str], float, str]] = []
        self.missing_on_nodes: dict[str, set[str]] = {}
        self.hangs = HangEnder(watchdog or Watchdog())
        self.hung: dict[str, QueuedStage] = {}

    def suggest(self, trial_id: str) -> Any:
        # While nothing runs Tune calls nothing but this, once a second.
        self.hooks.guarded(self.hooks.on_tick)
        self.hooks.guarded(self.queue.refill_if_idle)
        if self.queue.done:
            return Searcher.FINISHED
        if len(self.in_flight) >= self.capacity.max_in_flight:
            return None
        avoided = self.capacity.excluded_nodes()
        if avoided and not self.capacity.slots:
            # Every usable node is excluded; a stage created now would be bound to other nodes for good.
            return None
        stage = self.queue.next_stage()
        if stage is None:
            return None
        self.in_flight.add(trial_id)
        self.running[trial_id] = stage
        self.nodes[trial_id] = self.capacity.alive
        avoided = self._without_hung(stage, avoided)
        config = {
            "kind": stage.kind,
            "key": stage.key,
            "name": stage.name,
            "config": stage.config,
            "attempt": stage.attempt,
            "warmup_key": stage.warmup_key,
            "lengths": stage.lengths,
            "rules": stage.rules,
            "rungs": stage.rungs,
        }
        return {"stage": config, "whole_gpu": stage.whole_gpu, "avoided": avoided}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        stage = self.running.get(trial_id)
        if stage is None:
            return
        if result.get("event") == "begun":
            workers = [
                Worker(node=one["node"], pid=one["pid"], stacks=one["stacks"]) for one in (result, *result.get("peers", ()))
            ]
            self.nodes[trial_id] = frozenset(worker.node for worker in workers)
            self.hangs.begin(trial_id, stage.kind, workers, self.hooks.predict(stage))
            self.hooks.guarded(self.queue.on_start, stage)
        else:
            self.hangs.hear(trial_id)
        if stage.is_warmup and result.get("phase") == "warmup":
            self.queue.on_snapshot(stage.key, stage.published_after(result["position"]))
        self.hooks.guarded(self.hooks.on_report, stage, result)
        if result.get("event") == "ended":  # Tune shows the last report twice; the stage is gone by then
            if result["status"] == FailureKind.WORKER_LOST:
                self.hooks.guarded(self._lose, trial_id, result["message"])
                return
            del self.running[trial_id]
            # Another worker that failed names its node.
            first = next((worker.node for worker in self.hangs.workers.get(trial_id, ())), None)
            nodes, failed_on = self.nodes.pop(trial_id), result.get("node") or first
            self.hangs.end(trial_id, finished=result["status"] == FINISHED)
            stage.place = result.get("place", "")
            at_fault = nodes if failed_on is None else frozenset([failed_on])
            self.hooks.guarded(self._on_end, stage, at_fault, result["status"], result["message"])

    def requeue(self, trial_id: str) -> None:
        """Puts a stage that waits in Tune's queue back into ours; nothing is counted."""
        self.in_flight.remove(trial_id)
        self.queue.requeue(self.running.pop(trial_id))
        del self.nodes[trial_id]

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        self.in_flight.discard(trial_id)
        if trial_id in self.running:
            self.hooks.guarded(self._lose, trial_id, "its process was lost")

    def _lose(self, trial_id: str, message: str) -> None:
        """Takes leave of a stage of which a process is gone: it hung and was ended, or was lost, perhaps with its node."""
        stage, nodes = self.running.pop(trial_id), self.nodes.pop(trial_id)
        self.hangs.lose(trial_id)
        if trial_id in self.hangs.endings:
            self.hung[trial_id] = stage
            self.end_hung_workers()
        else:
            self.lost_workers.append((stage, nodes, time.monotonic() + NODE_FAILURE_GRACE_S, message))
            self.resolve_lost_workers()

    def resolve_lost_workers(self) -> None:
        """Ends the stages of which a process was lost, as soon as it is clear whether a node was lost with it."""
        unresolved, self.lost_workers = self.lost_workers, []
        for stage, nodes, deadline, message in unresolved:
            dead = nodes - self.capacity.alive
            if dead:
                self.queue.on_end(stage, FailureKind.NODE_LOST, f"its node {address_of(min(dead))} was lost")
            elif nodes <= {self.capacity.driver_node} or time.monotonic() > deadline or self.queue.stopping:
                self.queue.on_end(stage, FailureKind.WORKER_LOST, message)
            else:
                self.lost_workers.append((stage, nodes, deadline, message))

    def end_hung_workers(self) -> None:
        """Ends the workers of stages that report nothing for too long; a worker that cannot be ended is given up."""
        for trial_id in self.hangs.look():
            if trial_id in self.running:
                self.hangs.lose(trial_id)
                self.hung[trial_id] = self.running.pop(trial_id)
                del self.nodes[trial_id]
        for trial_id, stage in list(self.hung.items()):
            if (hang := self.hangs.take(trial_id)) is not None:
                del self.hung[trial_id]
                stage.hung_on |= hang.nodes
                self.hooks.on_hang(stage, hang.message, hang.stacks)
                self.queue.on_end(stage, FailureKind.HANG, hang.message)

    def _without_hung(self, stage: QueuedStage, avoided: list[str]) -> list[str]:
        """The nodes that the stage must avoid: also those on which it hung, if there are others."""
        others = self.capacity.usable_nodes - {*avoided, *stage.hung_on}
        return sorted({*avoided, *stage.hung_on}) if self.capacity.slots_on(others) else avoided

    def _on_end(self, stage: QueuedStage, nodes: frozenset[str], status: str, message: str) -> None:
        failure = None if status == FINISHED else FailureKind(status)
        has_other_node = failure is not None and self._avoid_nodes(stage, nodes, failure, message)
        self.queue.on_end(stage, failure, message, has_other_node=has_other_node)

    def _avoid_nodes(self, stage: QueuedStage, nodes: frozenset[str], failure: FailureKind, message: str) -> bool:
        """Excludes the nodes that lack something, for all stages; returns whether another one is left for this stage.

        On a cluster a node that lacks the data or the storage always leaves one: others may come. A file that all nodes lack is
        the trial's fault, and excludes none.
        """
        if POLICIES[failure].action is not Action.RETRY_ON_OTHER_NODE or self.capacity.local:
            return False
        if failure is FailureKind.MISSING_FILE:
            missing_on = self.missing_on_nodes.setdefault(stage.key, set())
            missing_on |= nodes
            # Where all nodes lack it, the trial is to blame; so it is where too few have it for all its workers.
            if self.capacity.usable_nodes and not self.capacity.slots_on(self.capacity.usable_nodes - missing_on):
                for node in missing_on:
                    self.capacity.include_node(node)
                return False
        for node in nodes:
            self.capacity.exclude_node(node, message)
        return True

    def save(self, checkpoint_path: str) -> None:
        """Nothing: a sweep is resumed from its trial folders, never from Tune's state."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, as nothing is saved."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Searcher, ()  # Tune pickles the searcher beside its own state; we never read that


class PendingTrialScheduler(FIFOScheduler):  # type: ignore[misc]
    """Runs stages in the order in which they were suggested; how many are pending follows the cluster's size at the time.

    A free worker goes to the first stage that has none. Tune itself would give it to the very first stage and end the worker
    that is starting for that one, so slots whose workers start slowly would never be used. A pending stage that is bound to
    other nodes than one that is included again is requeued, since it would wait for ever if these were lost. So are all in a
    pause.

    Tune calls this at every step, about ten times a second, which drives the driver's ticks too. A callback of Tune could do
    that, but then Tune imports MLflow to count its users, which takes a second.
    """

    def __init__(self, searcher: StageSearcher, stop_deadline_passed: Callable[[], bool] = lambda: False) -> None:
        super().__init__()
        self.searcher = searcher
        self.stop_deadline_passed = stop_deadline_passed
        self.waiting: list[Trial] = []
        self.avoided: set[str] = set()

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        self.waiting.append(trial)

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        self.searcher.hooks.guarded(self.searcher.hooks.on_tick)
        if self.stop_deadline_passed():
            raise StopDeadlineError
        # Tune sets its own limit, one pending trial or TUNE_MAX_PENDING_TRIALS_PG, only once, at its start.
        tune_controller.update_max_pending_trials(self.searcher.capacity.max_in_flight)
        _forget_results(tune_controller)
        avoided = set(self.searcher.capacity.excluded_nodes())
        if self.searcher.queue.paused:
            self.searcher.hooks.guarded(self._requeue, tune_controller, list(self.waiting))
        elif self.avoided - avoided or self._is_bound_nowhere(avoided):
            bound = [trial for trial in self.waiting if not set(trial.config["avoided"]) <= avoided]
            self.searcher.hooks.guarded(self._requeue, tune_controller, bound)
        self.avoided = avoided
        self.waiting = [trial for trial in self.waiting if trial.status == Trial.PENDING]
        cached = tune_controller._actor_cache
        for trial in self.waiting:
            if cached.has_cached_object(trial.placement_group_factory) and not _has_worker(tune_controller, trial):
                return trial
        return self.waiting[0] if self.waiting else None

    def _is_bound_nowhere(self, avoided: set[str]) -> bool:
        """Whether a pending stage avoids every node that is left, since it hung on one and the others were lost."""
        capacity = self.searcher.capacity
        left = capacity.usable_nodes - avoided
        bound = (left - set(trial.config["avoided"]) for trial in self.waiting)
        return capacity.slots_on(left) > 0 and any(not capacity.slots_on(nodes) for nodes in bound)

    def _requeue(self, controller: Any, trials: Sequence[Trial]) -> None:
        """Requeues those of the pending stages that no worker has taken up."""
        for trial in trials:
            if trial.status != Trial.PENDING or _has_worker(controller, trial):
                continue
            self.searcher.requeue(trial.trial_id)
            if trial in controller._staged_trials:  # else an actor would be kept for it
                controller._unstage_trial_with_resources(trial)
            controller.stop_trial(trial)

    def __reduce__(self) -> tuple[Any, ...]:
        return FIFOScheduler, ()


def _forget_results(controller: Any) -> None:
    """Lets go of the reports that were taken: Tune keeps each until the end of its stage, 2.5 KB for every report."""
    manager = controller._actor_manager
    expected = manager._actor_task_events.get_futures()
    for futures in manager._tracked_actors_to_task_futures.values():
        futures &= expected


def _has_worker(controller: Any, trial: Trial) -> bool:
    """Whether a pending trial has a worker that is starting, or one that it is about to use."""
    actor = controller._trial_to_actor.get(trial)
    return trial in controller._resetting_trials or (actor is not None and controller._actor_manager.is_actor_started(actor))


class StopDeadlineError(BaseException):
    """Leaves Tune's loop at once; a BaseException, so that no handler on the way treats it as a trial's failure."""


def withhold_keys() -> None:
    """Keeps Tune from handing the driver's keys of AWS to workers: they would stand on command lines, which every user sees.

    Workers find keys in their own environment, which a local Ray inherits from the driver.
    """
    class_cache.ENV_VARS_TO_PROPAGATE = {name for name in class_cache.ENV_VARS_TO_PROPAGATE if not name.startswith("AWS_")}


def run_stages(trainable: Any, searcher: StageSearcher, scratch: str, stop_deadline_passed: Callable[[], bool]) -> None:
    """Has Tune run the stages that the searcher suggests, until there are none.

    Args:
        scratch: a folder for Tune's own files, which are never read.

    Raises:
        StopDeadlineError: `stop_deadline_passed` returned True.
    """
    withhold_keys()
    tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=PendingTrialScheduler(searcher, stop_deadline_passed),
            num_samples=-1,
            reuse_actors=True,
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=tune.RunConfig(
            name="stages",
            storage_path=scratch,
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=0),
        ),
    ).fit()

"""The Searcher that hands Ray Tune the next stage, and the scheduler through which the driver hears of it.

All decisions are made in stage_queue.py; here they meet Tune 2.60 and its traps: every hook that raises would end the whole
sweep, so hooks catch, remember and stop; a stage that fails in a way we understand ends normally with a status, so an
error that Tune sees means a lost process.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from typing import Any

from ray import tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from orchestrator.cluster.capacity import ClusterCapacity, address_of
from orchestrator.scheduling.stage_queue import QueuedStage, StageQueue

NODE_FAILURE_GRACE_S = 20.0  # after a process, until Ray tells of its node: 5 health checks of 3 s


class Hooks:
    """What the driver does with news from the stages.

    Attributes:
        on_report: an entry's report, its end included.
        on_tick: a few times a second, also while nothing happens.
        on_problem: once, when one of the others or the queue has failed; must end the sweep in an orderly way.
    """

    def __init__(
        self,
        on_report: Callable[[QueuedStage, dict[str, Any]], None],
        on_tick: Callable[[], None],
        on_problem: Callable[[], None],
    ) -> None:
        self.on_report = on_report
        self.on_tick = on_tick
        self.on_problem = on_problem
        self.problem: str | None = None

    def guarded(self, call: Callable[..., None], *arguments: Any) -> None:
        """Runs driver code inside a hook of Tune; a problem is kept for later and must not end the sweep from there."""
        try:
            call(*arguments)
        except Exception:
            if self.problem is None:
                self.problem = traceback.format_exc()
                self.on_problem()


class StageSearcher(Searcher):  # type: ignore[misc]
    """Suggests the next ready stage as the configuration of a new Tune trial, up to the most that may be under way."""

    def __init__(self, queue: StageQueue, hooks: Hooks, watch: ClusterCapacity) -> None:
        super().__init__(metric="event", mode="max")
        self.queue = queue
        self.hooks = hooks
        self.watch = watch
        self.with_tune: set[str] = set()  # from the suggestion until the worker is free again
        self.running: dict[str, QueuedStage] = {}  # until the end is reported
        self.lost: list[tuple[QueuedStage, frozenset[str], float]] = []  # with their nodes and the time by which to decide
        self.nodes: dict[str, frozenset[str]] = {}  # the one that a stage began on; before that, those it may be put on
        self.unprovided: dict[str, set[str]] = {}  # key -> nodes that lacked a file of this one

    def suggest(self, trial_id: str) -> Any:
        # While nothing runs Tune calls nothing but this, once a second.
        self.hooks.guarded(self.hooks.on_tick)
        if self.queue.done:
            return Searcher.FINISHED
        if len(self.with_tune) >= self.watch.max_in_flight:
            return None
        avoided = self.watch.excluded_nodes()
        if avoided and not self.watch.slots:  # a stage would wait for nodes other than these, also when they are well again
            return None
        entry = self.queue.next_entry()
        if entry is None:
            return None
        self.with_tune.add(trial_id)
        self.running[trial_id] = entry
        self.nodes[trial_id] = self.watch.alive
        stage = {
            "kind": entry.kind,
            "key": entry.key,
            "name": entry.name,
            "config": entry.config,
            "attempt": entry.attempt,
            "warmup_key": entry.warmup_key,
            "lengths": entry.lengths,
        }
        return {"stage": stage, "whole_gpu": entry.whole_gpu, "avoided": avoided}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        entry = self.running.get(trial_id)
        if entry is None:
            return
        if result.get("event") == "begun":
            self.nodes[trial_id] = frozenset([result["node"]])
            self.hooks.guarded(self.queue.begun, entry)
        if entry.kind == "trunk" and result.get("phase") == "warmup":
            self.queue.snapshot_landed(entry.key, max((n for n in entry.lengths if n <= result["position"]), default=0))
        self.hooks.guarded(self.hooks.on_report, entry, result)
        if result.get("event") == "ended":  # Tune shows the last report twice; the entry is gone by then
            del self.running[trial_id]
            self.hooks.guarded(self._ended, entry, self.nodes.pop(trial_id), result["status"], result["message"])

    def recall(self, trial_id: str) -> None:
        """Puts a stage that waits in Tune's queue back into ours; nothing is counted."""
        self.with_tune.remove(trial_id)
        self.queue.returned(self.running.pop(trial_id))
        del self.nodes[trial_id]

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        self.with_tune.discard(trial_id)
        entry = self.running.pop(trial_id, None)
        if entry is None:
            return
        self.lost.append((entry, self.nodes.pop(trial_id), time.monotonic() + NODE_FAILURE_GRACE_S))
        self.hooks.guarded(self.decide_losses)

    def decide_losses(self) -> None:
        """Ends the stages whose process was lost, as soon as it is clear whether their node was lost with it."""
        undecided, self.lost = self.lost, []
        for entry, nodes, deadline in undecided:
            dead = nodes - self.watch.alive
            if dead:
                self.queue.ended(entry, "lost_node", f"its node {address_of(min(dead))} was lost")
            elif nodes <= {self.watch.driver_node} or time.monotonic() > deadline or self.queue.stopping:
                self.queue.ended(entry, "lost", "its process was lost")
            else:
                self.lost.append((entry, nodes, deadline))

    def _ended(self, entry: QueuedStage, nodes: frozenset[str], status: str, message: str) -> None:
        if status in ("misplaced", "unprovided"):
            status = self._elsewhere(entry, nodes, status, message)
        self.queue.ended(entry, status, message)

    def _elsewhere(self, entry: QueuedStage, nodes: frozenset[str], status: str, message: str) -> str:
        """Leaves out nodes that lack something; how the stage ended, which is for good where no other node is left for it."""
        if self.watch.local:
            return "data" if status == "misplaced" else "setting"
        if status == "unprovided":
            lacking = self.unprovided.setdefault(entry.key, set())
            lacking |= nodes
            if self.watch.usable_nodes and self.watch.usable_nodes <= lacking:  # then the trial is to blame, not the nodes
                for node in lacking:
                    self.watch.include_node(node)
                return "setting"
        for node in nodes:
            self.watch.exclude_node(node, message)
        return "misplaced"

    def save(self, checkpoint_path: str) -> None:
        """Nothing: a sweep is resumed from its trial folders, never from Tune's state."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, as nothing is saved."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Searcher, ()  # Tune pickles the searcher beside its own state; we never read that


class PendingTrialScheduler(FIFOScheduler):  # type: ignore[misc]
    """Stages in the order in which they were suggested; as many wait for room as suit the cluster's size at the time.

    A free worker goes to the first stage that has none: Tune gives it to the very first one and ends the worker that is
    starting for that, so that slots whose workers start slowly are never used. A stage that waits for other nodes than one
    that is well again is recalled: it would wait for ever if these were lost.

    Tune asks it at every step, about ten times a second; then the driver looks around too. A callback of Tune could do that,
    but then Tune imports MLflow to count its users, which takes a second.
    """

    def __init__(self, searcher: StageSearcher, out_of_time: Callable[[], bool] = lambda: False) -> None:
        super().__init__()
        self.searcher = searcher
        self.out_of_time = out_of_time
        self.waiting: list[Trial] = []
        self.avoided: set[str] = set()

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        self.waiting.append(trial)

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        self.searcher.hooks.guarded(self.searcher.hooks.on_tick)
        if self.out_of_time():
            raise StopDeadlineError
        # Tune's own limit, one stage that waits or TUNE_MAX_PENDING_TRIALS_PG, is set once, at its start.
        tune_controller.update_max_pending_trials(self.searcher.watch.max_in_flight)
        avoided = set(self.searcher.watch.excluded_nodes())
        if self.avoided - avoided:
            self.searcher.hooks.guarded(self._recall_all_but, tune_controller, avoided)
        self.avoided = avoided
        self.waiting = [trial for trial in self.waiting if trial.status == Trial.PENDING]
        cached = tune_controller._actor_cache
        for trial in self.waiting:
            if cached.has_cached_object(trial.placement_group_factory) and not _has_room(tune_controller, trial):
                return trial
        return self.waiting[0] if self.waiting else None

    def _recall_all_but(self, controller: Any, avoided: set[str]) -> None:
        """Recalls the waiting stages that must not be put on any other node than those that are avoided now."""
        for trial in self.waiting:
            if trial.status != Trial.PENDING or set(trial.config["avoided"]) <= avoided or _has_room(controller, trial):
                continue
            self.searcher.recall(trial.trial_id)
            if trial in controller._staged_trials:  # else an actor would be kept for it
                controller._unstage_trial_with_resources(trial)
            controller.stop_trial(trial)

    def __reduce__(self) -> tuple[Any, ...]:
        return FIFOScheduler, ()


def _has_room(controller: Any, trial: Trial) -> bool:
    """Whether a pending trial has a worker, which starts or which it is about to begin on."""
    actor = controller._trial_to_actor.get(trial)
    return trial in controller._resetting_trials or (actor is not None and controller._actor_manager.is_actor_started(actor))


class StopDeadlineError(BaseException):
    """Leaves Tune's loop at once; a BaseException so that no handler on the way takes it for a trial's failure."""


def run_stages(trainable: Any, searcher: StageSearcher, scratch: str, out_of_time: Callable[[], bool]) -> None:
    """Has Tune run the stages that the searcher hands out, until there are none.

    Args:
        scratch: a folder for Tune's own files, which are never read.

    Raises:
        StopDeadlineError: `out_of_time` has said so.
    """
    tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=PendingTrialScheduler(searcher, out_of_time),
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

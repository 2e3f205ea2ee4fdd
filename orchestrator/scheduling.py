"""The Searcher that hands Ray Tune the next stage, and the callback through which the driver hears of it.

All decisions are made in stages.py; here they meet Tune 2.60 and its traps: every hook that raises would end the whole
sweep, so hooks catch, remember and stop; a stage that fails in a way we understand ends normally with a status, so an
error that Tune sees means a lost process. Read by: sweep.py.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from typing import Any

import ray
from ray.tune import Callback
from ray.tune.experiment import Trial
from ray.tune.search import Searcher

from orchestrator.stages import Entry, StageQueue

NODE_CHECK_S = 2.0  # how long a lost process waits for word that its node is gone too


class Hooks:
    """What the driver does with news from the stages.

    Attributes:
        on_report: an entry's report, its end included.
        on_tick: a few times a second, also while nothing happens.
        on_problem: once, when one of the others or the queue has failed; must end the sweep in an orderly way.
    """

    def __init__(
        self,
        on_report: Callable[[Entry, dict[str, Any]], None],
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
    """Suggests the next ready stage as the configuration of a new Tune trial, while fewer than `most` are under way."""

    def __init__(self, queue: StageQueue, hooks: Hooks, most: int | None = None) -> None:
        super().__init__(metric="event", mode="max")
        self.most = most
        self.queue = queue
        self.hooks = hooks
        self.running: dict[str, Entry] = {}
        self.nodes: dict[str, str] = {}

    def suggest(self, trial_id: str) -> Any:
        # While nothing runs Tune calls nothing but this, once a second.
        self.hooks.guarded(self.hooks.on_tick)
        if self.queue.done:
            return Searcher.FINISHED
        if self.most is not None and len(self.running) >= self.most:
            return None
        entry = self.queue.next_entry()
        if entry is None:
            return None
        self.running[trial_id] = entry
        stage = {
            "kind": entry.kind,
            "key": entry.key,
            "name": entry.name,
            "config": entry.config,
            "attempt": entry.attempt,
            "warmup_key": entry.warmup_key,
            "lengths": entry.lengths,
        }
        return {"stage": stage, "whole_gpu": entry.whole_gpu}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        entry = self.running.get(trial_id)
        if entry is None:
            return
        if result.get("event") == "begun":
            self.nodes[trial_id] = result["node"]
            self.hooks.guarded(self.queue.begun, entry)
        if entry.kind == "trunk" and result.get("phase") == "warmup":
            self.queue.snapshot_landed(entry.key, max((n for n in entry.lengths if n <= result["position"]), default=0))
        self.hooks.guarded(self.hooks.on_report, entry, result)
        if result.get("event") == "ended":  # Tune shows the last report twice; the entry is gone by then
            del self.running[trial_id]
            self.hooks.guarded(self.queue.ended, entry, result["status"], result["message"])

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        entry = self.running.pop(trial_id, None)
        if entry is None:
            return
        node = self.nodes.pop(trial_id, None)
        self.hooks.guarded(self._lost, entry, node)

    def _lost(self, entry: Entry, node: str | None) -> None:
        lost_node = node is not None and not _node_alive(node)
        self.queue.ended(entry, "lost_node" if lost_node else "lost", "its process was lost")

    def save(self, checkpoint_path: str) -> None:
        """Nothing: a sweep is resumed from its trial folders, never from Tune's state."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, as nothing is saved."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Searcher, ()  # Tune pickles the searcher beside its own state; we never read that


def _node_alive(node_id: str) -> bool:
    """Whether Ray still counts the node as alive, a few seconds after a process on it was lost."""
    deadline = time.monotonic() + NODE_CHECK_S
    alone = len(ray.nodes()) == 1  # the driver's own node: it lives
    while not alone and time.monotonic() < deadline:
        if not any(node["NodeID"] == node_id and node["Alive"] for node in ray.nodes()):
            return False
        time.sleep(0.2)
    return True


class OutOfTimeError(BaseException):
    """Leaves Tune's loop at once; a BaseException so that no handler on the way takes it for a trial's failure."""


class Ticker(Callback):  # type: ignore[misc]
    """Lets the driver look around at every step of Tune, which is about ten times a second."""

    def __init__(self, hooks: Hooks, out_of_time: Callable[[], bool]) -> None:
        self.hooks = hooks
        self.out_of_time = out_of_time

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        self.hooks.guarded(self.hooks.on_tick)
        if self.out_of_time():
            raise OutOfTimeError

    def __reduce__(self) -> tuple[Any, ...]:
        return Callback, ()

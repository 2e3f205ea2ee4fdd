"""Starts the search of a sweep, or continues it from its decisions. Imports Ray Tune, for its early-stopping rules."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from orchestrator.cluster.capacity import ClusterCapacity
from orchestrator.execution.driver import Driver
from orchestrator.execution.search_run import SearchRun
from orchestrator.execution.sweep_files import GrowingTrials
from orchestrator.planning.plan import Plan
from orchestrator.scheduling.early_stopping import asha, median
from orchestrator.search.decided_trials import TrialNames
from orchestrator.search.decision_file import DecisionFile
from orchestrator.search.early_stopping import EarlyStopper
from orchestrator.search.factory import make_search
from orchestrator.search.groups import Group
from orchestrator.search.learning import learned_decisions
from orchestrator.search.warmups import WarmupLedger
from orchestrator.spec.ranges import Range
from orchestrator.spec.schema import SweepSpec
from orchestrator.state.trial_results import read_results
from orchestrator.storage.base import Storage
from orchestrator.storage.layout import longest_warmup
from trainables.config.trial import TrialConfig


def start_search(driver: Driver, plan: Plan, capacity: ClusterCapacity, *, gpus_per_trial: float) -> None:
    """Makes the search a part of the driver."""
    spec, storage = plan.spec, driver.folder.storage
    log = DecisionFile(storage, spec.name)
    before = max((decision.elapsed_s for decision in log.read()), default=0.0)
    started = time.monotonic()
    existing = _Results(storage)

    def key_of(config: TrialConfig) -> str:
        """That under which a trial is finished, if it stays though its files have changed; else that under present ones."""
        earlier = plan.accepted.keys_of(config)
        is_kept = earlier is not None and earlier[0] in plan.accepted.finished and existing(earlier[0]) is not None
        return earlier[0] if earlier is not None and is_kept else plan.keys_of(config)[0]

    search = make_search(
        spec,
        log=log,
        key_of=key_of,
        warmups=_ledger(plan, storage),
        stopper_of=early_stoppers(spec),
        existing=existing,
        elapsed=lambda: before + time.monotonic() - started,
        learn=lambda groups, objectives: learned_decisions(storage, spec.strategy.learn_from, groups, objectives),
        gpus_per_trial=gpus_per_trial,
    )
    run = SearchRun(
        driver=driver,
        plan=plan,
        search=search,
        names=TrialNames(spec),
        trials=GrowingTrials(driver.folder),
        slots=lambda: capacity.max_concurrent or max(1, capacity.slots),
    )
    driver.search = run
    run.begin()


def early_stoppers(spec: SweepSpec) -> Callable[[Group], EarlyStopper] | None:
    """Makes the early-stopping rule of a group; None without early stopping."""
    rule = spec.early_stopping
    if rule is None:
        return None
    mode = next(iter(spec.objective.values()))
    epochs = spec.search.get("training.epochs", (spec.training.epochs,))
    longest = int(epochs.max if isinstance(epochs, Range) else max(epochs))

    def stopper_of(group: Group) -> EarlyStopper:
        if rule.name == "median":
            return median(mode, rule.grace_epochs)
        return asha(mode, rule.grace_epochs, rule.reduction, longest)

    return stopper_of


def _ledger(plan: Plan, storage: Storage) -> WarmupLedger:
    """The warm-ups, with the snapshots that the storage has."""

    class StoredWarmups(dict[str, int]):
        def __missing__(self, key: str) -> int:
            self[key] = longest_warmup(storage, key)
            return self[key]

    return WarmupLedger(key_of=lambda config: plan.keys_of(config)[1], shared=plan.spec.share_warmups, longest=StoredWarmups())


class _Results:
    """The metrics of finished trials, each read once."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self.known: dict[str, Mapping[str, float]] = {}

    def __call__(self, key: str) -> Mapping[str, float] | None:
        if key not in self.known:
            results, _ = read_results(self.storage, [key])
            if key in results:
                self.known[key] = results[key]["metrics"]
        return self.known.get(key)

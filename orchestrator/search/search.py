"""A search: which trial begins next, which stops early, when a group is settled. Pure: it knows neither Ray nor files.

Every decision is written to the log before it takes effect. A search that is made again from the log of an interrupted one has
the same state, and with one slot takes the same course.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from orchestrator.search.budget import Meter
from orchestrator.search.decisions import Decision, DecisionLog, Kind
from orchestrator.search.group_search import GroupSearch
from orchestrator.search.records import FAILED, FINISHED, RUNNING, STOPPED, TrialRecord
from orchestrator.search.settings import SearchSettings
from orchestrator.search.warmups import WarmupLedger
from trainables.config.trial import TrialConfig


@dataclass(frozen=True, kw_only=True)
class SearchTrial:
    """A trial that the search has begun.

    Attributes:
        is_finished: its result existed already.
    """

    group: str
    key: str
    config: TrialConfig
    reason: str
    is_finished: bool = False


@dataclass(kw_only=True)
class Search:
    """The search over all groups of a sweep.

    Attributes:
        existing: the metrics of a trial that is finished already, by key; None if it is not.
        elapsed: seconds that the search has run, in all its drivers together.
        on_decision: called with every decision that was taken now, after it was written.
    """

    groups: Sequence[GroupSearch]
    log: DecisionLog
    settings: SearchSettings
    meter: Meter
    warmups: WarmupLedger
    existing: Callable[[str], Mapping[str, float] | None] = lambda key: None
    elapsed: Callable[[], float] = lambda: 0.0
    on_decision: Callable[[Decision], None] = lambda decision: None
    closed: str = ""
    decisions: list[Decision] = field(default_factory=list)
    _groups_of: dict[str, list[GroupSearch]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for decision in self.settings.current(self.log.read()):
            self._apply(decision, refill=True)

    def next_trial(self) -> SearchTrial | None:
        """The next trial, which has begun with this call; None if all groups wait for results or have ended."""
        for group in self._in_turn():
            while steps := group.next_steps():
                last = steps[-1]
                if last.kind is Kind.TRIAL and last.key in self._groups_of:  # another group has begun it and paid for it
                    last = steps[-1] = replace(last, epoch=self._epochs_left(last.key))
                if excess := self._excess(group, last):
                    self._take([Decision(kind=Kind.BUDGET, reason=excess)])
                    return self.next_trial()
                self._take(steps)
                if last.kind is Kind.TRIAL and not self._share(last.key):
                    return self._begun(group, last)
        return None

    def at_rung(self, key: str, epoch: int, value: float) -> str:
        """Why a trial should stop after so many sparse epochs; empty if it goes on."""
        for group in self._groups_of.get(key, ()):
            decision = group.at_rung(key, epoch, value)
            if decision is not None:
                self._take([decision])
        return self.stop_reason(key)

    def stop_reason(self, key: str) -> str:
        """Why a trial should stop, or was stopped; empty otherwise. It goes on while another group needs it."""
        trials = self.trials(key)
        return self.furthest(key).stop_reason if trials and all(trial.stop_reason for trial in trials) else ""

    def furthest(self, key: str) -> TrialRecord:
        """The record of a trial in the group that has seen most of its rungs."""
        return max(self.trials(key), key=lambda trial: max(trial.rungs, default=0))

    def finish(self, key: str, metrics: Mapping[str, float], seconds: float) -> None:
        """A trial is finished."""
        self._end(key, FINISHED, metrics, seconds)

    def stop(self, key: str, epochs: int, seconds: float) -> None:
        """A trial was stopped early, after so many sparse epochs."""
        self._end(key, STOPPED, {}, seconds, epochs=epochs)

    def fail(self, key: str, message: str, epochs: int | None = None, seconds: float = 0.0) -> None:
        """A trial failed for good, after so many epochs besides its warm-up; None is all of them."""
        self._end(key, FAILED, {}, seconds, epochs=epochs, reason=message)

    def trials(self, key: str) -> list[TrialRecord]:
        """The records of a trial, in each group that has it."""
        return [group.by_key[key][1] for group in self._groups_of.get(key, ())]

    def unfinished(self) -> Iterator[tuple[GroupSearch, TrialRecord]]:
        """Trials that have begun and have no result."""
        for group in self.groups:
            for trial in group.trials():
                if trial.state == RUNNING:
                    yield group, trial

    def retry(self, key: str) -> None:
        """A trial that failed runs again."""
        for group in self._groups_of.get(key, ()):
            if group.retry(key):
                trial = group.by_key[key][1]
                self.meter.running[key] = max(self.meter.running.get(key, 0), trial.cost - trial.epochs)

    def begin_again(self, keys: Mapping[str, str]) -> None:
        """Trials begin again under other keys, since what they compute with has changed; what they were before is forgotten.

        Args:
            keys: former key -> present key.
        """
        for former, present in keys.items():
            for group in list(self._groups_of.get(former, ())):
                cost = 0 if present in self._groups_of else group.cost_of(group.by_key[former][1].config)
                self._take([group.beginning_again(former, present, cost)])

    def summary(self) -> dict[str, str]:
        """Group -> what its search is doing, in words."""
        return {group.group.name: group.summary() for group in self.groups}

    @property
    def is_done(self) -> bool:
        """Whether every group has ended."""
        return all(group.end is not None for group in self.groups)

    def _in_turn(self) -> list[GroupSearch]:
        """The groups that have not ended, those with the fewest trials first."""
        return sorted((group for group in self.groups if group.end is None), key=lambda group: len(group.by_key))

    def _excess(self, group: GroupSearch, step: Decision) -> str:
        """Why the budget does not allow a step; empty if it does."""
        if self.closed or step.kind not in (Kind.CONFIGURATION, Kind.TRIAL):
            return ""
        if step.kind is Kind.TRIAL:
            cost = step.epoch or 0
        else:
            cost = group.cost_of(group.group.trial(step.values, group.rules.first_seeds[0]))
        if not cost:
            return ""
        return self.meter.excess(cost, self.elapsed(), new_configuration=step.kind is Kind.CONFIGURATION)

    def _share(self, key: str) -> bool:
        """Whether a trial that has begun need not run: in another group it runs, or has an end that counts here too."""
        others = self.trials(key)[:-1]
        if not others or any(one.state == RUNNING for one in others):
            return bool(others)
        ended = next((one for one in others if one.state != STOPPED), None)
        if ended is not None:
            self._end(key, ended.state, ended.values, 0.0, epochs=0)
            return True
        return self._is_behind_here_too(key)

    def _is_behind_here_too(self, key: str) -> bool:
        """Whether a trial that others have stopped early stops by the rule of the last group as well; else it goes on there."""
        group, rungs = self._groups_of[key][-1], self.furthest(key).rungs
        for epoch, value in sorted(rungs.items()):
            if (decision := group.at_rung(key, epoch, value)) is not None:
                self._take([decision])
        if not group.by_key[key][1].stop_reason:
            return False
        self.stop(key, max(rungs), 0.0)
        return True

    def _epochs_left(self, key: str) -> int:
        """What a trial of other groups still costs: nothing, or the rest of one that was stopped early in all of them."""
        if any(trial.state != STOPPED for trial in self.trials(key)):
            return 0
        furthest = self.furthest(key)
        return furthest.config.sparse_epochs - max(furthest.rungs)

    def _begun(self, group: GroupSearch, step: Decision) -> SearchTrial:
        metrics = self.existing(step.key)
        if metrics is not None:
            self._end(step.key, FINISHED, metrics, 0.0, epochs=0)
        config = group.by_key[step.key][1].config
        return SearchTrial(
            group=group.group.name, key=step.key, config=config, reason=step.reason, is_finished=metrics is not None
        )

    def _end(
        self, key: str, state: str, metrics: Mapping[str, float], seconds: float, epochs: int | None = None, reason: str = ""
    ) -> None:
        steps = []
        for group in self._groups_of.get(key, ()):
            trial = group.by_key[key][1]
            if trial.state in (FINISHED, STOPPED) or (trial.state == FAILED == state):
                continue
            values = (
                {name: metrics[name] for name in group.rules.objectives} if state == FINISHED else _at_last_rung(group, trial)
            )
            spent = _epochs(trial, state, epochs)
            steps.append(group.result(key, state, values, spent, seconds if trial.cost else 0.0, reason or trial.stop_reason))
        if steps:
            self._take(steps)

    def _take(self, decisions: Sequence[Decision]) -> None:
        """Writes decisions, then lets them take effect."""
        elapsed = self.elapsed()
        timed = [replace(decision, elapsed_s=elapsed) for decision in decisions]
        self.log.write(timed)
        for decision in timed:
            self._apply(decision, refill=False)
        for decision in timed:
            self.on_decision(decision)

    def _apply(self, decision: Decision, *, refill: bool) -> None:
        self.decisions.append(decision)
        if decision.kind in (Kind.START, Kind.LEARNED):
            return
        if decision.kind is Kind.BUDGET:
            self.closed = decision.reason
            for group in self.groups:
                group.closed = decision.reason
            return
        group = next(one for one in self.groups if one.group.name == decision.group)
        elsewhere = self._epochs_elsewhere(group, decision)
        former = group.key_of_same_trial(decision) if decision.kind is Kind.TRIAL else None
        if former is not None:
            self._groups_of[former].remove(group)
            self.meter.running.pop(former, None)
        group.apply(decision, refill=refill)
        if decision.kind is Kind.TRIAL:
            members = self._groups_of.setdefault(decision.key, [])
            if group not in members:
                members.append(group)
            if decision.epoch:
                self.warmups.add(group.by_key[decision.key][1].config)
            first = decision.configuration is not None and len(group.configurations[decision.configuration].trials) == 1
            first = first and former is None
            self.meter.begin(decision.key, decision.epoch or 0, new_configuration=first and bool(decision.epoch))
        elif decision.kind is Kind.RESULT:
            self.meter.end(decision.key, decision.epoch or 0, decision.seconds or 0.0, elsewhere)

    def _epochs_elsewhere(self, group: GroupSearch, decision: Decision) -> int:
        """How many epochs of a result a shared warm-up has trained; a trial that runs again has reported them before."""
        if decision.kind is not Kind.RESULT or not self.warmups.shared:
            return 0
        trial = group.by_key[decision.key][1]
        return max(0, trial.warmup_cost - trial.epochs)


def _epochs(trial: TrialRecord, state: str, epochs: int | None) -> int:
    """Epochs that a trial has trained and not reported: its expected ones, less those that a stop or a failure saved."""
    trained = trial.cost if epochs is None else epochs
    if state == STOPPED and epochs is not None:
        trained = trial.cost - (trial.config.sparse_epochs - epochs)
    elif state == FAILED and epochs is not None and trial.cost:
        trained = trial.warmup_cost + epochs
    return max(0, trained - trial.epochs)


def _at_last_rung(group: GroupSearch, trial: TrialRecord) -> dict[str, Any]:
    if not trial.rungs:
        return {}
    return {group.rules.objective: trial.rungs[max(trial.rungs)]}

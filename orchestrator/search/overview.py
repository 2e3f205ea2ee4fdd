"""What a search has found out so far, from its decisions alone: for `plan` and `report`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from orchestrator.search.cost import search_cost
from orchestrator.search.decision_file import DecisionFile
from orchestrator.search.decisions import Decision, Kind, MemoryLog
from orchestrator.search.factory import DIRECTIONS, make_search
from orchestrator.search.group_search import GroupSearch
from orchestrator.search.proposals import observation_of
from orchestrator.search.records import FINISHED, STOPPED, ConfigurationRecord
from orchestrator.search.samplers import Sampler, importances
from orchestrator.search.space import values_text
from orchestrator.search.warmups import WarmupLedger
from orchestrator.spec.loader import spec_from_resolved
from orchestrator.state.sweep_folder import SweepFolder
from orchestrator.storage.base import Storage
from trainables.config.keys import trial_key

if TYPE_CHECKING:
    from orchestrator.spec.schema import SweepSpec


@dataclass(frozen=True, kw_only=True)
class ConfigurationOverview:
    """One configuration.

    Attributes:
        means: objective -> mean over its finished trials; empty without one.
        keys: of its finished trials.
        ruled_out: why it gets no more seeds; empty while it may.
        is_contender: its first seeds are finished, and nothing rules it out.
    """

    number: int
    values: Mapping[str, Any]
    means: Mapping[str, float]
    keys: tuple[str, ...]
    ruled_out: str
    is_contender: bool

    @property
    def text(self) -> str:
        return values_text(self.values)


@dataclass(frozen=True, kw_only=True)
class StoppedTrial:
    """A trial that was stopped early; its value is that of a rung, and comparable with no finished one."""

    key: str
    configuration: int
    seed: int
    rung: int
    value: float
    reason: str


@dataclass(frozen=True, kw_only=True)
class GroupOverview:
    """One group.

    Attributes:
        outcome: how it ended; empty while it goes on.
        reason: why it ended so; while it goes on, what it is doing.
        best: the recommended configuration, or the one that is ahead; None before there is one, and with several objectives.
        epochs: that its ended trials trained, each shared warm-up with the first that needed it.
    """

    name: str
    outcome: str
    reason: str
    best: ConfigurationOverview | None
    configurations: tuple[ConfigurationOverview, ...]
    stopped: tuple[StoppedTrial, ...]
    epochs: int
    importances: Mapping[str, float]

    @property
    def ruled_out(self) -> int:
        return sum(bool(one.ruled_out) for one in self.configurations)


@dataclass(frozen=True, kw_only=True)
class SearchOverview:
    """All groups of a search.

    Attributes:
        objectives: metric -> max or min.
        closed: why nothing new begins, such as a budget; empty while it may.
        trials: that have begun.
        grid_epochs: of the full grid without dense baselines; None if it is infinite, or was not asked for.
    """

    objectives: Mapping[str, str]
    groups: tuple[GroupOverview, ...]
    closed: str
    trials: int
    grid_epochs: int | None = None

    @property
    def epochs(self) -> int:
        return sum(group.epochs for group in self.groups)

    @property
    def finished(self) -> int:
        """Trials of all groups that are finished."""
        return sum(len(one.keys) for group in self.groups for one in group.configurations)

    @property
    def stopped(self) -> int:
        return sum(len(group.stopped) for group in self.groups)


def read_overview(spec: SweepSpec, storage: Storage, *, with_importances: bool = False) -> SearchOverview:
    """What the decisions of a sweep say."""
    return overview(spec, DecisionFile(storage, spec.name).read(), with_importances=with_importances)


def recorded_overview(folder: SweepFolder, *, with_importances: bool = False) -> SearchOverview:
    """What the search of a sweep with a record has found, beside its full grid."""
    spec = spec_from_resolved(folder.storage.read_json(folder.file("spec.json")))
    cost = search_cost(spec)
    seen = read_overview(spec, folder.storage, with_importances=with_importances)
    return replace(seen, grid_epochs=None if cost.grid is None else cost.grid.epochs - cost.dense.epochs)


def overview(spec: SweepSpec, decisions: Sequence[Decision], *, with_importances: bool = False) -> SearchOverview:
    """What these decisions say.

    Args:
        with_importances: also which axes matter, which imports Optuna and takes a second or two.
    """
    ledger = WarmupLedger(key_of=lambda config: "", shared=False)
    search = make_search(spec, log=MemoryLog(decisions), key_of=lambda config: trial_key(config, ""), warmups=ledger)
    results = [one for one in decisions if one.kind is Kind.RESULT]
    groups = []
    for group in search.groups:
        epochs = sum(one.epoch or 0 for one in results if one.group == group.group.name)
        shares = _importances(spec, group) if with_importances else {}
        groups.append(_group(group, epochs, shares))
    trials = len({key for group in search.groups for key in group.by_key})
    return SearchOverview(objectives=spec.objective, groups=tuple(groups), closed=search.closed, trials=trials)


def _group(group: GroupSearch, epochs: int, shares: Mapping[str, float]) -> GroupOverview:
    contenders = {one.number for one in group.standings.contenders()}
    objectives = list(group.rules.objectives)
    configurations = tuple(_configuration(one, objectives, one.number in contenders) for one in group.configurations)
    leader = group.standings.leader() if len(objectives) == 1 else None
    ahead = None if leader is None else leader.number
    best = ahead if group.end is None else group.end.configuration
    return GroupOverview(
        name=group.group.name,
        outcome=group.end.state if group.end else "",
        reason=group.end.reason if group.end else group.summary(),
        best=None if best is None else configurations[best],
        configurations=configurations,
        stopped=tuple(_stopped(group)),
        epochs=epochs,
        importances=shares,
    )


def _configuration(record: ConfigurationRecord, objectives: Sequence[str], is_contender: bool) -> ConfigurationOverview:
    keys = tuple(trial.key for trial in record.trials.values() if trial.state == FINISHED)
    return ConfigurationOverview(
        number=record.number,
        values=record.values,
        means={objective: record.mean(objective) for objective in objectives} if keys else {},
        keys=keys,
        ruled_out=record.ruled_out,
        is_contender=is_contender,
    )


def _stopped(group: GroupSearch) -> list[StoppedTrial]:
    return [
        StoppedTrial(
            key=trial.key,
            configuration=configuration.number,
            seed=trial.seed,
            rung=max(trial.rungs),
            value=trial.rungs[max(trial.rungs)],
            reason=trial.stop_reason,
        )
        for configuration, trial in group.by_key.values()
        if trial.state == STOPPED and trial.rungs
    ]


def _importances(spec: SweepSpec, group: GroupSearch) -> dict[str, float]:
    """Share of each axis in the variance of the first objective; empty where there are too few finished configurations."""
    objectives, space = list(group.rules.objectives), group.group.space
    directions = tuple(DIRECTIONS[direction] for direction in group.rules.objectives.values())
    sampler = Sampler(name="random", space=space, directions=directions, seed=spec.strategy.seed, purpose=group.group.name)
    try:
        return importances(sampler, [observation_of(one, space, objectives) for one in group.configurations])
    except RuntimeError:  # all values are the same
        return {}

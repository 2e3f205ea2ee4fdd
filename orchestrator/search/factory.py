"""Makes the search that a sweep file describes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from orchestrator.search.budget import Limits, Meter
from orchestrator.search.decisions import Decision, DecisionLog, Kind
from orchestrator.search.early_stopping import EarlyStopper, asha_rungs, median_rungs
from orchestrator.search.group_search import GroupSearch
from orchestrator.search.groups import Group, groups_of, seeds_of
from orchestrator.search.learning import observations
from orchestrator.search.proposals import CANDIDATES, GridProposer, Proposer, SamplerProposer
from orchestrator.search.rules import GroupRules, unit_of
from orchestrator.search.samplers import Observation, Sampler
from orchestrator.search.search import Search
from orchestrator.search.settings import SearchSettings
from orchestrator.search.space import Values
from orchestrator.search.warmups import WarmupLedger
from trainables.config.trial import TrialConfig

if TYPE_CHECKING:
    from orchestrator.spec.schema import SweepSpec

DIRECTIONS: dict[str, Literal["minimize", "maximize"]] = {"max": "maximize", "min": "minimize"}
StopperFactory = Callable[[Group], EarlyStopper]


def make_search(
    spec: SweepSpec,
    *,
    log: DecisionLog,
    key_of: Callable[[TrialConfig], str],
    warmups: WarmupLedger,
    stopper_of: StopperFactory | None = None,
    existing: Callable[[str], Mapping[str, float] | None] = lambda key: None,
    elapsed: Callable[[], float] = lambda: 0.0,
    learn: Callable[[Sequence[Group], Sequence[str]], Sequence[Decision]] = lambda groups, objectives: (),
    gpus_per_trial: float = 0.0,
    candidates: int = CANDIDATES,
) -> Search:
    """The search of a sweep, continued from its log.

    Args:
        stopper_of: makes the early-stopping rule of a group; None without early stopping.
        existing: the metrics of a trial that is finished already, by key.
        learn: reads what other sweeps found out, when the search starts for the first time.

    Raises:
        UserError: the log is of a search with another course, or nothing can be learned.
    """
    settings, planned = SearchSettings.of(spec), groups_of(spec)
    decisions = _begun(log, settings, lambda: learn(planned, list(spec.objective)))
    rules = _rules(spec)

    def cost_of(config: TrialConfig) -> int:
        return 0 if existing(key_of(config)) is not None else warmups.cost(config)

    groups = [
        GroupSearch(
            group=group,
            rules=rules,
            proposer=_proposer(
                spec, group, rules, warmups, observations(decisions, group.name, group.space, list(spec.objective)), candidates
            ),
            key_of=key_of,
            cost_of=cost_of,
            stopper=stopper_of(group) if stopper_of else None,
        )
        for group in planned
    ]
    return Search(
        groups=groups,
        log=log,
        settings=settings,
        meter=Meter(limits=_limits(spec), gpus_per_trial=gpus_per_trial),
        warmups=warmups,
        existing=existing,
        elapsed=elapsed,
    )


def _begun(log: DecisionLog, settings: SearchSettings, learn: Callable[[], Sequence[Decision]]) -> list[Decision]:
    """The decisions of the log, to which the start and what is learned at the first one are added."""
    decisions = list(log.read())
    settings.require_same_course(decisions)
    starts = [one for one in decisions if one.kind is Kind.START]
    news = [] if starts else [one for one in learn() if one not in decisions]
    if not starts or starts[-1].values != settings.decision().values:
        log.write([*news, settings.decision()])
    return decisions + news


def _rules(spec: SweepSpec) -> GroupRules:
    first, further = seeds_of(spec)
    return GroupRules(
        objectives=spec.objective,
        first_seeds=first,
        further_seeds=further,
        confidence=spec.seeds.confidence if spec.seeds else 0.95,
        indifference=spec.seeds.indifference * unit_of(next(iter(spec.objective))) if spec.seeds else 0.0,
        configurations=spec.strategy.configurations,
    )


def _limits(spec: SweepSpec) -> Limits:
    return Limits() if spec.budget is None else Limits(**spec.budget.model_dump())


def _proposer(
    spec: SweepSpec,
    group: Group,
    rules: GroupRules,
    warmups: WarmupLedger,
    learned: Sequence[Observation],
    candidates: int,
) -> Proposer:
    seed = rules.first_seeds[0]

    @cache
    def identity(items: tuple[tuple[str, Any], ...]) -> TrialConfig:
        return group.trial(dict(items), seed)

    def identity_of(values: Values) -> TrialConfig:
        return identity(tuple(values.items()))

    if spec.strategy.name == "grid":
        return GridProposer(space=group.space, identity_of=identity_of, seed=spec.strategy.seed, purpose=group.name)
    directions = tuple(DIRECTIONS[direction] for direction in rules.objectives.values())
    return SamplerProposer(
        sampler=Sampler(
            name=spec.strategy.name, space=group.space, directions=directions, seed=spec.strategy.seed, purpose=group.name
        ),
        space=group.space,
        objectives=tuple(rules.objectives),
        identity_of=identity_of,
        missing_warmup=lambda values: sum(warmups.missing(group.trial(values, seed)) for seed in rules.first_seeds),
        start_with=spec.strategy.start_with,
        learned=learned,
        candidates=candidates,
    )


def rungs_of(spec: SweepSpec, config: TrialConfig) -> tuple[int, ...]:
    """The sparse epochs after which a trial is compared with others; empty without early stopping."""
    rule = spec.early_stopping
    if rule is None or config.is_dense:
        return ()
    if rule.name == "median":
        return median_rungs(rule.grace_epochs, config.sparse_epochs)
    return asha_rungs(rule.grace_epochs, rule.reduction, config.sparse_epochs)

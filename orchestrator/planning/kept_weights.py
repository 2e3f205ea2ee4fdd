"""How many weights each configuration of a plan keeps, and which keep none."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from math import prod
from typing import Any

from orchestrator.errors import UserError
from orchestrator.planning.entries import PlannedTrial
from orchestrator.planning.network_shapes import shape_of_network
from orchestrator.planning.plan import Plan
from trainables.config.trial import TrialConfig
from trainables.errors import ConfigError
from trainables.pruning.kept_weights import Shapes, check_kept_weights, decides_kept_weights, kept_weights, prunable_shapes

CHANNELS = "whole channels are removed, and the scores decide of which layers"
TIMES = "the timing table decides how many weights each layer keeps"
SURELY_SOME = 0.01  # at this density every built-in network keeps some weights, so `run` does not check it


@dataclass(frozen=True, kw_only=True, slots=True)
class KeptWeights:
    """The counts of one configuration; unknown ones are None, with the reason in `problem`.

    Attributes:
        method: of those that decide the number by their options; empty for the others.
        sparsity: as written; of srste that of its counts.
        layers: prunable ones.
    """

    model: str
    width: int
    method: str
    sparsity: float
    prunable: int | None = None
    kept: int | None = None
    layers: int | None = None
    problem: str | None = None

    @property
    def warning(self) -> str:
        """A warning on a configuration that is allowed; mostly empty."""
        if self.kept is not None and self.layers is not None and self.kept < self.layers:
            return f"{self.kept} kept weights are fewer than the {self.layers} layers of {self.model}: some are left empty"
        return ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"warning": self.warning or None}


def counts_of_plan(plan: Plan) -> list[KeptWeights]:
    """The different counts of the pruned configurations, in the order of the trials.

    Raises:
        UserError: an unfinished configuration keeps no weight.
    """
    counts: dict[KeptWeights, None] = {}
    problems: dict[str, None] = {}
    shapes: dict[Any, Shapes] = {}
    for trial in _pruning(plan):
        try:
            counts[_count(plan, trial, problems, shapes)] = None
        except ConfigError as error:
            counts[replace(_setting(trial.config), problem=str(error))] = None
    _raise_problems(problems)
    return list(counts)


def require_kept_weights(plan: Plan) -> None:
    """Raises UserError for configurations that keep no weight; checks only likely ones, since a check may take seconds."""
    problems: dict[str, None] = {}
    shapes: dict[Any, Shapes] = {}
    for trial in _pruning(plan):
        if trial.result is None and (1 - trial.config.sparsity < SURELY_SOME or trial.config.prunable.exclude):
            with suppress(ConfigError):  # not known here, or the check of the network reports it
                _count(plan, trial, problems, shapes)
    _raise_problems(problems)


def _raise_problems(problems: dict[str, None]) -> None:
    if problems:
        raise UserError("\n".join(problems), code="nothing-kept")


def _pruning(plan: Plan) -> list[PlannedTrial]:
    return [trial for trial in plan.trials if not trial.config.is_dense]


def _count(plan: Plan, trial: PlannedTrial, problems: dict[str, None], known: dict[Any, Shapes]) -> KeptWeights:
    """The counts of a trial; one that keeps nothing is added to the problems, and the shapes of its network to the known ones.

    Raises:
        ConfigError: they cannot be known on this machine.
    """
    config = trial.config
    if plan.data_facts is None:
        raise ConfigError(plan.data_problem or "the data have not been read yet; --hash reads them")
    network = config.model, config.width, config.prunable
    shapes = known.get(network) or prunable_shapes(config, shape_of_network(plan, config))
    known[network] = shapes
    try:
        if trial.result is None:
            check_kept_weights(config, shapes)
    except ConfigError as error:
        problems[str(error)] = None
    total, kept = sum(prod(shape) for shape in shapes.values()), kept_weights(config, shapes)
    if config.prunes_channels or config.uses_timings:
        problem = CHANNELS if config.prunes_channels else TIMES
        return replace(_setting(config), prunable=total, layers=len(shapes), problem=problem)
    count = replace(_setting(config), prunable=total, kept=kept, layers=len(shapes))
    return replace(count, sparsity=1 - kept / total) if config.options.fixed_sparsity() is not None else count


def _setting(config: TrialConfig) -> KeptWeights:
    method = config.method if decides_kept_weights(config) else ""
    return KeptWeights(model=config.model, width=config.width, method=method, sparsity=config.sparsity)

"""Strategies that propose configurations: Optuna's samplers through ask and tell, and the grid.

Every question has a seed of its own, made from the search's seed, the group and the number of the question. So a search that is
continued asks as the uninterrupted one would have asked.

To add a strategy, add an entry to SAMPLERS and its meaning to STRATEGIES (orchestrator/spec/search_schema.py).
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from orchestrator.search.space import Space

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler
    from optuna.study import Study

STARTUP = 10  # configurations that tpe and gp draw at random first
# With more observations a question to the sampler takes seconds: the best and the latest of them are kept.
MAX_OBSERVATIONS = {"tpe": 500, "gp": 150}


@dataclass(frozen=True, slots=True)
class SamplerChoice:
    """How a sampler is made.

    Attributes:
        make: from a seed for each question, and the seed of the whole search.
        one_sequence: its proposals are one sequence for the whole search, as Sobol points are.
        learns: it looks at the results so far.
        keeps_attributes: it needs what it noted on earlier proposals, such as their generation.
    """

    make: Callable[[int, int], BaseSampler]
    one_sequence: bool = False
    learns: bool = True
    keeps_attributes: bool = False


def _random(seed: int, search_seed: int) -> BaseSampler:
    from optuna.samplers import RandomSampler

    return RandomSampler(seed=seed)


def _qmc(seed: int, search_seed: int) -> BaseSampler:
    from optuna.samplers import QMCSampler

    return QMCSampler(scramble=True, seed=search_seed)


def _tpe(seed: int, search_seed: int) -> BaseSampler:
    from optuna.samplers import TPESampler

    return TPESampler(seed=seed, multivariate=True, constant_liar=True, n_startup_trials=STARTUP)


def _gp(seed: int, search_seed: int) -> BaseSampler:
    from optuna.samplers import GPSampler

    return GPSampler(seed=seed, n_startup_trials=STARTUP)


def _nsga2(seed: int, search_seed: int) -> BaseSampler:
    from optuna.samplers import NSGAIISampler

    return NSGAIISampler(seed=seed, population_size=STARTUP)


SAMPLERS: dict[str, SamplerChoice] = {
    "random": SamplerChoice(_random, learns=False),
    "qmc": SamplerChoice(_qmc, one_sequence=True, learns=False),
    "tpe": SamplerChoice(_tpe),
    "gp": SamplerChoice(_gp),
    "nsga2": SamplerChoice(_nsga2, keeps_attributes=True),
}


@dataclass(frozen=True, slots=True)
class Proposal:
    """Values of a configuration, and what the sampler notes on it."""

    values: dict[str, Any]
    attributes: dict[str, Any]


@dataclass(kw_only=True)
class Observation:
    """What the sampler knows of one configuration.

    Attributes:
        values: the objectives, in their order; None while it runs, or if a trial failed.
        pruned_at: sparse epochs after which it was stopped; its values are those at that rung.
        failed: a trial failed, so the configuration is no evidence.
        attributes: what the sampler noted when it proposed the configuration.
    """

    parameters: Mapping[str, Any]
    values: Sequence[float] | None = None
    pruned_at: int | None = None
    failed: bool = False
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(kw_only=True)
class Sampler:
    """Proposes configurations of one group.

    Attributes:
        directions: maximize or minimize, for each objective.
        seed: of the search; `purpose` tells its groups apart.
    """

    name: str
    space: Space
    directions: tuple[Literal["minimize", "maximize"], ...]
    seed: int
    purpose: str
    _distributions: dict[str, Any] = field(default_factory=dict)
    _sequence: list[Proposal] = field(default_factory=list)
    _sequence_study: Study | None = None

    def propose(self, observations: Sequence[Observation], question: int) -> Proposal:
        """The next configuration; the same for the same observations and number of the question."""
        if not self._distributions:
            self._distributions = self.space.distributions()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # experimental arguments, and axes that are sampled independently
            if SAMPLERS[self.name].one_sequence:
                return self._in_sequence(question)
            return self._ask(self._study(observations, question))

    def _in_sequence(self, question: int) -> Proposal:
        """One of the proposals of a sequence, which is drawn as far as it is needed."""
        if self._sequence_study is None:
            self._sequence_study = self._study((), 0)
        while len(self._sequence) <= question:
            self._sequence.append(self._ask(self._sequence_study))
        return self._sequence[question]

    def _ask(self, study: Study) -> Proposal:
        trial = study.ask(self._distributions)
        keeps = SAMPLERS[self.name].keeps_attributes
        return Proposal(self.space.decode(trial.params), dict(study.trials[-1].system_attrs) if keeps else {})

    def _study(self, observations: Sequence[Observation], question: int) -> Study:
        """A study that knows the observations: made anew for each question, so that a continued search has the same one."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        choice = SAMPLERS[self.name]
        sampler = choice.make(derived_seed(self.seed, self.purpose, question), derived_seed(self.seed, self.purpose, -1))
        study = optuna.create_study(directions=list(self.directions), sampler=sampler)
        if choice.learns:
            study.add_trials([self._trial(one) for one in self._known(observations)])
        return study

    def _known(self, observations: Sequence[Observation]) -> Sequence[Observation]:
        limit = MAX_OBSERVATIONS.get(self.name)
        if limit is None or len(observations) <= limit:
            return observations
        older, latest = observations[: -(limit // 2)], observations[-(limit // 2) :]
        sign = -1 if self.directions[0] == "maximize" else 1
        complete = [i for i, one in enumerate(older) if one.values is not None and one.pruned_at is None]
        best = sorted(complete, key=lambda i: sign * (older[i].values or (0.0,))[0])[: limit - len(latest)]
        return [*(older[index] for index in sorted(best)), *latest]

    def _trial(self, observation: Observation) -> Any:
        from optuna.trial import TrialState, create_trial

        common: dict[str, Any] = {
            "params": dict(observation.parameters),
            "distributions": self._distributions,
            "system_attrs": dict(observation.attributes),
        }
        if observation.failed:
            return create_trial(state=TrialState.FAIL, **common)
        if observation.values is None:
            return create_trial(state=TrialState.RUNNING, **common)
        if observation.pruned_at is not None and self.name != "gp":  # gp knows finished trials alone
            steps = {observation.pruned_at: observation.values[0]}
            return create_trial(state=TrialState.PRUNED, intermediate_values=steps, **common)
        return create_trial(state=TrialState.COMPLETE, values=list(observation.values), **common)


def derived_seed(seed: int, purpose: str, number: int) -> int:
    """A seed below 2**31 for one use."""
    digest = hashlib.sha256(f"{seed}/{purpose}/{number}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def importances(sampler: Sampler, observations: Sequence[Observation]) -> dict[str, float]:
    """Share of each axis in the variance of the first objective, by Optuna's fANOVA; empty with fewer than 4 observations."""
    import optuna

    finished = [one for one in observations if one.values is not None and one.pruned_at is None]
    if len(finished) < 4 or len(sampler.space.axes) < 2:
        return {}
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sampler._distributions = sampler._distributions or sampler.space.distributions()
    study = optuna.create_study(directions=list(sampler.directions))
    study.add_trials([sampler._trial(one) for one in finished])
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=sampler.seed)
    return optuna.importance.get_param_importances(study, evaluator=evaluator, target=lambda trial: trial.values[0])

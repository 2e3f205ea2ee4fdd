"""Which configuration a group tries next: given ones first, then those of its strategy, none twice.

A sampler is asked for several candidates. They are draws from the same state of knowledge, so none is known to be better than
another, and one whose warm-up is trained already goes before one whose warm-up is not. Every second proposal is the sampler's
first candidate whatever it costs, so that long warm-ups are tried too.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from orchestrator.search.records import FINISHED, ConfigurationRecord
from orchestrator.search.samplers import Observation, Proposal, Sampler, derived_seed
from orchestrator.search.space import Space, Values

CANDIDATES = 4
MAX_REPEATS = 16  # proposals in a row that were tried before; then a finite space is gone through in order
QUESTION = "question"


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A configuration to try, what the sampler notes on it, and why."""

    values: dict[str, Any]
    attributes: dict[str, Any]
    reason: str


def shuffled_grid(space: Space, seed: int, purpose: str) -> list[dict[str, Any]]:
    """All configurations of a finite space, in an order drawn from the seed."""
    grid = list(space.grid())
    random.Random(derived_seed(seed, purpose, -2)).shuffle(grid)
    return grid


class Proposer(Protocol):
    """Proposes the configurations of one group, from those that it has."""

    def next(self, configurations: Sequence[ConfigurationRecord]) -> Suggestion | None:
        """The next one; None if there is none left. The same for the same configurations and results."""


@dataclass(kw_only=True)
class GridProposer:
    """Every configuration of a finite space, in an order drawn from the seed.

    In the order of the file neighbours follow each other. Where accuracy rises along an axis, each would be better than those
    before it, and early stopping would stop almost none.
    """

    space: Space
    identity_of: Callable[[Values], Any]
    seed: int
    purpose: str
    _order: list[dict[str, Any]] = field(default_factory=list)

    def next(self, configurations: Sequence[ConfigurationRecord]) -> Suggestion | None:
        if not self._order:
            self._order = shuffled_grid(self.space, self.seed, self.purpose)
        known = {self.identity_of(one.values) for one in configurations}
        values = next((values for values in self._order if self.identity_of(values) not in known), None)
        if values is None:
            return None
        return Suggestion(values, {}, f"grid: configuration {len(known) + 1} of {self.space.size:g}, in random order")


@dataclass(kw_only=True)
class SamplerProposer:
    """Asks a sampler.

    Attributes:
        objectives: names of the metrics that the sampler learns, in the order of its directions.
        identity_of: equal for configurations that lead to the same trial.
        missing_warmup: epochs of warm-up that a configuration would have to train first.
        start_with: known beforehand, each with values for some axes.
        learned: of another sweep, parameters with their objectives.
        candidates: how many the sampler is asked for.
    """

    sampler: Sampler
    space: Space
    objectives: tuple[str, ...]
    identity_of: Callable[[Values], Any]
    missing_warmup: Callable[[Values], int]
    start_with: Sequence[Values] = ()
    learned: Sequence[Observation] = ()
    candidates: int = CANDIDATES
    _grid: list[dict[str, Any]] = field(default_factory=list)

    def next(self, configurations: Sequence[ConfigurationRecord]) -> Suggestion | None:
        known = {self.identity_of(one.values) for one in configurations}
        question = 1 + max((one.attributes.get(QUESTION, -1) for one in configurations), default=-1)
        observations = [*self.learned, *(observation_of(one, self.space, self.objectives) for one in configurations)]
        reasons = {one.reason for one in configurations}
        for index, given in enumerate(self.start_with):
            reason = f"strategy.start_with[{index}]"
            if reason in reasons:
                continue
            values = dict(given)
            if set(values) != {axis.key for axis in self.space.axes}:
                values = self.sampler.propose(observations, question).values | values
            if self.identity_of(values) not in known:
                return Suggestion(values, {QUESTION: question}, reason)
        return self._asked(observations, known, question, first_only=len(configurations) % 2 == 1)

    def _asked(
        self, observations: Sequence[Observation], known: set[Any], question: int, *, first_only: bool
    ) -> Suggestion | None:
        fresh: list[tuple[Proposal, int]] = []
        wanted = 1 if first_only else self.candidates
        for proposal, number in self._proposals(observations, question):
            if self.identity_of(proposal.values) not in known:
                fresh.append((proposal, number))
            if len(fresh) == wanted or (fresh and not self.missing_warmup(fresh[0][0].values)):
                break
        name = self.sampler.name
        if not fresh:
            return self._untried(known, question + MAX_REPEATS)
        costs = [self.missing_warmup(proposal.values) for proposal, _ in fresh]
        chosen = costs.index(0) if 0 in costs else 0
        proposal, number = fresh[chosen]
        reason = name
        if chosen:
            reason += f": candidate {chosen + 1}, whose warm-up is trained; that of the first lacks {costs[0]} epochs"
        return Suggestion(proposal.values, proposal.attributes | {QUESTION: number}, reason)

    def _proposals(self, observations: Sequence[Observation], question: int) -> Iterator[tuple[Proposal, int]]:
        for number in range(question, question + MAX_REPEATS):
            yield self.sampler.propose(observations, number), number

    def _untried(self, known: set[Any], question: int) -> Suggestion | None:
        """A configuration that was not tried, where the sampler proposes known ones alone; None if there is none."""
        if math.isinf(self.space.size):
            return None
        if not self._grid:
            self._grid = shuffled_grid(self.space, self.sampler.seed, self.sampler.purpose)
        values = next((values for values in self._grid if self.identity_of(values) not in known), None)
        if values is None:
            return None
        return Suggestion(
            values, {QUESTION: question}, f"not tried yet; {self.sampler.name} proposed known ones {MAX_REPEATS} times"
        )


def observation_of(configuration: ConfigurationRecord, space: Space, objectives: Sequence[str]) -> Observation:
    """What a sampler learns from one configuration."""
    parameters = space.encode(configuration.values)
    attributes: Mapping[str, Any] = {key: value for key, value in configuration.attributes.items() if key != QUESTION}
    stopped = configuration.stopped_trial
    if configuration.has_failed:
        return Observation(parameters=parameters, failed=True, attributes=attributes)
    if stopped is not None and stopped.rungs:
        epoch = max(stopped.rungs)
        return Observation(parameters=parameters, values=(stopped.rungs[epoch],), pruned_at=epoch, attributes=attributes)
    finished = [trial for trial in configuration.trials.values() if trial.state == FINISHED]
    if not finished or configuration.is_running:
        return Observation(parameters=parameters, attributes=attributes)
    means = [configuration.mean(objective) for objective in objectives]
    return Observation(parameters=parameters, values=means, attributes=attributes)

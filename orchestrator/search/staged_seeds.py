"""The race of the leading configurations of a group over further seeds: who gets the next one, who drops out, when it ends."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from orchestrator.search.racing import Look, Outcome, RaceRule, bounds_above, look, noise_of
from orchestrator.search.records import ConfigurationRecord
from orchestrator.search.rules import GroupRules
from trainables.wording import counted

Contenders = Sequence[ConfigurationRecord]


@dataclass(frozen=True, kw_only=True)
class RaceStep:
    """What the race does next: another trial, or its end, after those that a look showed to be worse or behind.

    Attributes:
        leader: number of the leading configuration, where a look was taken.
        seeds: that all contenders have had.
        worse, behind: number of a configuration -> by how much it may be better than the leader; None where that is not known.
        next_configuration, next_seed: of the trial, unless there is an outcome.
    """

    leader: int = 0
    seeds: int
    reason: str
    worse: Mapping[int, float | None] = field(default_factory=dict)
    behind: Mapping[int, float | None] = field(default_factory=dict)
    outcome: Outcome | None = None
    next_configuration: int = 0
    next_seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Race:
    """The state of a race.

    Attributes:
        configurations: of the group, those that dropped out included.
    """

    rules: GroupRules
    configurations: Contenders

    @property
    def seeds(self) -> tuple[int, ...]:
        return (*self.rules.first_seeds, *self.rules.further_seeds)

    def next_step(self, contenders: Contenders) -> RaceStep:
        """The next step; no trial of the contenders is running. All contenders get a seed before they are compared again."""
        return self.missing_seed(contenders) or self._after_look(contenders, max(map(self._seeds_run, contenders)))

    def missing_seed(self, contenders: Contenders) -> RaceStep | None:
        """The trial of a contender that lacks a seed of another; None if all have the same ones."""
        most = max(map(self._seeds_run, contenders))
        for configuration in contenders:
            if self._seeds_run(configuration) < most:
                return RaceStep(
                    seeds=most - 1,
                    reason="the seeds of the other contenders",
                    next_configuration=configuration.number,
                    next_seed=self.seeds[self._seeds_run(configuration)],
                )
        return None

    def _after_look(self, contenders: Contenders, most: int) -> RaceStep:
        """Compares the contenders, together with those that this look has ruled out before an interruption."""
        numbers = {one.number for one in contenders}
        seen = self._look([one for one in self.configurations if one.number in numbers or one.left_after == most], most)
        if seen.leader not in numbers:  # the leader of that look has failed since
            seen = self._look(contenders, most)
        left = numbers - {*seen.worse, *seen.behind}
        settled = all(seen.bounds[number][1] <= self.rules.indifference for number in left if number != seen.leader)
        bounds = {number: upper if math.isfinite(upper) else None for number, (_, upper) in seen.bounds.items()}
        worse = {number: bounds[number] for number in seen.worse if number in numbers}
        behind = {number: bounds[number] for number in seen.behind if number in numbers}
        if settled or most == len(self.seeds):
            outcome, reason = self._outcome(seen.leader, self.seeds[:most], seen.worse)
            return RaceStep(leader=seen.leader, seeds=most, reason=reason, worse=worse, behind=behind, outcome=outcome)
        return RaceStep(
            leader=seen.leader,
            seeds=most,
            reason=f"one of {len(left)} contenders",
            worse=worse,
            behind=behind,
            next_configuration=seen.leader,
            next_seed=self.seeds[most],
        )

    def _seeds_run(self, configuration: ConfigurationRecord) -> int:
        return sum(seed in configuration.trials for seed in self.seeds)

    def _look(self, compared: Contenders, seeds: int) -> Look:
        return look(self._values(compared, self.seeds[:seeds]), self._rule())

    def _values(self, contenders: Contenders, seeds: Sequence[int]) -> dict[int, list[float]]:
        """Configuration -> its values, larger is better."""
        sign, objective = self.rules.sign, self.rules.objective
        return {one.number: [sign * value for value in one.finished_values(objective, seeds)] for one in contenders}

    def _rule(self) -> RaceRule:
        return RaceRule(
            confidence=self.rules.confidence,
            looks=len(self.rules.further_seeds) + 1,
            comparisons=len(self._finished()) - 1,
            chance=self.rules.chance,
        )

    def _finished(self) -> list[ConfigurationRecord]:
        return [one for one in self.configurations if one.has_finished(self.rules.first_seeds) and not one.has_failed]

    def _outcome(self, leader: int, seeds: Sequence[int], worse: Sequence[int]) -> tuple[Outcome, str]:
        """Which end it is, by what may still be better than the leader."""
        surplus = self._surplus(leader, seeds, worse)
        most = max(surplus.values(), default=0.0)
        confidence = f"{self.rules.confidence:.0%}, with {counted(len(seeds), 'seed')}"
        if not surplus:
            return Outcome.BETTER, f"better than every other configuration at {confidence}"
        difference = self.rules.difference(max(0.0, most))
        if most <= self.rules.indifference:
            return Outcome.INDIFFERENT, f"no other configuration is better by more than {difference} at {confidence}"
        unclear = sum(value > self.rules.indifference for value in surplus.values())
        reason = f"{counted(unclear, 'other configuration')} cannot be told from it"
        if not difference:
            return Outcome.UNDECIDED, f"{reason}, with {counted(len(seeds), 'seed')}"
        return Outcome.UNDECIDED, f"{reason}; none is better by more than {difference} at {confidence}"

    def _surplus(self, leader: int, seeds: Sequence[int], worse: Sequence[int]) -> dict[int, float]:
        """Each configuration that is not known to be worse -> by how much it may be better than the leader.

        One that was behind is compared by the seeds that it has. The noise is that of the look that shows it best.
        """
        finished = self._finished()
        looks = [seeds[:count] for count in range(1, len(seeds) + 1)]
        rows = [self._values([one for one in finished if one.has_finished(shared)], shared) for shared in looks]
        noise = max(map(noise_of, rows), key=lambda one: one.freedom)
        surplus = {}
        for configuration in finished:
            if configuration.number == leader or configuration.is_worse or configuration.number in worse:
                continue
            shared = seeds[: self._seeds_run(configuration)]
            pair = self._values([configuration, self.configurations[leader]], shared)
            reach = noise.reach(len(shared), self._rule().level)
            surplus[configuration.number] = bounds_above(pair, leader, reach)[configuration.number][1]
        return {number: value for number, value in surplus.items() if value >= 0}

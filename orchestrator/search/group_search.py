"""The search within one group: propose configurations, run their first seeds, then race the leading ones over further seeds.

`next_steps` decides without side effects on this state; `apply` changes the state by a decision that was written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestrator.search.decisions import Decision, Kind
from orchestrator.search.early_stopping import EarlyStopper
from orchestrator.search.groups import Group
from orchestrator.search.proposals import Proposer
from orchestrator.search.racing import Outcome
from orchestrator.search.records import FAILED, FINISHED, RUNNING, STOPPED, ConfigurationRecord, TrialRecord
from orchestrator.search.rules import GroupRules
from orchestrator.search.space import values_text
from orchestrator.search.staged_seeds import Race, RaceStep
from orchestrator.search.standings import Standings
from trainables.config.trial import TrialConfig
from trainables.wording import counted

CONTINUES, STOPS = "continues", "stops"
AGAIN = "again, since a file that it uses has changed"


@dataclass(kw_only=True)
class GroupSearch:
    """The state of one group.

    Attributes:
        key_of: the trial key of a configuration with a seed.
        cost_of: epochs that a trial would train now.
        closed: why nothing new begins, such as a budget; empty while it may.
        standings: which configurations may be the best.
    """

    group: Group
    rules: GroupRules
    proposer: Proposer
    key_of: Callable[[TrialConfig], str]
    cost_of: Callable[[TrialConfig], int]
    stopper: EarlyStopper | None = None
    configurations: list[ConfigurationRecord] = field(default_factory=list)
    by_key: dict[str, tuple[ConfigurationRecord, TrialRecord]] = field(default_factory=dict)
    closed: str = ""
    end: Decision | None = None
    standings: Standings = field(init=False)

    def __post_init__(self) -> None:
        self.standings = Standings(rules=self.rules, configurations=self.configurations)

    def next_steps(self) -> list[Decision]:
        """Decisions to take now, to be written together; empty while the group waits for results, or has ended."""
        if self.end is not None:
            return []
        if not self.closed:
            if begun := self._next_first_seed():
                return [begun]
            if proposed := self._proposal():
                return [proposed]
        if any(configuration.is_running for configuration in self.configurations):
            return self._seed_beside_others()
        return self._end_or_race()

    def at_rung(self, key: str, epoch: int, value: float) -> Decision | None:
        """Whether a running trial goes on after so many sparse epochs; None if that was decided, or is not to be."""
        configuration, trial = self.by_key[key]
        if self.stopper is None or not trial.can_stop or trial.state != RUNNING or trial.stop_reason or epoch in trial.rungs:
            return None
        state, reason = CONTINUES, ""
        if self.stopper.should_stop(key, epoch, value):
            if configuration is self.standings.in_front():
                reason = "a seed of the leading configuration"
            else:
                state = STOPS
                at = f"after {counted(epoch, 'sparse epoch')}"
                reason = f"{self.rules.objective} {value:.4f} {at} is behind others of {self.group.name}"
        return self._decision(
            Kind.RUNG, configuration, trial.seed, key=key, epoch=epoch, value=value, state=state, reason=reason
        )

    def result(
        self, key: str, state: str, values: Mapping[str, float], epochs: int, seconds: float, reason: str = ""
    ) -> Decision:
        """The end of a trial."""
        configuration, trial = self.by_key[key]
        return self._decision(
            Kind.RESULT,
            configuration,
            trial.seed,
            key=key,
            state=state,
            values=dict(values),
            epoch=epochs,
            seconds=round(seconds, 3),
            reason=reason,
        )

    def beginning_again(self, former: str, present: str, cost: int) -> Decision:
        """A trial begins again under another key."""
        configuration, trial = self.by_key[former]
        return self._decision(Kind.TRIAL, configuration, trial.seed, key=present, epoch=cost, reason=AGAIN)

    def key_of_same_trial(self, beginning: Decision) -> str | None:
        """The key under which the trial that begins was known before; None if it is new, or has the same key."""
        assert beginning.configuration is not None
        assert beginning.seed is not None
        before = self.configurations[beginning.configuration].trials.get(beginning.seed)
        return None if before is None or before.key == beginning.key else before.key

    def _next_first_seed(self) -> Decision | None:
        for configuration in self.configurations:
            if configuration.ruled_out or configuration.stopped_trial or configuration.has_failed:
                continue
            for seed in self.rules.first_seeds:
                if seed not in configuration.trials:
                    return self._trial(configuration, seed, configuration.reason if not configuration.trials else "first seeds")
        return None

    def _proposal(self) -> Decision | None:
        limit = self.rules.configurations
        if limit is not None and len(self.configurations) >= limit:
            return None
        proposal = self.proposer.next(self.configurations)
        if proposal is None:
            return None
        number = len(self.configurations)
        return Decision(
            kind=Kind.CONFIGURATION,
            group=self.group.name,
            configuration=number,
            values=proposal.values,
            attributes=proposal.attributes,
            reason=proposal.reason,
        )

    def _end_or_race(self) -> list[Decision]:
        contenders = self.standings.contenders()
        if not contenders:
            return [self._ending(Outcome.NOTHING, None, "no configuration has a result for all its first seeds")]
        if len(self.rules.objectives) > 1:
            outcome = Outcome.BUDGET if self.closed else Outcome.EXPLORED
            reason = f"{self.closed}; " if self.closed else ""
            return [self._ending(outcome, None, f"{reason}{len(contenders)} configurations were run; see the Pareto front")]
        if not self.rules.further_seeds or self.closed:
            return [self._ending_without_race()]
        return self._decisions(self._race.next_step(contenders))

    def _ending_without_race(self) -> Decision:
        best = self.standings.leader()
        assert best is not None
        outcome = Outcome.BUDGET if self.closed else Outcome.EXPLORED
        return self._ending(outcome, best, self.closed or f"all {len(self.configurations)} configurations were run")

    def _seed_beside_others(self) -> list[Decision]:
        """A seed that a contender of the race needs whatever the running trials show."""
        contenders = self.standings.contenders()
        if self.closed or not contenders or not self.rules.further_seeds:
            return []
        step = self._race.missing_seed(contenders)
        return [] if step is None else self._decisions(step)

    @property
    def _race(self) -> Race:
        return Race(rules=self.rules, configurations=self.configurations)

    def _decisions(self, step: RaceStep) -> list[Decision]:
        decisions = []
        for kind, numbers, text in ((Kind.RULED_OUT, step.worse, "worse than"), (Kind.BEHIND, step.behind, "behind")):
            if numbers:
                verb = "is" if len(numbers) == 1 else "are"
                over = f"configuration {step.leader} over {counted(step.seeds, 'seed')}"
                reason = f"{counted(len(numbers), 'configuration')} {verb} {text} {over}"
                values = {str(number): bound for number, bound in numbers.items()}
                decisions.append(
                    Decision(
                        kind=kind,
                        group=self.group.name,
                        configuration=step.leader,
                        values=values,
                        epoch=step.seeds,
                        reason=reason,
                    )
                )
        if step.outcome is not None:
            return [*decisions, self._ending(step.outcome, self.configurations[step.leader], step.reason)]
        return [*decisions, self._trial(self.configurations[step.next_configuration], step.next_seed, step.reason)]

    def apply(self, decision: Decision, *, refill: bool = False) -> None:
        """Changes the state by a decision.

        Args:
            refill: the decision was taken by an earlier run, so the rungs are filled again.
        """
        if decision.kind is Kind.CONFIGURATION:
            self.configurations.append(
                ConfigurationRecord(
                    number=len(self.configurations),
                    values=decision.values,
                    reason=decision.reason,
                    attributes=decision.attributes,
                )
            )
        elif decision.kind is Kind.TRIAL:
            self._begin(decision)
        elif decision.kind is Kind.RUNG:
            self._pass_rung(decision, refill)
        elif decision.kind is Kind.RESULT:
            self._finish(decision)
        elif decision.kind in (Kind.RULED_OUT, Kind.BEHIND):
            for number in decision.values:
                configuration = self.configurations[int(number)]
                configuration.ruled_out, configuration.left_after = decision.reason, decision.epoch
                configuration.left_to = decision.configuration
                configuration.is_worse = decision.kind is Kind.RULED_OUT
        elif decision.kind is Kind.END:
            self.end = decision
        if decision.kind in (Kind.RUNG, Kind.RESULT, Kind.RULED_OUT, Kind.BEHIND):
            self.standings.changed()

    def retry(self, key: str) -> bool:
        """Lets a trial that failed run again; False if it did not."""
        trial = self.by_key[key][1]
        failed = trial.state == FAILED
        if failed:
            trial.state = RUNNING
            self.standings.changed()
        return failed

    def _begin(self, decision: Decision) -> None:
        assert decision.configuration is not None
        assert decision.seed is not None
        configuration = self.configurations[decision.configuration]
        config = self.group.trial(configuration.values, decision.seed)
        if (former := self.key_of_same_trial(decision)) is not None:
            del self.by_key[former]
            self.standings.changed()
        trial = TrialRecord(
            key=decision.key,
            seed=decision.seed,
            config=config,
            cost=decision.epoch or 0,
            can_stop=self.stopper is not None and decision.seed in self.rules.first_seeds,
        )
        configuration.trials[decision.seed] = trial
        self.by_key[decision.key] = (configuration, trial)
        if self.stopper is not None and trial.can_stop:
            self.stopper.add(trial.key)

    def _pass_rung(self, decision: Decision, refill: bool) -> None:
        configuration, trial = self.by_key[decision.key]
        assert decision.epoch is not None
        assert decision.value is not None
        if refill and self.stopper is not None:
            self.stopper.should_stop(trial.key, decision.epoch, decision.value)
        trial.rungs[decision.epoch] = decision.value
        if decision.state == STOPS:
            trial.stop_reason = decision.reason
            configuration.ruled_out = decision.reason

    def _finish(self, decision: Decision) -> None:
        configuration, trial = self.by_key[decision.key]
        assert decision.state in (FINISHED, STOPPED, FAILED)
        self.end = None  # of a trial that failed before the end and ran again
        trial.state, trial.values, trial.seconds = decision.state, decision.values, decision.seconds or 0.0
        trial.epochs += decision.epoch or 0
        if trial.state == FINISHED and self.stopper is not None and trial.can_stop:
            self.stopper.finish(trial.key, trial.config.sparse_epochs, trial.values[self.rules.objective])
        if trial.state == FAILED:
            self.standings.forget_comparisons_with(configuration)

    def trials(self) -> Iterator[TrialRecord]:
        """All trials of the group, in the order in which they began."""
        return (trial for _, trial in self.by_key.values())

    def summary(self) -> str:
        """What the search of this group is doing, in words."""
        ruled_out = sum(bool(one.ruled_out) or one.has_failed for one in self.configurations)
        counts = f"{counted(len(self.configurations), 'configuration')}, {ruled_out} ruled out"
        if self.end is not None:
            best = f", recommended is {values_text(self.end.values)}" if self.end.values else ""
            return f"{self.end.state}: {counts}{best}; {self.end.reason}"
        leader = self.standings.leader()
        if leader is None:
            return f"exploring: {counts}"
        values = values_text(leader.values)
        doing = "racing seeds" if any(seed in leader.trials for seed in self.rules.further_seeds) else "exploring"
        return f"{doing}: {counts}; ahead is {values} with {self.rules.objective} {leader.mean(self.rules.objective):.4f}"

    def _trial(self, configuration: ConfigurationRecord, seed: int, reason: str) -> Decision:
        config = self.group.trial(configuration.values, seed)
        return self._decision(
            Kind.TRIAL, configuration, seed, key=self.key_of(config), epoch=self.cost_of(config), reason=reason
        )

    def _ending(self, outcome: Outcome, best: ConfigurationRecord | None, reason: str) -> Decision:
        failed = sum(one.has_failed for one in self.configurations)
        if failed and best is not None:
            reason += f"; {counted(failed, 'configuration')} failed and {'is' if failed == 1 else 'are'} not compared"
        if best is None:
            return Decision(kind=Kind.END, group=self.group.name, state=outcome.value, reason=reason)
        return Decision(
            kind=Kind.END,
            group=self.group.name,
            configuration=best.number,
            values=dict(best.values),
            value=best.mean(self.rules.objective),
            state=outcome.value,
            reason=reason,
        )

    def _decision(self, kind: Kind, configuration: ConfigurationRecord, seed: int, **values: Any) -> Decision:
        return Decision(kind=kind, group=self.group.name, configuration=configuration.number, seed=seed, **values)

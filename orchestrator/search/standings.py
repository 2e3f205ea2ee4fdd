"""Which configurations of a group may be the best, and which of them is ahead."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.search.racing import adjusted_means
from orchestrator.search.records import ConfigurationRecord
from orchestrator.search.rules import GroupRules


@dataclass(kw_only=True)
class Standings:
    """The standings of a group; `changed` is called when a result or a rung may have changed them.

    Attributes:
        configurations: of the group, a list that grows.
    """

    rules: GroupRules
    configurations: list[ConfigurationRecord]
    _leader: ConfigurationRecord | None = None
    _leader_is_known: bool = False

    def changed(self) -> None:
        self._leader_is_known = False

    def leader(self) -> ConfigurationRecord | None:
        """The best of the contenders by their means, from which the parts of the seeds are taken; None before the first."""
        if not self._leader_is_known:
            self._leader, self._leader_is_known = self._best_of(self.contenders()), True
        return self._leader

    def contenders(self) -> list[ConfigurationRecord]:
        """The configurations that may be the best: their first seeds are finished and nothing rules them out."""
        seeds = self.rules.first_seeds
        return [one for one in self.configurations if not one.ruled_out and not one.has_failed and one.has_finished(seeds)]

    def in_front(self) -> ConfigurationRecord | None:
        """The best configuration by whatever seeds are finished so far."""
        return self._best_of(
            [
                one
                for one in self.configurations
                if not one.ruled_out and not one.has_failed and one.finished_values(self.rules.objective)
            ]
        )

    def _best_of(self, configurations: list[ConfigurationRecord]) -> ConfigurationRecord | None:
        means = adjusted_means({one.number: one.values_by_seed(self.rules.objective) for one in configurations})
        return max(configurations, key=lambda one: (self.rules.sign * means[one.number], -one.number), default=None)

    def forget_comparisons_with(self, failed: ConfigurationRecord) -> None:
        """What was worse than a configuration that has failed since may be the best, if nobody else is left to race.

        Otherwise it gets no more seeds: those that are left were better than it.
        """
        compared = [one for one in self.configurations if one.left_to == failed.number]
        for one in compared:
            one.is_worse = False
        last = max((one.left_after or 0 for one in compared if not one.has_failed), default=0)
        if not self.contenders():
            for one in compared:
                if one.left_after == last:
                    one.ruled_out, one.left_after, one.left_to = "", None, None

"""The part of a report on a search: for each group its outcome, what was stopped early, which axes matter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from orchestrator.prose import print_prose
from orchestrator.reporting.pareto import pareto_front
from orchestrator.search.overview import ConfigurationOverview, GroupOverview, SearchOverview, StoppedTrial
from orchestrator.state.sweep_state import SweepState


@dataclass(frozen=True, kw_only=True)
class Block:
    """One table."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]


@dataclass(frozen=True, kw_only=True)
class SearchSection:
    """What a search found.

    Attributes:
        names: trial key -> name.
        finished: keys of finished trials; one that was stopped early may be among them, if it was taken on to its end.
    """

    overview: SearchOverview
    names: Mapping[str, str]
    finished: frozenset[str]

    @classmethod
    def of(cls, overview: SearchOverview, state: SweepState) -> SearchSection:
        finished = frozenset(key for key, trial in state.trials.items() if trial.state == "finished")
        return cls(overview=overview, names={key: trial.name for key, trial in state.trials.items()}, finished=finished)

    @property
    def stopped(self) -> int:
        """Trials that were stopped early and not taken on."""
        return sum(len(self._stopped(group)) for group in self.overview.groups)

    def lines(self) -> list[str]:
        """The outcome of each group in a sentence, what it took, and which axes matter."""
        lines = []
        for group in self.overview.groups:
            lines.append(f"{group.name}: {self.sentence(group)}")
            if group.configurations:
                lines.append(f"  {self._counts(group)}")
            if group.importances:
                lines.append(f"  {self._importances(group)}")
        return [*lines, self._total()]

    def sentence(self, group: GroupOverview) -> str:
        """What the group recommends, and why."""
        if not group.outcome:
            return group.reason
        if group.best is None:
            return f"{group.reason} ({group.outcome})"
        return f"recommended is {self._configuration(group.best)} ({group.outcome}): {group.reason}"

    def _configuration(self, one: ConfigurationOverview) -> str:
        means = ", ".join(f"{objective} {mean:.4g}" for objective, mean in one.means.items())
        return f"{one.text} with {means}"

    def _counts(self, group: GroupOverview) -> str:
        stopped = len({one.configuration for one in group.stopped})
        return (
            f"{len(group.configurations)} configurations tried, {stopped} of them stopped early, "
            f"{group.ruled_out - stopped} ruled out otherwise; {group.epochs:,} epochs"
        )

    def _importances(self, group: GroupOverview) -> str:
        objective = next(iter(self.overview.objectives))
        shares = ", ".join(f"{axis} {share:.0%}" for axis, share in group.importances.items())
        return f"what {objective} depends on (fANOVA): {shares}"

    def _total(self) -> str:
        whole, used = self.overview.grid_epochs, self.overview.epochs
        share = f", {used / whole:.1%} of the full grid's {whole:,}" if whole else ""
        return f"epochs of the search: {used:,}{share}"

    def blocks(self) -> list[Block]:
        """The Pareto front of each group, and the trials that were stopped early."""
        fronts = [self._front(group) for group in self.overview.groups] if len(self.overview.objectives) > 1 else []
        rows: list[tuple[str, ...]] = [
            (self.names.get(one.key, one.key), group.name, str(one.rung), f"{one.value:.4f}")
            for group in self.overview.groups
            for one in self._stopped(group)
        ]
        columns = ("trial", "group", "sparse epochs", f"{next(iter(self.overview.objectives))} there")
        stopped = Block(title="stopped early, and so in no mean", columns=columns, rows=rows)
        return [block for block in (*fronts, stopped) if block.rows]

    def _stopped(self, group: GroupOverview) -> list[StoppedTrial]:
        return [one for one in group.stopped if one.key not in self.finished]

    def _on_front(self, group: GroupOverview) -> list[ConfigurationOverview]:
        """The configurations of the group that no other dominates, best first in the first objective."""
        objectives = self.overview.objectives
        known = [one for one in group.configurations if one.is_contender]
        values = [[one.means[objective] for objective in objectives] for one in known]
        front = [known[index] for index in pareto_front(values, list(objectives.values()))]
        first, direction = next(iter(objectives.items()))
        return sorted(front, key=lambda one: one.means[first], reverse=direction == "max")

    def _front(self, group: GroupOverview) -> Block:
        front = self._on_front(group)
        axes = tuple(front[0].values) if front else ()
        heads = tuple(f"{objective} ({direction})" for objective, direction in self.overview.objectives.items())
        rows = [(*map(str, one.values.values()), *(f"{mean:.4g}" for mean in one.means.values())) for one in front]
        return Block(title=f"Pareto front of {group.name}", columns=(*axes, *heads), rows=rows)

    def print(self, console: Console) -> None:
        for line in self.lines():
            print_prose(console, line)
        for block in self.blocks():
            table = Table(title=block.title, title_justify="left", header_style="bold", box=None, padding=(0, 2, 0, 0))
            for column in block.columns:
                table.add_column(column, justify="right")
            for row in block.rows:
                table.add_row(*row)
            console.print(table)

    def to_json(self) -> dict[str, Any]:
        overview = self.overview
        return {
            "objectives": dict(overview.objectives),
            "epochs": overview.epochs,
            "grid_epochs": overview.grid_epochs,
            "groups": [self._group_json(group) for group in overview.groups],
        }

    def _group_json(self, group: GroupOverview) -> dict[str, Any]:
        several = len(self.overview.objectives) > 1
        return {
            "name": group.name,
            "outcome": group.outcome or None,
            "reason": group.reason,
            "best": group.best and asdict(group.best),
            "configurations": [asdict(one) for one in group.configurations],
            "stopped_early": [asdict(one) for one in self._stopped(group)],
            "epochs": group.epochs,
            "importances": dict(group.importances),
            "pareto_front": sorted(one.number for one in self._on_front(group)) if several else None,
        }

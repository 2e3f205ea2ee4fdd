"""Settings -> the heat maps of a sweep, as grids of fields that a picture or a terminal can show.

A grid has warm-ups as columns. Its rows are the iteration counts of one method, or, where a sweep has several, all methods,
each at its best.
"""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.reporting.aggregate import ConfigSummary, best_of, panels, several_methods
from orchestrator.reporting.cells import by_cell, chosen


@dataclass(frozen=True, kw_only=True, slots=True)
class HeatmapCell:
    """One setting at its place.

    Attributes:
        framed: whether validation chose it among all of the grid.
        note: what its row does not say: its iterations, where they differ along the row.
    """

    setting: ConfigSummary
    framed: bool = False
    note: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Grid:
    """One heat map.

    Attributes:
        rows: their labels, from top to bottom.
        fields: by row and column; where there is no trial there is none.
    """

    title: str
    row_axis: str
    rows: tuple[str, ...]
    warmups: tuple[int, ...]
    fields: dict[tuple[int, int], HeatmapCell]

    @property
    def settings(self) -> list[ConfigSummary]:
        return [field.setting for field in self.fields.values()]


def grids(settings: list[ConfigSummary]) -> list[Grid]:
    """Every map with more than one field.

    Over all methods, if there are several, then of each method over its iterations; one that has no choice of iterations is
    told by the map over all methods.
    """
    several = several_methods(settings)
    made = _method_grids(settings) if several else []
    for title, members in panels(settings):
        if not several or len({one.config.rounds for one in members}) > 1:
            made.append(_iteration_grid(title, members))
    return [grid for grid in made if len(grid.fields) > 1]


def _iteration_grid(title: str, members: list[ConfigSummary]) -> Grid:
    rounds = sorted({one.config.prune_iterations for one in members}, reverse=True)
    warmups = sorted({one.config.warmup_epochs for one in members})
    return Grid(
        title=title,
        row_axis="iterations",
        rows=tuple(map(str, rounds)),
        warmups=tuple(warmups),
        fields={
            (rounds.index(one.config.prune_iterations), warmups.index(one.config.warmup_epochs)): HeatmapCell(
                setting=one, framed=one.best
            )
            for one in members
        },
    )


def _method_grids(settings: list[ConfigSummary]) -> list[Grid]:
    """A map over all methods for each sparsity and combination of the axes that they share."""
    found: dict[str, dict[str, list[ConfigSummary]]] = {}
    for cell, members in by_cell(settings).items():
        title = f"methods, sparsity {cell.sparsity!r}" + (f", {cell.others}" if cell.others else "")
        rows = found.setdefault(title, {})
        for method, offered in members.items():
            one = chosen(offered)
            if one is not None:
                rows.setdefault(method, []).append(one)
    return [_method_grid(title, rows, _with_choice(settings)) for title, rows in found.items()]


def _method_grid(title: str, rows: dict[str, list[ConfigSummary]], with_choice: set[str]) -> Grid:
    ordered = sorted(rows)
    warmups = sorted({one.config.warmup_epochs for row in rows.values() for one in row})
    best = best_of([one for row in rows.values() for one in row])
    labels: list[str] = []
    fields: dict[tuple[int, int], HeatmapCell] = {}
    for index, method in enumerate(ordered):
        counts = {_iterations(one) for one in rows[method]} if method in with_choice else set()
        labels.append(f"{method} ({next(iter(counts))})" if len(counts) == 1 else method)
        for one in rows[method]:
            note = _iterations(one) if len(counts) > 1 else ""
            fields[index, warmups.index(one.config.warmup_epochs)] = HeatmapCell(setting=one, framed=one is best, note=note)
    return Grid(title=title, row_axis="method", rows=tuple(labels), warmups=tuple(warmups), fields=fields)


def _with_choice(settings: list[ConfigSummary]) -> set[str]:
    """The methods that have several iteration counts somewhere in the sweep."""
    rounds: dict[str, set[int]] = {}
    for one in settings:
        rounds.setdefault(one.config.method, set()).add(one.config.rounds)
    return {method for method, counts in rounds.items() if len(counts) > 1}


def _iterations(setting: ConfigSummary) -> str:
    return f"{setting.config.rounds} iteration{'' if setting.config.rounds == 1 else 's'}"

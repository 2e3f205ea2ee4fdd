"""The heat maps of a sweep as grids of cells, for a figure or the terminal.

A grid has warm-ups as columns. Its rows are the iteration counts of one method, or, where a sweep has several, all methods,
each at its best.
"""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.reporting.aggregate import ConfigSummary, best_of, heatmap_groups, several_methods
from orchestrator.reporting.comparison_cells import best_in_cell, by_cell
from trainables.config.lookup import method_label
from trainables.config.trial import Label, label_order


@dataclass(frozen=True, kw_only=True, slots=True)
class HeatmapCell:
    """One configuration in a grid.

    Attributes:
        selected: whether it has the best validation accuracy of the grid.
        note: its iterations, where they differ along the row.
    """

    setting: ConfigSummary
    selected: bool = False
    note: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Grid:
    """One heat map.

    Attributes:
        rows: their labels, from top to bottom.
        cells: by row and column, where there is a trial.
    """

    title: str
    row_axis: str
    rows: tuple[str, ...]
    warmups: tuple[Label, ...]
    cells: dict[tuple[int, int], HeatmapCell]

    @property
    def settings(self) -> list[ConfigSummary]:
        return [cell.setting for cell in self.cells.values()]


def grids(settings: list[ConfigSummary]) -> list[Grid]:
    """Every map with more than one cell.

    With several methods first the map over all of them, then one of each method that has several iteration counts.
    """
    several = several_methods(settings)
    all_grids = _method_grids(settings) if several else []
    for title, members in heatmap_groups(settings):
        if not several or len({one.config.iterations_label for one in members}) > 1:
            all_grids.append(_iteration_grid(title, members))
    return [grid for grid in all_grids if len(grid.cells) > 1]


def _iteration_grid(title: str, members: list[ConfigSummary]) -> Grid:
    rounds = sorted({one.config.iterations_label for one in members}, key=label_order, reverse=True)
    warmups = sorted({one.config.warmup_label for one in members}, key=label_order)
    return Grid(
        title=title,
        row_axis="iterations",
        rows=tuple(map(str, rounds)),
        warmups=tuple(warmups),
        cells={
            (rounds.index(one.config.iterations_label), warmups.index(one.config.warmup_label)): HeatmapCell(
                setting=one, selected=one.best
            )
            for one in members
        },
    )


def _method_grids(settings: list[ConfigSummary]) -> list[Grid]:
    """A map over all methods for each sparsity and combination of the axes that they share."""
    maps: dict[str, dict[str, list[ConfigSummary]]] = {}
    for cell, members in by_cell(settings).items():
        title = f"methods, sparsity {cell.sparsity!r}" + (f", {cell.extra_axes}" if cell.extra_axes else "")
        rows = maps.setdefault(title, {})
        for method, offered in members.items():
            one = best_in_cell(offered)
            if one is not None:
                rows.setdefault(method, []).append(one)
    return [_method_grid(title, rows, _with_choice(settings)) for title, rows in maps.items()]


def _method_grid(title: str, rows: dict[str, list[ConfigSummary]], with_choice: set[str]) -> Grid:
    ordered = sorted(rows)
    warmups = sorted({one.config.warmup_label for row in rows.values() for one in row}, key=label_order)
    best = best_of([one for row in rows.values() for one in row])
    labels: list[str] = []
    cells: dict[tuple[int, int], HeatmapCell] = {}
    for index, method in enumerate(ordered):
        counts = {_iterations(one) for one in rows[method]} if method in with_choice else set()
        label = method_label(method)
        labels.append(f"{label} ({next(iter(counts))})" if len(counts) == 1 else label)
        for one in rows[method]:
            note = _iterations(one) if len(counts) > 1 else ""
            cells[index, warmups.index(one.config.warmup_label)] = HeatmapCell(setting=one, selected=one is best, note=note)
    return Grid(title=title, row_axis="method", rows=tuple(labels), warmups=tuple(warmups), cells=cells)


def _with_choice(settings: list[ConfigSummary]) -> set[str]:
    """The methods that have several iteration counts somewhere in the sweep."""
    rounds: dict[str, set[Label]] = {}
    for one in settings:
        rounds.setdefault(one.config.method, set()).add(one.config.iterations_label)
    return {method for method, counts in rounds.items() if len(counts) > 1}


def _iterations(setting: ConfigSummary) -> str:
    return f"{setting.config.iterations_label} iteration{'' if setting.config.iterations_label == 1 else 's'}"

"""A heat map on the terminal."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from orchestrator.reporting.heatmap_grids import Grid, HeatmapCell

LEAST_WIDTH = 9  # of a column


def terminal_maps(grid: Grid, width: int) -> list[Table]:
    """Mean test accuracy over warm-up (columns) and the grid's rows, shaded from low to high.

    As many tables below each other as it takes to show all columns.
    """
    head = f"{grid.row_axis} \\ warm-up"
    labels = max(map(len, [head, *grid.rows])) + 1
    widest = max(LEAST_WIDTH, *(len(_cell_text(cell)) for cell in grid.cells.values()))
    count = max(1, (width - labels) // widest)
    columns = range(len(grid.warmups))
    return [_table(grid, head, columns[first : first + count]) for first in columns[::count]]


def _table(grid: Grid, head: str, columns: range) -> Table:
    means = [one.test.mean for one in grid.settings if one.test]
    low, high = min(means), max(means)
    table = Table(box=None, padding=(0, 0), header_style="dim")
    table.add_column(head, style="dim", justify="right", no_wrap=True)
    for column in columns:
        table.add_column(str(grid.warmups[column]), justify="center", min_width=LEAST_WIDTH, no_wrap=True)
    for row, label in enumerate(grid.rows):
        cells: list[Text] = []
        for column in columns:
            field = grid.cells.get((row, column))
            if field is None or field.setting.test is None:
                cells.append(Text(""))
                continue
            share = (field.setting.test.mean - low) / (high - low) if high > low else 1.0
            shade = 236 + round(share * 12)  # grey ramp of 256-colour terminals
            cells.append(Text(_cell_text(field), style=f"{'bold green' if field.selected else 'white'} on color({shade})"))
        table.add_row(f"{label} ", *cells)
    return table


def _cell_text(cell: HeatmapCell) -> str:
    if cell.setting.test is None:
        return ""
    note = f" ({cell.note})" if cell.note else ""
    return f" {cell.setting.test.mean:.4f}{'*' if cell.selected else ' '}{note} "

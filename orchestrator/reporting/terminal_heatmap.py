"""A heat map on the terminal."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from orchestrator.reporting.heatmap_grids import Grid


def terminal_map(grid: Grid) -> Table:
    """Mean test accuracy over warm-up (columns) and the grid's rows, shaded from low to high."""
    means = [one.test.mean for one in grid.settings if one.test]
    low, high = min(means), max(means)
    table = Table(box=None, padding=(0, 0), header_style="dim")
    table.add_column(f"{grid.row_axis} \\ warm-up", style="dim", justify="right")
    for epochs in grid.warmups:
        table.add_column(str(epochs), justify="center", min_width=9)
    for row, label in enumerate(grid.rows):
        cells: list[Text] = []
        for column in range(len(grid.warmups)):
            field = grid.cells.get((row, column))
            if field is None or field.setting.test is None:
                cells.append(Text(""))
                continue
            share = (field.setting.test.mean - low) / (high - low) if high > low else 1.0
            shade = 236 + round(share * 12)  # grey ramp of 256-colour terminals
            note = f" ({field.note})" if field.note else ""
            text = f"{field.setting.test.mean:.4f}{'*' if field.selected else ' '}{note}"
            cells.append(Text(f" {text} ", style=f"{'bold green' if field.selected else 'white'} on color({shade})"))
        table.add_row(f"{label} ", *cells)
    return table

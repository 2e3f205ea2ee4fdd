"""The common style of tables, durations and standard output."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.table import Table


def stdout_console(width: int | None = None) -> Console:
    """Standard output without automatic highlighting; `width` overrides that of the terminal."""
    return Console(highlight=False, width=width)


def plain_table(*texts: str, numbers: Iterable[str] = (), no_wrap: bool = False) -> Table:
    """A table without borders: columns of text, then right-aligned columns of numbers."""
    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    for name in texts:
        table.add_column(name, no_wrap=no_wrap)
    for name in numbers:
        table.add_column(name, justify="right")
    return table


def duration(seconds: float) -> str:
    """Such as 2 h 05 min, 3 min 07 s, or 12 s."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"

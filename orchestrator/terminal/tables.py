"""The common style of tables and of standard output."""

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

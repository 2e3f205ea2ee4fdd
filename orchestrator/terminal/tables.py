"""The common style of tables, durations and standard output."""

from __future__ import annotations

import os
from collections.abc import Iterable

from rich.console import Console
from rich.table import Table
from rich.text import Text

from orchestrator.prose import PlainConsole

PLAIN_WIDTH = 160  # columns of output that goes to a file or pipe, unless COLUMNS says it


def stdout_console(width: int | None = None) -> Console:
    """Standard output without automatic highlighting; `width` overrides that of the terminal."""
    console = PlainConsole(width=width)
    if width is None and not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = PLAIN_WIDTH
    return console


def plain_table(*texts: str, numbers: Iterable[str] = (), no_wrap: bool = False) -> Table:
    """A table without borders: columns of text, then right-aligned columns of numbers."""
    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    for name in texts:
        table.add_column(name, no_wrap=no_wrap)
    for name in numbers:
        table.add_column(name, justify="right")
    return table


def one_line(text: str, style: str = "") -> Text:
    """A text that is cut where its column is too narrow."""
    return Text(text, style=style, no_wrap=True, overflow="ellipsis")


class LineTable(Table):
    """A table with one line for each row: columns that are not among `kept` are cut to fit."""

    def __init__(self, *columns: str, kept: Iterable[str]) -> None:
        super().__init__(box=None, header_style="dim", padding=(0, 2, 0, 0))
        never_cut = set(kept)
        for name in columns:
            self.add_column(one_line(name), no_wrap=name in never_cut)

    def add_line(self, *cells: str, style: str = "") -> None:
        self.add_row(*(one_line(cell, style) for cell in cells))


def duration(seconds: float) -> str:
    """Such as 2 h 05 min, 3 min 07 s, or 12 s."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def duration_range(low: float, high: float) -> str:
    """Such as "30 min to 1 h 05 min"; without the seconds where they are no more than noise."""
    texts = [
        duration(60 * round(seconds / 60)).removesuffix(" 00 s") if seconds >= 600 else duration(seconds)
        for seconds in (low, high)
    ]
    return f"about {texts[0]}" if texts[0] == texts[1] else f"{texts[0]} to {texts[1]}"

"""Sentences on the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.padding import Padding
from rich.text import Text


def print_prose(console: Console, line: str, style: str = "", indent: int = 0) -> None:
    """Prints a line, on a terminal wrapped between words and indented as a whole; in a file or pipe it stays one line.

    Spaces at its beginning are added to the indent.
    """
    indent, line = indent + len(line) - len(line.lstrip(" ")), line.lstrip(" ")
    if console.is_terminal:
        console.print(Padding(Text(line, style=style), (0, 0, 0, indent), expand=False))
    else:
        console.print(" " * indent + line, style=style, markup=False, soft_wrap=True)

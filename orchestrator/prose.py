"""The terminal: a console that shows text from anywhere as it is, and sentences on it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.padding import Padding
from rich.segment import Segment
from rich.text import Text

from trainables.wording import without_controls


class PlainConsole(Console):
    """A console for names and errors of others: brackets in them are no markup, and control characters are escapes."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, highlight=False, **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            text = segment.text if segment.control else without_controls(segment.text)
            yield segment if text == segment.text else Segment(text, segment.style)


def print_prose(console: Console, line: str, style: str = "", indent: int = 0) -> None:
    """Prints a line, on a terminal wrapped between words and indented as a whole; in a file or pipe it stays one line.

    Spaces at its beginning are added to the indent.
    """
    indent, line = indent + len(line) - len(line.lstrip(" ")), line.lstrip(" ")
    if console.is_terminal:
        console.print(Padding(Text(line, style=style), (0, 0, 0, indent), expand=False))
    else:
        console.print(" " * indent + line, style=style, markup=False, soft_wrap=True)

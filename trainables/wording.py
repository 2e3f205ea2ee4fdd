"""Words of others in a message, on one line and never cut within a word; and names, of which the first are enough."""

from __future__ import annotations

import re
from collections.abc import Iterable

COLOURS = re.compile(r"\x1b\[[0-9;]*m")  # of a terminal
LONGEST = 300  # characters of another program's message
ELLIPSIS = " ..."


def one_line(words: object, most: int = LONGEST) -> str:
    """The text on one line, at most so many characters; an error without a text is its type."""
    return shortened(" ".join(COLOURS.sub("", str(words)).split()), most) or type(words).__name__


def shortened(text: str, most: int = LONGEST) -> str:
    """The text as it is; if it has more than so many characters its first words and " ...".

    A single word that is longer than that, such as a path, stays whole: nothing of it could be left out and be understood.
    """
    if len(text) <= most:
        return text
    words = text.split()
    kept: list[str] = []
    length = -1
    for word in words:
        length += len(word) + 1
        if kept and length > most - len(ELLIPSIS):
            break
        kept.append(word)
    return " ".join(kept) + (ELLIPSIS if len(kept) < len(words) else "")


def listed(names: Iterable[object], most: int) -> str:
    """The first names, and how many more there are."""
    texts = [str(name) for name in names]
    return ", ".join(texts[:most]) + (f" and {len(texts) - most} more" if len(texts) > most else "")

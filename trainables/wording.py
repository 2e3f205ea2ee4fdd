"""Texts for messages: one line of an error or of a program's output, shortened between words; lists, counts and sizes."""

from __future__ import annotations

import re
from collections.abc import Iterable

COLOURS = re.compile(r"\x1b\[[0-9;]*m")  # escape sequences of a terminal
CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")  # not line ends and tabs
MARKDOWN = re.compile(r"[\\`*<\[\]]")  # what begins a code, an emphasis, a tag, a link or an image
LONGEST = 300  # characters of another program's message
ELLIPSIS = " ..."
UNITS = ("bytes", "kB", "MB", "GB", "TB")


def one_line(text: object, longest: int = LONGEST) -> str:
    """The text, or that of an error, on one line of at most so many characters; an error without text gives its type."""
    return shortened(without_controls(" ".join(COLOURS.sub("", str(text)).split())), longest) or type(text).__name__


def without_controls(text: str) -> str:
    """The text without colours; other control characters, which could move the cursor or hide text, as escapes.

    Halves of surrogate pairs, which no file can hold, are escapes too.
    """
    plain = COLOURS.sub("", text.replace("\r\n", "\n"))
    return CONTROLS.sub(lambda match: match[0].encode("unicode_escape").decode(), plain)


def as_markdown(text: str) -> str:
    """The text as Markdown that shows it as it is."""
    return MARKDOWN.sub(r"\\\g<0>", text)


def first_line(text: object) -> str:
    """The first line of a text or of an error; an error without text gives its type."""
    return (str(text).strip() or type(text).__name__).splitlines()[0]


def last_line(text: object) -> str:
    """The last line of a text or of an error, where a traceback names its exception; an error without text gives its type."""
    return (str(text).strip() or type(text).__name__).splitlines()[-1]


def shortened(text: str, longest: int = LONGEST) -> str:
    """The text as it is; if it has more than so many characters, its first words and " ...".

    A single longer word, such as a path, stays whole, since a part of it would be of no use.
    """
    if len(text) <= longest:
        return text
    words = text.split()
    kept: list[str] = []
    length = -1
    for word in words:
        length += len(word) + 1
        if kept and length > longest - len(ELLIPSIS):
            break
        kept.append(word)
    return " ".join(kept) + (ELLIPSIS if len(kept) < len(words) else "")


def listed(names: Iterable[object], limit: int) -> str:
    """The first names, and how many more there are."""
    texts = [str(name) for name in names]
    return ", ".join(texts[:limit]) + (f" and {len(texts) - limit} more" if len(texts) > limit else "")


def counted(number: int, noun: str) -> str:
    """The number with its noun, such as "1 seed" and "2 seeds"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def size_text(size: int) -> str:
    """Such as 512 bytes, 3.4 kB or 1.2 GB, in powers of 1000."""
    value, unit = float(size), UNITS[0]
    for larger in UNITS[1:]:
        if round(value) < 1000:
            break
        value, unit = value / 1000, larger
    return f"{size} {unit}" if unit == UNITS[0] else f"{value:.3g} {unit}"

"""Texts of others within our messages: on one line, and never cut within a word."""

from __future__ import annotations

ELLIPSIS = " ..."


def shortened(text: str, width: int = 300) -> str:
    """The text on one line of at most `width` characters; what is too long ends after a whole word with an ellipsis.

    A single word that is longer than that, such as a path, stays whole: nothing of it could be left out and be understood.
    """
    words = text.split()
    kept: list[str] = []
    length = -1
    for word in words:
        length += len(word) + 1
        if kept and length > width - len(ELLIPSIS):
            break
        kept.append(word)
    whole = " ".join(words)
    return whole if len(whole) <= width else " ".join(kept) + (ELLIPSIS if len(kept) < len(words) else "")

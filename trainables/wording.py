"""Words of others in a message: on one line, and never cut within a word."""

from __future__ import annotations

LONGEST = 300  # characters of another program's message


def one_line(words: object, most: int = LONGEST) -> str:
    """The text on one line, at most so many characters; an error without a text is its type."""
    text = " ".join(str(words).split())
    return shortened(text or type(words).__name__, most)


def shortened(text: str, most: int = LONGEST) -> str:
    """The text, or its first words and " ...", together at most so many characters; one long word is kept whole."""
    if len(text) <= most:
        return text
    head, _, _ = text[: most - 3].rpartition(" ")
    return f"{head or text.split(maxsplit=1)[0]} ..."

"""Texts for messages: one line, cut between words, and sizes."""

from __future__ import annotations

import pytest

from trainables.wording import first_line, last_line, one_line, size_text


def test_one_line_cuts_between_words() -> None:
    assert one_line("one  two\nthree") == "one two three"
    assert one_line("alpha beta gamma delta", 18) == "alpha beta ..."
    assert one_line("x" * 400, 300) == "x" * 400
    for width in range(5, 60):
        text = "alpha beta gamma delta epsilon zeta eta theta iota"
        words = one_line(text, width).removesuffix(" ...").split()
        assert words == text.split()[: len(words)]


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [
        (ValueError("first\nsecond\n"), "first", "second"),
        (ValueError(), "ValueError", "ValueError"),
        (ValueError(" \n"), "ValueError", "ValueError"),
        ("\nonly\n", "only", "only"),
    ],
)
def test_first_and_last_line_of_an_error(text: object, first: str, last: str) -> None:
    assert (first_line(text), last_line(text)) == (first, last)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1 kB"),
        (25_460, "25.5 kB"),
        (999_600, "1 MB"),
        (3 * 10**9, "3 GB"),
    ],
)
def test_sizes_in_words(size: int, text: str) -> None:
    assert size_text(size) == text

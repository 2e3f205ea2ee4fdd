"""Where the decisions of a fuzz run come from: a seeded generator, or the bytes that a coverage-guided fuzzer tries."""

from __future__ import annotations

from random import Random
from typing import Protocol


class Choices(Protocol):
    """A source of decisions."""

    def number(self, below: int) -> int:
        """A number from 0 to below - 1."""

    def content(self, length: int) -> bytes:
        """At most so many bytes."""


class RandomChoices:
    """Decisions of a seeded generator."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)

    def number(self, below: int) -> int:
        return self.random.randrange(below)

    def content(self, length: int) -> bytes:
        return self.random.randbytes(length)


class ByteChoices:
    """Decisions that bytes spell out, the first ones first; after their end every number is 0."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def number(self, below: int) -> int:
        width = max(1, (below - 1).bit_length() + 7 >> 3)
        return int.from_bytes(self.content(width), "big") % below

    def content(self, length: int) -> bytes:
        part, self.data = self.data[:length], self.data[length:]
        return part

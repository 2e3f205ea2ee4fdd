"""Lines of JSON that end with a checksum, so that damage is found in a file that is not finished and has no digest yet.

    {"key": "val/accuracy", "step": 3, "value": 0.5, "time": 1700000000000,"crc32":"0f3a9c1e"}

The checksum is the CRC-32 of the object without it. Lines of versions without checksums are read as they are; they stand before
all others of a file, and never alone, so that a later line without one has lost it, and a first one before others with one too.
"""

from __future__ import annotations

import re
import zlib
from typing import Any

from trainables.runtime.json_text import parse_json

FIELD = "crc32"
CHECKED = re.compile(rf'(?P<text>.*),"{FIELD}":"(?P<sum>[0-9a-f]{{8}})"\}}', re.DOTALL)


def checked_line(text: str) -> str:
    """The JSON text of an object that is not empty, with its checksum."""
    return f'{text[:-1]},"{FIELD}":"{_sum_of(text)}"}}'


def read_checked_line(line: str) -> dict[str, Any]:
    """The object of a line, without its checksum; a damaged checksum is left in it as a field.

    Raises:
        ValueError: the line is no JSON object, or does not match its checksum.
    """
    match = CHECKED.fullmatch(line)
    if match is not None:
        line = match["text"] + "}"
        if _sum_of(line) != match["sum"]:
            raise ValueError(f"{line[:80]!r} does not match its checksum")
    value = parse_json(line)
    if not isinstance(value, dict):
        raise ValueError(f"{line[:80]!r} is no JSON object")
    return value


class CheckedLines:
    """Reads the lines of one file in their order.

    Attributes:
        has_checksum: whether the last line that was read had one.
    """

    def __init__(self) -> None:
        self.has_checksum = False
        self._without = 0

    def read(self, line: str) -> dict[str, Any]:
        """The object of the next line. Raises ValueError as `read_checked_line` does, and for a checksum that was lost."""
        before, self.has_checksum = self.has_checksum, CHECKED.fullmatch(line) is not None
        if before and not self.has_checksum:
            raise ValueError(f"{line[:80]!r} has lost its checksum")
        if self.has_checksum and not before and self._without == 1:
            raise ValueError(f"the line before {line[:80]!r} has lost its checksum")
        self._without += not self.has_checksum
        return read_checked_line(line)


def _sum_of(text: str) -> str:
    return f"{zlib.crc32(text.encode()):08x}"

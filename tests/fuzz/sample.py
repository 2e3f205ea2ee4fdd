"""A real file, and how it is read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.fuzz.choices import Choices


def no_edit(content: bytes, choices: Choices) -> bytes:
    return content


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One file.

    Attributes:
        read: its values, comparable with ==.
        errors: what `read` raises, as documented, for content that it refuses; None stands for that among the values.
        edit: another value in the file, with checksums that match it where it has any.
        is_checked: whether a digest or checksums cover it, so that damage is never read as another value.
    """

    name: str
    content: bytes
    read: Callable[[bytes], Any]
    errors: tuple[type[Exception], ...] = ()
    edit: Callable[[bytes, Choices], bytes] = no_edit
    is_checked: bool = True

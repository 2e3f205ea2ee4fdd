"""Values of a sweep that do not fit together."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Conflict:
    """Values that do not fit together: their keys, the rule that the first key breaks, and a hint."""

    keys: tuple[str, ...]
    rule: str
    hint: str

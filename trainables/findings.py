"""The findings of checks before a sweep, about its networks and its data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

Severity = Literal["error", "warning", "info"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One result of a check.

    Attributes:
        check: short stable name of the check, such as "gradients" or "class_counts".
        severity: an "error" stops the sweep before anything is trained; a "warning" is printed, and the sweep continues.
        message: the rule and the value.
        hint: how to fix it; empty where nothing needs to be done.
        places: names of the layers, files or classes that it is about.
    """

    check: str
    severity: Severity
    message: str
    hint: str = ""
    places: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"places": list(self.places)}

    @staticmethod
    def from_json(record: Mapping[str, Any]) -> Finding:
        return Finding(**{**record, "places": tuple(record["places"])})

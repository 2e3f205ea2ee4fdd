"""Checks on the terminal: a line each, with the hint below it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from orchestrator.prose import PlainConsole

if TYPE_CHECKING:
    from orchestrator.diagnostics.checks import Check


def print_checks(checks: Iterable[Check]) -> list[Check]:
    """Prints each check as soon as it is done, and returns all."""
    console = PlainConsole(soft_wrap=True)
    done = []
    for check in checks:
        mark, style = ("ok  ", "green") if check.ok else ("FAIL", "red")
        console.print(mark, style=style, end="")
        console.print(f" {check.name:<10}{check.message}")
        if check.hint:
            console.print(f"     {check.hint}")
        done.append(check)
    return done

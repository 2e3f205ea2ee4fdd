"""Checks on the terminal: a line each, with the hint below it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from rich.console import Console

if TYPE_CHECKING:
    from orchestrator.diagnostics.checks import Check


def print_checks(checks: Iterable[Check]) -> list[Check]:
    """Prints each check as soon as it is done, and returns all."""
    console = Console(highlight=False, soft_wrap=True)
    done = []
    for check in checks:
        mark = "[green]ok  [/green]" if check.ok else "[red]FAIL[/red]"
        console.print(f"{mark} {check.name:<10}", end="")
        console.print(check.message, markup=False)
        if check.hint:
            console.print(f"     {check.hint}", markup=False)
        done.append(check)
    return done

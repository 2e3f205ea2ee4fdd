"""The table that `resume` prints before it runs: where trials begin, and why."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from orchestrator.planning.beginnings import Beginning, Start
from orchestrator.terminal.tables import PLAIN_WIDTH, LineTable
from trainables.wording import counted

MOST_LINES = 18  # of trials that run; more are grouped by their reasons
MOST_NAMES = 2  # in a line of several trials


def print_beginnings(rows: Sequence[Beginning]) -> None:
    """Prints a line for each trial that runs, or for each reason where there are many, below a line for all others."""
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        console.width = PLAIN_WIDTH
    runs = [one for one in rows if one.start in (Start.CHECKPOINT, Start.ZERO)]
    groups = _groups(runs, each=len(runs) <= MOST_LINES)
    groups += _groups([one for one in rows if one not in runs], each=False)
    table = LineTable("trials", "begins", "because", kept=("begins",))
    for group in groups[:MOST_LINES]:
        table.add_line(_names(group), _begins(group), _because(group))
    console.print(table)
    if len(groups) > MOST_LINES:
        left = sum(map(len, groups[MOST_LINES:]))
        console.print(f"and {counted(left, 'trial')} for {counted(len(groups) - MOST_LINES, 'other reason')}", style="dim")


def _groups(rows: Sequence[Beginning], *, each: bool) -> list[list[Beginning]]:
    """Trials that begin alike for the same reason, the largest group first; or each trial alone."""
    groups: dict[tuple[str, ...], list[Beginning]] = {}
    for row in rows:
        groups.setdefault((row.key,) if each else (row.start, _reason(row)), []).append(row)
    return list(groups.values()) if each else sorted(groups.values(), key=len, reverse=True)


def _reason(row: Beginning) -> str:
    return row.kind if row.start is Start.NOT_SELECTED and row.kind else "" if row.start is Start.STOPPED_EARLY else row.reason


def _names(group: Sequence[Beginning]) -> str:
    if len(group) == 1:
        return group[0].name
    listed = ", ".join(one.name for one in group[:MOST_NAMES])
    return f"{len(group)}: {listed}{', ...' if len(group) > MOST_NAMES else ''}"


def _begins(group: Sequence[Beginning]) -> str:
    first = group[0]
    if first.start is Start.ZERO:
        return "from zero"
    if first.start is not Start.CHECKPOINT:
        return {Start.KEPT: "kept", Start.STOPPED_EARLY: "kept, stopped early"}.get(first.start, "not selected")
    places = {_place(one) for one in group}
    return f"from {places.pop()}" if len(places) == 1 else "from checkpoints"


def _place(row: Beginning) -> str:
    """Where a checkpoint was written."""
    if row.position is None:
        return "its checkpoint"
    unit = {"prune": "round", "level": "epoch of all levels", "train": "sparse epoch", "warmup": "warm-up epoch"}
    return f"{unit.get(str(row.phase), str(row.phase))} {row.position}"


def _because(group: Sequence[Beginning]) -> str:
    reasons = {one.reason for one in group}
    return reasons.pop() if len(reasons) == 1 else f"{len(reasons)} reasons"

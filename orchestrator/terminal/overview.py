"""How a sweep stands, for the live screen and for `status`: its counts, its facts, and the best of each group so far."""

from __future__ import annotations

import time

from rich.table import Table
from rich.text import Text

from orchestrator.state.sweep_state import SweepState
from orchestrator.terminal.tables import LineTable, duration, duration_range, one_line

WIDE = 110  # columns from which on the table of groups has intervals and how sure the choice is


def summary_line(state: SweepState) -> str:
    """How many trials are in which state; of a search without a total, which only its end shows."""
    counts = state.counts() | {"stopped early": state.stopped_early}
    counts["stopped"] -= state.stopped_early
    total = "" if state.search else f"/{len(state.trials)}"
    parts = [f"{counts['finished']}{total} finished"]
    parts += [f"{counts[name]} {name}" for name in ("running", "waiting", "stopped early", "stopped", "failed") if counts[name]]
    warming_up = sum(warmup.state == "running" for warmup in state.warmups.values())
    if warming_up:
        parts.append(f"{warming_up} warming up")
    return ", ".join(parts)


def search_lines(state: SweepState) -> list[str]:
    """What the search of each group is doing, or has found."""
    return [f"{group}: {doing}" for group, doing in state.search.items()]


def facts(state: SweepState, *, running: bool) -> list[tuple[str, str]]:
    """Label and text of what is known besides the counts.

    Args:
        running: a driver runs the sweep.
    """
    progress = state.progress
    each = f", {progress.workers_per_trial} workers each" if progress.workers_per_trial > 1 else ""
    rows = [("slots", f"{state.busy} of {progress.slots} busy{each}")] if running and progress.slots is not None else []
    rows.append(("time", time_text(state, running=running)))
    if epochs := epochs_text(state):
        rows.append(("epochs", epochs))
    if running or state.tracking_pending:
        rows.append(("MLflow", backlog_text(state)))
    if progress.last_error:
        rows.append(("last error", progress.last_error))
    return rows


def time_text(state: SweepState, *, running: bool) -> str:
    """Hours spent, of the driver and of all slots, and those that are left."""
    spent = f"{duration(state.progress.seconds)} spent"
    slots = state.slot_seconds(time.time()) if running else sum(stage.seconds for stage in state.all_stages())
    spent += f", {duration(slots)} of slots"
    return f"{spent}; {left_text(state)}" if running else spent


def left_text(state: SweepState) -> str:
    """The range of the time left, or that it is not known yet."""
    if state.progress.seconds_left is None:
        why = f" ({state.progress.left_unknown})" if state.progress.left_unknown else ""
        return f"time left is not known yet{why}"
    return f"{duration_range(*state.progress.seconds_left)} left"


def epochs_text(state: SweepState) -> str:
    """Epochs saved by sharing and by the search; empty where there is nothing to save."""
    progress, parts = state.progress, []
    if state.warmups:
        parts.append(f"{state.saved_by_sharing:,} saved by shared warm-ups")
    if state.stopped_early:
        parts.append(f"{state.saved_by_stopping:,} saved by early stops")
    if progress.search_epochs is not None:
        whole = f" of the full grid's {progress.grid_epochs:,}" if progress.grid_epochs else ""
        parts.append(f"the search has trained {progress.search_epochs:,}{whole}")
    return ", ".join(parts)


def backlog_text(state: SweepState) -> str:
    events = "1 event" if state.tracking_pending == 1 else f"{state.tracking_pending:,} events"
    if state.tracking_error:
        return f"{events} waiting: {state.tracking_error}"
    return f"{events} to send" if state.tracking_pending else "has everything"


def fact_table(rows: list[tuple[str, str]]) -> Table:
    """Labels and texts; a long text goes on below itself, an error is cut at the end of its line."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for label, text in rows:
        is_error = label == "last error"
        table.add_row(label, one_line(text, "red") if is_error else one_line(text) if label == "MLflow" else Text(text))
    return table


def group_table(state: SweepState, width: int, most: int) -> Table | None:
    """The groups with their best configuration so far; None before there are any.

    Args:
        most: rows; what is left out is named in one more.
    """
    known = {one["group"]: one for one in state.recommendations if "configuration" in one}
    names = list(dict.fromkeys([*state.groups, *known]))
    if not names:
        return None
    objectives = {one["objective"] for one in known.values()}
    wide = width >= WIDE
    numbers = [objectives.pop() if len(objectives) == 1 else "value", *(["95 %", "how sure"] if wide else [])]
    table = LineTable("group", "best so far", *numbers, kept=numbers)
    # Groups with results come first where not all of them fit.
    shown = names if len(names) <= most else sorted(names, key=lambda name: name not in known)[: most - 1]
    for name in shown:
        one = known.get(name)
        if one is None:
            table.add_line(name, "no result yet", style="dim")
            continue
        table.add_line(
            *(name, one["configuration"], one["value"]), *([one["interval"] or "not known", one["certainty"]] if wide else [])
        )
    if len(shown) < len(names):
        table.add_line(f"and {len(names) - len(shown)} more", style="dim")
    return table

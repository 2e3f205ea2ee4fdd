"""Prints the status of a sweep and its failed trials."""

from __future__ import annotations

import sys
import time
from collections import Counter
from typing import Any

from rich.console import Console
from rich.text import Text

from orchestrator.command_line import command
from orchestrator.prose import print_prose
from orchestrator.state.driver_liveness import driver_alive
from orchestrator.state.sweep_state import SweepState, TrialStatus
from orchestrator.terminal.overview import WIDE, fact_table, facts, search_lines, summary_line
from orchestrator.terminal.pause import pause_lines
from orchestrator.terminal.progress import best_trial
from orchestrator.terminal.tables import LineTable, duration, stdout_console
from trainables.wording import counted, without_controls

LONGEST_LIST = 20
SILENT_S = 60.0  # a driver writes its heartbeat every ten seconds
MOST_ERRORS = 5


def print_status(state: SweepState) -> None:
    """Prints a summary line, what a search does, the recommendations, time and epochs, the unfinished trials, how to go on."""
    console = stdout_console()
    driver = state.driver
    alive = driver_alive(driver)
    run_by = f"run by process {driver['pid']} on {driver['host']}{_silence(driver)}" if alive else "not running"
    console.print(Text.assemble((state.sweep, "bold"), f": {summary_line(state)} ({run_by})"))
    for line in pause_lines(state):
        print_prose(console, line, style="yellow")
    for line in search_lines(state):
        print_prose(console, line)
    for one in state.recommendations:
        print_prose(console, one["sentence"], style="bold")
        print_prose(console, one["details"][0], indent=2)
    best = None if state.recommendations else best_trial(state)
    if best is not None:
        accuracies = ", ".join(f"{name} {best.metrics[name]:.4f}" for name in ("val/accuracy", "test/accuracy"))
        console.print(f"best at the highest sparsity: {best.name} ({best.key}), {accuracies}", soft_wrap=True)
    console.print(fact_table(facts(state, running=alive)))
    _print_unfinished(console, state)
    if state.tracking_pending and not alive:
        line = f"MLflow lacks {state.tracking_pending} events; `{command('sync', state.sweep)}` sends them"
        console.print(line, markup=False, soft_wrap=True)
    if not alive and not state.is_complete and not state.pause:
        console.print(f"to continue: {command('resume', state.sweep)}", markup=False, soft_wrap=True)


def _print_unfinished(console: Console, state: SweepState) -> None:
    """The unfinished trials, a line each, and below in full what went wrong, equal errors once."""
    unfinished = [trial for trial in state.trials.values() if trial.state != "finished"]
    if not unfinished:
        return
    order = {"running": 0, "failed": 1, "stopped": 2, "waiting": 3}
    unfinished.sort(key=lambda one: (order[one.state], one.was_stopped_early))
    shown = unfinished[:LONGEST_LIST]
    kept = ("key", "state", "phase")
    # In a narrow terminal names need the room; errors stand below anyway.
    why = ("reason",) if state.search else ("error",) if console.width >= WIDE else ()
    table = LineTable("key", "name", "state", "phase", *why, kept=kept)
    for trial in shown:
        table.add_line(trial.key, trial.name, _state(trial), _phase(trial), *([trial.error or ""] if why else []))
    console.print(table)
    if len(unfinished) > len(shown):
        console.print(f"and {len(unfinished) - len(shown)} more; --json lists all", style="dim")
    errors = Counter(trial.error for trial in unfinished if trial.error and trial.state == "failed")
    for error, count in errors.most_common(MOST_ERRORS):
        print_prose(console, f"{counted(count, 'trial')} failed: {error}", style="red")
    if len(errors) > MOST_ERRORS:
        console.print(f"and {len(errors) - MOST_ERRORS} other errors", style="dim")


def _silence(driver: dict[str, Any]) -> str:
    """How long a driver has written nothing, if that is too long: it may be stopped, or its storage hangs."""
    seconds = time.time() - float(driver.get("heartbeat", time.time()))
    return f", silent for {duration(seconds)}" if seconds > SILENT_S else ""


def _state(trial: TrialStatus) -> str:
    return "stopped early" if trial.was_stopped_early else trial.state


def _phase(trial: TrialStatus) -> str:
    """Where a running trial is, and after how many sparse epochs one was stopped early."""
    if trial.was_stopped_early:
        return f"rung {trial.rung}"
    return f"{trial.phase} {trial.position}" if trial.phase and trial.state == "running" else ""


def print_failures(state: SweepState) -> None:
    """Prints keys and last error lines of the failed trials on stderr; equal errors once."""
    failed = [trial for trial in state.trials.values() if trial.state == "failed"]
    errors = Counter(trial.error or "" for trial in failed)
    for error, count in errors.most_common():
        first = next(trial for trial in failed if (trial.error or "") == error)
        more = f" and {count - 1} more" if count > 1 else ""
        print(f"failed: {first.key} {first.name}{more}: {without_controls(error)}", file=sys.stderr)

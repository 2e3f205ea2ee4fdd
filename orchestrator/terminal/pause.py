"""Says why a sweep is paused, and how it goes on."""

from __future__ import annotations

from orchestrator.command_line import command
from orchestrator.state.sweep_state import SweepState


def pause_lines(state: SweepState) -> list[str]:
    """The error that has paused the sweep, and the way on; empty if nothing has."""
    pause = state.pause
    if not pause:
        return []
    one, other = pause["trials"]
    where = f" at {pause['place']}" if pause["place"] else ""
    accepts = ("--accept-changed", pause["file"]) if pause["file"] else ()
    return [
        f"paused: {one} and {other} have no value of an axis in common, and failed with the same error "
        f"({pause['kind']}){where}: {pause['message']}",
        f"nothing new begins. Fix it, then `{command('resume', state.sweep, *accepts)}`; `--set on_error=continue` goes on "
        "whatever fails",
    ]

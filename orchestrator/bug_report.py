"""What a user reads, and sends, when drive-sweep itself fails."""

from __future__ import annotations

from orchestrator.command_line import command
from orchestrator.errors import DriverBugError


def driver_bug(traceback: str, log: str = "") -> DriverBugError:
    """The error that ends a command which met a bug.

    Args:
        traceback: as `traceback.format_exc()` writes it.
        log: where the traceback is kept; empty if it is only printed.
    """
    from orchestrator.version import source_revision  # takes an import that no other command line needs

    lines = traceback.strip().splitlines()
    kept_in = f" (also in {log})" if log else ""
    return DriverBugError(
        f"a bug of drive-sweep ended this command: {lines[-1] if lines else 'unknown error'}",
        f"finished trials are kept, and `{command('resume')}` continues the sweep. Please report the bug with this "
        f"traceback{kept_in}, the version (drive-sweep {source_revision()}), the sweep file, and the last lines of "
        f"`{command('logs')}`",
        traceback=traceback.rstrip(),
    )

"""The command line with stages that compute nothing: `python -m tests.support.noop_cli run FILE ...`.

What is left of a sweep is the real thing: command, driver, Ray and Tune, storage, tracking. For acceptance runs; `environment`
makes what the process and its workers need.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import sys
import threading
import time
from pathlib import Path
from typing import Any

from tests import ROOT

SLOTS = "DRIVE_SWEEP_NOOP_SLOTS"
REPORTING = "DRIVE_SWEEP_NOOP_REPORTING"  # whether stages report points at a steady rate (tests/support/reporting_stage.py)
USAGE = "DRIVE_SWEEP_NOOP_USAGE"  # file for the CPU seconds and the peak memory of the driver
MEMORY = "DRIVE_SWEEP_NOOP_MEMORY"  # file for the memory of driver and tracker as their events grow
EVERY = "DRIVE_SWEEP_NOOP_EVERY"  # events between two looks at the memory


def environment(slots: int, **variables: object) -> dict[str, str]:
    """The environment of such a process, beside that of this one."""
    return {"PYTHONPATH": str(ROOT), SLOTS: str(slots), **{name: str(value) for name, value in variables.items()}}


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "tests.support.noop_cli", *map(str, arguments)]


def main() -> int:
    from orchestrator import cli
    from orchestrator.cluster import connection
    from tests.benchmarks.noop_stage import noop_stage
    from tests.support.reporting_stage import reporting_stage
    from trainables.worker import trainable

    trainable.run_stage = reporting_stage if os.environ.get(REPORTING) else noop_stage
    setattr(connection, "processors", lambda: int(os.environ[SLOTS]))  # noqa: B010
    if MEMORY in os.environ:
        note_memory(Path(os.environ[MEMORY]), int(os.environ[EVERY]))
    code = cli.main()
    if USAGE in os.environ:
        used = resource.getrusage(resource.RUSAGE_SELF)
        usage = {"cpu_seconds": used.ru_utime + used.ru_stime, "peak_mb": used.ru_maxrss / 1024}
        Path(os.environ[USAGE]).write_text(json.dumps(usage))
    return code


def note_memory(file: Path, every: int) -> None:
    """Writes a line to the file whenever the driver has given the tracker so many more events."""
    from orchestrator.tracking.process import TrackingProcess

    start = TrackingProcess.start

    def noted(self: TrackingProcess) -> None:
        start(self)
        threading.Thread(target=_watch, args=(self, file, every), daemon=True).start()

    TrackingProcess.start = noted  # type: ignore[method-assign]


def _watch(tracking: Any, file: Path, every: int) -> None:
    next_at = every
    while True:
        time.sleep(0.05)
        if tracking._sent < next_at:
            continue
        next_at += every
        sent = tracking._sent
        gc.collect()
        line = {"events": sent, "driver": resident(os.getpid()), "tracker": resident(tracking._child.pid)}
        with file.open("a") as lines:
            lines.write(json.dumps(line | {"pending": tracking.pending, "time": time.time()}) + "\n")


def resident(pid: int) -> int:
    """Bytes of memory that a process has of its own: without what it shares, such as Ray's object store."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return (int(fields["RssAnon"].split()[0]) if "RssAnon" in fields else int(fields["VmRSS"].split()[0])) * 1024


if __name__ == "__main__":
    sys.exit(main())

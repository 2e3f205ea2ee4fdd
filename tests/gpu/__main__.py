"""Checks and measures everything that this project does on a GPU, within 9 minutes, and prints one table.

    python -m tests.gpu                         on this machine's GPU; without one the shortened form on the CPU
    python -m tests.gpu --only throughput       one section (or several)

It needs a checkout of this project, PyTorch with torchvision and NumPy, and two small packages, safetensors and zstandard; no
Ray, no MLflow, no network. For a machine without a package index, fetch their wheels where there is one, for the Python and
the system of that machine, and carry them along:

    pip download --only-binary=:all: --no-deps --dest wheels safetensors zstandard
    pip install --no-index --no-deps --target packages wheels/*.whl     # there
    PYTHONPATH=packages python -m tests.gpu --out gpu.json

Every section is measured alone, in the order of importance: one that fails is a row of the table, and one that would begin too
late is left out. The exit code is 1 if a check failed or a measurement raised; a missed aim and a skipped section are no
failure. gpu.json holds all rows; `python -m tests.gpu.readme gpu.json` makes the README's table of it.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.gpu.report import Report, line_of, summary_of
from tests.gpu.rows import Bench, Row, not_run
from tests.gpu.table import BRIEF_SECONDS, SECTIONS, Section
from tests.gpu.worker import Worker

WHOLE_S = 9 * 60.0
LATEST_SHARE = 0.5  # of a section's seconds that must be left for it to begin
OVERTIME = 1.5  # times a section's seconds, after which it is ended; a brief one has a minute more on slow processors
BRIEF_OVERTIME_S = 60.0


def main() -> int:
    names = [section.name for section in SECTIONS]
    parser = argparse.ArgumentParser(prog="python -m tests.gpu", description=__doc__.partition("\n")[0])
    parser.add_argument("--device", choices=("auto", "cuda", "cpu"), default="auto", help="auto: a GPU where there is one")
    parser.add_argument("--brief", action=argparse.BooleanOptionalAction, help="the shortened form; the default on a CPU")
    parser.add_argument("--only", nargs="+", choices=names, metavar="NAME", help=f"of {', '.join(names)}")
    parser.add_argument("--out", type=Path, default=Path("gpu.json"), help="the file of all rows (default: gpu.json)")
    parser.add_argument("--seconds", type=float, default=WHOLE_S, help="for all sections together")
    options = parser.parse_args()
    # Before CUDA starts: deterministic products need it, and a process of sections has both kinds.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    sections = [section for section in SECTIONS if options.only is None or section.name in options.only]
    worker = Worker()
    try:
        report = run(worker, sections, options.device, options.brief, options.seconds)
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return 2
    finally:
        worker.end()
    report.write(options.out)
    print(f"\n{summary_of(row for rows in report.rows.values() for row in rows)}; {report.seconds:.0f} s, {options.out}")
    return 1 if report.has_failed else 0


def run(worker: Worker, sections: list[Section], device: str, brief: bool | None, seconds: float) -> Report:
    """Runs the sections and prints their rows as they come. Raises RuntimeError where the device is missing."""
    date, began = datetime.now(UTC).isoformat(timespec="seconds"), time.monotonic()
    machine = worker.facts(device)
    is_brief = machine["device"] == "cpu" if brief is None else brief
    _print_machine(machine, is_brief)
    rows: dict[str, list[Row]] = {}
    for section in sections:
        print(f"\n{section.name}: {section.shows}", flush=True)
        rows[section.name] = []
        left = began + seconds - time.monotonic()
        for row in _rows(worker, section, machine["device"], is_brief, left):
            rows[section.name].append(row)
            print(line_of(row), flush=True)
    if machine["device"] == "cuda":
        machine |= {"state_after": worker.facts(device).get("state", {})}
    return Report(
        date=date,
        seconds=time.monotonic() - began,
        brief=is_brief,
        machine=machine,
        packages=sorted(worker.packages),
        rows=rows,
    )


def _rows(worker: Worker, section: Section, device: str, brief: bool, left: float) -> Iterator[Row]:
    """The rows of one section, within the time that is left for all."""
    planned = BRIEF_SECONDS if brief else section.seconds
    if left < LATEST_SHARE * planned:
        yield not_run(section.name.replace("_", " "))
        return
    limit_s = min(left, planned + BRIEF_OVERTIME_S if brief else OVERTIME * planned)
    with tempfile.TemporaryDirectory(prefix="drive-sweep-gpu-", ignore_cleanup_errors=True) as folder:
        bench = Bench(device=device, brief=brief, folder=Path(folder), seconds=min(left, planned))
        yield from worker.rows(section.name, bench, limit_s)


def _print_machine(machine: dict[str, Any], brief: bool) -> None:
    print(f"{machine['name']}, {machine['processors']} processors, PyTorch {machine['packages']['torch']}", end="")
    state = machine.get("state", {})
    print("".join(f", {name} {value}" for name, value in state.items()) + (", shortened form" if brief else ""))


if __name__ == "__main__":
    sys.exit(main())

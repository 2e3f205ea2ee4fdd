"""The command line of the fuzz runs; exit code 1 if a reader did what it may not."""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from tests.fuzz.sample import Sample

TARGETS = {  # name -> module, whose `samples` makes the real files in a folder
    "codec": "tests.fuzz.codec",
    "records": "tests.fuzz.records",
    "sweep-file": "tests.fuzz.sweep_file",
}
INSTRUMENTED = ["trainables", "orchestrator", "ruamel"]


def samples_of(target: str, folder: Path) -> list[Sample]:
    """The real files of a target."""
    samples: Callable[[Path], list[Sample]] = import_module(TARGETS[target]).samples
    return samples(folder)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--crashes", type=Path, default=Path(tempfile.gettempdir(), "drive-sweep-fuzz"))
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    is_guided = find_spec("atheris") is not None
    instrumented = import_module("atheris").instrument_imports(include=INSTRUMENTED) if is_guided else nullcontext()
    with instrumented:
        from tests.fuzz.search import Findings, guided_search, search, write_crashes

        folder = Path(tempfile.mkdtemp(prefix="drive-sweep-fuzz-"))
        samples = samples_of(options.target, folder)
    started = time.monotonic()

    def report(findings: Findings) -> int:
        for place, (content, text) in findings.crashes.items():
            print(f"{place}: {len(content)} bytes\n{text}")
        how = "guided by coverage (atheris)" if is_guided else "at random"
        seconds = time.monotonic() - started
        print(
            f"{options.target}: {len(samples)} samples, {findings.summary()} in {seconds:.0f} s, {how}, seed {options.seed}, "
            f"Python {platform.python_version()}"
        )
        write_crashes(findings, options.crashes / options.target)
        sys.stdout.flush()
        return 1 if findings.crashes else 0

    if is_guided:
        guided_search(samples, options.seconds, options.seed, report)
    return report(search(samples, options.seconds, options.seed))


if __name__ == "__main__":
    sys.exit(main())

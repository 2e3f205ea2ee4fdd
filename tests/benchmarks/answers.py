"""How long `report`, `status` and `plan` take on a large finished sweep: `python -m tests.benchmarks.answers [--seeds 16]`.

Each command is a process of its own, start-up included. Prints medians of five: seconds, and CPU seconds of the process.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import tempfile
import time
from pathlib import Path

from orchestrator.storage.factory import open_storage
from tests.benchmarks.summary import spread
from tests.support.cli import command
from tests.support.stored_sweeps import SIX_METHODS, smaller, stored_sweep
from trainables.data.digits import DIGITS_DIGEST

RUNS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=16, help="127 trials each")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        storage, file = open_storage(f"{scratch}/runs", create=True), Path(scratch, "six.yaml")
        text = smaller(SIX_METHODS, seed=list(range(options.seeds)))
        file.write_text(text)
        folder, state = stored_sweep(text, storage, digest=DIGITS_DIGEST)
        print(f"{len(state.trials)} trials, load {os.getloadavg()[0]:.1f}")
        for name, argument in (("report", folder.name), ("status", folder.name), ("plan", str(file))):
            times = [_run(name, argument, "--storage", storage.root) for _ in range(RUNS)]
            wall, cpu = (spread(values) for values in zip(*times, strict=True))
            print(f"{name}: {wall} s, {cpu} s of CPU")


def _run(*arguments: str) -> tuple[float, float]:
    before, started = _cpu(), time.perf_counter()
    subprocess.run(command(*arguments), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - started, _cpu() - before


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()

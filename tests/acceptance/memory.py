"""The memory of driver and tracker while the events of a sweep grow.

    python -m tests.acceptance.memory [--events 50000] [--trials 50] [--slots 2] [--rate 100]

Stages that compute nothing report a point with every event; driver, Ray and MLflow are real. At every fifth of the events, and
in between, the driver collects its garbage, and its own memory and that of the tracker are read (RssAnon: without what they
share). The slope is that of a line through the looks after the first fifth, by least squares; --trials 2 shows what an event
costs while its trial runs, and many trials what is left of one that has ended.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import linear_regression
from typing import Any

from tests.acceptance.load import SWEEP
from tests.support import noop_cli
from tests.support.reporting_stage import POINTS, RATE, REPORT_S

LOOKS = 25
Look = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=50_000)
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--slots", type=int, default=2)
    parser.add_argument("--rate", type=float, default=100.0, help="events of a slot a second, at most")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="drive-sweep-memory-") as scratch:
        looks = run(Path(scratch), options)
    print(f"{options.trials} trials, load {os.getloadavg()[0]:.1f}")
    print("events  driver MB  tracker MB  events that MLflow lacks")
    for look in looks:
        print(f"{look['events']:6d}  {look['driver'] / 2**20:9.1f}  {look['tracker'] / 2**20:10.1f}  {look['pending']}")
    for name in ("driver", "tracker"):
        print(f"{name}: {slope(looks, name):.0f} bytes for each event after the first fifth")


def run(root: Path, options: argparse.Namespace) -> list[Look]:
    """What was seen of the memory, in the order of events."""
    file, memory = root / "load.yaml", root / "memory.jsonl"
    file.write_text(SWEEP.format(seeds=", ".join(map(str, range(options.trials)))))
    more = {
        noop_cli.REPORTING: 1,
        noop_cli.MEMORY: memory,
        noop_cli.EVERY: options.events // LOOKS,
        POINTS: options.events // options.trials,
        RATE: options.rate,
        REPORT_S: 0,
    }
    command = noop_cli.command("run", file, "--storage", root / "runs", "--quiet")
    environment = os.environ | noop_cli.environment(options.slots, **more)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return [json.loads(line) for line in memory.read_text().splitlines()]


def slope(looks: Sequence[Look], name: str) -> float:
    """Bytes for each event of a process."""
    later = [look for look in looks if look["events"] > looks[-1]["events"] / 5]
    return linear_regression([look["events"] for look in later], [look[name] for look in later]).slope


if __name__ == "__main__":
    main()

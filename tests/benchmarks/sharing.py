"""A sweep with and without shared warm-ups.

python -m tests.benchmarks.sharing [SWEEP] [--set KEY=VALUE ...] [--repeat 3]     SWEEP is a file or a ready sweep: digits
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from statistics import median

from orchestrator.spec.presets import sweep_text
from tests.benchmarks.summary import spread
from tests.benchmarks.timing import Timed, ours


def main() -> None:
    parser = argparse.ArgumentParser(description="shared against unshared warm-ups")
    parser.add_argument("sweep", nargs="?", default="digits")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    changes = [part for change in options.set for part in ("--set", change)]
    runs: dict[str, list[Timed]] = {"true": [], "false": []}
    with tempfile.TemporaryDirectory(prefix="drive-sweep-sharing-") as scratch:
        file = Path(scratch, "sweep.yaml")
        file.write_text(sweep_text(options.sweep))
        for turn in range(options.repeat):
            for shared, timed in runs.items():
                timed.append(ours(file, Path(scratch, f"{shared}-{turn}"), *changes, "--set", f"share_warmups={shared}"))
    for shared, timed in runs.items():
        print(f"share_warmups {shared}: {spread([run.seconds for run in timed])} s, {timed[0].epochs} epochs trained")
    ratio = median(run.seconds for run in runs["false"]) / median(run.seconds for run in runs["true"])
    print(f"ratio of medians {ratio:.2f}")


if __name__ == "__main__":
    main()

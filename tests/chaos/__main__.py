"""The command: rounds one after another, a line for each, a table at the end."""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import tests.chaos
from tests.chaos.faults import full_disk
from tests.chaos.ground import Ground
from tests.chaos.plan import plan_round
from tests.chaos.round import Outcome, Round
from tests.chaos.table import line_of, table_of
from tests.chaos.undisturbed import run_undisturbed

STORAGES = {"folder": ["folder"], "s3": ["s3"], "both": ["folder", "s3"]}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos", description=tests.chaos.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--first", type=int, default=1, help="number of the first round, to go on where another run ended")
    parser.add_argument("--round", type=int, nargs="+", metavar="N", help="only the rounds of these numbers")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--storage", choices=STORAGES, default="both")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep the folders of all rounds there")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no round after so many minutes")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that the cluster ends too
    began = time.monotonic()
    if options.keep:
        options.keep.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="chaos", dir=options.keep)).absolute()
    outcomes: list[Outcome] = []
    with Ground(folder) as ground:
        for name in ("first", "undisturbed"):  # the first one fills the caches, and takes longer than a round
            expected = run_undisturbed(ground, folder / name)
        print(f"without faults: {expected.events} events in {expected.seconds:.1f} s", flush=True)
        for number in options.round or range(options.first, options.first + options.rounds):
            if time.monotonic() - began > 60 * options.minutes:
                break
            ground.repair()
            plan = plan_round(
                options.seed,
                number,
                storages=STORAGES[options.storage],
                events=expected.events,
                seconds=expected.seconds,
            )
            outcomes.append(Round(ground, plan, folder / f"round{number}", expected).run())
            print(line_of(outcomes[-1]), flush=True)
            _report(outcomes[-1], folder / f"round{number}", options)
    for line in table_of(outcomes):
        print(line)
    failed = any(outcome.problems for outcome in outcomes)
    if not failed and not options.keep:
        shutil.rmtree(folder)
    print(
        f"{sum(not one.problems for one in outcomes)} of {len(outcomes)} rounds held, {time.monotonic() - began:.0f} s in all"
    )
    return int(failed)


def _report(outcome: Outcome, folder: Path, options: argparse.Namespace) -> None:
    """Says what failed and how to repeat it, and removes the folder of a round that held."""
    for problem in outcome.problems:
        print(f"  {problem}")
    if outcome.problems:
        storage = "" if options.storage == "both" else f" --storage {options.storage}"
        again = f"python -m tests.chaos --seed {options.seed} --round {outcome.plan.number}{storage}"
        print(f"  its files are in {folder}; again: {again}", flush=True)
    elif not options.keep:
        shutil.rmtree(folder, ignore_errors=True)
    if (folder / "disk").is_mount() and not outcome.problems:
        full_disk.unmount(folder / "disk")


if __name__ == "__main__":
    sys.exit(main())

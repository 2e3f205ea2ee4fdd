"""Kills the driver of a search and its Ray processes with SIGKILL at random moments, resumes after each, and compares.

    python -m tests.acceptance.killed_search [--kills 5] [--seed 0]

TPE, ASHA and staged seeds with one slot. Shown at the end: the decisions, models and stops of the killed search are those of an
undisturbed one, none twice and none missing; one MLflow run for each trial.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from pathlib import Path

from tests.support.cli import drive_sweep, kill_all, start, status, wait_for
from tests.support.searched_sweep import assert_same_course, decisions, searched_sweep


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    chance = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as scratch:
        whole, killed = Path(scratch, "whole"), Path(scratch, "killed")
        file = searched_sweep(Path(scratch))
        answer = drive_sweep("run", file, "--storage", whole, "--quiet", timeout_s=1800)
        course = decisions(whole)
        print(f"undisturbed: {len(course)} decisions in {answer.seconds:.0f} s", flush=True)
        targets = sorted(chance.sample(range(1, len(course) - 1), options.kills))
        for kill, target in enumerate(targets):
            process = start(*(("run", file) if kill == 0 else ("resume", "searched")), "--storage", killed)
            log = killed / "sweeps" / "searched" / "decisions.jsonl"
            wait_for(lambda: log.exists() and len(decisions(killed)) >= target, timeout_s=600, every_s=0.01)  # noqa: B023
            time.sleep(chance.uniform(0, 0.5))
            kill_all(process)
            print(f"kill {kill + 1}: after {len(decisions(killed))} decisions", flush=True)
        drive_sweep("resume", "searched", "--storage", killed, "--quiet", timeout_s=1800)
        assert_same_course(killed, whole)
        state = status("searched", killed)
        print(f"{len(course)} decisions and all models equal; {state['finished']} finished, {state['stopped']} stopped early")


if __name__ == "__main__":
    main()

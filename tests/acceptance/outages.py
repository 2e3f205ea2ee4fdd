"""Outages of an MLflow server in the middle of a sweep: what they cost its trials, and what MLflow lacks afterwards.

    python -m tests.acceptance.outages [--seconds 74] [--only KIND] [--rate 20]

One sweep for each kind: the server is down, takes 5 s for each call, answers 500, does what was asked and hangs up in the
middle of its answer, or its database is locked. Stages that compute nothing record points at a steady rate before, during and
after it.

Shown: calls that reached the server, and those during the fault (one that is down is not reached); points in the records and
those that MLflow lacks (0) or has twice (0); for how long a stage was held up at most (under 2 s); the time from the end of the
fault until no more is pending than without one.
"""

from __future__ import annotations

import argparse
import json
import os
import sqlite3
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from orchestrator.tracking.ui_server import serve
from tests.acceptance.load import SWEEP, recorded_points, stored_points
from tests.acceptance.tracking_outage import server_at
from tests.chaos.proxy import Mood, Proxy, proxy_of
from tests.support import noop_cli
from tests.support.cli import wait_for
from tests.support.reporting_stage import POINTS, RATE

SLOTS = 2
BEFORE_S, AFTER_S = 10.0, 20.0  # of a stage, without a fault
LONGEST_BLOCK_S = 2.0
USUAL = 3 * SLOTS  # events that are pending while stages report every second and all is well


@contextmanager
def in_mood(mood: Mood, proxy: Proxy, database: Path) -> Iterator[None]:
    proxy.set(mood)
    try:
        yield
    finally:
        proxy.set(Mood.WELL)


@contextmanager
def locked(proxy: Proxy, database: Path) -> Iterator[None]:
    store = sqlite3.connect(database, isolation_level=None, timeout=60)
    store.execute("BEGIN EXCLUSIVE")
    try:
        yield
    finally:
        store.execute("ROLLBACK")
        store.close()


FAULTS: dict[str, Callable[[Proxy, Path], AbstractContextManager[None]]] = {
    "down": partial(in_mood, Mood.DOWN),
    "slow": partial(in_mood, Mood.SLOW),
    "errors": partial(in_mood, Mood.ERRORS),
    "half-way": partial(in_mood, Mood.CUT),
    "locked": locked,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=74.0, help="of a fault")
    parser.add_argument("--only", choices=FAULTS, help="one kind of fault")
    parser.add_argument("--rate", type=float, default=20.0, help="points of a stage a second")
    options = parser.parse_args()
    print("fault      calls met it  points  lost twice  block s caught up after s")
    for kind in [options.only] if options.only else FAULTS:
        with tempfile.TemporaryDirectory(prefix="drive-sweep-outage-") as scratch:
            seen = run(Path(scratch), kind, options.seconds, options.rate)
        print(
            f"{kind:9s} {seen['calls']:6d} {seen['met']:6d} {seen['points']:7d} {seen['lost']:5d} {seen['twice']:5d} "
            f"{seen['block_s']:8.3f} {seen['caught_up_s']:17.1f}",
            flush=True,
        )
        assert (seen["lost"], seen["twice"]) == (0, 0)
        assert seen["block_s"] < LONGEST_BLOCK_S


def run(root: Path, kind: str, seconds: float, rate: float) -> dict[str, Any]:
    """What one sweep shows whose stages all meet the fault."""
    file, storage, database = root / "load.yaml", root / "runs", root / "server/mlflow.db"
    file.write_text(SWEEP.format(seeds=", ".join(map(str, range(SLOTS)))))
    points = round((BEFORE_S + seconds + AFTER_S) * rate)
    environment = os.environ | noop_cli.environment(SLOTS, **{noop_cli.REPORTING: 1, POINTS: points, RATE: rate})
    with serve(server_at(root / "server"), port=0) as uri, proxy_of(uri) as proxy:
        command = noop_cli.command("run", file, "--storage", storage, "--tracking-uri", proxy.uri, "--quiet")
        with (root / "log").open("w+") as log:
            process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
            try:
                wait_for(lambda: len(list(storage.glob("trials/*/metrics.jsonl"))) == SLOTS, timeout_s=300)
                time.sleep(BEFORE_S / 2)  # the first points are written after as long
                before = proxy.calls
                with FAULTS[kind](proxy, database):
                    time.sleep(seconds)
                    met = proxy.calls - before
                over = time.monotonic()
                wait_for(lambda: pending(storage) <= USUAL or process.poll() is not None, timeout_s=300)
                caught_up_s = time.monotonic() - over
                assert process.wait(timeout=300) == 0, (root / "log").read_text()
            finally:
                process.kill()
                process.wait()
        calls = proxy.calls
    recorded, stored = Counter(recorded_points(storage)), Counter(stored_points(database))
    results = [json.loads(one.read_bytes()) for one in storage.glob("trials/*/result.json")]
    assert len(results) == SLOTS
    return {
        "calls": calls,
        "met": met,
        "points": recorded.total(),
        "lost": (recorded - stored).total(),
        "twice": (stored - recorded).total(),
        "block_s": max(one["noop"]["longest_block_s"] for one in results),
        "caught_up_s": caught_up_s,
    }


def pending(storage: Path) -> int:
    """Events that MLflow lacks, as the driver last wrote."""
    return int(json.loads((storage / "sweeps/load/state.json").read_bytes())["tracking_pending"])


if __name__ == "__main__":
    main()

"""Many stages that report points to one MLflow server: what arrives, and whom it holds up.

    python -m tests.acceptance.load [--stages 64] [--minutes 5] [--rate 20] [--slots 64]

Each stage is a process of Ray that records so many points a second, as a trial records them: into its metrics.jsonl. That is
the record, and every point of it must be in MLflow once. What a stage reports to the driver while it runs is less often by
design: once a second, or as often as all stages together report 200 times a second (MAX_REPORTS_PER_S); a report brings all
points since the last one. A stage takes about 200 MB of memory; with fewer slots than stages the others wait.

Shown: points in the records and in MLflow, lost and doubled ones (0); for how long a stage was held up at most; CPU and memory
of the driver; the time until MLflow has everything.
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
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from orchestrator.tracking.ui_server import serve
from tests.acceptance.tracking_outage import server_at
from tests.support import noop_cli
from tests.support.reporting_stage import POINTS, RATE

SWEEP = """\
name: load
dataset: {{name: digits}}
model: convnet
search: {{seed: [{seeds}]}}
sparsity: 0.9
baseline: none
precision: fp32
resources: {{device: cpu, cpus_per_trial: 1}}
tracking: {{models: none}}
"""
Row = tuple[str, str, int, float, int]  # trial key, metric, step, value, time


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stages", type=int, default=64)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--rate", type=float, default=20.0, help="points of a stage a second")
    parser.add_argument("--slots", type=int, help="stages at the same time; all by default")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="drive-sweep-load-") as scratch:
        for name, value in run(Path(scratch), options).items():
            print(f"{name:34s} {value}", flush=True)


def run(root: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Figures by name."""
    file, storage, usage = root / "load.yaml", root / "runs", root / "usage.json"
    file.write_text(SWEEP.format(seeds=", ".join(map(str, range(options.stages)))))
    points = round(options.minutes * 60 * options.rate)
    more = {noop_cli.REPORTING: 1, noop_cli.USAGE: usage, POINTS: points, RATE: options.rate}
    environment = os.environ | noop_cli.environment(options.slots or options.stages, **more)
    with serve(server_at(root / "server"), port=0) as uri:
        began = time.time()
        command = noop_cli.command("run", file, "--storage", storage, "--tracking-uri", uri, "--quiet")
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        ended = time.time()
        assert done.returncode == 0, done.stdout + done.stderr
    results = [json.loads(one.read_bytes()) for one in storage.glob("trials/*/result.json")]
    assert len(results) == options.stages
    recorded, stored = Counter(recorded_points(storage)), Counter(stored_points(root / "server/mlflow.db"))
    lost, foreign = recorded - stored, stored - recorded
    assert not lost, f"{lost.total()} points are not in MLflow, such as {next(iter(lost))}"
    assert not foreign, f"{foreign.total()} points are in MLflow only or twice, such as {next(iter(foreign))}"
    started, last = min(one["started_ms"] for one in results) / 1000, max(one["finished_ms"] for one in results) / 1000
    used = json.loads(usage.read_text())
    state = json.loads((storage / "sweeps/load/state.json").read_text())
    return {
        "stages": options.stages,
        "points in the records": recorded.total(),
        "points in MLflow": stored.total(),
        "lost, doubled": f"{lost.total()}, {foreign.total()}",
        "reports of all stages": sum(one["noop"]["reports"] for one in results),
        "longest block of a stage, s": f"{max(one['noop']['longest_block_s'] for one in results):.3f}",
        "seconds until the first stage": f"{started - began:.1f}",
        "seconds of all stages": f"{last - started:.1f}",
        "seconds from the last one to the end": f"{ended - last:.1f}",
        "CPU seconds of the driver": f"{used['cpu_seconds']:.1f}",
        "CPU seconds of the tracker": f"{state['tracking_cpu_seconds']:.1f}",
        "peak memory of the driver, MB": f"{used['peak_mb']:.0f}",
        "load of the machine at the end": f"{os.getloadavg()[0]:.1f}",
    }


def recorded_points(storage: Path) -> Iterator[Row]:
    for file in storage.glob("trials/*/metrics.jsonl"):
        for point in map(json.loads, file.read_text().splitlines()):
            yield file.parent.name, point["key"], point["step"], point["value"], point["time"]


def stored_points(database: Path) -> Iterator[Row]:
    """Every point of a trial in MLflow's database."""
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as store:
        yield from store.execute(
            "SELECT tags.value, metrics.key, metrics.step, metrics.value, metrics.timestamp FROM metrics"
            " JOIN tags ON tags.run_uuid = metrics.run_uuid AND tags.key = 'drive.trial_key'"
            " JOIN tags AS roles ON roles.run_uuid = metrics.run_uuid AND roles.key = 'drive.role' AND roles.value = 'trial'"
        )


if __name__ == "__main__":
    main()

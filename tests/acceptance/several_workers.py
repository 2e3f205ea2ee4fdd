"""Three trials of two workers beside a sweep of trials of one worker, on one cluster with four slots.

    python -m tests.acceptance.several_workers [--epochs 40]

Both sweeps want more than there is, and the trials of two workers want two CPUs at once. Shown: both sweeps finish (trials that
compete do not block each other), and how many of the slots were busy, in percent of the time from the first stage to the last
result, by what Ray says is reserved. On a machine with fewer than four CPUs the slots share them.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.support.cli import start, status
from tests.support.ray_nodes import RayNodes

SWEEP = """\
name: {name}
dataset: {{name: digits, limit: 500}}
model: convnet
search: {{seed: [{seeds}]}}
prune_iterations: 5
warmup_epochs: 0
sparsity: 0.9
baseline: none
precision: fp32
training: {{epochs: {epochs}, batch_size: 50, lr: 0.1}}
resources: {{device: cpu, workers_per_trial: {workers}}}
tracking: {{models: none}}
"""
SLOTS = 4
WORKERS = {"alone": 1, "pairs": 2}  # of each trial
TRIALS = {"alone": 8, "pairs": 3}
INTERVAL_S = 0.5
WATCH = """
import sys, time
import ray
ray.init(address=sys.argv[1], log_to_driver=False)
while True:
    print(ray.cluster_resources().get("CPU", 0) - ray.available_resources().get("CPU", 0), flush=True)
    time.sleep(float(sys.argv[2]))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=40)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="drive-sweep-pairs-") as scratch, RayNodes(jobs_api=False) as cluster:
        cluster.add(cpus=SLOTS, gpus=0)
        run(Path(scratch), cluster, options.epochs)


def run(root: Path, cluster: RayNodes, epochs: int) -> None:
    environment = os.environ | cluster.environment
    command = [sys.executable, "-c", WATCH, cluster.gcs, str(INTERVAL_S)]
    watch = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    began, processes = time.time(), {}
    try:
        for name, workers in WORKERS.items():
            file = root / f"{name}.yaml"
            seeds = ", ".join(map(str, range(TRIALS[name])))
            file.write_text(SWEEP.format(name=name, seeds=seeds, epochs=epochs, workers=workers))
            arguments = ("run", file, "--storage", root / name, "--address", cluster.gcs)
            processes[name] = start(*arguments, environment=cluster.environment)
        for name, process in processes.items():
            output, _ = process.communicate(timeout=3600)
            assert process.returncode == 0, output
            print(f"{name}: {TRIALS[name]} trials of {WORKERS[name]} finished after {time.time() - began:.0f} s", flush=True)
    finally:
        watch.terminate()
        samples, _ = watch.communicate()
    for name in WORKERS:
        assert status(name, root / name)["finished"] == TRIALS[name]
        results = [json.loads(one.read_bytes()) for one in (root / name).glob("trials/*/result.json")]
        spans = sorted((one["started_ms"] / 1000 - began, one["finished_ms"] / 1000 - began) for one in results)
        print(f"{name}: from and to second {', '.join(f'{start:.0f}-{end:.0f}' for start, end in spans)}")
    busy = [min(SLOTS, round(float(line))) for line in samples.split()]
    working = busy[next(index for index, count in enumerate(busy) if count) : len(busy) - _idle_at_the_end(busy)]
    print(f"slots busy: {100 * statistics.fmean(working) / SLOTS:.0f} % of {SLOTS}, over {len(working) * INTERVAL_S:.0f} s")
    counts = {count: f"{100 * working.count(count) / len(working):.0f} %" for count in range(SLOTS + 1)}
    print(f"by how many were busy: {counts}")


def _idle_at_the_end(busy: list[int]) -> int:
    return next(index for index, count in enumerate(reversed(busy)) if count)


if __name__ == "__main__":
    main()

"""What a trial costs besides its computation, with MLflow on; and how busy many slots are kept.

    python -m tests.benchmarks.overhead                      no-op trials: 50, 500, 2,000
    python -m tests.benchmarks.overhead --model              the same, each with a ResNet-18 sparse model logged
    python -m tests.benchmarks.overhead --slots 64 --sleep 5 --trials 1000   trials that sleep, on fake slots
    python -m tests.benchmarks.overhead --server             into an MLflow server with a login and PostgreSQL behind it

Every sweep runs in a process of its own on a fresh storage. Milliseconds per trial count from the moment that the first
trial begins to the moment that MLflow, report included, is up to date.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import ExitStack
from math import nan
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, text

from orchestrator.cluster import connection
from orchestrator.tracking.process import TrackingProcess
from tests import ROOT
from tests.benchmarks.noop_stage import EPOCHS, MODEL_FILE, SLEEP_S, noop_stage
from tests.benchmarks.summary import spread
from tests.support.tracking_server import tracking_server, why_not

SWEEP = """\
name: noop
dataset: {{name: digits}}
model: convnet
search: {{seed: [{seeds}]}}
sparsity: 0.9
baseline: none
precision: fp32
resources: {{device: cpu}}
tracking: {{models: {models}}}
"""
SERVER = "DRIVE_SWEEP_NOOP_SERVER"  # environment of the process that runs one sweep
DATABASE = "DRIVE_SWEEP_NOOP_DATABASE"
MODEL = """\
import pathlib, sys
import torch
from trainables.pruning.masks import flattened, topk_masks, full_masks
from trainables.models.prunable import prunable_weights
from trainables.models.registry import build_model, initialize
from trainables.export.model_card import ModelCard
from trainables.export.sparse_model import encode
from trainables.data.normalization import Normalization
model = build_model("resnet18", (3, 32, 32), 10)
initialize(model, 0)
weights = prunable_weights(model)
sizes = flattened(weights).abs()
masks = topk_masks(sizes, full_masks(weights), len(sizes) // 10)
card = ModelCard(model="resnet18", image_shape=(3, 32, 32), num_classes=10,
                 normalization=Normalization(mean=(0.5,) * 3, std=(0.25,) * 3), config={})
pathlib.Path(sys.argv[1]).write_bytes(encode(model, masks, card)[0])
"""


def run_one(trials: int, slots: int, with_model: bool, folder: Path) -> dict[str, Any]:
    """Runs one sweep of no-op trials in this process and measures it."""
    from orchestrator.execution.sweep import RunOptions, run_sweep
    from orchestrator.planning.plan import make_plan
    from orchestrator.spec.loader import load_spec
    from orchestrator.spec.presets import sweep_text
    from orchestrator.storage.factory import open_storage
    from trainables.worker import trainable as stage

    stage.run_stage = noop_stage
    setattr(connection, "processors", lambda: slots)  # noqa: B010
    file = folder / "noop.yaml"
    file.write_text(SWEEP.format(seeds=", ".join(map(str, range(trials))), models="all" if with_model else "none"))
    server = [f"tracking.uri={os.environ[SERVER]}"] if SERVER in os.environ else []
    spec = load_spec(str(file), [f"storage={folder / 'runs'}", *server])
    storage = open_storage(spec.storage, create=True)
    trackers = _noted_trackers()
    started_at, cpu = time.time(), time.process_time()
    code = run_sweep(make_plan(spec, storage), sweep_text(str(file)), storage, RunOptions(quiet=True))
    ended = time.time()
    results = [json.loads(path.read_bytes()) for path in Path(spec.storage, "trials").glob("*/result.json")]
    assert (code, len(results)) == (0, trials)
    first = min(result["started_ms"] for result in results) / 1000
    return {
        "trials": trials,
        "start_seconds": first - started_at,
        "trials_seconds": max(result["finished_ms"] for result in results) / 1000 - first,
        "seconds": ended - first,
        "ms_per_trial": 1000 * (ended - first) / trials,
        "driver_cpu_ms_per_trial": 1000 * (time.process_time() - cpu) / trials,
        "tracker_cpu_ms_per_trial": 1000 * trackers[0].cpu_seconds / trials,
        "mlflow_rows_per_second": _rows(os.environ.get(DATABASE, f"sqlite:///{spec.storage}/mlflow.db")) / (ended - first),
        "driver_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    } | use_of_slots(results, slots)


def _rows(database: str) -> int:
    """Rows that MLflow keeps of a sweep's runs: each run, metric point, param and tag is one."""
    tables = ("runs", "metrics", "params", "tags", "inputs", "logged_models")
    with create_engine(database).connect() as store:
        return sum(int(store.execute(text(f"SELECT count(*) FROM {table}")).scalar_one()) for table in tables)


def _noted_trackers() -> list[TrackingProcess]:
    """Will hold the tracking threads that are started from now on."""
    trackers: list[TrackingProcess] = []
    start = TrackingProcess.start

    def noted(self: TrackingProcess) -> None:
        trackers.append(self)
        start(self)

    TrackingProcess.start = noted  # type: ignore[method-assign]
    return trackers


def use_of_slots(results: list[dict[str, Any]], slots: int) -> dict[str, float]:
    """How many slots ran trials, how long until the last of them began, and the share of time in which they were busy.

    The share is told from the end of a slot's first trial to its last one, over the slots that ran any; and until the last
    trial of all begins, over all slots: from the first trial on, and from the moment when every slot has begun.
    """
    by_slot: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for result in results:
        by_slot[result["fingerprints"][0]["pid"]].append((result["started_ms"], result["finished_ms"]))
    spans = [span for of_slot in by_slot.values() for span in of_slot]
    begins = [min(of_slot)[0] for of_slot in by_slot.values()]
    last = max(spans)[0]
    between = [
        (sum(end - start for start, end in rest), rest[-1][1] - first[1])
        for first, *rest in map(sorted, by_slot.values())
        if rest
    ]
    return {
        "slots_used": len(by_slot),
        "ramp_seconds": (max(begins) - min(begins)) / 1000,
        "busy_percent_once_up": 100 * sum(busy for busy, _ in between) / sum(whole for _, whole in between) if between else nan,
        "busy_percent_of_all": _busy_percent(spans, slots, min(begins), last),
        "busy_percent_after_ramp": _busy_percent(spans, slots, max(begins), last),
    }


def _busy_percent(spans: list[tuple[int, int]], slots: int, begin: int, end: int) -> float:
    """Share of the time from begin to end in which slots ran trials, over all slots, unused ones too."""
    busy = sum(max(0, min(end, finished) - max(begin, started)) for started, finished in spans)
    return 100 * busy / (slots * (end - begin)) if end > begin else nan


def in_process_of_its_own(options: argparse.Namespace, trials: int, model: Path | None) -> dict[str, Any]:
    environment = os.environ | {SLEEP_S: str(options.sleep), EPOCHS: str(options.epochs)}
    environment |= {"PYTHONPATH": str(ROOT)}  # workers find the no-op stage
    if model:
        environment |= {MODEL_FILE: str(model)}
    command = [sys.executable, "-m", "tests.benchmarks.overhead", "--one", str(trials), "--slots", str(options.slots)]
    with tempfile.TemporaryDirectory(prefix="drive-sweep-server-") as scratch, ExitStack() as running:
        if options.server:
            Path(scratch).chmod(0o755)
            server = running.enter_context(tracking_server(Path(scratch)))
            environment |= server.login | {SERVER: server.uri, DATABASE: server.database}
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def main() -> None:
    parser = argparse.ArgumentParser(description="overhead per trial")
    parser.add_argument("--trials", type=int, nargs="+", default=[50, 500, 2000])
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--slots", type=int, default=2)
    parser.add_argument("--sleep", type=float, default=0.0)
    parser.add_argument("--epochs", type=int, default=3, help="with two metric points each")
    parser.add_argument("--model", action="store_true")
    parser.add_argument("--server", action="store_true")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.server and why_not():
        parser.error(why_not())
    with tempfile.TemporaryDirectory(prefix="drive-sweep-overhead-") as scratch:
        if options.one:
            print(json.dumps(run_one(options.one, options.slots, MODEL_FILE in os.environ, Path(scratch))))
            return
        model = Path(scratch, "resnet18.safetensors.zst") if options.model else None
        if model:
            subprocess.run([sys.executable, "-c", MODEL, str(model)], check=True)
            print(f"model file: {model.stat().st_size / 1e6:.2f} MB")
        for trials in options.trials:
            runs = [in_process_of_its_own(options, trials, model) for _ in range(options.repeat)]
            print(f"{trials} trials on {options.slots} slots, {options.sleep:g} s of sleep each")
            for figure in runs[0]:
                if figure != "trials":
                    print(f"  {figure:26s} {spread([run[figure] for run in runs])}", flush=True)


if __name__ == "__main__":
    main()

"""What the checks before a sweep cost: of networks at CIFAR size, and of the data of a sweep file.

    python -m tests.benchmarks.preflight [--precision bf16] [SWEEP_FILE]

A network is examined as a built-in one, and as a user's own with all of the methods that need more of it. Seconds are of the
wall clock with as many threads as there are processors; those of data are with an empty cache, decoding included, and with the
decoded data there.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from dataclasses import replace
from types import ModuleType
from typing import Any

from torch import nn

from orchestrator.planning.plan import make_plan
from orchestrator.preflight.data import data_preflight
from orchestrator.spec.loader import load_spec
from orchestrator.storage.local import LocalStorage
from tests.benchmarks.summary import spread
from tests.support.trials import tiny_config
from trainables.models.registry import build_model, initialize
from trainables.preflight.network_case import cases_of
from trainables.preflight.network_checks import examine_network
from trainables.runtime.cache_folder import cache_folder
from trainables.runtime.device import Runtime
from trainables.runtime.machine import processors

NETWORKS = ("resnet20", "resnet18", "vgg16")
METHODS = ("drive", "synflow", "grasp")
SHAPE, CLASSES, BATCH = (3, 32, 32), 10, 128
MODULE = "benchmarked_networks"
REPEATS = 3


def seconds_of(model: str, methods: tuple[str, ...], runtime: Runtime) -> float:
    training = replace(tiny_config().training, batch_size=BATCH)
    changes: dict[str, Any] = {"model": model, "precision": runtime.precision, "training": training}
    (case,) = cases_of([tiny_config(method=method, **changes) for method in methods])
    report = examine_network(case, SHAPE, CLASSES, runtime)
    assert not report.errors, report.errors
    return report.seconds


def networks(precision: Any) -> None:
    module = ModuleType(MODULE)
    sys.modules[MODULE] = module
    runtime = Runtime(threads=processors(), precision=precision)
    for name in NETWORKS:

        def network(image_shape: Any, num_classes: int, name: str = name) -> nn.Module:
            model = build_model(name, image_shape, num_classes, device="cpu")
            initialize(model, 0)
            return model

        module.__dict__[name] = network
        for what, model, methods in (("built in", name, METHODS[:1]), ("own", f"module:{MODULE}.{name}", METHODS)):
            times = [seconds_of(model, methods, runtime) for _ in range(REPEATS)]
            print(f"{name:10s} {what:8s} {', '.join(methods):22s} {spread(times)} s", flush=True)


def data(file: str) -> None:
    with tempfile.TemporaryDirectory(prefix="drive-sweep-preflight-") as scratch:
        os.environ["DRIVE_SWEEP_CACHE"] = scratch
        for what in ("empty cache", "decoded data there"):
            storage = LocalStorage(f"{scratch}/{what}")
            plan = make_plan(load_spec(file), storage, hash_data=True)
            started_at = time.perf_counter()
            data_preflight(plan, storage, plan.trials[0].config.dataset)
            print(f"{plan.spec.dataset.name:10s} data, {what}: {time.perf_counter() - started_at:.1f} s", flush=True)
            forget_preflights()


def forget_preflights() -> None:
    for file in (cache_folder() / "data" / "preflight").glob("*"):
        file.unlink()


def main() -> None:
    parser = argparse.ArgumentParser(description="cost of the checks before a sweep")
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"))
    parser.add_argument("file", nargs="?", default="digits")
    options = parser.parse_args()
    networks(options.precision)
    data(options.file)


if __name__ == "__main__":
    main()

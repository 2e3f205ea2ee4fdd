"""Pruning rounds over bare forward and backward passes on the same batches (tests/benchmarks/pruning_round.py), in turns."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median

from tests.benchmarks.pruning_round import BATCH, compare
from tests.gpu.rows import Bench, Row, measured
from trainables.runtime.device import Runtime

AIM = 1.10


def measure(bench: Bench) -> Iterator[Row]:
    models, rounds = (("resnet20",), 3) if bench.brief else (("resnet20", "resnet18"), 100)
    for deterministic in (True,) if bench.brief else (True, False):
        runtime = Runtime(device=bench.device, deterministic=deterministic)
        for model in models:
            of_rounds, of_passes = compare(model, rounds, runtime)
            ratio = sum(of_rounds) / sum(of_passes)
            yield measured(
                f"{rounds} rounds over {rounds} passes, {model}, {'deterministic' if deterministic else 'free'} kernels",
                round(ratio, 3),
                "times",
                aim=f"at most {AIM:.2f}",
                ok=ratio <= AIM,
                note=f"batches of {BATCH}, fp32, a pass takes {1000 * median(of_passes):.1f} ms",
            )

"""The smallest experiments on SPDY and on a latency for channels: what is expected beside what comes out.

    python -m tests.benchmarks.related_budgets [TIMINGS.json ...]

Without a file the tables are those of the tests, whose times follow from a formula. With files, of `drive-sweep timings` for
digits, trials by each are trained, and their time by the table is shown: of SPDY where it has sparsities, of channels where it
has them.
"""

from __future__ import annotations

import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tests.support.timings import convnet_table
from tests.support.trials import new_storage, run
from trainables.config.trial import DatasetConfig, SpdyConfig, TargetConfig, TrainingConfig, TrialConfig
from trainables.custom.files import CustomFiles
from trainables.custom.timing_table import TimingTable, parse_timing_table
from trainables.errors import ConfigError
from trainables.export.layer_timing import SPARSITIES
from trainables.pruning.budget import cheapest_options
from trainables.pruning.sparsity_schedules import share_after_round
from trainables.pruning.spdy_selection import SpdySelection
from trainables.pruning.timed_layers import LATENCY_METRIC, timed_layers

BASE = TrialConfig(
    dataset=DatasetConfig(name="digits"),
    model="convnet",
    method="magnitude",
    warmup_epochs=4,
    precision="fp32",
    training=TrainingConfig(epochs=8, batch_size=64, lr=0.05),
)
SPDY = SpdyConfig(starts=30, misses=30, samples=256, passes=3)


def show(what: str, expected: object, found: object) -> None:
    print(f"{what:64} {expected!s:>30}   {found}")


def schedule() -> None:
    """HALP's targets after steps 1, 15 and 30 of 30, from 100 down by the ratio 0.45."""
    shares = [100 * share_after_round(step, 30, 0.45, "exponential") for step in (1, 15, 30)]
    show("latency after step 1, 15, 30 of 30, ratio 0.45", "98.027 74.162 55.0", " ".join(f"{one:.3f}" for one in shares))


def grid() -> None:
    found = " ".join(f"{SPARSITIES[index]:.4f}" for index in (0, 1, 2, 3, 39, 40))
    show("SPDY's sparsities", "0.4000 0.4584 ... 0.9889 0.9900", f"{found}, {len(SPARSITIES)} and dense")


def overshoot() -> None:
    """Solutions of random instances that exceed their budget; the authors' rounding to the nearest exceeds it sometimes."""
    rng, over, worst = np.random.default_rng(0), 0, 0.0
    for _ in range(300):
        times, costs = rng.uniform(0.1, 1, (4, 5)).tolist(), rng.uniform(0, 1, (4, 5)).tolist()
        budget = float(rng.uniform(0.5, 0.9) * np.max(times, axis=1).sum())
        chosen = cheapest_options(times, costs, budget, buckets=200)
        used = sum(options[index] for options, index in zip(times, chosen, strict=True))
        over += used > budget
        worst = max(worst, 1 - used / budget)
    show("of 300 instances with 200 buckets over the budget", "18 if rounded, 0 if rounded up", over)


def fixed_time(table: TimingTable) -> None:
    """The speed-up by the table for a nominal one, with the first and the last layer dense, as published and as here."""
    names = [f"{name}.weight" for name in list(table.layers)[1:-1]]
    timed = timed_layers(table, names)
    published = replace(timed, fixed=table.rest)
    for nominal in (1.5, 2.0):
        wrong, right = (timed.whole / timed.time(SpdySelection(timed=one).counts(1 / nominal)) for one in (published, timed))
        show(
            f"speed-up of nominal {nominal}, first and last layer dense",
            "below it as published, not here",
            f"{wrong:.3f} as published, {right:.3f} here",
        )


def trial(file: Path, table: TimingTable, latency: float, **changes: Any) -> None:
    target = TargetConfig(latency=latency)
    config = replace(BASE, model=table.network, target=target, sparsity=target.sparsity or 0.0, **changes)
    kind = "SPDY" if config.layer_sparsity == "spdy" else f"channels, {config.rounds} rounds"
    with tempfile.TemporaryDirectory() as folder:
        began = time.monotonic()
        try:
            files = CustomFiles(timings=str(file)).with_digests([config])
            metrics = run(config, new_storage(Path(folder)), custom_files=files)["metrics"]
        except ConfigError as error:
            show(f"{file.name}: {kind}, {config.method}", f"<= {latency}", f"refused: {error.message}")
            return
    losses = "".join(
        f", {name} {metrics[f'prune/{name}']:.4f}" for name in ("prior_loss", "searched_loss") if f"prune/{name}" in metrics
    )
    show(
        f"{file.name}: {kind}, {config.method}",
        f"<= {latency}",
        f"{metrics[LATENCY_METRIC]:.4f}, test {metrics['test/accuracy']:.4f}{losses}, {time.monotonic() - began:.0f} s",
    )


def main(files: list[str]) -> None:
    schedule()
    grid()
    overshoot()
    fixed_time(convnet_table())
    for name in files:
        file, table = Path(name), parse_timing_table(Path(name).read_bytes())
        if all(layer.sparsities for layer in table.layers.values()):
            for latency in (0.7, 0.85):
                for search in (False, True):
                    trial(file, table, latency, layer_sparsity="spdy", spdy=replace(SPDY, search=search))
        if all(layer.channels for layer in table.layers.values()):
            for latency in (0.55, 0.9):
                for rounds in (1, 5):
                    trial(file, table, latency, granularity="channel", method="taylor", prune_iterations=rounds)


if __name__ == "__main__":
    main(sys.argv[1:])

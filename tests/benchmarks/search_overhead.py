"""Seconds of the search for each configuration, with a history of so many: `python -m tests.benchmarks.search_overhead`.

From the question to the sampler to the result of its trial, early stopping included; also how long the history takes to replay.
"""

from __future__ import annotations

import argparse
import statistics
import time

from orchestrator.scheduling.early_stopping import asha
from orchestrator.search.decisions import Decision, Kind, MemoryLog
from orchestrator.search.factory import make_search
from orchestrator.search.samplers import derived_seed
from orchestrator.search.search import Search
from orchestrator.search.warmups import WarmupLedger
from orchestrator.spec.schema import SweepSpec
from tests.support.recorded_grid import spec_of
from trainables.config.keys import trial_key, warmup_key

METRIC = "val/accuracy"
STRATEGIES = ("random", "qmc", "tpe", "gp", "nsga2")
TEXT = """\
name: overhead
dataset: {{name: digits}}
model: convnet
baseline: none
search:
  warmup_epochs: {{min: 0, max: 60}}
  prune_iterations: {{min: 1, max: 1000, log: true}}
  training.lr: {{min: 0.001, max: 1.0, log: true}}
strategy: {{name: {strategy}, configurations: 5000}}
early_stopping: {{name: asha}}
training: {{epochs: 27}}
sparsity: 0.9
"""


def value_of(values: dict[str, float]) -> float:
    """A smooth accuracy with its best at warm-up 20, 100 iterations and a learning rate of 0.1, and some noise."""
    noise = derived_seed(0, str(values), 0) / 2**31
    warmup, iterations, lr = values["warmup_epochs"], values["prune_iterations"], values["training.lr"]
    return float(0.9 - (warmup - 20) ** 2 / 1e4 - (iterations - 100) ** 2 / 1e7 - (lr - 0.1) ** 2 / 10 + noise / 100)


def make(spec: SweepSpec, log: MemoryLog) -> Search:
    return make_search(
        spec,
        log=log,
        key_of=lambda config: trial_key(config, "-"),
        warmups=WarmupLedger(key_of=lambda config: warmup_key(config, "-")),
        stopper_of=lambda group: asha("max", 1, 3, 27),
    )


def step(search: Search) -> None:
    """One configuration from its proposal to its end."""
    begun = search.next_trial()
    assert begun is not None
    (group,) = search.groups
    value = value_of(dict(group.configurations[-1].values))
    for rung in (1, 3, 9):
        if search.at_rung(begun.key, rung, value * (1 - 0.1 / rung)):
            search.stop(begun.key, rung, 1.0)
            return
    search.finish(begun.key, {METRIC: value}, 1.0)


def history(length: int) -> list[Decision]:
    """Decisions of a random search with so many configurations."""
    log = MemoryLog()
    search = make(spec_of(TEXT.format(strategy="random")), log)
    for _ in range(length):
        step(search)
    return [one for one in log.decisions if one.kind is not Kind.START]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lengths", type=int, nargs="*", default=[50, 500, 2000])
    parser.add_argument("--strategies", nargs="*", default=STRATEGIES)
    parser.add_argument("--steps", type=int, default=8)
    options = parser.parse_args()
    for length in options.lengths:
        before = history(length)
        for strategy in options.strategies:
            begun = time.perf_counter()
            search = make(spec_of(TEXT.format(strategy=strategy)), MemoryLog(before))
            replay = time.perf_counter() - begun
            times = []
            for _ in range(options.steps):
                begun = time.perf_counter()
                step(search)
                times.append(time.perf_counter() - begun)
            each = f"{statistics.median(times):7.3f} s each, {max(times):7.3f} s at most"
            print(f"{length:5} configurations, {strategy:7}: {each}; replay {replay:.2f} s", flush=True)


if __name__ == "__main__":
    main()

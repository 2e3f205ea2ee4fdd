"""What the automatic warm-up loses and saves beside the best fixed length of a recorded grid, on other seeds.

    python -m tests.benchmarks.auto_warmup fashion --storage FOLDER

The best fixed length of a sparsity is that of the recorded seeds. On new seeds every length up to --most is trained (finished
trials of FOLDER are reused), and the masks are read after each epoch. For each rule, window and threshold it prints the mean
length, and the accuracy lost in points with the standard error over the seeds, which are paired; and what reading costs.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

from orchestrator.spec.grid import base_config
from orchestrator.storage.layout import TrialFolder, WarmupFolder
from orchestrator.storage.local import LocalStorage
from tests.support.recorded_grid import RecordedGrid, load_grid
from trainables.config.keys import trial_key, warmup_key, warmup_rule
from trainables.config.trial import StabilityMeasure, TrialConfig, WarmupConfig
from trainables.data.source import DatasetSource
from trainables.data.splits import load_data
from trainables.runtime.device import Runtime
from trainables.trial.auto_warmup import AutoWarmup
from trainables.trial.context import TrialContext
from trainables.trial.mask_stability import Reading, is_stable
from trainables.trial.runner import run_trial
from trainables.trial.warmup import WarmupTrainer

RUNTIME = Runtime()
DIGEST = "benchmark"
WINDOWS = (1, 2, 3, 5)
THRESHOLDS: dict[StabilityMeasure, tuple[float, ...]] = {
    "overlap": (0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.6, 0.7),
    "epi": (0.9, 0.92, 0.944, 0.96, 0.97, 0.983),
}
Case = tuple[float, int]  # sparsity and seed


@dataclass(frozen=True, kw_only=True)
class Bench:
    base: TrialConfig
    source: DatasetSource
    storage: LocalStorage
    most: int
    sparsities: tuple[float, ...]
    seeds: tuple[int, ...]

    def cases(self) -> Iterator[Case]:
        return product(self.sparsities, self.seeds)

    def accuracies(self, iterations: int) -> dict[tuple[float, int, int], float]:
        """(sparsity, seed, warm-up) -> validation accuracy in percent."""
        by_trial = {}
        for (sparsity, seed), length in product(self.cases(), range(self.most + 1)):
            config = replace(self.base, sparsity=sparsity, seed=seed, warmup_epochs=length, prune_iterations=iterations)
            key = trial_key(config, DIGEST)
            context = TrialContext(
                source=self.source,
                runtime=RUNTIME,
                files=TrialFolder(self.storage, key, 1),
                snapshots=self.snapshots(config),
            )
            by_trial[sparsity, seed, length] = 100 * run_trial(config, context)["metrics"]["val/accuracy"]
        return by_trial

    def snapshots(self, config: TrialConfig) -> WarmupFolder:
        return WarmupFolder(self.storage, f"warmups/{warmup_key(config, DIGEST)}", RUNTIME.fingerprint_id())

    def readings(self, window: int) -> tuple[dict[Case, Sequence[Reading]], float]:
        """What is read after each epoch, by sparsity and seed; and the seconds of one reading by those of one epoch."""
        by_case: dict[Case, Sequence[Reading]] = {}
        ratios = []
        for seed in self.seeds:
            never = WarmupConfig(auto=True, window=window, threshold=2.0)
            configs = [
                replace(self.base, sparsity=one, seed=seed, warmup_epochs=self.most, warmup=never) for one in self.sparsities
            ]
            trainer = WarmupTrainer(
                config=configs[0],
                data=load_data(self.base.dataset, self.source, "cpu"),
                runtime=RUNTIME,
                snapshots=self.snapshots(configs[0]),
                snapshot_seconds=60.0,
                after_epoch=lambda state: None,
            )
            chosen = AutoWarmup(trainer=trainer).choose(list(map(warmup_rule, configs)))
            epoch = trainer.state_at(self.most).seconds["warmup"] / self.most
            ratios.append(sum(one.seconds for one in chosen) / (self.most + 1) / epoch)
            by_case |= {(sparsity, seed): one.readings for sparsity, one in zip(self.sparsities, chosen, strict=True)}
        return by_case, statistics.median(ratios)


def chosen_length(readings: Sequence[Reading], config: TrialConfig) -> int:
    """The epoch at which a rule ends the warm-up."""
    return next((one.epoch for one in readings if is_stable(readings[: one.epoch + 1], config)), config.warmup_epochs)


def best_fixed(grid: RecordedGrid, sparsity: float, iterations: int) -> int:
    """The length with the highest mean accuracy over the recorded seeds."""
    index = {key: place for place, key in enumerate(grid.axes)}
    by_length: dict[int, list[float]] = {}
    for point in product(*grid.axes.values()):
        if (point[index["sparsity"]], point[index["prune_iterations"]]) == (sparsity, iterations):
            by_length.setdefault(point[index["warmup_epochs"]], []).append(grid.accuracy(point)[-1])
    return max(by_length, key=lambda length: statistics.fmean(by_length[length]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("grid", choices=["fashion", "digits"])
    parser.add_argument("--storage", type=Path, required=True)
    parser.add_argument("--iterations", type=int, default=10)
    parser.add_argument("--most", type=int, default=12)
    parser.add_argument("--seeds", type=int, default=8, help="how many, counted from the first that the grid has not seen")
    options = parser.parse_args()
    grid = load_grid(options.grid)
    spec, unseen = grid.spec(), max(grid.axes["seed"]) + 1
    bench = Bench(
        base=base_config(spec, "drive"),
        source=spec.source(),
        storage=LocalStorage(str(options.storage)),
        most=options.most,
        sparsities=grid.axes["sparsity"],
        seeds=tuple(range(unseen, unseen + options.seeds)),
    )
    accuracies = bench.accuracies(options.iterations)
    best = {sparsity: best_fixed(grid, sparsity, options.iterations) for sparsity in bench.sparsities}
    for sparsity, length in best.items():
        by_length = [statistics.fmean(accuracies[sparsity, seed, one] for seed in bench.seeds) for one in range(bench.most + 1)]
        print(f"sparsity {sparsity}: best fixed length {length}; by length {' '.join(f'{one:.2f}' for one in by_length)}")
    for window in WINDOWS:
        readings, cost = bench.readings(window)
        print(f"window {window}: reading the masks of {len(bench.sparsities)} sparsities costs {cost:.1%} of an epoch")
        for rule, threshold in ((rule, value) for rule, values in THRESHOLDS.items() for value in values):
            warmup = WarmupConfig(auto=True, rule=rule, window=window, threshold=threshold)
            config = replace(bench.base, warmup=warmup, warmup_epochs=bench.most)
            print(f"{rule:8} window {window} threshold {threshold:5}", end="")
            for sparsity in bench.sparsities:
                lengths = {seed: chosen_length(readings[sparsity, seed], config) for seed in bench.seeds}
                lost = [
                    accuracies[sparsity, seed, best[sparsity]] - accuracies[sparsity, seed, lengths[seed]]
                    for seed in bench.seeds
                ]
                error = statistics.stdev(lost) / len(lost) ** 0.5
                print(f" | {statistics.fmean(lengths.values()):4.1f} {statistics.fmean(lost):5.2f} ± {error:.2f}", end="")
            print()


if __name__ == "__main__":
    main()

"""What the automatic warm-up loses and saves: each rule beside all fixed lengths, on real trials of the recorded fashion grid.

    python -m tests.benchmarks.auto_warmup --storage FOLDER

Trains every length up to --most for each seed and sparsity (finished trials of FOLDER are reused), reads the masks after each
epoch once, and prints for each rule, window and threshold: the mean length, the accuracy lost against the best fixed length of
each sparsity, and what reading costs of an epoch.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

from orchestrator.storage.layout import TrialFolder, WarmupFolder
from orchestrator.storage.local import LocalStorage
from tests.support.recorded_grid import load_grid
from trainables.config.keys import trial_key, warmup_key, warmup_rule
from trainables.config.trial import TrialConfig, WarmupConfig
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
THRESHOLDS = {
    "overlap": (0.3, 0.4, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8),
    "epi": (0.9, 0.92, 0.944, 0.96, 0.97, 0.983, 0.99),
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
        found = {}
        for (sparsity, seed), length in product(self.cases(), range(self.most + 1)):
            config = replace(self.base, sparsity=sparsity, seed=seed, warmup_epochs=length, prune_iterations=iterations)
            key = trial_key(config, DIGEST)
            context = TrialContext(
                source=self.source,
                runtime=RUNTIME,
                files=TrialFolder(self.storage, key, 1),
                snapshots=self.snapshots(config),
            )
            found[sparsity, seed, length] = 100 * run_trial(config, context)["metrics"]["val/accuracy"]
        return found

    def snapshots(self, config: TrialConfig) -> WarmupFolder:
        return WarmupFolder(self.storage, f"warmups/{warmup_key(config, DIGEST)}", RUNTIME.fingerprint_id())

    def readings(self, window: int) -> tuple[dict[Case, Sequence[Reading]], float]:
        """What is read after each epoch, by sparsity and seed; and the seconds of one reading by those of one epoch."""
        found: dict[Case, Sequence[Reading]] = {}
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
            found |= {(sparsity, seed): one.readings for sparsity, one in zip(self.sparsities, chosen, strict=True)}
        return found, statistics.median(ratios)


def chosen_length(readings: Sequence[Reading], config: TrialConfig) -> int:
    """The epoch at which a rule ends the warm-up."""
    return next((one.epoch for one in readings if is_stable(readings[: one.epoch + 1], config)), config.warmup_epochs)


def best_fixed(accuracies: Mapping[tuple[float, int, int], float], bench: Bench, sparsity: float) -> tuple[int, float]:
    """The length with the highest mean accuracy over the seeds, and that accuracy."""
    means = {
        length: statistics.fmean(accuracies[sparsity, seed, length] for seed in bench.seeds) for length in range(bench.most + 1)
    }
    best = max(means, key=lambda length: means[length])
    return best, means[best]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--storage", type=Path, required=True)
    parser.add_argument("--iterations", type=int, nargs="+", default=[10, 100])
    parser.add_argument("--most", type=int, default=12)
    options = parser.parse_args()
    grid = load_grid("fashion")
    spec = grid.spec()
    from orchestrator.spec.grid import base_config

    bench = Bench(
        base=base_config(spec, "drive"),
        source=spec.source(),
        storage=LocalStorage(str(options.storage)),
        most=options.most,
        sparsities=grid.axes["sparsity"],
        seeds=grid.axes["seed"],
    )
    accuracies = {iterations: bench.accuracies(iterations) for iterations in options.iterations}
    for iterations, sparsity in product(options.iterations, bench.sparsities):
        length, accuracy = best_fixed(accuracies[iterations], bench, sparsity)
        print(f"best fixed length at {iterations} iterations, sparsity {sparsity}: {length} epochs, {accuracy:.2f} %")
    print("rule     window threshold  length      lost in points, by iterations and sparsity")
    for window in WINDOWS:
        readings, cost = bench.readings(window)
        print(f"window {window}: reading the masks of {len(bench.sparsities)} sparsities costs {cost:.1%} of an epoch")
        for rule, threshold in ((rule, value) for rule, values in THRESHOLDS.items() for value in values):
            warmup = WarmupConfig(auto=True, rule=rule, window=window, threshold=threshold)  # type: ignore[arg-type]
            config = replace(bench.base, warmup=warmup, warmup_epochs=bench.most)
            lengths = {case: chosen_length(readings[case], config) for case in bench.cases()}
            lost = []
            for iterations, sparsity in product(options.iterations, bench.sparsities):
                mean = statistics.fmean(accuracies[iterations][sparsity, seed, lengths[sparsity, seed]] for seed in bench.seeds)
                lost.append(best_fixed(accuracies[iterations], bench, sparsity)[1] - mean)
            by_sparsity = [statistics.fmean(lengths[one, seed] for seed in bench.seeds) for one in bench.sparsities]
            shown = " ".join(f"{value:5.2f}" for value in lost)
            mean_lengths = " ".join(f"{one:5.1f}" for one in by_sparsity)
            print(f"{rule:8} {window:6} {threshold:9} {mean_lengths}   {shown}   worst {max(lost):.2f}")


if __name__ == "__main__":
    main()

"""Trials of 2 and 4 workers against the same trials of one: the weights they keep, their accuracy, and the same bits twice.

    python -m tests.acceptance.workers_against_one [--seeds 3] [--model convnet] [--methods drive ...]

One worker on digits, and N processes over gloo with the same batches. The row "rounding" is one worker with another memory
order, whose sums round otherwise: what it differs by is no effect of several workers.
Exits with 1 where a rule that it prints does not hold.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from orchestrator.storage.base import Storage
from tests.gpu.sections.device_and_cpu import STANDARD_ERRORS, noise_of
from tests.support.several_workers import different_weights, masks_of, result_of, run_together
from tests.support.trials import new_storage, tiny_config
from trainables.config.trial import DatasetConfig, TrainingConfig, TrialConfig
from trainables.worker.local_peers import LocalPeers

TOLERANCE = 0.01  # of the mean accuracy with synchronized batch norm, where seeds do not explain more
METHODS = ("drive", "snip", "magnitude")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="at least 2")
    parser.add_argument("--model", default="convnet")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    options = parser.parse_args()
    holds = True
    with tempfile.TemporaryDirectory() as folder:
        print(f"{options.model} on digits, 3 + 9 epochs of batches of 64, 10 rounds to 95 %, {options.seeds} seeds\n")
        print("method     workers  norm          test accuracy     weights that only one keeps   same bits twice")
        for method in options.methods:
            alone = [_trial(options.model, method, seed) for seed in range(options.seeds)]
            ground = {config.seed: _run(config, Path(folder) / "alone", None) for config in alone}
            expected = _accuracies(alone, ground)
            print(f"{method:10} 1        of the batch  {_text(expected)}")
            for workers, synchronized in ((1, True), (2, True), (4, True), (2, False)):
                holds &= _compare(alone, ground, Path(folder) / f"{workers}-{synchronized}", workers, synchronized, expected)
    rule = (
        f"mean accuracies with synchronized batch norm differ by at most {STANDARD_ERRORS:g} standard errors of seeds, or "
        f"{100 * TOLERANCE:g} point, and bits are the same twice"
    )
    print(f"\n{rule}: {'holds' if holds else 'DOES NOT HOLD'}")
    return 0 if holds else 1


def _compare(
    configs: list[TrialConfig],
    ground: dict[int, Storage],
    folder: Path,
    workers: int,
    synchronized: bool,
    expected: list[float],
) -> bool:
    """Prints the row of so many workers; whether its rules hold."""
    peers = LocalPeers(workers)  # of one worker there are no others
    runtime: dict[str, Any] = {"channels_last": False} if workers == 1 else {"sync_batch_norm": synchronized}
    try:
        storages = {c.seed: _run(c, folder, peers if workers > 1 else None, **runtime) for c in configs}
        first = configs[0]
        again = _run(first, folder / "again", peers if workers > 1 else None, **runtime)
    finally:
        peers.end()
    differing = [different_weights(masks_of(c, ground[c.seed]), masks_of(c, storages[c.seed])) for c in configs]
    kept = result_of(first, again)["kept_weights"]
    same = result_of(first, again)["model_sha256"] == result_of(first, storages[first.seed])["model_sha256"]
    accuracies = _accuracies(configs, storages)
    norm = "rounding" if workers == 1 else "of the batch" if synchronized else "of the part"
    differ = f"{', '.join(map(str, differing))} of {kept:,}"
    row = f"{first.method:10} {workers}        {norm:12}  {_text(accuracies)}  {differ:28}  {'yes' if same else 'NO'}"
    print(row, flush=True)
    difference, noise = noise_of(expected, accuracies, least=TOLERANCE)
    return same and (not synchronized or difference <= noise)


def _trial(model: str, method: str, seed: int) -> TrialConfig:
    training = TrainingConfig(epochs=9, batch_size=64, lr=0.05)
    images = DatasetConfig(name="digits", validation=0.1)
    base = tiny_config(model=model, method=method, dataset=images, training=training)
    return replace(base, warmup_epochs=3, prune_iterations=10 if method != "snip" else 1, sparsity=0.95, seed=seed)


def _run(config: TrialConfig, folder: Path, peers: LocalPeers | None, **runtime: Any) -> Storage:
    storage = new_storage(folder / f"{config.method}-{config.seed}")
    report = run_together(config, storage, peers, **runtime)
    if report["status"] != "finished":
        sys.exit(f"{config.method}, seed {config.seed}: {report['message']}")
    return storage


def _accuracies(configs: list[TrialConfig], storages: dict[int, Storage]) -> list[float]:
    return [result_of(config, storages[config.seed])["metrics"]["test/accuracy"] for config in configs]


def _text(values: list[float]) -> str:
    spread = f" ± {100 * stdev(values):.1f}" if len(values) > 1 else ""
    return f"{100 * mean(values):.1f}{spread} %".ljust(16)


if __name__ == "__main__":
    sys.exit(main())

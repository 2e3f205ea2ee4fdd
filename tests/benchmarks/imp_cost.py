"""What iterative magnitude pruning costs beside DRIVE: one full run of both, and the same per epoch for longer levels.

    python -m tests.benchmarks.imp_cost FOLDER [--limit 2560] [--epochs 3] [--warmup 2] [--iterations 50]

FOLDER holds images as train/CLASS/* and test/CLASS/* (32 x 32). ResNet-20, 90 %, one trial at a time on all cores. The paper
trains 160 epochs a level; its claim for pruning time is 43 to 869 times (arXiv:2404.03687, abstract), and which costs it counts
was not at hand, so DRIVE's are told with and without the warm-up.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from tests.support.cli import drive_sweep, status
from trainables.config.counts import imp_levels

SWEEP = """\
name: cost
dataset: {{name: image_folder, root: {root}, image_size: 32, limit: {limit}}}
model: resnet20
method: [imp, drive]
warmup_epochs: {warmup}
prune_iterations: {iterations}
sparsity: 0.9
baseline: none
training: {{epochs: {epochs}, batch_size: 128, lr: 0.1, schedule: cosine, weight_decay: 5e-4}}
precision: fp32
resources: {{device: cpu, cpus_per_trial: {cpus}}}
tracking: {{models: none}}
"""
PAPERS_EPOCHS = 160


def main() -> None:
    parser = argparse.ArgumentParser(description="the cost of IMP over that of DRIVE")
    parser.add_argument("root")
    for name, default in (("limit", 2560), ("epochs", 3), ("warmup", 2), ("iterations", 50)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="drive-sweep-imp-") as scratch:
        file = Path(scratch, "sweep.yaml")
        file.write_text(SWEEP.format(**vars(options), cpus=os.cpu_count()))
        drive_sweep("run", file, "--storage", Path(scratch, "runs"), "--quiet", timeout_s=7200)
        trials = {trial["config"]["method"]: trial for trial in status("cost", Path(scratch, "runs"))["trials"]}
    print_costs(trials["imp"]["metrics"], trials["drive"]["metrics"], options)


def print_costs(imp: dict[str, float], drive: dict[str, float], options: Any) -> None:
    levels = imp_levels(0.9, 0.2)
    epochs = options.warmup + 2 * options.epochs
    trained = sum(one["cost/total_seconds"] - one["cost/prune_seconds"] for one in (imp, drive)) - drive["cost/warmup_seconds"]
    epoch = trained / epochs
    level, round_ = imp["cost/prune_seconds"] / levels, drive["cost/prune_seconds"] / options.iterations
    print(f"test accuracy: imp {imp['test/accuracy']:.4f}, drive {drive['test/accuracy']:.4f}")
    print(f"seconds: {epoch:.3f} an epoch, {level:.3f} a level of {options.epochs} epochs, {round_:.4f} a round")
    for name, of_drive in (("with", drive["cost/search_seconds"]), ("without", drive["cost/prune_seconds"])):
        of_imp = imp["cost/search_seconds" if name == "with" else "cost/prune_seconds"]
        print(f"this run, {name} the warm-up: imp {of_imp:.1f} s, drive {of_drive:.1f} s, {of_imp / of_drive:.1f} times")
    print(f"levels L x {PAPERS_EPOCHS} epochs x {epoch:.3f} s over {options.iterations} rounds, and W warm-up epochs:")
    for sparsity in (0.9, 0.95, 0.98, 0.99):
        levels = imp_levels(sparsity, 0.2)
        of_imp = levels * PAPERS_EPOCHS * epoch
        rounds = options.iterations * round_
        ratios = {warmup: of_imp / (warmup * epoch + rounds) for warmup in (0, options.warmup, 10)}
        text = ", ".join(f"W = {warmup}: {ratio:.0f} times" for warmup, ratio in ratios.items())
        print(f"  {sparsity:.0%}: L = {levels}, {levels * PAPERS_EPOCHS:,} epochs; {text}")
    print(json.dumps({"imp": imp, "drive": drive}))


if __name__ == "__main__":
    main()

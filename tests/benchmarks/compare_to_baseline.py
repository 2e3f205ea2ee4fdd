"""The same sweep three times: by hand with Ray Tune, by this project in float32, and in its best setting.

    python -m tests.benchmarks.compare_to_baseline cifar ROOT [--repeat 3]     ROOT/train/CLASS/*.jpg, ROOT/test/CLASS/*.jpg
    python -m tests.benchmarks.compare_to_baseline digits [--repeat 3]         with and without models in MLflow

cifar: 12 trials of ResNet-20 on 2,560 images, warm-ups 0/1/2/4 x iterations 1/20/100, 95 %, 3 sparse epochs, batch 128.
Every side starts from nothing: fresh storage, no data cache, an empty MLflow. The sides take turns.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median

from orchestrator.spec.presets import sweep_text
from tests.benchmarks.summary import spread
from tests.benchmarks.timing import Timed, by_hand, ours

CIFAR = """\
name: cifar
dataset: {{name: image_folder, root: {root}, image_size: 32, validation: 0}}
model: resnet20
search:
  warmup_epochs: [0, 1, 2, 4]
  prune_iterations: [1, 20, 100]
sparsity: 0.95
baseline: none
training: {{epochs: 3, batch_size: 128, lr: 0.05}}
resources: {{device: cpu, cpus_per_trial: 1}}
"""
TRAIN_IMAGES, TEST_IMAGES = 2560, 512

Sides = dict[str, Callable[[Path], Timed]]


def cifar(root: Path, scratch: Path) -> Sides:
    """Sides of the CIFAR job, on a folder that holds its images alone."""
    images = scratch / "images"
    for split, count in (("train", TRAIN_IMAGES), ("test", TEST_IMAGES)):
        classes = sorted(folder for folder in (root / split).iterdir() if folder.is_dir())
        for index, folder in enumerate(classes):
            share = count // len(classes) + (index < count % len(classes))
            (images / split / folder.name).mkdir(parents=True)
            for file in sorted(folder.iterdir())[:share]:
                shutil.copy(file, images / split / folder.name)
    file = scratch / "cifar.yaml"
    file.write_text(CIFAR.format(root=images))
    return {
        "by hand, fp32": lambda folder: by_hand(file, folder, "--models"),
        "drive-sweep, fp32": lambda folder: ours(file, folder, "--set", "precision=fp32"),
        "drive-sweep, best": lambda folder: ours(file, folder, "--set", "precision=auto"),
    }


def digits(scratch: Path) -> Sides:
    """Sides of the digits sweep."""
    file = scratch / "digits.yaml"
    file.write_text(sweep_text("digits"))
    return {
        "by hand, models": lambda folder: by_hand(file, folder, "--models"),
        "drive-sweep, models": lambda folder: ours(file, folder),
        "by hand, no models": lambda folder: by_hand(file, folder),
        "drive-sweep, no models": lambda folder: ours(file, folder, "--set", "tracking.models=none"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="this project against a program by hand")
    parser.add_argument("job", choices=("cifar", "digits"))
    parser.add_argument("root", type=Path, nargs="?", help="folder of the CIFAR images")
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    if options.job == "cifar" and options.root is None:
        parser.error("cifar needs the folder of its images")
    with tempfile.TemporaryDirectory(prefix="drive-sweep-against-") as name:
        scratch = Path(name)
        sides = digits(scratch) if options.job == "digits" else cifar(options.root.expanduser().absolute(), scratch)
        runs: dict[str, list[Timed]] = {side: [] for side in sides}
        for turn in range(options.repeat):
            for side, run in sides.items():
                folder = scratch / f"{side.replace(' ', '-').replace(',', '')}-{turn}"
                os.environ["XDG_CACHE_HOME"] = str(folder) + "-cache"
                runs[side].append(run(folder))
                print(f"{side}: {runs[side][-1]}", flush=True)
                shutil.rmtree(folder, ignore_errors=True)
    print_comparison(runs)


def print_comparison(runs: dict[str, list[Timed]]) -> None:
    """Medians; and for each of our sides how much faster it is than the last one by hand before it, and why."""
    slots = len(os.sched_getaffinity(0))
    for side, timed in runs.items():
        print(f"{side}: {spread([run.seconds for run in timed])} s, accuracy {spread([run.accuracy for run in timed])}")
        if side.startswith("by hand"):
            hand = timed
            continue
        ratios = [before.seconds / after.seconds for before, after in zip(hand, timed, strict=True)]
        print(f"  {spread(ratios)} times as fast; ratio of medians {middle(hand).seconds / middle(timed).seconds:.2f}")
        shares = [100 * run.tracking_cpu_seconds / run.cpu_seconds for run in timed]
        print(f"  MLflow, its import aside: {spread(shares)} % of the CPU seconds")
        before, after = middle(hand), middle(timed)
        per_epoch = before.computing / before.epochs
        sharing = (before.epochs - after.epochs) * per_epoch
        overhead = before.other(slots) - after.other(slots)
        saved = (before.seconds - after.seconds) * slots
        parts = {"shared warm-ups": sharing, "start-up and overhead": overhead, "faster steps": saved - sharing - overhead}
        print("  of the seconds saved: " + ", ".join(f"{name} {100 * part / saved:.0f} %" for name, part in parts.items()))


def middle(timed: list[Timed]) -> Timed:
    """The run of median length."""
    wanted = median(run.seconds for run in timed)
    return min(timed, key=lambda run: abs(run.seconds - wanted))


if __name__ == "__main__":
    main()

"""The same trials on this device and on a CPU: counts, masks and accuracies; on a CPU with one thread and with two.

Additions in another order move weights that lie near the threshold, so masks may differ in a few bits, and training amplifies
them. Counts may not differ, and accuracies by no more than seeds do.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from statistics import mean, stdev
from typing import Any

from torch import Tensor

from tests.gpu.images import Images, write_images
from tests.gpu.rows import Bench, Row, checked, measured
from tests.gpu.trials import TrialGround, small_config
from trainables.config.trial import TrainingConfig, TrialConfig
from trainables.runtime.device import Runtime

SEEDS = (0, 1, 2)
STANDARD_ERRORS = 2.0
LEAST = 0.03  # difference of two mean accuracies that counts as noise with any spread
Accuracies = list[float]


def measure(bench: Bench) -> Iterator[Row]:
    images = write_images(bench.folder, 8, train=400, test=400)
    other = Runtime(device="cuda") if bench.device == "cuda" else Runtime(threads=2)
    by_place = {"cpu": Runtime(), "other": other}
    where = "this device and a CPU" if bench.device == "cuda" else "one thread and two"
    accuracies: dict[str, Accuracies] = {place: [] for place in by_place}
    different = kept = total = 0
    counts_agree = True
    for seed in SEEDS:
        config = seeded_config(images, seed)
        results: dict[str, dict[str, Any]] = {}
        masks: dict[str, Mapping[str, Tensor]] = {}
        for place, runtime in by_place.items():
            ground = TrialGround(folder=bench.folder / place, images=images, runtime=runtime)
            results[place] = ground.run(config)
            masks[place] = ground.model(config).masks
            accuracies[place].append(float(results[place]["metrics"]["test/accuracy"]))
        different += different_bits(masks["cpu"], masks["other"])
        total += sum(mask.numel() for mask in masks["cpu"].values())
        counts = {place: result["kept_weights"] for place, result in results.items()}
        kept += counts["cpu"]
        counts_agree &= counts["cpu"] == counts["other"] == round((1 - config.sparsity) * total / (len(accuracies["cpu"])))
    yield checked(f"kept weights by {where}", counts_agree, "the same count", f"{kept} in {len(SEEDS)} trials")
    yield measured(
        f"mask bits that differ between {where}", different, f"of {total}", note=f"{different / (2 * kept):.2%} of the kept"
    )
    difference, noise = noise_of(accuracies["cpu"], accuracies["other"])
    yield checked(
        f"test accuracy by {where}",
        difference <= noise,
        f"means differ by at most {noise:.3f}: {STANDARD_ERRORS:g} standard errors over {len(SEEDS)} seeds, or {LEAST}",
        " against ".join(f"{mean(values):.3f}" for values in accuracies.values()),
    )


def seeded_config(images: Images, seed: int) -> TrialConfig:
    training = TrainingConfig(epochs=5, batch_size=20, lr=0.05)
    return small_config(images, seed=seed, training=training)


def different_bits(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> int:
    """Weights that one of two networks keeps and the other does not."""
    return sum(int((mask ^ second[name]).count_nonzero()) for name, mask in first.items())


def noise_of(first: Accuracies, second: Accuracies) -> tuple[float, float]:
    """Difference of two mean accuracies, and the largest one that seeds explain (Welch's standard error)."""
    error = math.sqrt(stdev(first) ** 2 / len(first) + stdev(second) ** 2 / len(second))
    return abs(mean(first) - mean(second)), max(LEAST, STANDARD_ERRORS * error)

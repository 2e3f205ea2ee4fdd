"""The same trials on this device and on a CPU: counts, masks and accuracies; on a CPU with one thread and with two.

Additions in another order move weights that lie near the threshold, so masks may differ in a few bits, and training amplifies
them. Counts may not differ, and accuracies by no more than seeds do.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from statistics import mean, stdev

from torch import Tensor

from tests.gpu.images import Images, write_images
from tests.gpu.rows import Bench, Row, checked, measured
from tests.gpu.trials import TrialGround, small_config
from trainables.config.trial import TrainingConfig, TrialConfig
from trainables.runtime.device import Runtime

SEEDS = (0, 1, 2)
STANDARD_ERRORS = 2.0
LEAST = 0.03  # difference of two mean accuracies that counts as noise with any spread


def measure(bench: Bench) -> Iterator[Row]:
    images = write_images(bench.folder, 8, train=400, test=400)
    where = "this device and a CPU" if bench.device == "cuda" else "one thread and two"
    pairs = [Pair(seeded_config(images, seed), images, bench) for seed in SEEDS]
    kept = [pair.kept for pair in pairs]
    expected = round((1 - pairs[0].config.sparsity) * pairs[0].total)
    holds = all(counts == (expected, expected) for counts in kept)
    yield checked(f"kept weights by {where}", holds, f"{expected} of {pairs[0].total} in each", f"{len(SEEDS)} seeds")
    at_start = Pair(replace(seeded_config(images, 0), warmup_epochs=0, prune_iterations=1), images, bench)
    yield _bits(f"mask bits that differ between {where}, pruned at the start", [at_start])
    yield _bits(f"the same, pruned after {pairs[0].config.warmup_epochs} epochs", pairs)
    difference, noise = noise_of([pair.accuracies[0] for pair in pairs], [pair.accuracies[1] for pair in pairs])
    yield checked(
        f"test accuracy by {where}",
        difference <= noise,
        f"means differ by at most {noise:.3f}: {STANDARD_ERRORS:g} standard errors over {len(SEEDS)} seeds, or {LEAST}",
        " against ".join(f"{mean(values):.3f}" for values in zip(*(pair.accuracies for pair in pairs), strict=True)),
    )


class Pair:
    """One trial on a CPU, and the same elsewhere.

    Attributes:
        different: bits of the masks.
        total: weights that may be pruned.
    """

    def __init__(self, config: TrialConfig, images: Images, bench: Bench) -> None:
        self.config = config
        runtimes = {"cpu": Runtime(), "elsewhere": Runtime(device="cuda") if bench.device == "cuda" else Runtime(threads=2)}
        grounds = {
            place: TrialGround(folder=bench.folder / place, images=images, runtime=runtime)
            for place, runtime in runtimes.items()
        }
        first, second = (ground.run(config) for ground in grounds.values())
        self.kept: tuple[int, int] = first["kept_weights"], second["kept_weights"]
        self.accuracies: tuple[float, float] = first["metrics"]["test/accuracy"], second["metrics"]["test/accuracy"]
        masks, others = (ground.model(config).masks for ground in grounds.values())
        self.different = different_bits(masks, others)
        self.total = sum(mask.numel() for mask in masks.values())


def _bits(name: str, pairs: Sequence[Pair]) -> Row:
    different, kept = sum(pair.different for pair in pairs), sum(sum(pair.kept) for pair in pairs)
    total = sum(pair.total for pair in pairs)
    return measured(name, different, f"of {total:,}", note=f"{different / kept:.2%} of the kept ones")


def seeded_config(images: Images, seed: int) -> TrialConfig:
    training = TrainingConfig(epochs=5, batch_size=20, lr=0.05)
    return small_config(images, seed=seed, training=training)


def different_bits(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> int:
    """Weights that one of two networks keeps and the other does not."""
    return sum(int((mask ^ second[name]).count_nonzero()) for name, mask in first.items())


def noise_of(first: Sequence[float], second: Sequence[float], least: float = LEAST) -> tuple[float, float]:
    """Difference of two mean accuracies, and the largest one that seeds explain (Welch's standard error), or the least."""
    error = math.sqrt(stdev(first) ** 2 / len(first) + stdev(second) ** 2 / len(second))
    return abs(mean(first) - mean(second)), max(least, STANDARD_ERRORS * error)

"""Staged seeds on configurations whose true means are known: `python -m tests.benchmarks.staged_seeds [--draws 1000]`.

Each draw has CONFIGURATIONS true means, with a spread like that of the better half of a recorded group, and accuracies of SEEDS
seeds with noise as measured there: a part that a seed adds to all configurations, and one of each trial. The real search runs
first seeds and stages; compared are a fixed number of seeds for all configurations.
"""

from __future__ import annotations

import argparse
import random
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestrator.search.racing import noise_of
from orchestrator.search.search import Search
from tests.support.recorded_grid import RecordedGrid, load_grid, spec_of
from tests.support.search_replay import Replay

CONFIGURATIONS, SEEDS, IMAGES = 18, 8, 10**7
INDIFFERENCE = 0.2
ROUNDING = 0.05  # of the points in a reason
TEXT = f"""\
name: synthetic
dataset: {{name: digits}}
model: convnet
baseline: none
search:
  warmup_epochs: [{", ".join(map(str, range(CONFIGURATIONS)))}]
  sparsity: [0.9]
seeds: {{first: FIRST, most: {SEEDS}, indifference: {INDIFFERENCE}}}
training: {{epochs: 1}}
"""


@dataclass(frozen=True, kw_only=True)
class Noise:
    """Standard deviations, in points of accuracy."""

    configurations: float
    seeds: float
    trials: float


@dataclass(frozen=True, kw_only=True)
class Draw:
    """One draw: the outcome of the race, against the truth.

    Attributes:
        loss: points by which the recommended configuration is below the best.
        covered: the best was not ruled out, and the loss is within the bound that the race gave.
        within: the loss is within the indifference.
    """

    outcome: str
    loss: float
    trials: int
    covered: bool
    within: bool


def measured_noise(grid: RecordedGrid) -> list[Noise]:
    """The noise of each group, over the better half of its configurations."""
    noises = []
    for sparsity in grid.axes["sparsity"]:
        rows: dict[tuple[object, ...], list[float]] = {}
        for point, curve in grid.curves.items():
            if point[list(grid.axes).index("sparsity")] == sparsity:
                rows.setdefault(point[:-1], []).append(100 * curve[-1] / grid.images)
        best = sorted(rows.values(), key=statistics.fmean)[len(rows) // 2 :]
        noises.append(_noise(best))
    return noises


def _noise(rows: Sequence[Sequence[float]]) -> Noise:
    means = [statistics.fmean(row) for row in rows]
    columns = [statistics.fmean(column) for column in zip(*rows, strict=True)]
    trials = noise_of(dict(enumerate(rows))).deviation ** 2
    seeds = max(0.0, statistics.variance(columns) - trials / len(rows))
    spread = max(0.0, statistics.variance(means) - trials / len(columns))
    return Noise(configurations=spread**0.5, seeds=seeds**0.5, trials=trials**0.5)


def draw(noise: Noise, first: int, chance: random.Random) -> Draw:
    truth = [50 + chance.gauss(0, noise.configurations) for _ in range(CONFIGURATIONS)]
    effects = [chance.gauss(0, noise.seeds) for _ in range(SEEDS)]
    curves = {
        (number, 0.9, seed): (round(IMAGES / 100 * (truth[number] + effects[seed] + chance.gauss(0, noise.trials))),)
        for number in range(CONFIGURATIONS)
        for seed in range(SEEDS)
    }
    grid = RecordedGrid(
        text=TEXT,
        axes={"warmup_epochs": tuple(range(CONFIGURATIONS)), "sparsity": (0.9,), "seed": tuple(range(SEEDS))},
        images=IMAGES,
        curves=curves,
        seconds={},
    )
    spec = spec_of(TEXT.replace("FIRST", str(first)))
    search = Replay(grid=grid, spec=spec, seeds={seed: seed for seed in range(SEEDS)}).run()
    return _judged(search, truth)


def _judged(search: Search, truth: Sequence[float]) -> Draw:
    (group,) = search.groups
    assert group.end is not None
    loss = max(truth) - truth[group.end.values["warmup_epochs"]]
    best = next(one for one in group.configurations if truth[one.values["warmup_epochs"]] == max(truth))
    claimed = group.end.reason.partition("better by more than ")[2].split()
    covered = not best.is_worse and (not claimed or loss <= float(claimed[0]) + ROUNDING)
    return Draw(outcome=group.end.state, loss=loss, trials=len(group.by_key), covered=covered, within=loss <= INDIFFERENCE)


def fixed(noise: Noise, seeds: int, chance: random.Random) -> bool:
    """Whether the best mean over a fixed number of seeds is within the indifference."""
    truth = [chance.gauss(0, noise.configurations) for _ in range(CONFIGURATIONS)]
    means = [mean + chance.gauss(0, noise.trials / seeds**0.5) for mean in truth]
    return max(truth) - truth[means.index(max(means))] <= INDIFFERENCE


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--first", type=int, nargs="*", default=[1, 2])
    options = parser.parse_args()
    noises = measured_noise(load_grid("fashion"))
    for noise in noises:
        spread = f"configurations {noise.configurations:.2f}, seeds {noise.seeds:.2f}, trials {noise.trials:.2f}"
        print(f"spread in points: {spread}")
        for first in options.first:
            chance = random.Random(first)
            print("  " + summary([draw(noise, first, chance) for _ in range(options.draws)], first), flush=True)
        chance = random.Random(0)
        shares = {
            seeds: statistics.fmean(fixed(noise, seeds, chance) for _ in range(10 * options.draws)) for seeds in (1, 2, 4, 8)
        }
        print(
            "  fixed seeds: "
            + ", ".join(f"{n}: right {share:.0%} with {n * CONFIGURATIONS} trials" for n, share in shares.items())
        )


def summary(draws: Sequence[Draw], first: int) -> str:
    outcomes: Mapping[str, int] = Counter(one.outcome for one in draws)
    claims = [one for one in draws if one.outcome in ("better", "indifferent")]
    held = f"{statistics.fmean(one.within for one in claims):.1%} of {len(claims)}" if claims else "none"
    return (
        f"first {first}: best or within {INDIFFERENCE} points {statistics.fmean(one.within for one in draws):.1%}, "
        f"loss {statistics.fmean(one.loss for one in draws):.2f}, trials {statistics.fmean(one.trials for one in draws):.0f}; "
        f"claims that hold {held}; intervals that hold {statistics.fmean(one.covered for one in draws):.1%}; {dict(outcomes)}"
    )


if __name__ == "__main__":
    main()

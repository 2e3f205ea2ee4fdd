"""Groups of a sweep whose true means are known, with noise as it was measured on recorded grids."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from orchestrator.recommendation.fit import Values

NOISE, SEED_SPREAD = 1.0, 0.6  # points; the recorded groups have 0.4 to 2.2, and a seed adds 0.1 to 0.7 to all alike


@dataclass(frozen=True, kw_only=True)
class SyntheticGroup:
    truth: dict[int, float]
    values: Values

    @property
    def best(self) -> float:
        return max(self.truth.values())


def equal(draw: random.Random) -> list[float]:
    """No configuration is better than another."""
    return [0.0] * draw.randint(4, 36)


def scattered(draw: random.Random) -> list[float]:
    spread = draw.uniform(0.2, 3)
    return [draw.gauss(0, spread) for _ in range(draw.randint(4, 36))]


def surface(draw: random.Random) -> list[float]:
    """A smooth hill over warm-ups and iterations, whose top may lie outside."""
    rows, columns = draw.randint(3, 6), draw.randint(2, 6)
    steepness = draw.uniform(0, 8), draw.uniform(0, 8)
    top = draw.uniform(0, 1.2), draw.uniform(0, 1.2)
    return [
        -steepness[0] * (row / (rows - 1) - top[0]) ** 2 - steepness[1] * (column / (columns - 1) - top[1]) ** 2
        for row in range(rows)
        for column in range(columns)
    ]


def two(draw: random.Random) -> list[float]:
    spread = draw.uniform(0.2, 2)
    return [draw.gauss(0, spread) for _ in range(2)]


def plateau(draw: random.Random) -> list[float]:
    """As in the recorded grids: many configurations are about as good, and some far worse."""
    good = [draw.gauss(0, 0.2) for _ in range(draw.randint(3, 24))]
    return good + [-draw.expovariate(1 / 3) for _ in range(draw.randint(1, 12))]


KINDS: dict[str, Callable[[random.Random], list[float]]] = {
    "equal": equal,
    "scattered": scattered,
    "surface": surface,
    "two": two,
    "plateau": plateau,
}


def synthetic_group(
    kind: str, seeds: int, draw: random.Random, *, uneven: bool = False, staged: bool = False
) -> SyntheticGroup:
    """One group.

    Args:
        uneven: the noise of a configuration grows with its distance from the best.
        staged: the better half by the first seeds alone has all seeds, the others one or two.
    """
    truth = dict(enumerate(KINDS[kind](draw)))
    effects = [draw.gauss(0, SEED_SPREAD) for _ in range(seeds)]
    best = max(truth.values())
    values = {
        number: {
            seed: mean + effect + draw.gauss(0, NOISE * (1 + 0.3 * (best - mean) * uneven))
            for seed, effect in enumerate(effects)
        }
        for number, mean in truth.items()
    }
    if staged:
        first = min(2, seeds - 1)
        ranked = sorted(values, key=lambda number: -sum(values[number][seed] for seed in range(first)))
        for number in ranked[max(2, len(ranked) // 2) :]:
            values[number] = {seed: values[number][seed] for seed in range(first)}
    return SyntheticGroup(truth=truth, values=values)

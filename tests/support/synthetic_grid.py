"""Searches of small grids in memory, whose accuracies are known."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

from orchestrator.search.decisions import Decision, DecisionLog, Kind, MemoryLog
from orchestrator.search.factory import make_search
from orchestrator.search.search import Search, SearchTrial
from orchestrator.search.warmups import WarmupLedger
from orchestrator.spec.loader import resolved, spec_from_resolved
from orchestrator.spec.schema import SweepSpec
from tests.support.recorded_grid import METRIC, RecordedGrid, spec_of
from trainables.config.keys import trial_key, warmup_key
from trainables.config.trial import TrialConfig

IMAGES = 10_000
SEEDS = 6
EPOCHS = 4
TEXT = f"""
name: synthetic
dataset: {{name: digits}}
model: convnet
baseline: none
search:
  warmup_epochs: [0, 1, 2]
  prune_iterations: [1, 10, 100]
  sparsity: [0.9]
  seed: {list(range(SEEDS))}
training: {{epochs: {EPOCHS}}}
"""


def grid_with(accuracy: Callable[[int, int, float, int], float], sparsities: Sequence[float] = (0.9,)) -> RecordedGrid:
    """A grid of 3 warm-ups x 3 iteration counts, by accuracy(warm-up, iterations, sparsity, seed); curves rise evenly to it."""
    text = TEXT.replace("[0.9]", str(list(sparsities)))
    axes: dict[str, Sequence[Any]] = {
        "warmup_epochs": (0, 1, 2),
        "prune_iterations": (1, 10, 100),
        "sparsity": tuple(sparsities),
        "seed": range(SEEDS),
    }
    points = product(axes["warmup_epochs"], axes["prune_iterations"], sparsities, range(SEEDS))
    ends = {point: accuracy(*point) for point in points}
    curves = {
        point: tuple(round(IMAGES * end * (epoch + EPOCHS) / 2 / EPOCHS) for epoch in range(1, EPOCHS + 1))
        for point, end in ends.items()
    }
    return RecordedGrid(
        text=text,
        axes={key: tuple(values) for key, values in axes.items()},
        images=IMAGES,
        curves=curves,
        seconds=dict.fromkeys(curves, 1.0),
    )


def noisy(spread: float, noise: float, seed: int = 0) -> Callable[[int, int, float, int], float]:
    """Accuracies in which each configuration has a level of its own, and each trial its noise."""

    def accuracy(warmup: int, iterations: int, sparsity: float, trial_seed: int) -> float:
        level = random.Random(f"{seed}/{warmup}/{iterations}/{sparsity}").uniform(-spread, spread)
        return 0.8 + level + random.Random(f"{seed}/{warmup}/{iterations}/{sparsity}/{trial_seed}").gauss(0, noise)

    return accuracy


def spec_with(keys: Mapping[str, Any] | None = None, text: str = TEXT) -> SweepSpec:
    """A sweep file with other keys; those of `search` are added, and one that is None is removed."""
    values = resolved(spec_of(text))
    keys = dict(keys or {})
    search = values["search"] | keys.pop("search", {})
    if "seeds" in keys:
        del search["seed"]
    values |= keys | {"search": {key: axis for key, axis in search.items() if axis is not None}}
    return spec_from_resolved(values)


def search_of(spec: SweepSpec, log: DecisionLog | None = None, **options: Any) -> Search:
    """The search of a sweep without data."""
    return make_search(
        spec,
        log=MemoryLog() if log is None else log,
        key_of=key_of,
        warmups=WarmupLedger(key_of=lambda config: warmup_key(config, "none")),
        **options,
    )


def key_of(config: TrialConfig) -> str:
    return trial_key(config, "none")


def run_all(search: Search, accuracy: Callable[[TrialConfig], float], seconds: float = 0.0) -> list[SearchTrial]:
    """Runs a search to its end, one trial after the other; returns the trials."""
    trials = []
    while (begun := search.next_trial()) is not None:
        trials.append(begun)
        if not begun.is_finished:
            search.finish(begun.key, {METRIC: accuracy(begun.config)}, seconds)
    return trials


def timeless(decisions: Sequence[Decision]) -> list[Decision]:
    """Decisions without the time at which they were taken."""
    return [replace(one, elapsed_s=0.0) for one in decisions]


def of_kind(search: Search, *kinds: Kind) -> list[Decision]:
    return [one for one in search.decisions if one.kind in kinds]

"""How much of a grid each strategy needs, on recorded grids: `python -m tests.benchmarks.search_replay [GRID ...]`.

Each replay draws the seeds of the grid anew, and the strategy has another seed. A configuration is right if its mean over
all recorded seeds is within TOLERANCE of the best. Epochs are those that a sweep would train, shared warm-ups once, with one
slot.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestrator.scheduling.early_stopping import asha
from orchestrator.search.early_stopping import EarlyStopper
from orchestrator.search.groups import Group
from orchestrator.spec.loader import resolved, spec_from_resolved
from orchestrator.spec.schema import SweepSpec
from tests.support.recorded_grid import RecordedGrid, load_grid
from tests.support.search_replay import Replay, drawn_seeds

TOLERANCE = 0.003
REPLAYS = 50


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A row of the table: keys of the sweep file, and whether one early-stopping rule compares everything."""

    keys: Mapping[str, Any] = field(default_factory=dict)
    stops_all_together: bool = False
    candidates: int = 4


SEEDS = {"first": 1, "most": 4, "indifference": 0.3}
ASHA = {"name": "asha", "reduction": 3, "grace_epochs": 1}


def strategy(name: str, configurations: int) -> dict[str, Any]:
    return {"name": name, "configurations": configurations}


ENTRIES: dict[str, Entry] = {
    "grid": Entry(keys={"seeds": {"first": 4, "most": 4}}),
    "grid, 1 seed": Entry(keys={"seeds": {"first": 1, "most": 1}}),
    "random 12": Entry(keys={"strategy": strategy("random", 12), "seeds": {"first": 2, "most": 2}}),
    "ASHA over everything": Entry(keys={"seeds": {"first": 4, "most": 4}, "early_stopping": ASHA}, stops_all_together=True),
    "grouped ASHA": Entry(keys={"seeds": {"first": 1, "most": 1}, "early_stopping": ASHA}),
    "tpe 16": Entry(keys={"strategy": strategy("tpe", 16), "seeds": {"first": 1, "most": 1}}),
    "gp 16": Entry(keys={"strategy": strategy("gp", 16), "seeds": {"first": 1, "most": 1}}),
    "tpe 20 + ASHA": Entry(keys={"strategy": strategy("tpe", 20), "seeds": {"first": 1, "most": 1}, "early_stopping": ASHA}),
    "tpe 16 + ASHA + staged seeds": Entry(keys={"strategy": strategy("tpe", 16), "seeds": SEEDS, "early_stopping": ASHA}),
    "gp 16 + ASHA + staged seeds": Entry(keys={"strategy": strategy("gp", 16), "seeds": SEEDS, "early_stopping": ASHA}),
    "grid + ASHA + staged seeds": Entry(keys={"seeds": SEEDS, "early_stopping": ASHA}),
}


@dataclass(frozen=True, kw_only=True)
class Score:
    """One group of one replay: the share of the grid's epochs that were trained in all, and whether the answer is right."""

    share: float
    right: bool
    loss: float


def spec_with(grid: RecordedGrid, keys: Mapping[str, Any], replay: int) -> SweepSpec:
    values = resolved(grid.spec())
    values["search"] = {key: axis for key, axis in values["search"].items() if key != "seed"}
    values |= keys
    values["strategy"] = {**values["strategy"], **dict(keys.get("strategy", {})), "seed": replay}
    return spec_from_resolved(values)


def truth(grid: RecordedGrid) -> dict[tuple[Any, ...], float]:
    """Axes without the seed -> mean of the last accuracy over all seeds."""
    values: dict[tuple[Any, ...], list[float]] = {}
    for point, curve in grid.curves.items():
        values.setdefault(point[:-1], []).append(curve[-1] / grid.images)
    return {point: statistics.fmean(row) for point, row in values.items()}


def grid_epochs(grid: RecordedGrid) -> int:
    sparse = sum(len(curve) for curve in grid.curves.values())
    return sparse + len(grid.axes["seed"]) * int(max(grid.axes["warmup_epochs"]))


def stoppers(entry: Entry, epochs: int) -> Callable[[Group], EarlyStopper] | None:
    if "early_stopping" not in entry.keys:
        return None
    rule = entry.keys["early_stopping"]
    if entry.stops_all_together:
        shared = asha("max", rule["grace_epochs"], rule["reduction"], epochs)
        return lambda group: shared
    return lambda group: asha("max", rule["grace_epochs"], rule["reduction"], epochs)


def replay(grid: RecordedGrid, entry: Entry, number: int) -> list[Score]:
    spec = spec_with(grid, entry.keys, number)
    run = Replay(
        grid=grid,
        spec=spec,
        seeds=drawn_seeds(grid.axes["seed"], number),
        stopper_of=stoppers(entry, spec.training.epochs),
        candidates=entry.candidates,
    )
    search = run.run()
    means = truth(grid)
    share = search.meter.epochs / grid_epochs(grid)
    scores = []
    for group in search.groups:
        best = max(value for point, value in means.items() if _sparsity(grid, point) == group.group.fixed["sparsity"])
        leader = group.configurations[group.end.configuration] if group.end and group.end.configuration is not None else None
        value = means[_point(grid, {**group.group.fixed, **leader.values})] if leader else 0.0
        scores.append(Score(share=share, right=best - value <= TOLERANCE, loss=best - value))
    return scores


def _point(grid: RecordedGrid, values: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(values[key] for key in grid.axes if key != "seed")


def _sparsity(grid: RecordedGrid, point: tuple[Any, ...]) -> Any:
    return point[[key for key in grid.axes if key != "seed"].index("sparsity")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("grids", nargs="*", default=["fashion", "digits"])
    parser.add_argument("--replays", type=int, default=REPLAYS)
    parser.add_argument("--only", nargs="*", default=[])
    options = parser.parse_args()
    for name in options.grids:
        grid = load_grid(name)
        print(f"{name}: {len(grid.curves)} trials, {grid_epochs(grid)} epochs, {options.replays} replays")
        for label, entry in ENTRIES.items():
            if options.only and not any(one in label for one in options.only):
                continue
            scores = [score for number in range(options.replays) for score in replay(grid, entry, number)]
            share = statistics.median(score.share for score in scores)
            right = statistics.fmean(score.right for score in scores)
            loss = 100 * statistics.fmean(score.loss for score in scores)
            print(f"  {label:32} {share:6.1%} of the epochs, right {right:4.0%}, {loss:.2f} points below the best")


if __name__ == "__main__":
    main()

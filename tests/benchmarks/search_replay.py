"""How much of a grid each strategy needs, on recorded grids: `python -m tests.benchmarks.search_replay [GRID ...]`.

Each replay draws the seeds of the grid anew, and the strategy has another seed. A configuration is right if its mean over all
recorded seeds is within TOLERANCE of the best, or one standard error. Epochs are those that a sweep would train,
shared warm-ups once, with one slot, as shares of the grid's. Columns: median and maximum of the epochs, how often the answer
is right, * how often it is right within a quarter of the grid, † the median share from which on the recommendation was right.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestrator.scheduling.early_stopping import asha, median
from orchestrator.search.early_stopping import EarlyStopper
from orchestrator.search.group_search import GroupSearch
from orchestrator.search.groups import Group
from orchestrator.search.records import ConfigurationRecord
from orchestrator.spec.loader import resolved, spec_from_resolved
from orchestrator.spec.schema import SweepSpec
from tests.support.recorded_grid import RecordedGrid, load_grid
from tests.support.search_replay import Replay, drawn_seeds

TOLERANCE = 0.003  # or one standard error of the best, if that is more
REPLAYS = 50


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A row of the table.

    Attributes:
        keys: of the sweep file.
        stops_all_together: one early-stopping rule compares everything, as people write it.
        budget: share of the grid's epochs.
        candidates: how many proposals the sampler is asked for; with more than one a trained warm-up goes first.
    """

    keys: Mapping[str, Any] = field(default_factory=dict)
    stops_all_together: bool = False
    budget: float | None = None
    candidates: int = 4


ONE_SEED = {"first": 1, "most": 1}
ALL_SEEDS = {"first": 4, "most": 4}
STAGED = {"first": 1, "most": 4, "indifference": 0.3}
ASHA = {"name": "asha", "reduction": 3, "grace_epochs": 1}
MEDIAN = {"name": "median", "grace_epochs": 1}


def sampled(name: str, configurations: int) -> dict[str, Any]:
    return {"strategy": {"name": name, "configurations": configurations}}


ENTRIES: dict[str, Entry] = {
    "grid": Entry(keys={"seeds": ALL_SEEDS}),
    "grid, one seed": Entry(keys={"seeds": ONE_SEED}),
    "random 16, one seed": Entry(keys=sampled("random", 16) | {"seeds": ONE_SEED}),
    "ASHA over everything, four seeds": Entry(keys={"seeds": ALL_SEEDS, "early_stopping": ASHA}, stops_all_together=True),
    "ASHA in groups, one seed": Entry(keys={"seeds": ONE_SEED, "early_stopping": ASHA}),
    "tpe 16, one seed": Entry(keys=sampled("tpe", 16) | {"seeds": ONE_SEED}),
    "gp 16, one seed": Entry(keys=sampled("gp", 16) | {"seeds": ONE_SEED}),
    "tpe 24 + ASHA in groups": Entry(keys=sampled("tpe", 24) | {"seeds": ONE_SEED, "early_stopping": ASHA}),
    "tpe 24 + ASHA + staged seeds": Entry(keys=sampled("tpe", 24) | {"seeds": STAGED, "early_stopping": ASHA}),
    "the same, one candidate": Entry(keys=sampled("tpe", 24) | {"seeds": STAGED, "early_stopping": ASHA}, candidates=1),
    "tpe 24 + staged seeds": Entry(keys=sampled("tpe", 24) | {"seeds": STAGED}),
    "tpe 24 + staged, one candidate": Entry(keys=sampled("tpe", 24) | {"seeds": STAGED}, candidates=1),
    "grid + ASHA + staged seeds": Entry(keys={"seeds": STAGED, "early_stopping": ASHA}),
    "the same, grace of 3 epochs": Entry(keys={"seeds": STAGED, "early_stopping": ASHA | {"grace_epochs": 3}}),
    "grid + median + staged seeds": Entry(keys={"seeds": STAGED, "early_stopping": MEDIAN}),
    "the same, budget of a quarter": Entry(keys={"seeds": STAGED, "early_stopping": MEDIAN}, budget=0.25),
}


@dataclass(frozen=True, kw_only=True)
class Score:
    """One group of one replay.

    Attributes:
        share: of the grid's epochs that the whole search trained.
        right: whether the recommended configuration is right.
        loss: how far its mean is below the best.
        until: share of the grid's epochs from which on the recommendation was right; infinite if it is not.
    """

    share: float
    right: bool
    loss: float
    until: float


def spec_with(grid: RecordedGrid, keys: Mapping[str, Any], replay: int) -> SweepSpec:
    values = resolved(grid.spec())
    values["search"] = {key: axis for key, axis in values["search"].items() if key != "seed"}
    values |= keys
    values["strategy"] = {**values["strategy"], **dict(keys.get("strategy", {})), "seed": replay}
    return spec_from_resolved(values)


def truth(grid: RecordedGrid) -> tuple[dict[tuple[Any, ...], float], dict[tuple[Any, ...], float]]:
    """Axes without the seed -> mean of the last accuracy over all seeds, and its standard error."""
    values: dict[tuple[Any, ...], list[float]] = {}
    for point, curve in grid.curves.items():
        values.setdefault(point[:-1], []).append(curve[-1] / grid.images)
    means = {point: statistics.fmean(row) for point, row in values.items()}
    return means, {point: statistics.stdev(row) / math.sqrt(len(row)) for point, row in values.items()}


def grid_epochs(grid: RecordedGrid) -> int:
    sparse = sum(len(curve) for curve in grid.curves.values())
    return sparse + len(grid.axes["seed"]) * int(max(grid.axes["warmup_epochs"]))


def stoppers(entry: Entry, epochs: int) -> Callable[[Group], EarlyStopper] | None:
    if "early_stopping" not in entry.keys:
        return None
    rule = entry.keys["early_stopping"]
    if rule["name"] == "median":
        return lambda group: median("max", rule["grace_epochs"])
    if entry.stops_all_together:
        shared = asha("max", rule["grace_epochs"], rule["reduction"], epochs)
        return lambda group: shared
    return lambda group: asha("max", rule["grace_epochs"], rule["reduction"], epochs)


def replay(grid: RecordedGrid, entry: Entry, number: int) -> list[Score]:
    budget = {"budget": {"epochs": int(entry.budget * grid_epochs(grid))}} if entry.budget else {}
    spec = spec_with(grid, {**entry.keys, **budget}, number)
    run = Replay(
        grid=grid,
        spec=spec,
        seeds=drawn_seeds(grid.axes["seed"], number),
        stopper_of=stoppers(entry, spec.training.epochs),
        candidates=entry.candidates,
    )
    search = run.run()
    means, errors = truth(grid)
    share = search.meter.epochs / grid_epochs(grid)
    scores = []
    for group in search.groups:
        best = max((point for point in means if _sparsity(grid, point) == group.group.fixed["sparsity"]), key=means.__getitem__)
        loss = means[best] - means[_point(grid, {**group.group.fixed, **recommended(group).values})]
        first = first_right(run, grid, group, means[best] - max(TOLERANCE, errors[best]), means)
        scores.append(
            Score(share=share, right=loss <= max(TOLERANCE, errors[best]), loss=loss, until=first / grid_epochs(grid))
        )
    return scores


def recommended(group: GroupSearch) -> ConfigurationRecord:
    """The configuration that the search recommends; if all were stopped, the best of those that got furthest."""
    if group.end is not None and group.end.configuration is not None:
        return group.configurations[group.end.configuration]
    return max(
        group.configurations,
        key=lambda one: max((max(trial.rungs.items(), default=(0, 0.0)) for trial in one.trials.values()), default=(0, 0.0)),
    )


def first_right(
    run: Replay, grid: RecordedGrid, group: GroupSearch, least: float, means: Mapping[tuple[Any, ...], float]
) -> float:
    """Epochs from which on the recommendation stayed right; infinite if it is wrong in the end."""
    since = math.inf
    for moment in run.moments:
        values = moment.recommended.get(group.group.name)
        right = values is not None and means[_point(grid, {**group.group.fixed, **values})] >= least
        since = min(since, moment.epochs) if right else math.inf
    return since


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
        print("  strategy                          epochs    most  right  goal*  until†  points below the best")
        for label, entry in ENTRIES.items():
            if options.only and not any(one in label for one in options.only):
                continue
            scores = [score for number in range(options.replays) for score in replay(grid, entry, number)]
            share = statistics.median(score.share for score in scores)
            most = max(score.share for score in scores)
            right = statistics.fmean(score.right for score in scores)
            loss = 100 * statistics.fmean(score.loss for score in scores)
            until = statistics.median(score.until for score in scores)
            goal = statistics.fmean(score.right and score.share <= 0.25 for score in scores)
            print(
                f"  {label:34}{share:7.1%}{most:8.1%}{right:7.0%}{goal:7.0%}{until:8.1%}{loss:8.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()

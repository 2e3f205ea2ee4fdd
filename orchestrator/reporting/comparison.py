"""Compares one method with every other: differences of test accuracy with a paired test over seeds, ratios of time.

In each cell both sides enter with their best configuration by mean validation accuracy, so that no method is bound to
iterations or options that suit another. Seeds are paired because they share data order, initialisation and warm-up.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from orchestrator.command_line import command
from orchestrator.errors import UserError
from orchestrator.recommendation.paired_test import ALPHA, Difference, paired_difference
from orchestrator.reporting.aggregate import ConfigSummary, baseline_of, config_summaries
from orchestrator.reporting.comparison_cells import Cell, best_in_cell, by_cell
from orchestrator.state.sweep_state import SweepState, TrialStatus
from trainables.config.lookup import is_dense
from trainables.config.methods import DEFAULT_METHOD

REFERENCE = DEFAULT_METHOD


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """The best of two methods in one cell, over the seeds that both have finished.

    Attributes:
        reference_test, other_test: mean test accuracies over `seeds`.
        unpaired: seeds that only one side has finished; they count for nothing here.
        prune_ratio, search_ratio: the other's mean seconds of pruning, and of warm-up and pruning together, over the
            reference's; below 1 the other is faster. None if they were not measured.
    """

    cell: Cell
    reference: ConfigSummary
    other: ConfigSummary
    reference_test: float
    other_test: float
    difference: Difference
    seeds: tuple[int, ...]
    unpaired: tuple[int, ...]
    prune_ratio: float | None
    search_ratio: float | None

    @property
    def method(self) -> str:
        return self.other.config.method


@dataclass(frozen=True, kw_only=True, slots=True)
class ExcludedCell:
    """A cell of the reference in which another method cannot be compared, with the reason."""

    method: str
    cell: Cell
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """One other method over all its cells; the counts are those of the reference."""

    method: str
    cells: int
    better: int
    worse: int
    significantly_better: int
    significantly_worse: int
    mean_difference: float | None
    prune_ratio: float | None
    search_ratio: float | None
    excluded: int

    def to_json(self) -> dict[str, Any]:
        values = asdict(self)
        return values | {"left_out": values.pop("excluded")}


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """One method of a sweep against all others, and against the dense baseline, which is no method."""

    sweep: str
    reference: str
    methods: tuple[str, ...]
    pairs: tuple[Pair, ...]
    dense: tuple[Pair, ...]
    excluded: tuple[ExcludedCell, ...]

    @property
    def tests(self) -> int:
        """How many p values there are, those of the dense baseline included."""
        return sum(pair.difference.p is not None for pair in self.pairs + self.dense)

    def against(self, method: str) -> list[Pair]:
        return [pair for pair in self.pairs if pair.method == method]

    def summaries(self) -> list[Summary]:
        return [self._summary(method) for method in self.methods]

    def _summary(self, method: str) -> Summary:
        pairs = self.against(method)
        differences = [pair.difference for pair in pairs]
        return Summary(
            method=method,
            cells=len(pairs),
            better=sum(one.mean > 0 for one in differences),
            worse=sum(one.mean < 0 for one in differences),
            significantly_better=sum(one.significant and one.mean > 0 for one in differences),
            significantly_worse=sum(one.significant and one.mean < 0 for one in differences),
            mean_difference=statistics.fmean(one.mean for one in differences) if pairs else None,
            prune_ratio=_median(pair.prune_ratio for pair in pairs),
            search_ratio=_median(pair.search_ratio for pair in pairs),
            excluded=sum(one.method == method for one in self.excluded),
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "sweep": self.sweep,
            "reference": self.reference,
            "alpha": ALPHA,
            "tests": self.tests,
            "corrected": False,
            "summary": [summary.to_json() for summary in self.summaries()],
            "cells": [_pair_json(pair) for pair in self.pairs],
            "dense": [_pair_json(pair) for pair in self.dense],
            "left_out": [{"method": one.method, **one.cell.to_json(), "why": one.reason} for one in self.excluded],
        }


def compare(state: SweepState, reference: str = REFERENCE) -> Comparison:
    """The reference against every other method of the sweep, as far as trials have finished.

    Raises:
        UserError: the sweep has no other method, not the reference, or no finished trial of it.
    """
    methods = _methods(state)
    settings = config_summaries(state)
    _require_comparable(state.sweep, reference, methods, settings)
    others = tuple(method for method in methods if method != reference)
    pairs: list[Pair] = []
    dense: list[Pair] = []
    excluded: list[ExcludedCell] = []
    for cell, members in by_cell(settings).items():
        if reference not in members:
            continue
        mine = best_in_cell(members[reference])
        for method in others:
            pair = (
                _pair(cell, mine, best_in_cell(members[method]), state.trials)
                if method in members
                else "no finished trial there"
            )
            if isinstance(pair, Pair):
                pairs.append(pair)
            else:
                excluded.append(ExcludedCell(method=method, cell=cell, reason=pair))
        loss = _pair(cell, mine, baseline_of(mine, settings) if mine else None, state.trials)
        if isinstance(loss, Pair):
            dense.append(loss)
    return Comparison(
        sweep=state.sweep,
        reference=reference,
        methods=others,
        pairs=tuple(pairs),
        dense=tuple(dense),
        excluded=tuple(excluded),
    )


def can_compare(settings: list[ConfigSummary], reference: str = REFERENCE) -> bool:
    """Whether there are results of the reference and of another method."""
    finished = {one.config.method for one in settings if not one.is_dense}
    return reference in finished and len(finished) > 1


def _pair(
    cell: Cell, reference: ConfigSummary | None, other: ConfigSummary | None, trials: dict[str, TrialStatus]
) -> Pair | str:
    """The pair, or why there is none."""
    if reference is None or other is None:
        return "no validation accuracy to choose a setting by"
    mine, theirs = _by_seed(reference, trials), _by_seed(other, trials)
    seeds = sorted(mine.keys() & theirs.keys())
    if not seeds:
        return "no seed that both have finished"
    tests = [{seed: side[seed]["test/accuracy"] for seed in seeds} for side in (mine, theirs)]
    return Pair(
        cell=cell,
        reference=reference,
        other=other,
        reference_test=statistics.fmean(tests[0].values()),
        other_test=statistics.fmean(tests[1].values()),
        difference=paired_difference(*tests),
        seeds=tuple(seeds),
        unpaired=tuple(sorted(mine.keys() ^ theirs.keys())),
        prune_ratio=_ratio(mine, theirs, seeds, "cost/prune_seconds"),
        search_ratio=_ratio(mine, theirs, seeds, "cost/search_seconds"),
    )


def _by_seed(setting: ConfigSummary, trials: dict[str, TrialStatus]) -> dict[int, dict[str, float]]:
    """Seed -> metrics of the finished trials of a setting."""
    finished = [trials[key] for key in setting.keys]
    return {trial.config["seed"]: trial.metrics for trial in finished if "test/accuracy" in trial.metrics}


def _ratio(mine: dict[int, dict[str, float]], theirs: dict[int, dict[str, float]], seeds: list[int], key: str) -> float | None:
    if not all(key in side[seed] for side in (mine, theirs) for seed in seeds):
        return None
    below, above = (statistics.fmean(side[seed][key] for seed in seeds) for side in (mine, theirs))
    return above / below if below else None


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def _methods(state: SweepState) -> list[str]:
    """The methods of a sweep in its order, without the dense baseline."""
    return [
        method for method in dict.fromkeys(trial.config["method"] for trial in state.trials.values()) if not is_dense(method)
    ]


def _require_comparable(sweep: str, reference: str, methods: list[str], settings: list[ConfigSummary]) -> None:
    if len(methods) < 2:
        raise UserError(
            f"sweep {sweep!r} prunes with {methods[0] if methods else 'no method'} alone, so there is nothing to compare",
            "list several methods in the sweep file (method: [drive, snip, magnitude]) and run it again; finished "
            "trials are kept",
            code="comparison-impossible",
        )
    if reference not in methods:
        raise UserError(
            f"sweep {sweep!r} has no trials of {reference}",
            f"--method takes another reference, one of {', '.join(methods)}; or add {reference} to the methods of the sweep "
            "file and run it again",
            code="comparison-impossible",
        )
    if not any(one.config.method == reference for one in settings):
        raise UserError(
            f"no trial of {reference} in sweep {sweep!r} has finished",
            f"`{command('status', sweep)}` shows more",
            code="comparison-impossible",
        )


def _pair_json(pair: Pair) -> dict[str, Any]:
    def side(setting: ConfigSummary, test: float) -> dict[str, Any]:
        return {
            "method": setting.config.method,
            "prune_iterations": setting.config.iterations_label,
            "options": setting.varying,
            "test/accuracy": test,
            "trials": list(setting.keys),
        }

    return {
        **pair.cell.to_json(),
        "reference": side(pair.reference, pair.reference_test),
        "other": side(pair.other, pair.other_test),
        "difference": asdict(pair.difference),
        "seeds": list(pair.seeds),
        "unpaired_seeds": list(pair.unpaired),
        "prune_seconds_ratio": pair.prune_ratio,
        "search_seconds_ratio": pair.search_ratio,
    }

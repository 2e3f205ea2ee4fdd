"""Learning curves: validation accuracy by epoch of the best settings of each group, mean over seeds."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from orchestrator.figures.figure import Figure, Spec, chart, field, percent, share_axis, tooltip
from orchestrator.figures.theme import series_scales
from orchestrator.recommendation.group_results import ConfigurationResults
from orchestrator.recommendation.recommendation import Recommendation
from orchestrator.recommendation.sentences import configuration_text
from orchestrator.reporting.sweep_results import SweepResults
from trainables.records.metrics import Point

METRIC = "val/accuracy"
HEIGHT = 360
MOST_LINES = 5
MOST_POINTS = 80  # of a line; longer ones are thinned


def learning_curves(results: SweepResults) -> list[Figure]:
    """A figure for each group with curves: the recommended configuration, those next to it by mean, and the dense baseline."""
    shown = {one.name: _shown(one) for one in results.recommendations}
    keys = {trial.key for lines in shown.values() for _, trials in lines for trial in trials}
    curves = {key: _accuracy(points) for key, points in results.curves(sorted(keys)).items()}
    figures = []
    for one in results.recommendations:
        rows = [
            row
            for name, trials in shown[one.name]
            for row in _rows(name, [curves[trial.key] for trial in trials if trial.key in curves])
        ]
        if rows:
            figures.append(
                Figure(
                    name=f"learning-curves-{one.name}",
                    title=f"Validation accuracy by epoch, {one.name}",
                    description=_description(one.name, rows),
                    spec=_spec(rows),
                )
            )
    return figures


def _shown(one: Recommendation) -> list[tuple[str, list[Any]]]:
    """Name -> trials of each line."""
    configurations, means = one.results.configurations, one.choice.fit.means
    ranked = sorted(means, key=lambda number: (number != one.choice.best, -means[number]))[:MOST_LINES]
    lines = [
        (_name(configurations[number], number == one.choice.best), list(configurations[number].trials.values()))
        for number in ranked
    ]
    return lines + ([("dense", list(one.results.dense.values()))] if one.results.dense else [])


def _name(configuration: ConfigurationResults, is_best: bool) -> str:
    return ("★ " if is_best else "") + configuration_text(configuration)


def _accuracy(points: Sequence[Point]) -> dict[int, float]:
    """Epoch -> accuracy."""
    return {point.step: point.value for point in points if point.key == METRIC}


def _rows(name: str, curves: list[dict[int, float]]) -> list[dict[str, Any]]:
    """The mean at each epoch that all seeds have."""
    if not curves:
        return []
    epochs = sorted(set.intersection(*map(set, curves)))
    step = max(1, -(-len(epochs) // MOST_POINTS))
    kept = sorted({*epochs[::step], *epochs[-1:]})
    rows = []
    for epoch in kept:
        values = [curve[epoch] for curve in curves]
        mean = statistics.fmean(values)
        span = f"{100 * min(values):.2f} to {100 * max(values):.2f} %"
        rows.append({"setting": name, "epoch": epoch, "mean": mean, "accuracy": percent(mean), "seeds": span})
    return rows


def _spec(rows: list[dict[str, Any]]) -> Spec:
    names = list(dict.fromkeys(row["setting"] for row in rows))
    colours, shapes, dashes = series_scales(names)
    legend = {"title": None, "orient": "bottom", "columns": 1, "symbolStrokeWidth": 0}
    x = field(
        "epoch",
        "quantitative",
        "epoch, warm-up included",
        axis={"tickMinStep": 1, "grid": False},
        scale={"nice": False, "zero": False},
    )
    y = field("mean", "quantitative", "validation accuracy", **share_axis(row["mean"] for row in rows))
    colour = field("setting", "nominal", None, scale=colours, legend=legend)
    hover = tooltip(setting="setting", epoch="epoch", accuracy="mean accuracy", seeds="its seeds")
    return chart(
        rows,
        height=HEIGHT,
        encoding={"x": x, "y": y, "color": colour},
        layer=[
            {
                "mark": {"type": "line", "strokeWidth": 2, "aria": False},
                "encoding": {"strokeDash": field("setting", "nominal", None, scale=dashes, legend=legend)},
            },
            {
                "mark": {"type": "point", "filled": True, "size": 36, "opacity": 1, "aria": False},
                "encoding": {"shape": field("setting", "nominal", None, scale=shapes, legend=legend), "tooltip": hover},
            },
        ],
    )


def _description(group: str, rows: list[dict[str, Any]]) -> str:
    last = {row["setting"]: row for row in rows}
    ends = "; ".join(f"{name} ends at {row['accuracy']} after epoch {row['epoch']}" for name, row in last.items())
    return f"Lines of mean validation accuracy by epoch in group {group}: {ends}."

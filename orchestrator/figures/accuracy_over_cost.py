"""Accuracy of every setting over what its model costs: multiply-adds, and bytes of its file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.figures.chosen_settings import mean_of, methods_of
from orchestrator.figures.figure import Figure, Spec, chart, field, mean_text, share_axis, tooltip
from orchestrator.figures.theme import series_scales
from orchestrator.reporting.aggregate import ConfigSummary
from orchestrator.reporting.sweep_results import SweepResults
from trainables.config.lookup import method_label

LOG = {"type": "log", "nice": False, "padding": 12}
Records = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a model costs: a name for the file, a title, and a field of result.json."""

    name: str
    title: str
    record_field: str


COSTS = (
    Cost(name="multiply-adds", title="multiply-adds for one image", record_field="kept_flops"),
    Cost(name="bytes", title="bytes of the sparse model's file", record_field="model_bytes"),
)


def accuracy_over_cost(results: SweepResults) -> list[Figure]:
    """A figure for each cost that is known."""
    return [figure for cost in COSTS for figure in _figure(results, cost)]


def _figure(results: SweepResults, cost: Cost) -> list[Figure]:
    rows = [row for one in results.settings for row in _row(one, results.records, cost)]
    if len(rows) < 2:
        return []
    most, least = (pick(rows, key=lambda row: row["cost"]) for pick in (max, min))
    return [
        Figure(
            name=f"accuracy-over-{cost.name}",
            title=f"Test accuracy over {cost.title}",
            description=(
                f"Each point is a setting: its mean test accuracy over {cost.title}, from {least['amount']} "
                f"({least['accuracy']}) to {most['amount']} ({most['accuracy']}). Recommended settings are filled."
            ),
            spec=_spec(rows, cost, methods_of(results)),
        )
    ]


def _row(one: ConfigSummary, records: Records, cost: Cost) -> list[dict[str, Any]]:
    amount = mean_of(records, one.keys, cost.record_field)
    if not amount or one.test is None:
        return []
    config = one.config
    return [
        {
            "method": method_label(config.method),
            "cost": amount,
            "amount": f"{amount:,.0f}",
            "mean": one.test.mean,
            "accuracy": mean_text(one.test),
            "sparsity": "dense" if one.is_dense else f"{100 * config.sparsity:g} %",
            "setting": "" if one.is_dense else f"warm-up {config.warmup_label}, iterations {config.iterations_label}",
            "seeds": one.test.n,
            "chosen": one.best and not one.is_dense,
        }
    ]


def _spec(rows: list[dict[str, Any]], cost: Cost, methods: list[str]) -> Spec:
    colours, shapes, _ = series_scales(methods)
    hover = tooltip(
        method="method", sparsity="sparsity", setting="setting", accuracy="test accuracy", amount=cost.title, seeds="seeds"
    )
    filled = {"condition": {"test": "datum.chosen", "value": 0.95}, "value": 0}
    legend = {"title": None, "orient": "top", "columns": 4}
    return chart(
        rows,
        mark={"type": "point", "size": 60, "strokeWidth": 1.6, "opacity": 1},
        encoding={
            "x": field("cost", "quantitative", cost.title, scale=LOG, axis={"format": "~s", "tickCount": 6}),
            "y": field("mean", "quantitative", "test accuracy", **share_axis(row["mean"] for row in rows)),
            "color": field("method", "nominal", None, scale=colours, legend=legend),
            "fill": field("method", "nominal", None, scale=colours, legend=legend),
            "shape": field("method", "nominal", None, scale=shapes, legend=legend),
            "fillOpacity": filled,
            "tooltip": hover,
        },
    )

"""Accuracy of the recommended settings over sparsity: a line for each method, a band over seeds, and the dense line."""

from __future__ import annotations

import statistics
from typing import Any

from orchestrator.figures.chosen_settings import ChosenSetting, chosen_settings, dense_settings, methods_of
from orchestrator.figures.figure import Figure, Spec, chart, field, mean_text, percent, share_axis, tooltip
from orchestrator.figures.theme import series_scales
from orchestrator.reporting.aggregate import MeanStd
from orchestrator.reporting.sweep_results import SweepResults


def accuracy_over_sparsity(results: SweepResults) -> list[Figure]:
    """One figure; none where nothing is recommended."""
    rows = [_row(one, one.setting.test) for one in chosen_settings(results) if one.setting.test]
    if not rows:
        return []
    dense = [one.test.mean for one in dense_settings(results) if one.test]
    baseline = statistics.fmean(dense) if len(dense) == 1 else None  # several differ in more than pruning
    return [
        Figure(
            name="accuracy-over-sparsity",
            title="Test accuracy of the recommended settings over sparsity",
            description=_description(rows, baseline),
            spec=_spec(rows, baseline, methods_of(results)),
        )
    ]


def _row(one: ChosenSetting, test: MeanStd) -> dict[str, Any]:
    spread = test.std or 0.0
    validation = one.setting.validation
    return {
        "series": one.series,
        "kept": 1 - one.setting.config.sparsity,
        "sparsity": f"{100 * one.setting.config.sparsity:g} %",
        "mean": test.mean,
        "low": test.mean - spread,
        "high": test.mean + spread,
        "accuracy": mean_text(test),
        "validation": percent(validation.mean) if validation else "not known",
        "seeds": test.n,
        "setting": one.label,
    }


def _spec(rows: list[dict[str, Any]], dense: float | None, methods: list[str]) -> Spec:
    kept = sorted({row["kept"] for row in rows}, reverse=True)
    colours, shapes, dashes = series_scales(list(dict.fromkeys(row["series"] for row in rows)), methods)
    x = field("kept", "quantitative", "sparsity", sort="descending", scale={"type": "log", "nice": False, "padding": 24})
    x["axis"] = {
        "values": kept,
        "labelExpr": "format(100 - 100 * datum.value, '~r') + ' %'",
        "labelOverlap": "greedy",
        "grid": False,
    }
    shown = [row[end] for row in rows for end in ("low", "high")]
    accuracy = share_axis(shown if dense is None else [*shown, dense])
    y = field("mean", "quantitative", "test accuracy", **accuracy)
    legend = {"title": None, "orient": "top", "columns": 3, "symbolStrokeWidth": 0, "symbolOpacity": 1}
    colour = field("series", "nominal", None, scale=colours, legend=legend)
    dash = field("series", "nominal", None, scale=dashes, legend=legend)
    shape = field("series", "nominal", None, scale=shapes, legend=legend)
    hover = tooltip(
        series="method",
        sparsity="sparsity",
        accuracy="test accuracy",
        validation="validation accuracy",
        setting="setting",
        seeds="seeds",
    )
    layers: list[Spec] = [
        {
            "mark": {"type": "area", "opacity": 0.16, "aria": False},
            "encoding": {
                "x": x,
                "y": field("low", "quantitative", "test accuracy", **accuracy),
                "y2": {"field": "high"},
                "color": colour,
            },
        },
        {
            "mark": {"type": "line", "strokeWidth": 2, "aria": False},
            "encoding": {"x": x, "y": y, "color": colour, "strokeDash": dash},
        },
        {
            "mark": {"type": "point", "filled": True, "size": 70, "opacity": 1},
            "encoding": {"x": x, "y": y, "color": colour, "shape": shape, "tooltip": hover},
        },
    ]
    if dense is not None:
        line = {"values": [{"dense": dense, "text": f"dense {percent(dense)}"}]}
        height = {"y": field("dense", "quantitative", "test accuracy", **accuracy)}
        layers += [
            {"data": line, "mark": {"type": "rule", "color": "var(--muted)", "strokeDash": [5, 4]}, "encoding": height},
            {
                "data": line,
                "mark": {"type": "text", "align": "left", "baseline": "bottom", "dx": 4, "dy": -3, "color": "var(--muted)"},
                "encoding": height | {"x": {"value": 0}, "text": {"field": "text"}},
            },
        ]
    return chart(rows, layer=layers)


def _description(rows: list[dict[str, Any]], dense: float | None) -> str:
    parts = []
    for series in dict.fromkeys(row["series"] for row in rows):
        points = ", ".join(f"{row['accuracy']} at {row['sparsity']}" for row in rows if row["series"] == series)
        parts.append(f"{series}: {points}")
    line = f" The dense network has {percent(dense)}." if dense is not None else ""
    bands = "The bands are ± one standard deviation over seeds."
    return f"Test accuracy of the recommended settings by sparsity. {'; '.join(parts)}.{line} {bands}"

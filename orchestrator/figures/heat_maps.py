"""Heat maps: accuracy over warm-up and iterations, or over warm-up and methods."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from orchestrator.figures.figure import Figure, Spec, chart, field, ink_on, mean_text, percent, tooltip
from orchestrator.figures.theme import HEAT
from orchestrator.recommendation.paired_test import student_reach
from orchestrator.reporting.aggregate import ConfigSummary, MeanStd, baseline_of
from orchestrator.reporting.heatmap_grids import Grid, HeatmapCell, grids
from orchestrator.reporting.sweep_results import SweepResults
from trainables.wording import counted

ROW_HEIGHT, LINE_HEIGHT = 46, 14
Values = Callable[[ConfigSummary], MeanStd | None]


def maps_of_validation(results: SweepResults) -> list[Figure]:
    """Validation accuracy of every grid with more than one cell."""
    return _maps(results, "validation", "heatmap-validation-", lambda setting: setting.validation)


def maps_of_test(results: SweepResults) -> list[Figure]:
    """The same of test accuracy."""
    return _maps(results, "test", "heatmap-", lambda setting: setting.test)


def _maps(results: SweepResults, split: str, prefix: str, values: Values) -> list[Figure]:
    settings = list(results.settings)
    figures = []
    for grid in grids(settings):
        rows = [_row(grid, position, cell, values) for position, cell in grid.cells.items() if values(cell.setting)]
        if not rows:
            continue
        baseline = baseline_of(grid.settings[0], settings)
        dense = values(baseline) if baseline else None
        figures.append(
            Figure(
                name=prefix + file_part(grid.title),
                title=f"{split} accuracy, {grid.title}" + (f" (dense: {percent(dense.mean)})" if dense else ""),
                description=_description(grid, split, rows),
                spec=_spec(grid, rows),
            )
        )
    return figures


def file_part(title: str) -> str:
    """A title as a part of a file's name."""
    return title.replace("sparsity ", "s").replace(", ", "-").replace("/", "-")


def interval_of_mean(values: MeanStd) -> tuple[float, float] | None:
    """Student's 95 % interval of the mean of accuracies over seeds; None with one seed."""
    if values.std is None:
        return None
    reach = student_reach(values.std, values.n)
    return max(0.0, values.mean - reach), min(1.0, values.mean + reach)


def _row(grid: Grid, position: tuple[int, int], cell: HeatmapCell, values: Values) -> dict[str, Any]:
    shown = values(cell.setting)
    assert shown is not None
    interval = interval_of_mean(shown)
    lines = [f"{100 * shown.mean:.1f}", *([f"± {100 * shown.std:.1f}"] if shown.std is not None else [])]
    return {
        "row": grid.rows[position[0]],
        "warmup": str(grid.warmups[position[1]]),
        "mean": shown.mean,
        "text": lines,
        "lines": len(lines),
        "accuracy": percent(shown.mean),
        "interval": f"{percent(interval[0])} to {percent(interval[1])}" if interval else "not known with one seed",
        "seeds": _seeds(cell.setting, shown),
        "validation": mean_text(cell.setting.validation),
        "test": mean_text(cell.setting.test),
        "epochs": f"{cell.setting.trained_epochs:g}",
        "iterations": str(cell.setting.config.iterations_label),
        "selected": cell.selected,
    }


def _spec(grid: Grid, rows: list[dict[str, Any]]) -> Spec:
    x = field("warmup", "ordinal", "warm-up epochs", sort=None, scale={"domain": [str(one) for one in grid.warmups]})
    x["axis"] = {"labelAngle": 0, "domain": False, "ticks": False}
    y = field("row", "ordinal", grid.row_axis, sort=None, scale={"domain": list(grid.rows)})
    y["axis"] = {"domain": False, "ticks": False, "labelLimit": 150}
    values = field("mean", "quantitative", None, scale={"scheme": HEAT, "zero": False, "nice": False}, legend=None)
    ink = ink_on("mean")
    hover = tooltip(
        warmup="warm-up epochs",
        **({"row": grid.row_axis} if grid.row_axis != "iterations" else {}),
        iterations="iterations",
        accuracy="mean",
        interval="95 % interval of the mean",
        seeds="seeds",
        validation="validation accuracy",
        test="test accuracy",
        epochs="epochs of a trial",
    )
    return chart(
        rows,
        height={"step": ROW_HEIGHT},
        encoding={"x": x, "y": y},
        layer=[
            {
                "mark": {"type": "rect", "stroke": "var(--paper)", "strokeWidth": 2},
                "encoding": {"color": values, "tooltip": hover},
            },
            {
                "transform": [{"filter": "datum.selected"}],
                "mark": {"type": "rect", "fill": None, "stroke": "var(--ink)", "strokeWidth": 3, "aria": False},
            },
            *(_text_layer(lines, ink, hover) for lines in sorted({row["lines"] for row in rows})),
        ],
    )


def _text_layer(lines: int, ink: Spec, hover: list[Spec]) -> Spec:
    """The text of cells with so many lines; text grows downwards from its first line."""
    return {
        "transform": [{"filter": f"datum.lines === {lines}"}],
        "mark": {
            "type": "text",
            "fontSize": 12,
            "lineHeight": LINE_HEIGHT,
            "dy": -LINE_HEIGHT * (lines - 1) / 2,
            "aria": False,
        },
        "encoding": {"text": {"field": "text"}, "color": ink, "tooltip": hover},
    }


def _description(grid: Grid, split: str, rows: list[dict[str, Any]]) -> str:
    best, worst = max(rows, key=lambda row: row["mean"]), min(rows, key=lambda row: row["mean"])
    frame = next((row for row in rows if row["selected"]), None)
    framed = f" The frame marks the recommended setting, {_place(grid, frame)}." if frame else ""
    return (
        f"Heat map of mean {split} accuracy over warm-up epochs (columns) and {grid.row_axis} (rows), {grid.title}: from "
        f"{worst['accuracy']} at {_place(grid, worst)} to {best['accuracy']} at {_place(grid, best)}.{framed}"
    )


def _place(grid: Grid, row: dict[str, Any]) -> str:
    return f"warm-up {row['warmup']}, {grid.row_axis} {row['row']}"


def _seeds(setting: ConfigSummary, shown: MeanStd) -> str:
    return f"{shown.n}" + (f", {counted(setting.missing, 'seed')} missing" if setting.missing else "")

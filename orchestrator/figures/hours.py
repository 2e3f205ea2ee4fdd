"""Where the slot hours went."""

from __future__ import annotations

from typing import Any

from orchestrator.figures.figure import Figure, Spec, chart, field, tooltip
from orchestrator.reporting.sweep_results import SweepResults
from orchestrator.reporting.time_spent import TimeSpent, time_spent

SPENT, SAVED = "spent", "saved"
COLOURS = {
    "warm-ups": "var(--series-1)",
    "pruning": "var(--series-2)",
    "sparse training": "var(--series-3)",
    "overhead of stages": "var(--series-5)",
    "unfinished trials": "var(--series-4)",
    "idle slots": "var(--muted)",
    "warm-ups not trained again": "var(--series-6)",
}
UNITS = ((3600.0, "hours"), (60.0, "minutes"), (1.0, "seconds"))


def hours(results: SweepResults) -> list[Figure]:
    """One figure; none where this sweep has computed nothing."""
    spent = time_spent(results)
    parts = _parts(spent)
    whole = sum(seconds for bar, _, seconds in parts if bar == SPENT)
    if not whole:
        return []
    divisor, unit = next((size, name) for size, name in UNITS if whole >= size or size == 1)
    rows = [
        {
            "bar": bar,
            "part": part,
            "amount": seconds / divisor,
            "text": f"{seconds / divisor:.3g} {unit}",
            "share": f"{seconds / whole:.1%} of what was spent",
        }
        for bar, part, seconds in parts
    ]
    listed = ", ".join(f"{row['part']} {row['text']}" for row in rows)
    return [
        Figure(
            name="hours",
            title=f"Where the time of the slots went: {whole / divisor:.3g} {unit}",
            description=f"Bars of slot time by what it was used for: {listed}.",
            spec=_spec(rows, unit),
        )
    ]


def _parts(spent: TimeSpent) -> list[tuple[str, str, float]]:
    amounts = (
        (SPENT, "warm-ups", spent.warmup),
        (SPENT, "pruning", spent.pruning),
        (SPENT, "sparse training", spent.training),
        (SPENT, "overhead of stages", spent.overhead),
        (SPENT, "unfinished trials", spent.other),
        (SPENT, "idle slots", spent.idle),
        (SAVED, "warm-ups not trained again", spent.saved),
    )
    return [(bar, part, seconds) for bar, part, seconds in amounts if seconds]


def _spec(rows: list[dict[str, Any]], unit: str) -> Spec:
    parts = [row["part"] for row in rows]
    scale = {"domain": parts, "range": [COLOURS[part] for part in parts]}
    bars = list(dict.fromkeys(row["bar"] for row in rows))
    return chart(
        [{**row, "order": order} for order, row in enumerate(rows)],
        height={"step": 40},
        mark={"type": "bar", "height": {"band": 0.7}},
        encoding={
            "y": field("bar", "ordinal", None, sort=bars, axis={"domain": False, "ticks": False}),
            "x": field("amount", "quantitative", unit, axis={"tickCount": 6}),
            "order": {"field": "order", "type": "quantitative"},
            "color": field("part", "nominal", None, scale=scale, legend={"title": None, "orient": "top", "columns": 3}),
            "tooltip": tooltip(part="part", text="time", share="share"),
        },
    )

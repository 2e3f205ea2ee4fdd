"""What a search has tried: the objective of each configuration over each axis."""

from __future__ import annotations

from typing import Any

from orchestrator.figures.figure import Figure, Spec, chart, field, tooltip
from orchestrator.figures.theme import colour
from orchestrator.reporting.sweep_results import SweepResults
from orchestrator.search.overview import ConfigurationOverview, GroupOverview

RECOMMENDED, IN_THE_RACE, RULED_OUT = "recommended", "in the race", "ruled out"
STATES = {RECOMMENDED: (colour(1), "diamond"), IN_THE_RACE: (colour(0), "circle"), RULED_OUT: ("var(--muted)", "cross")}


def search_slices(results: SweepResults) -> list[Figure]:
    """A figure for each group and each axis with several values; none of other sweeps."""
    if results.overview is None:
        return []
    objective = next(iter(results.overview.objectives))
    return [figure for group in results.overview.groups for axis in _axes(group) for figure in _figure(group, axis, objective)]


def _axes(group: GroupOverview) -> list[str]:
    values: dict[str, set[str]] = {}
    for one in group.configurations:
        for axis, value in one.values.items():
            values.setdefault(axis, set()).add(repr(value))
    return [axis for axis, several in values.items() if len(several) > 1]


def _figure(group: GroupOverview, axis: str, objective: str) -> list[Figure]:
    rows = [_row(group, one, axis, objective) for one in group.configurations if one.means]
    if len(rows) < 2:
        return []
    best = next((row for row in rows if row["state"] == RECOMMENDED), None)
    ahead = f" Recommended is {best['setting']} with {best['text']}." if best else ""
    return [
        Figure(
            name=f"search-{group.name}-{axis}",
            title=f"{objective} over {axis}, {group.name}",
            description=f"A point for each of {len(rows)} configurations of {group.name}: {objective} over {axis}.{ahead}",
            spec=_spec(rows, axis, objective),
        )
    ]


def _row(group: GroupOverview, one: ConfigurationOverview, axis: str, objective: str) -> dict[str, Any]:
    is_best = group.best is not None and one.number == group.best.number
    return {
        "value": one.values[axis],
        "mean": one.means[objective],
        "text": f"{one.means[objective]:.4g}",
        "setting": one.text,
        "seeds": len(one.keys),
        "state": RECOMMENDED if is_best else RULED_OUT if one.ruled_out else IN_THE_RACE,
        "why": one.ruled_out,
    }


def _spec(rows: list[dict[str, Any]], axis: str, objective: str) -> Spec:
    numeric = all(isinstance(row["value"], int | float) and not isinstance(row["value"], bool) for row in rows)
    kind, scale = ("quantitative", {"zero": False, "nice": False, "padding": 14}) if numeric else ("nominal", None)
    x = field("value", kind, axis, axis={"labelAngle": 0, "tickMinStep": 1 if _is_whole(rows) else 0})
    shown = [state for state in STATES if any(row["state"] == state for row in rows)]
    legend = {"title": None, "orient": "top"}
    return chart(
        rows,
        mark={"type": "point", "filled": True, "size": 70, "opacity": 0.9},
        encoding={
            "x": x | ({"scale": scale} if scale else {}),
            "y": field("mean", "quantitative", objective, scale={"zero": False}),
            "color": field(
                "state", "nominal", None, scale={"domain": shown, "range": [STATES[one][0] for one in shown]}, legend=legend
            ),
            "shape": field(
                "state", "nominal", None, scale={"domain": shown, "range": [STATES[one][1] for one in shown]}, legend=legend
            ),
            "tooltip": tooltip(setting="configuration", text=objective, seeds="seeds", state="state", why="why"),
        },
    )


def _is_whole(rows: list[dict[str, Any]]) -> bool:
    return all(isinstance(row["value"], int) for row in rows)

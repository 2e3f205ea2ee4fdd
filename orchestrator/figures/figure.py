"""A figure: a Vega-Lite specification with its data, its title and a text alternative."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.reporting.aggregate import MeanStd

Spec = dict[str, Any]
Rows = Sequence[Mapping[str, Any]]

SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"
CONTAINER = "container"  # as wide as the page allows
PERCENT = {"labelExpr": "format(100 * datum.value, '~r') + ' %'"}  # of an axis of shares
LEAST_SPREAD = 0.01  # of shares on an axis, whose labels would be all alike otherwise
SIGNIFICANT_DIGITS = 6  # of numbers in a figure's data


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One figure.

    Attributes:
        name: of its files, without the ending.
        description: what it shows, for those who cannot see it.
        spec: Vega-Lite; colours may be `var(--name)` with the names of theme.py.
        is_wide: whether a page gives it its whole width.
    """

    name: str
    title: str
    description: str
    spec: Spec
    is_wide: bool = False


def chart(rows: Rows, *, height: int | Spec = 260, **parts: Any) -> Spec:
    """A specification as wide as its surroundings.

    Args:
        height: in pixels, or that of each row as `{"step": pixels}`.
        rows: the data; numbers are rounded to a few digits.
        parts: mark, encoding, layer, transform, params.
    """
    data = [{name: _rounded(value) for name, value in row.items()} for row in rows]
    fit = {"type": "fit" if isinstance(height, int) else "fit-x", "contains": "padding"}
    return {"$schema": SCHEMA, "data": {"values": data}, "autosize": fit, "width": CONTAINER, "height": height, **parts}


def _rounded(value: Any) -> Any:
    return float(f"{value:.{SIGNIFICANT_DIGITS}g}") if isinstance(value, float) else value


def field(name: str, kind: str, title: str | None = None, **options: Any) -> Spec:
    """An encoding by a field of the data.

    Args:
        kind: quantitative, ordinal or nominal.
    """
    return {"field": name, "type": kind, "title": title, **options}


def percent(value: float) -> str:
    return f"{100 * value:.2f} %"


def mean_text(values: MeanStd | None) -> str:
    """Mean and standard deviation over seeds, in percent."""
    if values is None:
        return "not known"
    return percent(values.mean) + ("" if values.std is None else f" ± {100 * values.std:.2f}")


def ink_on(name: str) -> Spec:
    """The colour of text on a cell that a field of the data colours: the better of black and white, at least 4.58:1."""
    return {
        "condition": {"test": f"contrast('black', scale('color', datum.{name})) > 4.58", "value": "black"},
        "value": "white",
    }


def tooltip(**titles: str) -> list[Spec]:
    """What shows when one points at a mark: each field with its title."""
    return [{"field": name, "title": title} for name, title in titles.items()]


def share_axis(shares: Iterable[float]) -> dict[str, Any]:
    """The axis and the scale for shares in percent, from about the lowest to about the highest, which may be the same."""
    given = list(shares)
    low, high = min(given, default=0.0), max(given, default=1.0)
    if high - low >= LEAST_SPREAD:
        return {"axis": PERCENT, "scale": {"zero": False}}
    middle = min(max((low + high) / 2, LEAST_SPREAD / 2), 1 - LEAST_SPREAD / 2)
    return {"axis": PERCENT, "scale": {"domain": [middle - LEAST_SPREAD / 2, middle + LEAST_SPREAD / 2]}}

"""Colours and fonts of the figures: on a page they are CSS variables, which follow its scheme; in a file they are set.

The colours of series differ for people with each of the common colour vision deficiencies, and each series has a shape of its
own as well. A test measures both that and the contrast.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from trainables.config.lookup import is_dense

LIGHT: Mapping[str, str] = {
    "paper": "#ffffff",
    "ink": "#1c2733",
    "muted": "#55626f",
    "rule": "#d9dfe6",
    "series-1": "#074f9f",
    "series-2": "#973010",
    "series-3": "#0c8c54",
    "series-4": "#99387a",
    "series-5": "#9d912a",
    "series-6": "#5016b6",
}
DARK: Mapping[str, str] = {
    "paper": "#151b22",
    "ink": "#e6ebf0",
    "muted": "#a3b0bd",
    "rule": "#38434f",
    "series-1": "#7aa1f0",
    "series-2": "#ef7b53",
    "series-3": "#2ae192",
    "series-4": "#ec8ac5",
    "series-5": "#e9bd43",
    "series-6": "#886cf6",
}
SERIES = tuple(name for name in LIGHT if name.startswith("series-"))
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down")
DASHES = ([1, 0], [6, 3], [2, 2], [8, 3, 2, 3], [4, 4], [10, 4])
HEAT = "viridis"  # safe for the colour-blind; ordered by lightness, so that it can be printed in grey

CONFIG: Mapping[str, Any] = {
    "font": "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif",
    "background": None,
    "view": {"stroke": None},
    "axis": {
        "labelColor": "var(--muted)",
        "titleColor": "var(--ink)",
        "titleFontWeight": "normal",
        "titleFontSize": 12,
        "labelFontSize": 11,
        "gridColor": "var(--rule)",
        "domainColor": "var(--rule)",
        "tickColor": "var(--rule)",
    },
    "legend": {"labelColor": "var(--ink)", "titleColor": "var(--ink)", "titleFontWeight": "normal", "labelLimit": 320},
    "title": {"color": "var(--ink)"},
    "header": {"labelColor": "var(--ink)", "titleColor": "var(--ink)"},
    "text": {"fill": "var(--ink)"},
}


def colour(number: int) -> str:
    """The colour of a series by its number from 0, as a CSS variable."""
    return f"var(--{SERIES[number % len(SERIES)]})"


def series_scales(names: Sequence[str], order: Sequence[str] = ()) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """The scales of colour, shape and dash for named series; after the last colour the shapes shift, so that all differ.

    Args:
        order: the names whose places are fixed, so that a series looks the same in all figures.
    """
    places = {name: place for place, name in enumerate(dict.fromkeys((*order, *names)))}
    numbers = [places[name] for name in names]
    shifted = [number + number // len(SERIES) for number in numbers]
    return (
        {"domain": list(names), "range": [_series_colour(*series) for series in zip(names, numbers, strict=True)]},
        {"domain": list(names), "range": [SHAPES[number % len(SHAPES)] for number in shifted]},
        {"domain": list(names), "range": [DASHES[number % len(DASHES)] for number in shifted]},
    )


def _series_colour(name: str, number: int) -> str:
    return "var(--muted)" if is_dense(name) else colour(number)


def with_colours(text: str, colours: Mapping[str, str]) -> str:
    """The text with colours in place of CSS variables."""
    return re.sub(r"var\(--([\w-]+)\)", lambda match: colours[match[1]], text)

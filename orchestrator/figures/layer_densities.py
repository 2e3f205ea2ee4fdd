"""Which share of each layer's weights the recommended models keep."""

from __future__ import annotations

import statistics
from typing import Any

from orchestrator.figures.chosen_settings import ChosenSetting, chosen_settings
from orchestrator.figures.figure import Figure, Spec, chart, field, ink_on, tooltip
from orchestrator.figures.theme import HEAT
from orchestrator.reporting.sweep_results import SweepResults

MANY_LAYERS = 30
MOST_LABELLED = 6  # columns with a number in each cell


def layer_densities(results: SweepResults) -> list[Figure]:
    """One figure: layers by recommended model."""
    rows = [row for one in chosen_settings(results) for row in _rows(one, results)]
    if not rows:
        return []
    sparsest, densest = (pick(rows, key=lambda row: row["density"]) for pick in (min, max))
    return [
        Figure(
            name="layer-densities",
            title="Kept share of each layer in the recommended models",
            description=(
                "Heat map of the kept share of each layer (rows) for each recommended model (columns), mean over seeds: "
                f"the most in {densest['layer']} of {densest['group']} ({densest['text']}), the least in "
                f"{sparsest['layer']} of {sparsest['group']} ({sparsest['text']})."
            ),
            spec=_spec(rows),
            is_wide=len({row["group"] for row in rows}) > MOST_LABELLED,
        )
    ]


def _rows(one: ChosenSetting, results: SweepResults) -> list[dict[str, Any]]:
    layers: dict[str, list[dict[str, Any]]] = {}
    for key in one.setting.keys:
        for layer in results.records.get(key, {}).get("layers", ()):
            layers.setdefault(layer["name"].removesuffix(".weight"), []).append(layer)
    rows = []
    for name, seeds in layers.items():
        density = statistics.fmean(layer["density"] for layer in seeds)
        kept = statistics.fmean(layer["kept"] for layer in seeds)
        text = f"{100 * density:.3g} %"
        shape = " × ".join(map(str, seeds[0]["shape"]))
        rows.append(
            {"group": one.group, "layer": name, "density": density, "text": text, "kept": f"{kept:,.0f}", "shape": shape}
        )
    return rows


def _spec(rows: list[dict[str, Any]]) -> Spec:
    layers = list(dict.fromkeys(row["layer"] for row in rows))
    groups = list(dict.fromkeys(row["group"] for row in rows))
    kept = [row["density"] for row in rows if row["density"]]
    scale = {"type": "log", "scheme": HEAT, "domain": [min(kept), 1.0], "clamp": True} if kept else {"scheme": HEAT}
    hover = tooltip(group="model", layer="layer", shape="shape", kept="kept weights", text="kept share")
    layer: list[Spec] = [
        {
            "mark": {"type": "rect", "stroke": "var(--paper)", "strokeWidth": 1},
            "encoding": {
                "color": field("density", "quantitative", "kept share", scale=scale, legend={"format": "~%", "orient": "top"}),
                "tooltip": hover,
            },
        }
    ]
    if len(groups) <= MOST_LABELLED:
        ink = ink_on("density")
        layer.append(
            {
                "mark": {"type": "text", "fontSize": 11, "aria": False},
                "encoding": {"text": {"field": "text"}, "color": ink, "tooltip": hover},
            }
        )
    return chart(
        rows,
        height={"step": 12 if len(layers) > MANY_LAYERS else 24},
        encoding={
            "x": field(
                "group",
                "ordinal",
                None,
                sort=groups,
                axis={
                    **({"labelAngle": 0} if len(groups) <= MOST_LABELLED else {}),
                    "domain": False,
                    "ticks": False,
                    "orient": "top",
                    "labelLimit": 150,
                },
            ),
            "y": field("layer", "ordinal", None, sort=layers, axis={"domain": False, "ticks": False, "labelLimit": 150}),
        },
        layer=layer,
    )

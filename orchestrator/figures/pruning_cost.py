"""What the recommended settings cost besides sparse training: warm-up and pruning, in epochs of dense training."""

from __future__ import annotations

from typing import Any

from orchestrator.figures.chosen_settings import ChosenSetting, chosen_settings, mean_metric
from orchestrator.figures.figure import Figure, Spec, chart, field, tooltip
from orchestrator.figures.theme import colour
from orchestrator.reporting.sweep_results import SweepResults

IMP = "imp"
PARTS = ("warm-up", "pruning")


def pruning_cost(results: SweepResults) -> list[Figure]:
    """One figure, with bars of each group; IMP is what the others are compared with, where the sweep has it."""
    costs = [(one, cost) for one in chosen_settings(results) if (cost := _cost(one, results)) is not None]
    if not costs:
        return []
    reference = {one.setting.config.sparsity: sum(cost) for one, cost in costs if one.setting.config.method == IMP}
    rows = [row for one, cost in costs for row in _rows(one, cost, reference.get(one.setting.config.sparsity))]
    bars = "; ".join(f"{one.group} {sum(cost):.3g}" + _beside(sum(cost), one, reference) for one, cost in costs)
    return [
        Figure(
            name="pruning-cost",
            title="Cost of warm-up and pruning, in epochs of the trial's own training",
            description=f"Bars of what each recommended setting costs before sparse training, in epochs: {bars}.",
            spec=_spec(rows),
        )
    ]


def _cost(one: ChosenSetting, results: SweepResults) -> tuple[float, float] | None:
    """Epochs of the warm-up, as if it were not shared, and of pruning."""
    whole = mean_metric(results.records, one.setting.keys, "cost/search_dense_epochs")
    pruning = mean_metric(results.records, one.setting.keys, "cost/prune_dense_epochs")
    return None if whole is None or pruning is None else (max(0.0, whole - pruning), pruning)


def _beside(cost: float, one: ChosenSetting, reference: dict[float, float]) -> str:
    imp = reference.get(one.setting.config.sparsity)
    return f" (IMP costs {imp / cost:.3g} times that)" if imp and cost and one.setting.config.method != IMP else ""


def _rows(one: ChosenSetting, cost: tuple[float, float], imp: float | None) -> list[dict[str, Any]]:
    whole = sum(cost)
    ratio = f"{imp / whole:.3g} times this" if imp and whole else "not in this sweep"
    return [
        {
            "group": one.group,
            "part": part,
            "order": order,
            "epochs": epochs,
            "amount": f"{epochs:.3g} epochs",
            "setting": one.label,
            "imp": ratio,
        }
        for order, (part, epochs) in enumerate(zip(PARTS, cost, strict=True))
    ]


def _spec(rows: list[dict[str, Any]]) -> Spec:
    groups = list(dict.fromkeys(row["group"] for row in rows))
    scale = {"domain": list(PARTS), "range": [colour(0), colour(1)]}
    return chart(
        rows,
        height={"step": 26},
        mark={"type": "bar", "height": {"band": 0.7}},
        encoding={
            "y": field("group", "ordinal", None, sort=groups, axis={"domain": False, "ticks": False, "labelLimit": 180}),
            "x": field("epochs", "quantitative", "epochs", axis={"tickCount": 6}),
            "order": {"field": "order", "type": "quantitative"},
            "color": field("part", "nominal", None, scale=scale, legend={"title": None, "orient": "top"}),
            "tooltip": tooltip(group="group", setting="setting", part="part", amount="cost", imp="IMP at this sparsity"),
        },
    )

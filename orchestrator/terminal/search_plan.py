"""What `plan` shows of a search: its groups, the space, the rules, what it may cost and what is decided already."""

from __future__ import annotations

import math
from typing import Any

from rich.console import Console

from orchestrator.planning.estimate import Estimate
from orchestrator.planning.plan import Plan
from orchestrator.prose import print_prose
from orchestrator.search.cost import Cost, search_cost
from orchestrator.search.factory import rungs_of
from orchestrator.search.groups import Group, groups_of, seeds_of
from orchestrator.search.overview import GroupOverview, read_overview
from orchestrator.search.space import Axis, values_text
from orchestrator.spec.ranges import Range, axis_text
from orchestrator.spec.schema import SweepSpec
from orchestrator.spec.search_schema import ACCURACY
from orchestrator.storage.base import Storage
from orchestrator.terminal.tables import duration, plain_table

MAX_NAMES = 8  # of groups on one line
MAX_RUNGS = 4


def search_facts(plan: Plan, storage: Storage, estimate: Estimate) -> dict[str, Any]:
    """The part `search` of the answer of `plan --json`; what is not known is null."""
    spec = plan.spec
    first, further = seeds_of(spec)
    so_far, cost = read_overview(spec, storage), search_cost(spec)
    groups = [_group(group, known) for group, known in zip(groups_of(spec), so_far.groups, strict=True)]
    axes = groups_of(spec)[0].space.axes if groups else ()
    rungs = max((rungs_of(spec, trial.config) for trial in plan.checked.trials), key=len, default=())
    return {
        "groups": groups,
        "axes": {axis.key: {"values": _values(axis), "size": _finite(axis.size)} for axis in axes},
        "strategy": spec.strategy.model_dump(mode="json"),
        "objective": spec.objective,
        "early_stopping": spec.early_stopping and spec.early_stopping.model_dump() | {"rungs": list(rungs)},
        "seeds": {"first": list(first), "further": list(further)},
        "budget": spec.budget and spec.budget.model_dump(),
        "most": _cost(cost.most, cost.grid, estimate),
        "typical": _cost(cost.typical, cost.grid, estimate),
        "grid": None if cost.grid is None else _cost(cost.grid, cost.grid, estimate),
        "begun": so_far.trials,
        "finished": so_far.finished,
        "stopped_early": so_far.stopped,
        "settled": plan.settled,
    }


def _group(group: Group, known: GroupOverview) -> dict[str, Any]:
    return {
        "name": group.name,
        "size": _finite(group.space.size),
        "configurations": len(known.configurations),
        "ruled_out": known.ruled_out,
        "stopped_early": len(known.stopped),
        "outcome": known.outcome or None,
        "reason": known.reason if known.configurations else None,
        "recommended": dict(known.best.values) if known.outcome and known.best else None,
    }


def _values(axis: Axis) -> Any:
    return axis.values.to_mapping() if isinstance(axis.values, Range) else list(axis.values)


def _finite(size: float) -> int | None:
    return None if math.isinf(size) else int(size)


def _cost(cost: Cost, grid: Cost | None, estimate: Estimate) -> dict[str, Any]:
    seconds = estimate.seconds_per_epoch
    return {
        "trials": cost.trials,
        "epochs": cost.epochs,
        "share_of_grid": cost.epochs / grid.epochs if grid and grid.epochs else None,
        "slot_hours": None if seconds is None else cost.epochs * seconds / 3600,
    }


def print_search(console: Console, spec: SweepSpec, facts: dict[str, Any]) -> None:
    """Prints what is searched, by which rules, at what cost, and how far it has come."""
    groups = facts["groups"]
    names = [group["name"] for group in groups]
    more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
    print_prose(console, f"groups, compared within themselves alone: {', '.join(names[:MAX_NAMES])}{more}")
    table = plain_table("configuration", "values", numbers=("number",))
    for key, axis in facts["axes"].items():
        table.add_row(key, axis_text(spec.search[key]), "unlimited" if axis["size"] is None else f"{axis['size']:,}")
    console.print(table)
    for line in (_strategy(spec, groups), _early_stopping(facts), _seeds(spec, facts), _budget(facts)):
        print_prose(console, line)
    print_prose(console, f"at most: {_cost_text(facts['most'])}")
    print_prose(console, f"typically about: {_cost_text(facts['typical'])}")
    if facts["grid"]:
        print_prose(console, f"the full grid: {_cost_text(facts['grid'])}")
    for group in groups:
        if group["configurations"]:
            print_prose(console, f"{group['name']}: {_progress(group)}")


def _strategy(spec: SweepSpec, groups: list[dict[str, Any]]) -> str:
    size = groups[0]["size"] if groups else 0
    space = f"of {size:,} in each group" if size is not None else "in each group"
    asked = spec.strategy.configurations
    tried = f"{min(asked, size or asked):,} configurations {space}" if asked else f"every configuration {space}"
    objective = ", ".join(f"{metric} ({direction})" for metric, direction in spec.objective.items())
    return f"strategy {spec.strategy.name}: {tried}, by {objective}"


def _early_stopping(facts: dict[str, Any]) -> str:
    rule = facts["early_stopping"]
    if rule is None:
        return "early stopping: none"
    rungs = rule["rungs"]
    if not rungs:
        return f"early stopping: {rule['name']}, but training ends before its first rung"
    shown = ", ".join(map(str, rungs[:MAX_RUNGS])) + (" ..." if len(rungs) > MAX_RUNGS else "")
    share = f"about one of {rule['reduction']} goes on" if rule["name"] == "asha" else "those worse than the median stop"
    return f"early stopping: {rule['name']} after {shown} sparse epochs; {share}"


def _seeds(spec: SweepSpec, facts: dict[str, Any]) -> str:
    first, further = facts["seeds"]["first"], facts["seeds"]["further"]
    if spec.seeds is None or not further:
        return f"seeds: {', '.join(map(str, first))} for every configuration"
    unit = " points" if ACCURACY in next(iter(spec.objective)) else ""
    return (
        f"seeds: {len(first)} for every configuration, up to {len(first) + len(further)} for leading ones, "
        f"until one is better at {spec.seeds.confidence:.0%} or none by more than {spec.seeds.indifference:g}{unit}"
    )


def _budget(facts: dict[str, Any]) -> str:
    limits = [
        f"{value:g} {name.replace('_', ' ').replace('gpu', 'GPU')}" for name, value in (facts["budget"] or {}).items() if value
    ]
    return f"budget: {' and '.join(limits) or 'none'}"


def _cost_text(cost: dict[str, Any]) -> str:
    share = cost["share_of_grid"]
    parts = [f"{cost['trials']:,} trials, {cost['epochs']:,} epochs"]
    parts += [f" ({share:.1%} of the full grid)"] if share is not None and share < 1 else []
    parts += [f", {duration(cost['slot_hours'] * 3600)} of one slot"] if cost["slot_hours"] is not None else []
    return "".join(parts)


def _progress(group: dict[str, Any]) -> str:
    if not group["outcome"]:
        return str(group["reason"])
    values = values_text(group["recommended"] or {})
    return f"{group['outcome']}" + (f", recommended is {values}" if values else "") + f"; {group['reason']}"

"""What a search learns from finished trials of other sweeps (`strategy.learn_from`)."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.errors import UserError
from orchestrator.search.decisions import Decision, Kind
from orchestrator.search.groups import Group
from orchestrator.search.samplers import Observation
from orchestrator.search.space import Space
from orchestrator.spec.trial_names import dotted_values
from orchestrator.state.sweep_folder import open_sweep
from orchestrator.state.trial_results import read_results
from orchestrator.storage.base import Storage
from trainables.config.keys import from_canonical
from trainables.config.trial import TrialConfig

Outcomes = dict[str, list[float]]


def learned_decisions(
    storage: Storage, sweeps: Sequence[str], groups: Sequence[Group], objectives: Sequence[str]
) -> list[Decision]:
    """A line for each configuration of other sweeps that lies in a group's space, with the means over its seeds.

    Trials that differ from those of the group in anything else teach nothing, since their values cannot be compared.

    Raises:
        UserError: there is no such sweep, or none of its trials can be compared.
    """
    decisions = []
    for name in sweeps:
        folder = open_sweep(storage, name)
        record = storage.read_json(folder.file("trials.json"), fields=("trials",)) or {"trials": []}
        results, _ = read_results(storage, [trial["key"] for trial in record["trials"]])
        lines = [line for group in groups for line in _lines(group, name, list(results.values()), objectives)]
        if not lines:
            raise UserError(
                f"strategy.learn_from: none of the {len(results)} finished trials of sweep {name!r} can be compared with these",
                "they must differ in warm-up, iterations and other keys of configurations alone",
                code="nothing-to-learn",
            )
        decisions += lines
    return decisions


def _lines(group: Group, sweep: str, results: Sequence[Mapping[str, Any]], objectives: Sequence[str]) -> list[Decision]:
    outcomes: dict[tuple[Any, ...], Outcomes] = {}
    keys = [axis.key for axis in group.space.axes]
    for result in results:
        config = from_canonical(TrialConfig, result["config"])
        known = dotted_values(config)
        values = {key: known[key] for key in keys}
        if not group.space.contains(values) or group.trial(values, config.seed) != config:
            continue
        outcome = outcomes.setdefault(tuple(values.values()), {objective: [] for objective in objectives})
        for objective in objectives:
            outcome[objective].append(result["metrics"][objective])
    return [
        Decision(
            kind=Kind.LEARNED,
            group=group.name,
            values=dict(zip(keys, values, strict=True)),
            attributes={objective: statistics.fmean(row) for objective, row in outcome.items()},
            reason=f"from sweep {sweep}",
        )
        for values, outcome in outcomes.items()
    ]


def observations(decisions: Sequence[Decision], group: str, space: Space, objectives: Sequence[str]) -> list[Observation]:
    """What the sampler of a group learns."""
    return [
        Observation(parameters=space.encode(one.values), values=[one.attributes[objective] for objective in objectives])
        for one in decisions
        if one.kind is Kind.LEARNED and one.group == group
    ]

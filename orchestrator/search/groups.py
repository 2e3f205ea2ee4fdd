"""The groups of a search: one combination of method, sparsity and every other key that is not part of a configuration.

Only configurations of one group are compared with each other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from orchestrator.search.space import Axis, Space, Values
from orchestrator.spec.field_types import CustomMethod
from orchestrator.spec.grid import base_config, configured
from orchestrator.spec.ranges import Range
from orchestrator.spec.trial_names import dotted_values, short_value
from trainables.config.trial import TrialConfig

if TYPE_CHECKING:
    from orchestrator.spec.schema import SweepSpec


@dataclass(frozen=True, kw_only=True)
class Group:
    """One group.

    Attributes:
        base: the trial that the sweep file describes outside `search`.
        fixed: the values of its keys that are searched but not part of a configuration.
    """

    name: str
    base: TrialConfig
    fixed: Values
    space: Space

    def trial(self, values: Values, seed: int) -> TrialConfig:
        """The trial of a configuration with a seed."""
        return configured(self.base, {**self.fixed, **values, "seed": seed})


def groups_of(spec: SweepSpec) -> list[Group]:
    """The groups of a search, in the order of the file; each occurs once, and dense training is none."""
    groups: dict[tuple[TrialConfig, ...], Group] = {}
    for group in all_groups(spec, spec.method):
        corners = tuple(group.trial(values, spec.seed) for values in group.space.corners())
        if not corners[0].is_dense:
            fixed = _as_used(group.fixed, corners[0])
            groups.setdefault(corners, replace(group, name=_name(corners[0], spec, fixed), fixed=fixed))
    return _with_unique_names(list(groups.values()))


def all_groups(spec: SweepSpec, methods: Sequence[str | CustomMethod]) -> Iterator[Group]:
    """Every combination of a method and the keys that are not part of a configuration, without names."""
    space = Space(tuple(Axis(key, spec.search[key]) for key in spec.configuration_axes))
    fixed_axes = Space(tuple(Axis(key, spec.search[key]) for key in spec.group_axes))
    for method in methods:
        base = base_config(spec, method)
        for fixed in fixed_axes.grid():
            yield Group(name="", base=base, fixed=fixed, space=space)


def seeds_of(spec: SweepSpec) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The seeds of every configuration, and those that leading ones may get besides."""
    if spec.seeds is None:
        seeds_axis = spec.search.get("seed", (spec.seed,))
        return () if isinstance(seeds_axis, Range) else tuple(seeds_axis), ()
    seeds = range(spec.seed, spec.seed + spec.seeds.most)
    return tuple(seeds[: spec.seeds.first]), tuple(seeds[spec.seeds.first :])


def _as_used(fixed: Values, corner: TrialConfig) -> Values:
    """The values as the group's trials have them: a method may know one granularity alone, and a target decides a sparsity."""
    used = dotted_values(corner)
    return {key: used.get(key, value) for key, value in fixed.items()}


def _name(corner: TrialConfig, spec: SweepSpec, fixed: Values) -> str:
    method = f"{short_value(corner.method)}-" if len(spec.method) > 1 else ""
    values = {key: value for key, value in fixed.items() if key not in ("sparsity", "granularity") and value is not None}
    others = [f"-{key.rpartition('.')[2]}{short_value(value)}" for key, value in values.items()]
    others += [f"-{corner.granularity}"] if "granularity" in fixed else []
    return f"{method}s{corner.sparsity!r}{''.join(others)}"


def _with_unique_names(groups: list[Group]) -> list[Group]:
    """Numbers the groups whose names are the same, such as those of two settings of one custom method."""
    names = [group.name for group in groups]
    return [
        replace(group, name=f"{group.name}-{names[: index + 1].count(group.name)}") if names.count(group.name) > 1 else group
        for index, group in enumerate(groups)
    ]

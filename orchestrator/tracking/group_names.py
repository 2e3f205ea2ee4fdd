"""Names of a sweep's groups in MLflow: the sparsity comes first, so that those of several sweeps stand together."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import chain, count

NOT_IN_METRICS = re.compile(r"[^\w\-.]", re.ASCII)
NOT_IN_ALIASES = re.compile(r"[^\w-]", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class GroupName:
    """The name of a group in metrics, such as s0.95 or s0.95-drive, and of its model's version, such as best-s95-drive."""

    group: str
    alias: str


def group_names(groups: Sequence[tuple[str, float]]) -> list[GroupName]:
    """The names of groups, each given by its name in the sweep, such as drive-s0.95, and its sparsity; no two are the same."""
    names: list[GroupName] = []
    for name, sparsity in groups:
        mark = f"s{sparsity!r}"
        before, _, after = name.partition(mark)
        others = after + (f"-{before.rstrip('-')}" if before else "")
        percent = f"{(Decimal(repr(sparsity)) * 100).normalize():f}"
        group, alias = NOT_IN_METRICS.sub("_", mark + others), NOT_IN_ALIASES.sub("_", f"best-s{percent}{others}")
        numbered = (GroupName(group=f"{group}-{number}", alias=f"{alias}-{number}") for number in count(2))
        names.append(next(one for one in chain([GroupName(group=group, alias=alias)], numbered) if _is_new(one, names)))
    return names


def _is_new(name: GroupName, names: Sequence[GroupName]) -> bool:
    return all(name.group != one.group and name.alias != one.alias for one in names)

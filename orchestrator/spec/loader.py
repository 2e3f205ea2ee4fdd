"""Reads a sweep file into a SweepSpec, or reports all its errors at once.

Options of the command line (--set KEY=VALUE) override the file: if one fixes a key and the other searches it, the option wins.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

from pydantic import ValidationError

from orchestrator.errors import UserError
from orchestrator.spec.axes import SEARCHABLE
from orchestrator.spec.channel_constraints import channel_conflicts, granularity_conflicts
from orchestrator.spec.conflict import Conflict
from orchestrator.spec.constraints import (
    auto_options,
    config_conflicts,
    dataset_conflicts,
    unused_auto_conflicts,
)
from orchestrator.spec.error_messages import Problem, dotted, format_value, problems
from orchestrator.spec.grid import representative_trials
from orchestrator.spec.presets import sweep_text
from orchestrator.spec.ranges import Axis, Range
from orchestrator.spec.schema import SweepSpec
from orchestrator.spec.search_constraints import search_problems
from orchestrator.spec.spiking_constraints import spiking_conflicts, spiking_sweep_conflicts
from orchestrator.spec.trial_names import dotted_values
from orchestrator.spec.worker_constraints import batch_conflicts, worker_conflicts
from orchestrator.spec.yaml_document import Document, KeyPath, parse, parse_value
from trainables.config.trial import TrialConfig
from trainables.models.table import NETWORKS

DEFAULT_MODEL = next(iter(NETWORKS))
PLACEHOLDERS: dict[str, Any] = {"name": "x", "model": DEFAULT_MODEL}


def load_spec(file: str, overrides: Sequence[str] = ()) -> SweepSpec:
    """The sweep described by a file or a preset's name, and by options `KEY=VALUE`.

    Raises:
        UserError: the file cannot be read or is invalid; one line for each error, in the file's order.
    """
    text = sweep_text(file)
    label = file if os.path.exists(os.path.expanduser(file)) else f"{file}.yaml"
    document = parse(text, label)
    options = [_option(override) for override in overrides]
    sources = _Sources(document, label, [path for path, _ in options])
    data = document.data
    for path, value in options:
        data = _with(_with_named_strategy(data), path, value)
    data, conflicts = _without_double_keys(data, sources)
    return _validated(data, sources.location, sources.order, conflicts)


def resolved(spec: SweepSpec) -> dict[str, Any]:
    """The sweep as plain JSON with every default, which is a valid sweep file. A searched key is only under `search`."""
    values: dict[str, Any] = spec.model_dump(mode="json")
    unused = [f"{section}.{option}" for key, section, option in auto_options() if getattr(spec, key) != "auto"]
    for key in (*spec.search, *unused):
        values = _without(values, tuple(key.split(".")))
    return values


def spec_from_resolved(values: dict[str, Any]) -> SweepSpec:
    """The sweep whose resolved form is `values`. Raises UserError if it is damaged."""
    if not isinstance(values, dict):
        message = f"resolved sweep: must be a mapping, got {format_value(values)}"
        raise UserError(message, "run the sweep file again to rewrite it", code="sweep-file-invalid")
    return _validated(values, lambda path: "resolved sweep", lambda path: (0, 0), [])


def with_options(spec: SweepSpec, overrides: Sequence[str]) -> SweepSpec:
    """The sweep with options `KEY=VALUE`. Raises UserError for an invalid one."""
    values = resolved(spec)
    options = [_option(override) for override in overrides]
    for path, value in options:
        values = _with(_with_named_strategy(values), path, value)

    def location(path: KeyPath) -> str:
        return next((f"--set {dotted(option)}" for option, _ in options if option[0] == path[0]), "resolved sweep")

    return _validated(values, location, lambda path: (0, 0), [])


def _option(override: str) -> tuple[KeyPath, Any]:
    """Path and value of `KEY=VALUE`; below `search` a dotted key is one step of the path."""
    key, equals, value = override.partition("=")
    key = key.strip()
    if not equals or not all(key.split(".")):
        message = f"--set: must be KEY=VALUE, got {override!r}"
        raise UserError(message, "for example --set training.epochs=4", code="option-invalid")
    path = ("search", key.removeprefix("search.")) if key.startswith("search.") else tuple(key.split("."))
    return path, parse_value(value, f"--set {key}")


class _Sources:
    """Where each path comes from: an option of the command line or a line of the file."""

    def __init__(self, document: Document, label: str, options: list[KeyPath]) -> None:
        self.document = document
        self.label = label
        self.options = options

    def option(self, path: KeyPath) -> int | None:
        """Index of the last option that set the value at `path`, a value inside it, or a mapping around it."""
        for index in reversed(range(len(self.options))):
            option = self.options[index]
            shorter = min(len(option), len(path))
            if option[:shorter] == path[:shorter]:
                return index
        return None

    def location(self, path: KeyPath) -> str:
        option = self.option(path)
        return f"{self.label}:{self.document.line(path)}" if option is None else f"--set {dotted(self.options[option])}"

    def order(self, path: KeyPath) -> tuple[int, int]:
        option = self.option(path)
        return (0, self.document.line(path)) if option is None else (1, option)


def _without_double_keys(data: dict[str, Any], sources: _Sources) -> tuple[dict[str, Any], list[Problem]]:
    """The data with no key both fixed and searched if an option overrides the file, and a problem for each other such key."""
    conflicts: list[Problem] = []
    search = data.get("search")
    for key in list(search) if isinstance(search, dict) else ():
        fixed, searched = tuple(key.split(".")), ("search", key)
        if key not in SEARCHABLE or not _has(data, fixed):
            continue
        by_option = [sources.option(path) is not None for path in (fixed, searched)]
        if by_option[0] != by_option[1]:
            data = _without(data, searched if by_option[0] else fixed)
            continue
        fixed_value = f"{key} {format_value(_at(data, fixed))} at {sources.location(fixed)}"
        message = f"must not be both fixed and searched, got {fixed_value}"
        conflicts.append(Problem(searched, message, "remove one of the two", frozenset({key})))
    return data, conflicts


def _validated(
    data: dict[str, Any],
    location: Callable[[KeyPath], str],
    order: Callable[[KeyPath], tuple[int, int]],
    known: list[Problem],
) -> SweepSpec:
    """The sweep, if there are no known problems and neither its values nor their combinations break a rule."""
    data = _with_some_model(_with_named_dataset(data))
    try:
        spec: SweepSpec | None = SweepSpec.model_validate(data)
    except ValidationError as error:
        known = known + problems(error, data)
        spec = _valid_part(data, known)
    known = known + (_conflicts(spec, data, known) if spec else [])
    if known or spec is None:
        raise _invalid(sorted(known, key=lambda problem: order(problem.path)), location)
    return spec


def _invalid(ordered: list[Problem], location: Callable[[KeyPath], str]) -> UserError:
    """One error for all problems; its message and hint are apart if there is only one."""
    errors = [
        UserError(
            f"{location(problem.path)}: {dotted(problem.path)} {problem.message}", problem.hint, code="sweep-file-invalid"
        )
        for problem in ordered
    ]
    return errors[0] if len(errors) == 1 else UserError("\n".join(map(str, errors)), code="sweep-file-invalid")


def _with_named_dataset(data: dict[str, Any]) -> dict[str, Any]:
    """The data with `dataset: {module: ...}` written as `dataset: {name: {module: ...}}`."""
    dataset = data.get("dataset")
    if not isinstance(dataset, dict) or "module" not in dataset or "name" in dataset:
        return data
    others = {key: value for key, value in dataset.items() if key != "module"}
    return data | {"dataset": {"name": {"module": dataset["module"]}} | others}


def _with_named_strategy(data: dict[str, Any]) -> dict[str, Any]:
    """The data with `strategy: NAME` written as a mapping, to which an option can add keys."""
    name = data.get("strategy")
    return data | {"strategy": {"name": name}} if isinstance(name, str) else data


def _with_some_model(data: dict[str, Any]) -> dict[str, Any]:
    """The data with one of the searched models as `model`, which is required; every trial replaces it."""
    search = data.get("search")
    if "model" in data or not isinstance(search, dict) or not isinstance(search.get("model"), list):
        return data
    built_in = (model for model in search["model"] if isinstance(model, str) and model in NETWORKS)
    return data | {"model": next(built_in, DEFAULT_MODEL)}


def _valid_part(data: dict[str, Any], known: list[Problem]) -> SweepSpec | None:
    """The sweep without its invalid values, so that its conflicts are reported together with them."""
    for problem in known:
        data = _without(data, _droppable(problem.path))
    dataset = data.get("dataset")
    data = PLACEHOLDERS | data | {"dataset": {"name": "digits"} | (dataset if isinstance(dataset, dict) else {})}
    try:
        return SweepSpec.model_validate(data)
    except ValidationError:
        return None


def _droppable(path: KeyPath) -> KeyPath:
    """The part of the path without which the rest of the file is valid: no item of a list, and no required key."""
    if path[0] in ("early_stopping", "seeds"):
        return path[:1]
    if path[0] == "search":
        return path[:2]
    upto = next((index for index, step in enumerate(path) if isinstance(step, int)), len(path))
    return path[:upto]


def _conflicts(spec: SweepSpec, data: dict[str, Any], known: list[Problem]) -> list[Problem]:
    """Each rule over several keys that the sweep breaks, with the first such combination; none about keys of known problems."""
    invalid_keys = {key for problem in known for key in problem.keys}

    def is_invalid(key: str) -> bool:
        return any(key == invalid or key.startswith(f"{invalid}.") for invalid in invalid_keys)

    first: dict[tuple[str, ...], Problem] = {}
    trials = representative_trials(_with_one_seed(spec))
    of_keys = chain(dataset_conflicts(spec), unused_auto_conflicts(spec), worker_conflicts(spec))
    of_trials = chain(granularity_conflicts(spec, trials), spiking_sweep_conflicts(spec, trials))
    for conflict in chain(of_keys, of_trials):
        values = {key: _value(spec, key) for key in conflict.keys}
        first.setdefault(conflict.keys, _conflict_problem(conflict, values, data, spec))
    for config in trials:
        conflicts = chain(config_conflicts(config), channel_conflicts(config), spiking_conflicts(config))
        for conflict in chain(conflicts, batch_conflicts(config, spec.resources)):
            if conflict.keys not in first:
                first[conflict.keys] = _conflict_problem(conflict, _values(config), data, spec)
    broken = [*first.values(), *search_problems(spec)]
    return [problem for problem in broken if not any(is_invalid(key) for key in problem.keys)]


def _with_one_seed(spec: SweepSpec) -> SweepSpec:
    """The sweep with its first seed alone: no rule is about seeds, and there may be many."""
    search = {key: axis[:1] if key == "seed" and not isinstance(axis, Range) else axis for key, axis in spec.search.items()}
    return spec.model_copy(update={"search": search})


def _value(spec: SweepSpec, key: str) -> Any:
    """The value of a key in the sweep; of an axis the first one."""
    axis = spec.search.get(key)
    if axis is not None:
        return axis.min if isinstance(axis, Range) else axis[0]
    return _at(spec.model_dump(mode="json"), key.split("."))


def _values(config: TrialConfig) -> dict[str, Any]:
    """The values of a trial by the keys of the sweep file."""
    labels = {"warmup_epochs": config.warmup_label, "prune_iterations": config.iterations_label}
    most = {"warmup.most": config.warmup_epochs, "iterations.most": config.prune_iterations}
    return dotted_values(config) | labels | most


def _conflict_problem(conflict: Conflict, values: dict[str, Any], data: dict[str, Any], spec: SweepSpec) -> Problem:
    """The conflict at the first of its keys that is in the file, with the values of all of them."""
    paths: list[KeyPath] = []
    for key in conflict.keys:
        fixed = tuple(key.split("."))
        if key in spec.search:
            paths.append(("search", key, _step_to(values[key], spec.search[key])))
        elif _has(data, fixed) or (len(fixed) > 1 and _has(data, fixed[:1])):
            paths.append(fixed)
    got = ", ".join(f"{key} {format_value(values[key])}" for key in conflict.keys)
    main_key, rule = conflict.keys[0], conflict.rule
    path = paths[0] if paths else tuple(main_key.split("."))
    if (path[1] if path[0] == "search" else dotted(path)) != main_key:
        rule = f"fit: {main_key} must {rule}"
    return Problem(path, f"must {rule}, got {got}", conflict.hint, frozenset(conflict.keys))


def _step_to(value: Any, axis: Axis) -> str | int:
    """The index of a value in a list, or the bound of a range."""
    if isinstance(axis, Range):
        return "min" if value == axis.min else "max"
    return axis.index(value)


def _at(data: Any, path: Sequence[str | int]) -> Any:
    for step in path:
        data = data[step]
    return data


def _has(data: Any, path: KeyPath) -> bool:
    for step in path:
        if not isinstance(data, dict) or step not in data:
            return False
        data = data[step]
    return True


def _with(data: Any, path: KeyPath, value: Any) -> dict[str, Any]:
    """The data with one value set; missing mappings on the way are created."""
    outer: dict[str, Any] = dict(data) if isinstance(data, dict) else {}
    step, *inner = path
    outer[str(step)] = _with(outer.get(str(step)), tuple(inner), value) if inner else value
    return outer


def _without(data: dict[str, Any], path: KeyPath) -> dict[str, Any]:
    """The data without one value; unchanged if there is no such value."""
    if not path or not _has(data, path):
        return data
    outer = dict(data)
    step, *inner = path
    if inner:
        outer[str(step)] = _without(outer[str(step)], tuple(inner))
    else:
        del outer[str(step)]
    return outer

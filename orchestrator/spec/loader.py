"""Sweep file -> SweepSpec, or every mistake in it at once: file, line, key, rule, value, way out.

Options of the command line (--set KEY=VALUE) beat the file: a key that one fixes and the other searches follows the option.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

from pydantic import ValidationError
from pydantic.json_schema import GenerateJsonSchema

from orchestrator.errors import UserError
from orchestrator.spec.constraints import Conflict, config_conflicts, dataset_conflicts
from orchestrator.spec.error_messages import Problem, dotted, format_value, problems
from orchestrator.spec.grid import dotted_values, expand
from orchestrator.spec.presets import sweep_text
from orchestrator.spec.schema import SEARCHABLE, SweepSpec
from orchestrator.spec.yaml_document import Document, KeyPath, parse, parse_value
from trainables.models.table import NETWORKS

DEFAULT_MODEL = next(iter(NETWORKS))
PLACEHOLDERS: dict[str, Any] = {"name": "x", "model": DEFAULT_MODEL}


def load_spec(file: str, overrides: Sequence[str] = ()) -> SweepSpec:
    """The sweep that a file, or a ready sweep's name, and the options `KEY=VALUE` describe.

    Raises:
        UserError: the file cannot be read, or what it says is wrong; one line for each mistake, in the file's order.
    """
    text = sweep_text(file)
    label = file if os.path.exists(os.path.expanduser(file)) else f"{file}.yaml"
    document = parse(text, label)
    options = [_option(override) for override in overrides]
    places = _Places(document, label, [path for path, _ in options])
    data = document.data
    for path, value in options:
        data = _with(data, path, value)
    data, conflicts = _without_double_keys(data, places)
    return _checked(data, places.place, places.order, conflicts)


def resolved(spec: SweepSpec) -> dict[str, Any]:
    """The sweep as plain JSON with every default; a sweep file by itself. A searched key stands only under `search`."""
    values: dict[str, Any] = spec.model_dump(mode="json")
    for key in spec.search:
        values = _without(values, tuple(key.split(".")))
    return values


def spec_from_resolved(values: dict[str, Any]) -> SweepSpec:
    """The sweep whose resolved form is `values`. Raises UserError where it was damaged."""
    if not isinstance(values, dict):
        raise UserError(
            f"resolved sweep: must be a mapping, got {format_value(values)}; run the sweep file again to write it anew"
        )
    return _checked(values, lambda path: "resolved sweep", lambda path: (0, 0), [])


def json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a sweep file, for editors: every key with its meaning, type, range and default."""
    schema = SweepSpec.model_json_schema(schema_generator=_Untitled)
    schema["required"].remove("model")
    searched = {"required": ["search"], "properties": {"search": {"required": ["model"]}}}
    schema["anyOf"] = [{"required": ["model"]}, searched]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | schema | {"title": "drive-sweep sweep file"}


class _Untitled(GenerateJsonSchema):
    """Without a title for every key: it would only repeat the key."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def _option(override: str) -> tuple[KeyPath, Any]:
    """Path and value of one `KEY=VALUE`; below `search` a dotted key is one step of the path."""
    key, equals, value = override.partition("=")
    key = key.strip()
    if not equals or not all(key.split(".")):
        raise UserError(f"--set: must be KEY=VALUE, got {override!r}; for example --set training.epochs=4")
    path = ("search", key.removeprefix("search.")) if key.startswith("search.") else tuple(key.split("."))
    return path, parse_value(value, f"--set {key}")


class _Places:
    """Where a path was written: an option of the command line or a line of the file."""

    def __init__(self, document: Document, label: str, options: list[KeyPath]) -> None:
        self.document = document
        self.label = label
        self.options = options

    def option(self, path: KeyPath) -> int | None:
        """Index of the last option that wrote the value at a path, a part of it, or something around it."""
        for index in reversed(range(len(self.options))):
            option = self.options[index]
            shorter = min(len(option), len(path))
            if option[:shorter] == path[:shorter]:
                return index
        return None

    def place(self, path: KeyPath) -> str:
        option = self.option(path)
        return f"{self.label}:{self.document.line(path)}" if option is None else f"--set {dotted(self.options[option])}"

    def order(self, path: KeyPath) -> tuple[int, int]:
        option = self.option(path)
        return (0, self.document.line(path)) if option is None else (1, option)


def _without_double_keys(data: dict[str, Any], places: _Places) -> tuple[dict[str, Any], list[Problem]]:
    """The data with every key either fixed or searched: an option beats the file, otherwise it is a mistake."""
    conflicts: list[Problem] = []
    search = data.get("search")
    for key in list(search) if isinstance(search, dict) else ():
        fixed, searched = tuple(key.split(".")), ("search", key)
        if key not in SEARCHABLE or not _has(data, fixed):
            continue
        by_option = [places.option(path) is not None for path in (fixed, searched)]
        if by_option[0] != by_option[1]:
            data = _without(data, searched if by_option[0] else fixed)
            continue
        written = f"{key} {format_value(_at(data, fixed))} at {places.place(fixed)}"
        told = f"must not be both fixed and searched, got {written}; remove one of the two"
        conflicts.append(Problem(searched, told, frozenset({key})))
    return data, conflicts


def _checked(
    data: dict[str, Any],
    place: Callable[[KeyPath], str],
    order: Callable[[KeyPath], tuple[int, int]],
    found: list[Problem],
) -> SweepSpec:
    """The sweep, if neither its fields nor their combinations break a rule."""
    data = _with_some_model(_with_named_dataset(data))
    try:
        spec: SweepSpec | None = SweepSpec.model_validate(data)
    except ValidationError as error:
        found = found + problems(error, data)
        spec = _valid_part(data, found)
    found = found + (_broken_combinations(spec, data, found) if spec else [])
    if found or spec is None:
        found.sort(key=lambda problem: order(problem.path))
        raise UserError("\n".join(f"{place(problem.path)}: {dotted(problem.path)} {problem.told}" for problem in found))
    return spec


def _with_named_dataset(data: dict[str, Any]) -> dict[str, Any]:
    """The data with `dataset: {module: ...}` as the name that it stands for."""
    dataset = data.get("dataset")
    if not isinstance(dataset, dict) or "module" not in dataset or "name" in dataset:
        return data
    others = {key: value for key, value in dataset.items() if key != "module"}
    return data | {"dataset": {"name": {"module": dataset["module"]}} | others}


def _with_some_model(data: dict[str, Any]) -> dict[str, Any]:
    """The data with one of the searched models as the fixed one, which every trial replaces: nobody writes both."""
    search = data.get("search")
    if "model" in data or not isinstance(search, dict) or not isinstance(search.get("model"), list):
        return data
    built_in = (model for model in search["model"] if isinstance(model, str) and model in NETWORKS)
    return data | {"model": next(built_in, DEFAULT_MODEL)}


def _valid_part(data: dict[str, Any], found: list[Problem]) -> SweepSpec | None:
    """The sweep without its wrong values, so that mistakes elsewhere are told in the same go."""
    for problem in found:
        upto = next((index for index, step in enumerate(problem.path) if isinstance(step, int)), len(problem.path))
        data = _without(data, problem.path[:upto])
    dataset = data.get("dataset")
    data = PLACEHOLDERS | data | {"dataset": {"name": "digits"} | (dataset if isinstance(dataset, dict) else {})}
    try:
        return SweepSpec.model_validate(data)
    except ValidationError:
        return None


def _broken_combinations(spec: SweepSpec, data: dict[str, Any], found: list[Problem]) -> list[Problem]:
    """The rules over several keys that the sweep breaks, each with its first bad combination; none about keys in `found`."""
    known_wrong = {key for problem in found for key in problem.about}

    def is_known(key: str) -> bool:
        return any(key == wrong or key.startswith(f"{wrong}.") for wrong in known_wrong)

    first: dict[tuple[str, ...], Problem] = {}
    for clash in dataset_conflicts(spec):
        first.setdefault(clash.keys, _told(clash, {key: _at(resolved(spec), key.split(".")) for key in clash.keys}, data, spec))
    for config in expand(spec):
        for clash in config_conflicts(config):
            if clash.keys not in first:
                first[clash.keys] = _told(clash, dotted_values(config), data, spec)
    return [problem for keys, problem in first.items() if not any(is_known(key) for key in keys)]


def _told(clash: Conflict, values: dict[str, Any], data: dict[str, Any], spec: SweepSpec) -> Problem:
    """The clash at the first of its keys that was written, with the values of all of them."""
    paths: list[KeyPath] = []
    for key in clash.keys:
        fixed = tuple(key.split("."))
        if key in spec.search:
            paths.append(("search", key, spec.search[key].index(values[key])))
        elif _has(data, fixed) or (len(fixed) > 1 and _has(data, fixed[:1])):
            paths.append(fixed)
    got = ", ".join(f"{key} {format_value(values[key])}" for key in clash.keys)
    path = paths[0] if paths else tuple(clash.keys[0].split("."))
    blamed = clash.keys[0]
    rule = clash.rule if dotted(path).removeprefix("search.").split("[")[0] == blamed else f"fit: {blamed} must {clash.rule}"
    return Problem(path, f"must {rule}, got {got}; {clash.hint}", frozenset(clash.keys))


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
    """The data with one value set; mappings on the way are made where there is none."""
    outer: dict[str, Any] = dict(data) if isinstance(data, dict) else {}
    step, *inner = path
    outer[str(step)] = _with(outer.get(str(step)), tuple(inner), value) if inner else value
    return outer


def _without(data: dict[str, Any], path: KeyPath) -> dict[str, Any]:
    """The data without one value; the same where there is no such value."""
    if not path or not _has(data, path):
        return data
    outer = dict(data)
    step, *inner = path
    if inner:
        outer[str(step)] = _without(outer[str(step)], tuple(inner))
    else:
        del outer[str(step)]
    return outer

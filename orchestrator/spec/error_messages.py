"""Messages for errors in a sweep file: rule, value and hint.

The rules are read from the fields of the schema, so that a message cannot differ from the check.
"""

from __future__ import annotations

import difflib
import re
import reprlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from orchestrator.spec.axes import (
    FIXED_PER_SWEEP,
    NOT_IN_CONFIGURATION,
    SEARCHABLE,
    TRIAL_KEYS,
    schema_keys,
    section_of,
    step_type,
    takes_range,
)
from orchestrator.spec.grid import AUTO_SECTIONS
from orchestrator.spec.ranges import Range
from orchestrator.spec.rules import Rule, rule_of
from orchestrator.spec.schema import SweepSpec
from orchestrator.spec.yaml_document import KeyPath
from orchestrator.uris import STORAGE_RULE, redacted, storage_uri_problem, uri_problem

OUT_OF_RANGE = ("greater_than", "greater_than_equal", "less_than", "less_than_equal")
ALL_KEYS = [key for key, _ in schema_keys(SweepSpec)]
BY_LAST_PART = sorted(ALL_KEYS, key=lambda key: key in TRIAL_KEYS)  # of keys with equal last parts the last one is meant
RANGE_KEYS = ("min", "max", "step", "log")
START_WITH = ("strategy", "start_with")


@dataclass(frozen=True, slots=True)
class Problem:
    """An error at a path of the sweep file. `keys` are all the dotted keys that it involves."""

    path: KeyPath
    message: str
    hint: str
    keys: frozenset[str]


def problems(error: ValidationError, data: dict[str, Any]) -> list[Problem]:
    """Every error that validation reports for `data`."""
    details = error.errors(include_url=False, include_context=False)
    return [_problem(detail, data) for detail in details if not (detail["type"] == "too_short" and detail["input"])]


def dotted(path: KeyPath) -> str:
    """`search.training.lr[2]`."""
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return text.removeprefix(".")


def format_value(value: Any) -> str:
    """A value as in YAML, shortened if it is long."""
    if value is None or isinstance(value, bool):
        return {None: "nothing", True: "true", False: "false"}[value]
    if isinstance(value, str):
        value = redacted(value)
    if isinstance(value, Range):
        return str(value)
    short = reprlib.Repr()
    short.maxstring = short.maxother = 60
    return short.repr(value)


def did_you_mean(word: Any, known: Iterable[str]) -> str:
    """A hint with the known word closest to `word`; empty if none is close."""
    match = closest_match(word, known)
    return f"did you mean {match!r}?" if match else ""


def closest_match(word: Any, known: Iterable[str]) -> str | None:
    matches = difflib.get_close_matches(str(word).lower().replace("-", "_"), list(known), n=1)
    return matches[0] if matches else None


def _problem(detail: ErrorDetails, data: dict[str, Any]) -> Problem:
    path, value, kind = _path_in_file(detail["loc"], data), detail["input"], detail["type"]
    if kind == "extra_forbidden":
        return _unknown_key(path, value)
    message, hint = _message_and_hint(path, value, kind)
    steps = path[:2] if path[0] == "search" else path
    key = dotted(tuple(step for step in steps if isinstance(step, str))).removeprefix("search.")
    return Problem(path, message, hint, frozenset({key}))


def _message_and_hint(path: KeyPath, value: Any, kind: str) -> tuple[str, str]:
    if path == ("search",):
        hint = "write `key: [value, value]` below it, or remove it"
        return f"must be a mapping of keys to lists, got {format_value(value)}", hint
    if len(path) == 2 and path[0] == "search":
        return _axis_problem(str(path[1]), value, kind)
    rule = _rule_at(path)
    if kind == "missing" and path[0] in ("search", "seeds"):
        return f"must be {rule.text}, got nothing", f"add {path[-1]}: NUMBER"
    if kind == "missing":
        example = rule.choices[0] if rule.choices else "{name: digits}" if rule.is_mapping else "my-sweep"
        return f"must be {rule.text}, got nothing", f"add {path[-1]}: {example}"
    if path == ("method",) and isinstance(value, list) and len(value) == 1:
        value = value[0]  # the file has one word, not a list
    text = rule.range if kind in OUT_OF_RANGE else rule.text
    return f"must be {text}, got {format_value(value)}", _hint(rule, value, path)


def _path_in_file(loc: tuple[str | int, ...], data: Any) -> KeyPath:
    """The part of an error's location that exists in the file: `method: snip` has no item 0."""
    path: list[str | int] = []
    for step in loc[:2] + loc[3:] if _has_tag(loc) else loc:
        if isinstance(step, int) and not isinstance(data, list):
            break
        path.append(step)
        if isinstance(data, list) and isinstance(step, int):
            data = data[step]
        else:
            data = data.get(step) if isinstance(data, dict) else None
    return tuple(path)


def _has_tag(loc: tuple[str | int, ...]) -> bool:
    """Whether the third step is the kind of an axis, list or range, which is not in the file."""
    return len(loc) > 2 and loc[0] == "search" and loc[1] in SEARCHABLE and takes_range(str(loc[1]))


def _rule_at(path: KeyPath) -> Rule:
    """The rule of the value at a path."""
    rule, steps = Rule(SweepSpec, ()), path
    if path[0] == "search" and len(path) > 2:
        rule, steps = _axis_rule(str(path[1]), path[2]), path[3:]
    elif path[:2] == START_WITH and len(path) > 3:
        rule, steps = _axis_rule(str(path[3]), 0), path[4:]
    for step in steps:
        if isinstance(step, int) or rule.is_dict:
            rule = rule.item
        else:
            section = section_of(rule.kind)
            assert section is not None, path
            field = section.model_fields[step]
            rule = replace(rule_of(field.annotation, field.metadata), default=field.default, required=field.is_required())
    return rule


def _axis_rule(key: str, step: str | int) -> Rule:
    """The rule of a value or bound of an axis, or of the step or log of a range."""
    if step == "log":
        return Rule(bool, (), default=False)
    if step == "step":
        return rule_of(step_type(key))
    return rule_of(SEARCHABLE[key].annotation, SEARCHABLE[key].metadata)


def _axis_problem(key: str, value: Any, kind: str) -> tuple[str, str]:
    """Message and hint for the values of a searched key."""
    if kind == "value_error":
        repeated = next(item for index, item in enumerate(value) if item in value[:index])
        return f"must not repeat a value, got {format_value(value)}", f"remove one {format_value(repeated)}"
    if value is None or value == []:
        return f"must have at least one value, got {format_value(value)}", "write a value or remove the key"
    hint = f"write {key}: auto outside of search" if value == "auto" else f"write [{value}]"
    if isinstance(value, dict):
        hint = NOT_IN_CONFIGURATION.get(key, "only numbers can have a range")
    return f"must be a list of values, got {format_value(value)}", hint


def _hint(rule: Rule, value: Any, path: KeyPath) -> str:
    key = dotted(path)
    if isinstance(value, list) and value and not rule.is_list and key in SEARCHABLE:
        return f"to try several values move the line to search: {key}: {format_value(value)}"
    words = rule.choices or (rule.item.choices if rule.is_list else ())
    if words and isinstance(value, str) and (hint := did_you_mean(value, words)):
        return hint
    if value == "auto" and path[0] == "search" and path[1] in AUTO_SECTIONS:
        return f"auto has no other values beside it: write {path[1]}: auto outside of search"
    if isinstance(value, dict) and key in AUTO_SECTIONS:
        inner = ", ".join(f"{name}: {format_value(one)}" for name, one in value.items())
        return f"write {key}: auto and {AUTO_SECTIONS[key]}: {{{inner}}}"
    if rule.is_list and not isinstance(value, list | dict) and value is not None and not words:
        return f"write [{value}]"
    if rule.kind in (int, float) and (hint := _number_hint(path, value)):
        return hint
    if rule.kind is str and isinstance(value, int | float):
        return f"write '{value}' in quotes"
    if isinstance(value, str) and (hint := storage_uri_problem(value) if rule.text == STORAGE_RULE else uri_problem(value)):
        return hint
    if key == "name" and isinstance(value, str) and (name := re.sub(r"[^A-Za-z0-9._-]+", "-", value).lstrip("._-")[:100]):
        return f"write {name}"
    if key == "dataset" and isinstance(value, str):
        return f"write {{name: {value}}}"
    if key == "budget" and value in ("sparse", "total"):
        return f"write training: {{budget: {value}}}"
    if rule.is_mapping:
        return "remove the line or write keys below it" if value is None else "write `key: value` lines below it"
    if rule.required:
        return "" if rule.choices else "correct it"
    if path[0] == "search" or rule.default in (None, ()) or value == []:
        return "correct it or remove it"
    if isinstance(rule.default, dict):
        return f"without the line it is {', '.join(rule.default)}"
    default = rule.default[0] if isinstance(rule.default, tuple) and len(rule.default) == 1 else rule.default
    return f"without the line it is {str(default).lower() if isinstance(default, bool) else default}"


def _number_hint(path: KeyPath, value: Any) -> str:
    """The number that was probably meant; empty if unclear."""
    if isinstance(value, str) and (match := re.fullmatch(r"\s*([-+]?[0-9.]+(?:[eE][-+]?[0-9]+)?)\s*(%?)\s*", value)):
        number, percent = match.groups()
        return f"a percentage? write {_share(number)}" if percent else f"write {number} without quotes"
    if path == ("resources", "gpus_per_trial") and isinstance(value, float) and value > 1:
        return f"several GPUs are whole ones: write {int(value)} or {int(value) + 1}"
    is_share = any(step in ("sparsity", "validation", "dataset.validation") for step in path)
    if is_share and isinstance(value, int | float) and not isinstance(value, bool) and 1 < value < 100:
        return f"a percentage? write {_share(value)}"
    return ""


def _share(percent: float | str) -> str:
    try:
        return f"{float(percent) / 100:g}"
    except ValueError:
        return "the share"


def _unknown_key(path: KeyPath, value: Any) -> Problem:
    *parents, word = (str(step) for step in path)
    if parents == ["search"]:
        return _unsearchable_key(path, word, value)
    if parents[0:1] == ["search"]:
        hint = did_you_mean(word, RANGE_KEYS) or f"known are {', '.join(RANGE_KEYS)}"
        return Problem(path, f"must be a key of a range, got {word!r}", hint, frozenset({parents[1]}))
    if path[:2] == START_WITH:
        message = f"must be a key of search, got {word!r}"
        return _with_suggestion(path, message, closest_match(word, SEARCHABLE), SEARCHABLE, ".".join(START_WITH))
    prefix = "".join(f"{step}." for step in parents)
    known = [key.removeprefix(prefix) for key in ALL_KEYS if key.startswith(prefix)]
    siblings = list(dict.fromkeys([key.split(".")[0] for key in known] + (["search"] if not parents else [])))
    inner = [key for key in BY_LAST_PART if key.endswith(f".{word}")]
    near = closest_match(word, siblings)
    suggestion = inner[-1] if inner else f"{prefix}{near}" if near else _closest_by_suffix(word, BY_LAST_PART)
    return _with_suggestion(path, f"must be a known key, got {word!r}", suggestion, siblings, dotted(path))


def _unsearchable_key(path: KeyPath, word: str, value: Any) -> Problem:
    """A key below `search` that is not part of a trial's configuration, or that all trials of a sweep share."""
    keys = frozenset({word})
    if word in FIXED_PER_SWEEP:
        hint = {
            "method": "write method: [drive, dense] outside of search",
            "initial_weights": "write one sweep for each file",
        }.get(word, "write one sweep for each data set")
        return Problem(path, f"must be one value for the whole sweep, got {format_value(value)}", hint, keys)
    if isinstance(value, dict) and any(key.startswith(f"{word}.") for key in SEARCHABLE):
        inner = str(next(iter(value), "..."))
        return Problem(path, "must be a dotted key, got a mapping", f"write {word}.{inner}: [value, value]", keys)
    message = f"must be a key that decides a trial's numbers, got {word!r}"
    if word in ALL_KEYS or any(key.startswith(f"{word}.") for key in ALL_KEYS):
        return Problem(path, message, f"only those can be searched: write {word} outside of search", keys)
    suggestion = closest_match(word, SEARCHABLE) or _closest_by_suffix(word, SEARCHABLE)
    return _with_suggestion(path, message, suggestion, SEARCHABLE, word)


def _with_suggestion(path: KeyPath, message: str, suggestion: str | None, known: Iterable[str], key: str) -> Problem:
    """The problem of an unknown key, which involves the suggested key too."""
    hint = f"did you mean {suggestion!r}?" if suggestion else f"known are {', '.join(known)}"
    return Problem(path, message, hint, frozenset({key, suggestion} if suggestion else {key}))


def _closest_by_suffix(word: str, known: Iterable[str]) -> str | None:
    """The dotted key whose last part is closest to `word`."""
    last_parts = {key.split(".")[-1]: key for key in known if "." in key}
    match = closest_match(word, last_parts)
    return last_parts[match] if match else None

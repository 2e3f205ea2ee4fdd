"""Messages for errors in a sweep file: rule, value and hint.

The rules are read from the fields of the schema, so that a message cannot differ from the check.
"""

from __future__ import annotations

import difflib
import re
import reprlib
import types
import typing
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from orchestrator.spec.field_types import RuleText
from orchestrator.spec.schema import FIXED_PER_SWEEP, SEARCHABLE, SweepSpec, schema_keys
from orchestrator.spec.yaml_document import KeyPath
from orchestrator.uris import STORAGE_RULE, redacted, storage_uri_problem, uri_problem

OUT_OF_RANGE = ("greater_than", "greater_than_equal", "less_than", "less_than_equal")
TYPE_NAMES: dict[Any, str] = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
ALL_KEYS = [key for key, _ in schema_keys(SweepSpec)]


@dataclass(frozen=True, slots=True)
class Problem:
    """An error at a path of the sweep file. `keys` are all the dotted keys that it involves."""

    path: KeyPath
    message: str
    hint: str
    keys: frozenset[str]


@dataclass(frozen=True, slots=True)
class Rule:
    """What a value must be: its type without None and annotations, its annotations and its default."""

    kind: Any
    marks: tuple[Any, ...]
    default: Any = None
    required: bool = False

    @property
    def choices(self) -> tuple[Any, ...]:
        return typing.get_args(self.kind) if typing.get_origin(self.kind) is Literal else ()

    @property
    def is_mapping(self) -> bool:
        return isinstance(self.kind, type) and issubclass(self.kind, BaseModel)

    @property
    def is_list(self) -> bool:
        return typing.get_origin(self.kind) is tuple

    @property
    def item(self) -> Rule:
        return _rule(typing.get_args(self.kind)[0], ())

    @property
    def range(self) -> str:
        """`in [0, 1)`, `>= 1`, `> 0`, or nothing."""
        low = next((mark for mark in self.marks if isinstance(mark, Ge | Gt)), None)
        high = next((mark for mark in self.marks if isinstance(mark, Le | Lt)), None)
        lowest = "" if low is None else str(low.ge if isinstance(low, Ge) else low.gt)
        if high is None:
            return lowest and f"{'>=' if isinstance(low, Ge) else '>'} {lowest}"
        highest, closing = (str(high.le), "]") if isinstance(high, Le) else (str(high.lt), ")")
        return f"in {'[' if isinstance(low, Ge) else '('}{lowest}, {highest}{closing}"

    @property
    def text(self) -> str:
        """`must be ...` in a message."""
        if rule_text := next((mark.rule for mark in self.marks if isinstance(mark, RuleText)), None):
            return str(rule_text)
        if self.choices:
            return f"one of {', '.join(self.choices)}"
        if self.is_mapping:
            return "a mapping of keys"
        if self.is_list:
            return f"a list, each {self.item.text}"
        return f"{TYPE_NAMES[self.kind]} {self.range}".rstrip()


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
    key = dotted(tuple(step for step in path if isinstance(step, str))).removeprefix("search.")
    return Problem(path, message, hint, frozenset({key}))


def _message_and_hint(path: KeyPath, value: Any, kind: str) -> tuple[str, str]:
    if path == ("search",):
        hint = "write `key: [value, value]` below it, or remove it"
        return f"must be a mapping of keys to lists, got {format_value(value)}", hint
    if len(path) == 2 and path[0] == "search":
        return _axis_problem(value, kind)
    rule = _rule_at(path)
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
    for step in loc:
        if isinstance(step, int) and not isinstance(data, list):
            break
        path.append(step)
        if isinstance(data, list) and isinstance(step, int):
            data = data[step]
        else:
            data = data.get(step) if isinstance(data, dict) else None
    return tuple(path)


def _rule_at(path: KeyPath) -> Rule:
    """The rule of the value at a path."""
    steps = list(path)
    if steps[0] == "search" and len(steps) > 2:
        field = SEARCHABLE[str(steps[1])]
        del steps[:3]
        rule = _rule(field.annotation, field.metadata)
    else:
        rule = Rule(SweepSpec, ())
    for step in steps:
        if isinstance(step, int):
            rule = rule.item
        else:
            field = rule.kind.model_fields[step]
            rule = replace(_rule(field.annotation, field.metadata), default=field.default, required=field.is_required())
    return rule


def _rule(annotation: Any, marks: Iterable[Any]) -> Rule:
    marks = tuple(marks)
    while True:
        origin = typing.get_origin(annotation)
        if origin is Annotated:
            annotation, *inner = typing.get_args(annotation)
            marks = (*marks, *inner)
        elif origin in (typing.Union, types.UnionType):
            annotation = next(option for option in typing.get_args(annotation) if option is not types.NoneType)
        else:
            return Rule(annotation, marks)


def _axis_problem(value: Any, kind: str) -> tuple[str, str]:
    """Message and hint for the values of a searched key."""
    if kind == "value_error":
        repeated = next(item for index, item in enumerate(value) if item in value[:index])
        return f"must not repeat a value, got {format_value(value)}", f"remove one {format_value(repeated)}"
    if value is None or value == []:
        return f"must have at least one value, got {format_value(value)}", "write a value or remove the key"
    return f"must be a list of values, got {format_value(value)}", f"write [{value}]"


def _hint(rule: Rule, value: Any, path: KeyPath) -> str:
    key = dotted(path)
    if isinstance(value, list) and value and not rule.is_list and key in SEARCHABLE:
        return f"to try several values move the line to search: {key}: {format_value(value)}"
    words = rule.choices or (rule.item.choices if rule.is_list else ())
    if words and isinstance(value, str) and (hint := did_you_mean(value, words)):
        return hint
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
    if rule.is_mapping:
        return "remove the line or write keys below it" if value is None else "write `key: value` lines below it"
    if rule.required:
        return "" if rule.choices else "correct it"
    if path[0] == "search" or rule.default is None or value == []:
        return "correct it or remove it"
    default = rule.default[0] if isinstance(rule.default, tuple) and len(rule.default) == 1 else rule.default
    return f"without the line it is {str(default).lower() if isinstance(default, bool) else default}"


def _number_hint(path: KeyPath, value: Any) -> str:
    """The number that was probably meant; empty if unclear."""
    if isinstance(value, str) and (match := re.fullmatch(r"\s*([-+]?[0-9.]+(?:[eE][-+]?[0-9]+)?)\s*(%?)\s*", value)):
        number, percent = match.groups()
        return f"a percentage? write {_share(number)}" if percent else f"write {number} without quotes"
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
    prefix = "".join(f"{step}." for step in parents)
    known = [key.removeprefix(prefix) for key in ALL_KEYS if key.startswith(prefix)]
    siblings = list(dict.fromkeys([key.split(".")[0] for key in known] + (["search"] if not parents else [])))
    inner = [key for key in ALL_KEYS if key.endswith(f".{word}")]
    near = closest_match(word, siblings)
    suggestion = inner[-1] if inner else f"{prefix}{near}" if near else _closest_by_suffix(word, ALL_KEYS)
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

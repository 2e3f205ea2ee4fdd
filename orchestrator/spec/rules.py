"""The rule of a field of the sweep file, read from its type and annotations, in words for messages."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel

from orchestrator.spec.field_types import RuleText

TYPE_NAMES: dict[Any, str] = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


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
    def is_dict(self) -> bool:
        return typing.get_origin(self.kind) is dict

    @property
    def item(self) -> Rule:
        return rule_of(typing.get_args(self.kind)[1 if self.is_dict else 0])

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


def rule_of(annotation: Any, marks: Iterable[Any] = ()) -> Rule:
    """The rule of a type, which may be annotated and optional."""
    marks = tuple(marks)
    while True:
        origin = typing.get_origin(annotation)
        if origin is Annotated:
            annotation, *inner = typing.get_args(annotation)
            marks = (*marks, *inner)
        elif origin in (typing.Union, types.UnionType):
            annotation = without_none(annotation)
        else:
            return Rule(annotation, marks)


def without_none(annotation: Any) -> Any:
    """The first type of a union that is not None; any other type is unchanged."""
    if typing.get_origin(annotation) not in (typing.Union, types.UnionType):
        return annotation
    return next(option for option in typing.get_args(annotation) if option is not types.NoneType)

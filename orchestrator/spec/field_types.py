"""The kinds of values in a sweep file, each with its rule in words and its JSON Schema: what pydantic has no type for."""

from __future__ import annotations

import math
import typing
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, cast

from annotated_types import Ge
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    Strict,
    WithJsonSchema,
)

from orchestrator.uris import ANY_RULE, STORAGE_RULE, storage_uri_problem, uri_problem
from trainables.config.methods import METHODS
from trainables.config.options import CustomOptions
from trainables.config.trial import DatasetConfig, Loss, TrialConfig
from trainables.custom.references import PREFIX, REFERENCE
from trainables.data.table import DATASETS
from trainables.models.table import NETWORKS

DEFAULT = TrialConfig(dataset=DatasetConfig(name="digits"), model="convnet")


@dataclass(frozen=True, slots=True)
class RuleText:
    """The rule of a field in words, where type and range do not tell it."""

    rule: str


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _ascending(values: tuple[int, ...] | None) -> tuple[int, ...] | None:
    if values is not None and list(values) != sorted(set(values)):
        raise ValueError("not ascending")
    return values


def _may_be_written(uri_problem: Callable[[str], str]) -> AfterValidator:
    def check(uri: str) -> str:
        if uri_problem(uri):
            raise ValueError("may not be written down")
        return uri

    return AfterValidator(check)


def no_repeats(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(set(values)) < len(values):
        raise ValueError("repeated")
    return values


Integer = Annotated[int, BeforeValidator(_whole)]
Positive = Annotated[int, Ge(1), BeforeValidator(_whole)]
ImageSize = Annotated[int, Ge(8), BeforeValidator(_whole)]
Limit = Annotated[int, Ge(10), BeforeValidator(_whole)]
Text = Annotated[str, Field(min_length=1)]
Uri = Annotated[Text, _may_be_written(uri_problem), RuleText(ANY_RULE)]
StorageUri = Annotated[Text, _may_be_written(storage_uri_problem), RuleText(STORAGE_RULE)]
Milestones = Annotated[
    Annotated[tuple[Positive, ...], Strict(False)] | None,
    AfterValidator(_ascending),
    RuleText("a list of ascending whole numbers >= 1"),
]


def _auto_or(fits: Callable[[float], bool]) -> PlainValidator:
    """Takes the word auto, or a number that fits. A union of types would tell a mistake twice, in the checker's words."""

    def check(value: Any) -> Any:
        is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if value != "auto" and not (is_number and fits(value)):
            raise ValueError("neither auto nor a number that fits")
        return value if value == "auto" else float(value)

    return PlainValidator(check)


AUTO = {"const": "auto"}
Cpus = Annotated[
    float | Literal["auto"],
    _auto_or(lambda cpus: cpus > 0),
    RuleText("a number > 0, or auto"),
    WithJsonSchema({"anyOf": [{"type": "number", "exclusiveMinimum": 0}, AUTO]}),
]
GpuShare = Annotated[
    float | Literal["auto"],
    _auto_or(lambda gpus: 0 <= gpus <= 1),
    RuleText("in [0, 1], or auto"),
    WithJsonSchema({"anyOf": [{"type": "number", "minimum": 0, "maximum": 1}, AUTO]}),
]


def _literal(names: Iterable[str]) -> Any:
    """The type of a name that stands in a table."""
    return cast(Any, Literal)[tuple(names)]


def _or_module(names: Any) -> PlainValidator:
    """Takes one of the names, or {module: FILE.FUNCTION}, or what that is afterwards: the text module:FILE.FUNCTION."""

    def check(value: Any) -> Any:
        if isinstance(value, dict) and list(value) == ["module"] and isinstance(value["module"], str):
            value = PREFIX + value["module"]
        if not isinstance(value, str) or not (value in typing.get_args(names) or REFERENCE.fullmatch(value)):
            raise ValueError("neither a known name nor a module")
        return value

    return PlainValidator(check)


def _says_or_module(names: Any) -> RuleText:
    return RuleText(f"one of {', '.join(typing.get_args(names))}, or {{module: FILE.FUNCTION}}")


def _schema_or_module(names: Any) -> WithJsonSchema:
    text = {"type": "string", "pattern": f"^{REFERENCE.pattern}$"}
    return WithJsonSchema({"anyOf": [{"enum": list(typing.get_args(names))}, text, OWN_FUNCTION]})


OWN_FUNCTION: dict[str, Any] = {
    "type": "object",
    "properties": {"module": {"type": "string", "description": "FILE.FUNCTION, a function of your own."}},
    "required": ["module"],
    "additionalProperties": False,
}
Model: Any = _literal(NETWORKS)
DatasetName: Any = _literal(DATASETS)
ModelName = Annotated[Model | str, _or_module(Model), _says_or_module(Model), _schema_or_module(Model)]
SourceName = Annotated[DatasetName | str, _or_module(DatasetName), _says_or_module(DatasetName), _schema_or_module(DatasetName)]
LossName = Annotated[Loss | str, _or_module(Loss), _says_or_module(Loss), _schema_or_module(Loss)]


@dataclass(frozen=True, slots=True)
class CustomMethod:
    """A pruning method of the user's, with its options."""

    reference: str
    options: CustomOptions


def _method(value: Any) -> Any:
    """The name of a method, or a CustomMethod of {module: FILE.FUNCTION, options: {...}}."""
    if isinstance(value, str) and value in METHODS:
        return value
    if isinstance(value, str) and REFERENCE.fullmatch(value):
        return CustomMethod(value, CustomOptions())
    if not isinstance(value, dict) or not {"module"} <= set(value) <= {"module", "options"}:
        raise ValueError("neither a known name nor a module")
    reference, options = f"{PREFIX}{value['module']}", value.get("options", {})
    if not REFERENCE.fullmatch(reference) or not isinstance(options, dict):
        raise ValueError("no reference with a mapping of options")
    for name, one in options.items():
        if not isinstance(name, str) or not all(map(_is_plain, one if isinstance(one, list) else [one])):
            raise ValueError("an option that is no plain value")
    return CustomMethod(reference, CustomOptions.from_mapping(options))


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | str) or (isinstance(value, float) and math.isfinite(value))


def _written(method: Any) -> Any:
    """The method as in a sweep file."""
    if isinstance(method, str):
        return method
    return {"module": method.reference.removeprefix(PREFIX), "options": method.options.to_mapping()}


_MethodName: Any = _literal(METHODS)
_METHOD_RULE = f"one of {', '.join(METHODS)}, {{module: FILE.FUNCTION, options: {{...}}}}"
_METHOD_SCHEMA: dict[str, Any] = {
    "anyOf": [
        {"enum": list(METHODS)},
        {"type": "string", "pattern": f"^{REFERENCE.pattern}$"},
        OWN_FUNCTION
        | {
            "properties": OWN_FUNCTION["properties"]
            | {"options": {"type": "object", "description": "What the function reads as context.options."}}
        },
    ]
}
Methods = Annotated[
    tuple[
        Annotated[_MethodName | CustomMethod, PlainValidator(_method), PlainSerializer(_written), RuleText(_METHOD_RULE)], ...
    ],
    Strict(False),
    Field(min_length=1),
    BeforeValidator(lambda value: value if isinstance(value, list | tuple) else [value]),
    AfterValidator(no_repeats),
    RuleText(f"{_METHOD_RULE}, or a list of them without repeats"),
    WithJsonSchema({"anyOf": [_METHOD_SCHEMA, {"type": "array", "items": _METHOD_SCHEMA, "minItems": 1, "uniqueItems": True}]}),
]


class SpecModel(BaseModel):
    """A mapping of the sweep file. Nothing is converted but 1 for a number and 1.0 for a whole number."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

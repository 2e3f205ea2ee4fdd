"""Types of values in a sweep file that pydantic does not have, each with its rule in words and its JSON Schema."""

from __future__ import annotations

import math
import typing
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self, cast

from annotated_types import Ge, Gt, Lt
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

from orchestrator.spec.yaml_document import LARGEST
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
    """The rule of a field in words, for a rule that is more than type and range."""

    rule: str


def _as_integer(value: Any) -> Any:
    is_whole = isinstance(value, float) and value.is_integer() and abs(value) <= LARGEST
    return int(value) if is_whole else value


def _ascending(values: tuple[int, ...] | None) -> tuple[int, ...] | None:
    if values is not None and list(values) != sorted(set(values)):
        raise ValueError("not ascending")
    return values


def _uri_validator(uri_problem: Callable[[str], str]) -> AfterValidator:
    def check(uri: str) -> str:
        if uri_problem(uri):
            raise ValueError("not allowed in a file")
        return uri

    return AfterValidator(check)


def no_repeats(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(set(values)) < len(values):
        raise ValueError("repeated")
    return values


Integer = Annotated[int, BeforeValidator(_as_integer)]
Positive = Annotated[int, Ge(1), BeforeValidator(_as_integer)]
PositiveFloat = Annotated[float, Gt(0)]
Share = Annotated[float, Gt(0), Lt(1)]
ImageSize = Annotated[int, Ge(8), BeforeValidator(_as_integer)]
Limit = Annotated[int, Ge(10), BeforeValidator(_as_integer)]
Text = Annotated[str, Field(min_length=1)]
SWEEP_NAME = "^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"
SWEEP_NAME_RULE = "at most 100 letters, digits, '.', '_' and '-', beginning with a letter or digit"
SweepName = Annotated[str, Field(pattern=SWEEP_NAME), RuleText(SWEEP_NAME_RULE)]
Uri = Annotated[Text, _uri_validator(uri_problem), RuleText(ANY_RULE)]
StorageUri = Annotated[Text, _uri_validator(storage_uri_problem), RuleText(STORAGE_RULE)]
Milestones = Annotated[
    Annotated[tuple[Positive, ...], Strict(False)] | None,
    AfterValidator(_ascending),
    RuleText("a list of ascending whole numbers >= 1"),
]


def _auto_or(fits: Callable[[float], bool]) -> PlainValidator:
    """Accepts the word auto or a number that fits. A union of types would report one error twice, in pydantic's words."""

    def check(value: Any) -> Any:
        is_number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LARGEST
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
Gpus = Annotated[
    float | Literal["auto"],
    _auto_or(lambda gpus: 0 <= gpus <= 1 or (gpus > 1 and float(gpus).is_integer())),
    RuleText("a share of one GPU in [0, 1], a whole number of GPUs, or auto"),
    WithJsonSchema({"anyOf": [{"type": "number", "minimum": 0, "maximum": 1}, {"type": "integer", "minimum": 1}, AUTO]}),
]


@dataclass(frozen=True, slots=True)
class OrAuto:
    """Marks a number in whose place the word auto may stand, except as a value of an axis."""

    number: Any


def _integer_or_auto(least: int) -> Any:
    """The type of a whole number of at least `least`, or the word auto."""

    def check(value: Any) -> Any:
        number = _as_integer(value)
        if value != "auto" and not (isinstance(number, int) and not isinstance(number, bool) and number >= least):
            raise ValueError("neither auto nor a number that fits")
        return number

    return cast(Any, Annotated)[
        int | Literal["auto"],
        PlainValidator(check),
        OrAuto(Annotated[int, Ge(least), BeforeValidator(_as_integer)]),
        RuleText(f"a whole number >= {least}, or auto"),
        WithJsonSchema({"anyOf": [{"type": "integer", "minimum": least}, AUTO]}),
    ]


WarmupEpochs: Any = _integer_or_auto(0)
Iterations: Any = _integer_or_auto(1)


def _literal(names: Iterable[str]) -> Any:
    """The type of a name in a table."""
    return cast(Any, Literal)[tuple(names)]


def _or_module(names: Any) -> PlainValidator:
    """Accepts one of the names, {module: FILE.FUNCTION}, or the text module:FILE.FUNCTION that it becomes."""

    def check(value: Any) -> Any:
        if isinstance(value, dict) and list(value) == ["module"] and isinstance(value["module"], str):
            value = PREFIX + value["module"]
        if not isinstance(value, str) or not (value in typing.get_args(names) or REFERENCE.fullmatch(value)):
            raise ValueError("neither a known name nor a module")
        return value

    return PlainValidator(check)


def _rule_or_module(names: Any) -> RuleText:
    return RuleText(f"one of {', '.join(typing.get_args(names))}, or {{module: FILE.FUNCTION}}")


def _schema_or_module(names: Any) -> WithJsonSchema:
    text = {"type": "string", "pattern": f"^{REFERENCE.pattern}$"}
    return WithJsonSchema({"anyOf": [{"enum": list(typing.get_args(names))}, text, CUSTOM_FUNCTION]})


CUSTOM_FUNCTION: dict[str, Any] = {
    "type": "object",
    "properties": {"module": {"type": "string", "description": "FILE.FUNCTION, a custom function."}},
    "required": ["module"],
    "additionalProperties": False,
}
Model: Any = _literal(NETWORKS)
DatasetName: Any = _literal(DATASETS)
ModelName = Annotated[Model | str, _or_module(Model), _rule_or_module(Model), _schema_or_module(Model)]
SourceName = Annotated[DatasetName | str, _or_module(DatasetName), _rule_or_module(DatasetName), _schema_or_module(DatasetName)]
LossName = Annotated[Loss | str, _or_module(Loss), _rule_or_module(Loss), _schema_or_module(Loss)]


@dataclass(frozen=True, slots=True)
class CustomMethod:
    """A custom pruning method with its options."""

    reference: str
    options: CustomOptions


def _method(value: Any) -> Any:
    """The name of a method, or a CustomMethod from {module: FILE.FUNCTION, options: {...}}."""
    if isinstance(value, str) and value in METHODS:
        return value
    if isinstance(value, str) and REFERENCE.fullmatch(value):
        return CustomMethod(value, CustomOptions())
    if not isinstance(value, dict) or not {"module"} <= set(value) <= {"module", "options"}:
        raise ValueError("neither a known name nor a module")
    reference, options = f"{PREFIX}{value['module']}", value.get("options", {})
    if not REFERENCE.fullmatch(reference) or not isinstance(options, dict):
        raise ValueError("no reference with a mapping of options")
    for name, option in options.items():
        values = option if isinstance(option, list) else [option]
        if not isinstance(name, str) or not all(map(_is_plain, values)):
            raise ValueError("an option is not a plain value")
    return CustomMethod(reference, CustomOptions.from_mapping(options))


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | str) or (isinstance(value, float) and math.isfinite(value))


def _method_as_in_file(method: Any) -> Any:
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
        CUSTOM_FUNCTION
        | {
            "properties": CUSTOM_FUNCTION["properties"]
            | {"options": {"type": "object", "description": "Passed to the function as context.options."}}
        },
    ]
}
Methods = Annotated[
    tuple[
        Annotated[
            _MethodName | CustomMethod, PlainValidator(_method), PlainSerializer(_method_as_in_file), RuleText(_METHOD_RULE)
        ],
        ...,
    ],
    Strict(False),
    Field(min_length=1),
    BeforeValidator(lambda value: value if isinstance(value, list | tuple) else [value]),
    AfterValidator(no_repeats),
    RuleText(f"{_METHOD_RULE}, or a list of them without repeats"),
    WithJsonSchema({"anyOf": [_METHOD_SCHEMA, {"type": "array", "items": _METHOD_SCHEMA, "minItems": 1, "uniqueItems": True}]}),
]


class SpecModel(BaseModel):
    """A mapping in the sweep file. Values are not converted, except 1 to a number and 1.0 to a whole number."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, defer_build=True)

    @classmethod
    def defaults(cls) -> Self:
        """The mapping with every key at its default; unlike a call it builds no checks, for which every command would wait."""
        return cls.model_construct()

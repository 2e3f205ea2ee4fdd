"""The axes of a sweep: which keys can be searched, and the types of their lists and ranges of values."""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Annotated, Any, cast

from pydantic import (
    AfterValidator,
    BaseModel,
    Discriminator,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    Strict,
    Tag,
    TypeAdapter,
)
from pydantic.fields import FieldInfo
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, SchemaValidator, core_schema

from orchestrator.spec.field_types import OrAuto, Positive, PositiveFloat, no_repeats
from orchestrator.spec.ranges import Axis, Range
from orchestrator.spec.rules import rule_of, without_none
from orchestrator.spec.trial_schema import TrialSpec
from trainables.config.methods import DEFAULT_METHOD, METHODS
from trainables.config.options import Options
from trainables.config.trial import TargetConfig, TrainingConfig, TrialConfig

# A sweep has one data set, and `method` takes a list itself.
FIXED_PER_SWEEP = ("dataset.name", "dataset.image_size", "method", "initial_weights")
DEFAULT_CONFIGURATION_AXES = ("warmup_epochs", "prune_iterations")
_OTHER_SPARSITY = "different sparsities must not be compared: each has a group of its own"
_OTHER_IMAGES = "accuracies on different images must not be compared: each has a group of its own"
# Axis that cannot be part of a configuration -> the reason.
NOT_IN_CONFIGURATION = {
    "seed": "seeds repeat a configuration: write seeds",
    "method": "each method has a group of its own",
    "sparsity": _OTHER_SPARSITY,
    "granularity": "networks that lose weights and channels must not be compared: each granularity has a group of its own",
    **{f"target.{spec.name}": _OTHER_SPARSITY for spec in fields(TargetConfig)},
    "srste.pattern": _OTHER_SPARSITY,
    "dataset.limit": _OTHER_IMAGES,
    "dataset.validation": _OTHER_IMAGES,
    "dataset.split_seed": _OTHER_IMAGES,
}
CONFIG = core_schema.CoreConfig(strict=True, allow_inf_nan=False)


def section_of(annotation: Any) -> type[BaseModel] | None:
    """The model of a section of the sweep file, which may be optional; None for any other type."""
    options = typing.get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
    return next((option for option in options if isinstance(option, type) and issubclass(option, BaseModel)), None)


def schema_keys(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every dotted key of a model with its field, except keys of mappings."""
    for name, field in model.model_fields.items():
        if section := section_of(field.annotation):
            yield from schema_keys(section, f"{prefix}{name}.")
        else:
            yield prefix + name, field


def without_auto(field: FieldInfo) -> FieldInfo:
    """The field of a value of an axis, which is no word auto."""
    mark = next((mark for mark in field.metadata if isinstance(mark, OrAuto)), None)
    if mark is None:
        return field
    number = FieldInfo.from_annotation(mark.number)
    number.description = field.description
    return number


def config_keys(cls: Any = TrialConfig, prefix: str = "") -> Iterator[str]:
    """Every dotted key of a trial's configuration, in the order used in names of trials."""
    hints = typing.get_type_hints(cls)
    for field in fields(cls):
        if hints[field.name] is Options:
            yield from _option_keys(name for name in METHODS if name != DEFAULT_METHOD)
        elif is_dataclass(hints[field.name]):
            yield from config_keys(hints[field.name], f"{prefix}{field.name}.")
        else:
            yield prefix + field.name
        if hints[field.name] is TrainingConfig:
            yield from _option_keys([DEFAULT_METHOD])


def _option_keys(methods: Iterable[str]) -> Iterator[str]:
    for method in methods:
        yield from (f"{method}.{name}" for name in METHODS[method].options.rules())


TRIAL_KEYS = tuple(config_keys())
SEARCHABLE: dict[str, FieldInfo] = {
    key: without_auto(field) for key, field in schema_keys(TrialSpec) if key in TRIAL_KEYS and key not in FIXED_PER_SWEEP
}


def number_type(key: str) -> Any:
    """int or float if the values of a searchable key are numbers, otherwise None."""
    kind = rule_of(SEARCHABLE[key].annotation).kind
    return kind if kind in (int, float) else None


def step_type(key: str) -> Any:
    """The type of the step of a range."""
    return Positive if number_type(key) is int else PositiveFloat


def takes_range(key: str) -> bool:
    """Whether an axis can be a range: its values are numbers, and it can be part of a configuration."""
    return key not in NOT_IN_CONFIGURATION and number_type(key) is not None


class _BySearchableKey:
    """The schema of a mapping with searchable keys: built for the few keys that a sweep has, when it is checked."""

    def rule(self, key: str) -> Any:
        """The type of the value of a key."""
        raise NotImplementedError

    def check(self, value: Any) -> Any:
        """The checked mapping, in the order of the keys of `search`. Raises ValidationError."""
        given = [key for key in SEARCHABLE if key in value] if isinstance(value, dict) else []
        return SchemaValidator(self._schema(given)).validate_python(value)

    def _schema(self, keys: Iterable[str]) -> CoreSchema:
        return _mapping_schema({key: TypeAdapter(self.rule(key)).core_schema for key in keys})

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self.check)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return handler(self._schema(SEARCHABLE))


class Axes(_BySearchableKey):
    """The schema of `search`: searchable key -> list or range of values, each checked by the rule of the key."""

    def rule(self, key: str) -> Any:
        return _axis(key)

    def check(self, value: Any) -> dict[str, Axis]:
        """The checked axes, in the order of the file. Raises ValidationError."""
        checked = super().check(value)
        return {key: checked[key] for key in value}

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self.check, serialization=_serializer(_as_in_file))


class Point(_BySearchableKey):
    """The schema of an entry of `strategy.start_with`: searchable key -> value, checked by the rule of the key."""

    def rule(self, key: str) -> Any:
        return _value(SEARCHABLE[key])


@dataclass(frozen=True, slots=True)
class _RangeOf:
    """The schema of a range of numbers of one type, which the rule of the key bounds."""

    bound: Any
    step: Any

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        bound = handler.generate_schema(self.bound)
        optional = {"step": handler.generate_schema(self.step), "log": core_schema.bool_schema()}
        return core_schema.no_info_after_validator_function(
            lambda values: Range(**values), _mapping_schema(optional, required={"min": bound, "max": bound})
        )


def _mapping_schema(optional: dict[str, CoreSchema], required: dict[str, CoreSchema] | None = None) -> CoreSchema:
    given = {key: core_schema.typed_dict_field(schema, required=True) for key, schema in (required or {}).items()}
    others = {key: core_schema.typed_dict_field(schema, required=False) for key, schema in optional.items()}
    return core_schema.typed_dict_schema(given | others, extra_behavior="forbid", config=CONFIG)


def _serializer(plain: Callable[[Any], Any]) -> Any:
    return core_schema.plain_serializer_function_ser_schema(plain)


def _as_in_file(axes: Mapping[str, Axis]) -> dict[str, Any]:
    return {key: axis.to_mapping() if isinstance(axis, Range) else list(axis) for key, axis in axes.items()}


def _value(field: FieldInfo) -> Any:
    """The type of one value of an axis."""
    return cast(Any, Annotated)[(field.annotation, *field.metadata)] if field.metadata else field.annotation


def _axis(key: str) -> Any:
    """The type of an axis: a list of values or, where the key takes one, a range."""
    field = SEARCHABLE[key]
    annotated, row = cast(Any, Annotated), cast(Any, tuple)  # built at run time, unknown to a type checker
    list_field = Field(min_length=1, description=field.description, json_schema_extra={"uniqueItems": True})
    values = annotated[row[_value(field), ...], Strict(False), list_field, AfterValidator(no_repeats)]
    if not takes_range(key):
        return values
    bound = without_none(field.annotation)
    bound = annotated[(bound, *field.metadata)] if field.metadata else bound
    return annotated[
        annotated[values, Tag("list")] | annotated[Range, _RangeOf(bound, step_type(key)), Tag("range")],
        Discriminator(lambda value: "range" if isinstance(value, dict | Range) else "list"),
        Field(description=field.description),
    ]

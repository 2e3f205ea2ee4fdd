"""Fields of the sweep file for the options of pruning methods, generated from the table of methods."""

from __future__ import annotations

import typing
from collections.abc import Callable
from typing import Annotated, Any, cast

from annotated_types import Ge
from pydantic import AfterValidator, Field, create_model

from orchestrator.spec.field_types import Integer, RuleText, SpecModel
from trainables.config.methods import METHODS
from trainables.config.options import OptionRule, Options


def option_fields() -> dict[str, Any]:
    """Method -> its field in the sweep file, for `pydantic.create_model`; only methods that have options."""
    return {
        method.name: _block(options_model(method.name, method.options), method.description)
        for method in METHODS.values()
        if method.options.rules()
    }


def options_model(name: str, options: type[Options]) -> type[SpecModel]:
    """The model that validates one method's options."""
    hints = typing.get_type_hints(options)
    fields = {key: _field(hints[key], rule, options.default(key)) for key, rule in options.rules().items()}
    return create_model(name.capitalize(), __base__=SpecModel, **cast(Any, fields))


def _block(model: type[SpecModel], description: str) -> Any:
    return model, Field(default=model.defaults(), description=description)


def _field(hint: Any, rule: OptionRule, default: Any) -> Any:
    bounds = dict(rule.bounds)
    annotated = cast(Any, Annotated)  # built at run time: nothing for a type checker
    if hint is int:
        hint = Integer
    elif hint == int | None:
        hint = annotated[(int, Ge(bounds.pop("ge")), *cast(Any, Integer).__metadata__)] | None
    metadata = ([AfterValidator(_validator(rule.check))] if rule.check else []) + ([RuleText(rule.rule)] if rule.rule else [])
    if metadata:
        hint = annotated[(hint, *metadata)]
    return hint, Field(default=default, description=rule.description, pattern=rule.pattern, **cast(Any, bounds))


def _validator(check: Callable[[Any], None]) -> Callable[[Any], Any]:
    def validate(value: Any) -> Any:
        check(value)
        return value

    return validate

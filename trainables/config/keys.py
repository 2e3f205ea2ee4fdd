"""Canonical form of a configuration, and the keys that identify trials and warm-ups by content.

Equal configurations on equal data have equal keys, on any machine and under any path.
"""

from __future__ import annotations

import hashlib
import json
import types
import typing
from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass, replace
from typing import Any, TypeVar

from trainables.config.lookup import is_method, method_of, option_block
from trainables.config.methods import DEFAULT_METHOD
from trainables.config.options import CustomOptions
from trainables.config.trial import IterationsConfig, SanityConfig, TrainingConfig, TrialConfig

# Increased by hand when a change to a component changes any result; tests/trainables/trial/test_golden.py fails otherwise.
NUMERICS: dict[str, int] = {"data": 1, "models": 1, "scores": 2, "training": 1}

Config = TypeVar("Config")


def canonical(config: Any) -> dict[str, Any]:
    """The fields of a config that differ from their default, nested, in the type of the field (1 for a float is 1.0).

    Defaults are left out so that old keys stay valid when an option is added; therefore a default must never change.
    """
    hints = _hints(type(config))
    kept: dict[str, Any] = {}
    for spec in fields(config):
        value = getattr(config, spec.name)
        if is_dataclass(value):
            if nested := value.to_mapping() if isinstance(value, CustomOptions) else canonical(value):
                kept[_key_of_field(config, spec.name)] = nested
            continue
        value = _typed(value, hints[spec.name])
        if value != spec.default:
            kept[spec.name] = list(value) if isinstance(value, tuple) else value
    return kept


def complete(config: TrialConfig) -> dict[str, Any]:
    """Every field, nested, including defaults, as in `status --json`."""
    values = asdict(config)
    options = values.pop("options")
    if isinstance(config.options, CustomOptions):
        options = config.options.to_mapping()
    return values | ({config.option_block: options} if options else {})


def _key_of_field(config: Any, field: str) -> str:
    """The field's name; options are in a block with the name of their method."""
    return config.option_block if isinstance(config, TrialConfig) and field == "options" else field


def from_canonical(cls: type[Config], values: dict[str, Any]) -> Config:
    """The config whose canonical form is `values`. Raises TypeError for an unknown field."""
    hints = _hints(cls)
    if cls is TrialConfig:
        values = _with_options(values)
    unknown = sorted(set(values) - set(hints))
    if unknown:
        raise TypeError(f"{cls.__name__} has no field {unknown[0]!r}; known are {', '.join(hints)}")
    typed: dict[str, Any] = {}
    for name, value in values.items():
        if is_dataclass(hints[name]) and isinstance(value, dict):
            typed[name] = from_canonical(typing.cast(type[Any], hints[name]), value)
        else:
            typed[name] = _typed(tuple(value) if isinstance(value, list) else value, hints[name])
    return cls(**typed)


def _with_options(values: dict[str, Any]) -> dict[str, Any]:
    """The values with the options of the trial's method as `options`, as in a TrialConfig."""
    method = values.get("method", DEFAULT_METHOD)
    if not isinstance(method, str) or not is_method(method):
        raise TypeError(f"there is no method {method!r}")
    block, options_class = option_block(method), method_of(method).options
    options = values.get(block, {})
    if not isinstance(options, dict) or (block != "options" and "options" in values):
        raise TypeError(f"options of method {method} must be a mapping with its name")
    others = {name: value for name, value in values.items() if name != block}
    if options_class is CustomOptions:
        return others | {"options": CustomOptions.from_mapping(options)}
    return others | {"options": from_canonical(options_class, options)}


_HINTS: dict[type[Any], dict[str, Any]] = {}  # cache; resolving annotations takes longer than hashing a trial


def _hints(cls: type[Any]) -> dict[str, Any]:
    if cls not in _HINTS:
        _HINTS[cls] = typing.get_type_hints(cls)
    return _HINTS[cls]


def _typed(value: Any, hint: Any) -> Any:
    """The value in the type of its field, so that 1 and 1.0 are the same value of a float."""
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if float in options and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if int in options and float not in options and isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def trial_key(config: TrialConfig, data_digest: str) -> str:
    """16 hex digits that name the trial: a hash of its configuration, its data and the numerics of the code.

    Args:
        data_digest: `inputs_digest` of it if there are custom files.
    """
    return _digest({"config": canonical(config), "data": data_digest, "numerics": NUMERICS})


def warmup_key(config: TrialConfig, data_digest: str) -> str:
    """16 hex digits shared by all trials whose dense training starts in the same way, whatever its length."""
    training = config.training
    prefix = {
        "dataset": canonical(config.dataset),
        "model": config.model,
        "seed": int(config.seed),
        "precision": config.precision,
        "lr": float(config.warmup_lr),
        "batch_size": int(training.batch_size),
        "momentum": float(training.momentum),
        "nesterov": training.nesterov,
        "weight_decay": float(training.weight_decay),
    }
    # Options that were added later are left out at their default, so that older keys stay valid.
    non_default = canonical(config)
    added = ("width", "block", "initialization", "initial_weights", "norm_parts")
    prefix |= {name: non_default[name] for name in added if name in non_default}
    later = non_default.get("training", {})
    prefix |= {name: later[name] for name in ("label_smoothing", "clip_norm", "loss", "spiking") if name in later}
    numerics = {name: NUMERICS[name] for name in ("data", "models", "training")}
    return _digest({"prefix": prefix, "data": data_digest, "numerics": numerics})


def warmup_rule(config: TrialConfig) -> TrialConfig:
    """What decides when the automatic warm-up of a trial ends; all else at its default, so that equal rules compare equal."""
    default = TrainingConfig()
    schedule = ("epochs", "milestones", "gamma", "budget", "schedule", "lr_warmup_epochs")
    return replace(
        config,
        prune_iterations=1,
        iterations=IterationsConfig(),
        rewind="none",
        sanity=SanityConfig(invert=config.sanity.invert),
        training=replace(config.training, **{name: getattr(default, name) for name in schedule}),
    )


def warmup_rule_key(rule: TrialConfig, custom: Mapping[str, str]) -> str:
    """16 hex digits that name a `warmup_rule` among those of its warm-up.

    Args:
        custom: what stands for custom files, by key (CustomFiles.identities_of).
    """
    return _digest({"rule": canonical(rule), "custom": dict(custom), "numerics": NUMERICS})


def inputs_digest(data_digest: str, custom: Mapping[str, str], versions: Mapping[str, int] | None = None) -> str:
    """Digest of what decides a trial's numbers besides the configuration; only the data's digest if there is nothing else.

    Args:
        custom: what stands for custom files, by key (CustomFiles.identities_of). A data set's module is already in the data's
            digest.
        versions: of rules that changed only for this configuration on this data, such as SPLIT_VERSION.
    """
    digests: dict[str, str | int] = {key: digest for key, digest in custom.items() if key != "dataset"}
    digests |= versions or {}
    if not digests:
        return data_digest
    return hashlib.sha256(json.dumps(digests | {"data": data_digest}, sort_keys=True).encode()).hexdigest()[:32]


def _digest(content: dict[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def flatten(nested: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested configuration -> dotted keys."""
    values: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, dict):
            values |= flatten(value, f"{prefix}{key}.")
        else:
            values[prefix + key] = value
    return values

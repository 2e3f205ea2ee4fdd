"""Names of trials, for people."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from orchestrator.spec.axes import TRIAL_KEYS
from trainables.config.lookup import is_option
from trainables.config.methods import DENSE, METHODS
from trainables.config.options import CustomOptions
from trainables.config.trial import AXES, Label, TrialConfig
from trainables.custom.references import PREFIX


def trial_names(configs: Sequence[TrialConfig], outline: Sequence[TrialConfig] = ()) -> list[str]:
    """A readable name for each trial, such as w04-i050-s0.95-r0 or dense-r0, unique within `configs`.

    w is warmup_epochs, i prune_iterations, s sparsity, r seed. The method comes first if there are several; other keys that
    vary follow as -lr0.1.

    Args:
        outline: trials that decide which keys vary, where others may join `configs` later.
    """
    values = [dotted_values(config) for config in configs]
    style = _Style.of(outline, [dotted_values(config) for config in outline]) if outline else _Style.of(configs, values)
    names = [style.name(config, one) for config, one in zip(configs, values, strict=True)]
    assert len(set(names)) == len(set(configs)), "two trials with one name"
    return names


@dataclass(frozen=True, kw_only=True, slots=True)
class _Style:
    """What the names of a sweep's trials show.

    Attributes:
        width_w, width_i: digits of the warm-up and of the iterations.
        varying: is the trial dense -> keys that vary, with their labels.
    """

    several_methods: bool
    width_w: int
    width_i: int
    varying: Mapping[bool, Mapping[str, str]]

    @classmethod
    def of(cls, configs: Sequence[TrialConfig], all_values: Sequence[dict[str, Any]]) -> _Style:
        pruned = [config for config in configs if not config.is_dense]
        return cls(
            several_methods=len({config.method for config in pruned}) > 1,
            width_w=max((2, *(len(str(config.warmup_label)) for config in pruned))),
            width_i=max((3, *(len(str(config.iterations_label)) for config in pruned))),
            varying={
                dense: _varying(
                    [values for config, values in zip(configs, all_values, strict=True) if config.is_dense is dense]
                )
                for dense in (True, False)
            },
        )

    def name(self, config: TrialConfig, values: dict[str, Any]) -> str:
        name = DENSE
        if not config.is_dense:
            name = f"{short_value(config.method)}-" if self.several_methods else ""
            name += f"w{_padded(config.warmup_label, self.width_w)}"
            if config.pruning.course.uses_iterations:
                name += f"-i{_padded(config.iterations_label, self.width_i)}"
            name += f"-s{config.sparsity!r}"
        varied = self.varying[config.is_dense]
        others = [f"-{label}{short_value(values[key])}" for key, label in varied.items() if _is_used(key, config, values)]
        return f"{name}-r{config.seed}{''.join(others)}"


def _padded(label: Label, width: int) -> str:
    """A number with leading zeros; the word auto as it is."""
    return f"{label:0{width}}" if isinstance(label, int) else label


def dotted_values(config: TrialConfig) -> dict[str, Any]:
    """Dotted key -> value, for every key of a configuration."""
    values = {key: value_at(config, key) for key in TRIAL_KEYS}
    if isinstance(config.options, CustomOptions):
        values |= {f"{config.option_block}.{name}": value for name, value in config.options.values}
    return values


def value_at(config: TrialConfig, key: str) -> Any:
    """The value of a key; the default if it is another method's option."""
    if not is_option(key):
        return attrgetter(key)(config)
    block, _, name = key.partition(".")
    return getattr(config.options, name) if block == config.method else METHODS[block].options.default(name)


def _varying(values: list[dict[str, Any]]) -> dict[str, str]:
    """Keys other than the named axes that differ between trials -> their label in names: the last part if it is unambiguous."""
    keys = dict.fromkeys((*TRIAL_KEYS, *itertools.chain(*values)))
    varying = [key for key in keys if key not in (*AXES, "method") and len({value.get(key) for value in values}) > 1]
    last_parts = [key.rpartition(".")[2] for key in varying]
    return {key: last if last_parts.count(last) == 1 else key for key, last in zip(varying, last_parts, strict=True)}


def _is_used(key: str, config: TrialConfig, values: dict[str, Any]) -> bool:
    """Whether the trial's method uses the key: a target only by channels, an option only by its own method."""
    if key.startswith("target.") and values.get(key) is None:
        return False
    return not is_option(key) or (key in values and key.partition(".")[0] == config.option_block)


def short_value(value: Any) -> str:
    if isinstance(value, str):
        return value.replace(" ", "").removeprefix(PREFIX)
    return "none" if value is None else json.dumps(value, separators=(",", ":"))

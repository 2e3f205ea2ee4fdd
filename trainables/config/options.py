"""Declares the options of a pruning method once, with type, default, range and meaning.

The checks of the sweep file, its JSON Schema and trial keys are derived from these declarations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import MISSING, dataclass, field
from dataclasses import fields as dataclass_fields
from functools import cache
from typing import Any, Literal

DensitySchedule = Literal["exponential", "linear"]
BatchNormMode = Literal["batch", "running"]


@dataclass(frozen=True, kw_only=True, slots=True)
class OptionRule:
    """The rule of an option, besides its type.

    Attributes:
        description: one sentence for the sweep file's schema.
        bounds: any of `ge`, `gt`, `le`, `lt`.
        pattern: regular expression that a text must match.
        rule: the rule in words, if it is more than type, bounds and choices.
        check: raises ValueError for an invalid value that has the right type and matches the pattern.
        decides_preflight: whether the preflight check of a network depends on the option.
    """

    description: str
    bounds: dict[str, float]
    pattern: str | None = None
    rule: str = ""
    check: Callable[[Any], None] | None = None
    decides_preflight: bool = False


def option(
    default: Any,
    description: str,
    *,
    pattern: str | None = None,
    rule: str = "",
    check: Callable[[Any], None] | None = None,
    decides_preflight: bool = False,
    **bounds: float,
) -> Any:
    """A field of an `Options` class. The default must never change: options at their default are not part of the trial key."""
    declared = OptionRule(
        description=description, bounds=bounds, pattern=pattern, rule=rule, check=check, decides_preflight=decides_preflight
    )
    return field(default=default, metadata={"rule": declared})


@dataclass(frozen=True, slots=True)
class OptionConflict:
    """Options of a method that do not fit together: their names, the rule that the first one breaks, and a hint."""

    names: tuple[str, ...]
    rule: str
    hint: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """Options of a pruning method. The base class is for methods without options; subclasses declare fields with `option`.

    The methods below are the interface to the rest of the program; their defaults suit most pruning methods.
    """

    @classmethod
    @cache
    def rules(cls) -> dict[str, OptionRule]:
        """Name -> rule of every option."""
        return {spec.name: spec.metadata["rule"] for spec in dataclass_fields(cls) if "rule" in spec.metadata}

    @classmethod
    def default(cls, name: str) -> Any:
        value = next(spec.default for spec in dataclass_fields(cls) if spec.name == name)
        assert value is not MISSING
        return value

    def conflicts(self) -> Iterator[OptionConflict]:
        """Conflicts between options."""
        return iter(())

    def fixed_sparsity(self) -> float | None:
        """The sparsity that the options determine; None if the trial's `sparsity` applies."""
        return None

    def kept_in_layer(self, shape: tuple[int, ...]) -> int | None:
        """Weights kept in a layer of this shape; None if only their number in the whole network is fixed."""
        return None

    def weight_conflicts(self) -> Iterator[OptionConflict]:
        """Options that only the pruning of single weights knows."""
        return iter(())

    def compensation_conflicts(self) -> Iterator[OptionConflict]:
        """Options that do not fit a network whose layers are fitted to the channels that remain."""
        return iter(())

    def implant_share(self) -> float:
        """Of the channels that pruning affects, the share that become implants instead of being removed."""
        return 0.0

    def additional_numbers(self, shapes: Iterable[tuple[int, ...]]) -> int:
        """About how many numbers the training has besides the network's, from the shapes (O, I, ...) of its weights."""
        return 0

    def levels(self, sparsity: float) -> int:
        """How often a method of course LEVELS trains, prunes and rewinds."""
        return 0

    def kept_after_level(self, level: int, prunable: int) -> int | None:
        """Weights kept after a level; None if a density schedule over all levels determines it."""
        return None

    def nm_pattern(self) -> str | None:
        """ "N:M" if N of every M weights are kept; the format in which the sparse model is saved."""
        return None


@dataclass(frozen=True, kw_only=True, slots=True)
class Rounds(Options):
    """Options of a method that scores in rounds."""

    density_schedule: DensitySchedule = option("exponential", "How the share of kept weights decreases over the iterations.")


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageRounds(Rounds):
    """Options of a method that scores in rounds, on images."""

    score_batches: int = option(1, "Training batches of a score, if images_per_class is not set.", ge=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class CustomOptions(Options):
    """Options of a custom function: names with numbers, texts, booleans, null, or lists of these; not checked further."""

    values: tuple[tuple[str, Any], ...] = ()

    @staticmethod
    def from_mapping(values: Mapping[str, Any]) -> CustomOptions:
        """The options sorted by name, so that equal options compare equal; lists become tuples."""
        pairs = ((name, tuple(value) if isinstance(value, list) else value) for name, value in sorted(values.items()))
        return CustomOptions(values=tuple(pairs))

    def to_mapping(self) -> dict[str, Any]:
        return {name: list(value) if isinstance(value, tuple) else value for name, value in self.values}

"""How the options of a pruning method are declared: once, with type, default, range and meaning.

The sweep file's checks, its JSON Schema and the keys of trials are derived from these declarations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, dataclass, field
from dataclasses import fields as dataclass_fields
from typing import Any, Literal

DensitySchedule = Literal["exponential", "linear"]
BatchNormMode = Literal["batch", "running"]


@dataclass(frozen=True, kw_only=True, slots=True)
class OptionRule:
    """What a value must be, besides its type.

    Attributes:
        description: one sentence for the sweep file's schema.
        bounds: of `ge`, `gt`, `le`, `lt`, those that hold.
        pattern: regular expression that a text matches.
        rule: the rule in words, where type, bounds and choices do not tell it.
        check: raises ValueError for a value of the right type and pattern that is still wrong.
        decides_preflight: the check of a network before the sweep depends on it.
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
    """A field of an `Options` class. Its default never changes its meaning: it is left out of keys."""
    declared = OptionRule(
        description=description, bounds=bounds, pattern=pattern, rule=rule, check=check, decides_preflight=decides_preflight
    )
    return field(default=default, metadata={"rule": declared})


@dataclass(frozen=True, slots=True)
class OptionConflict:
    """Options of one method that cannot go together: their names, the rule of the first one and a hint."""

    names: tuple[str, ...]
    rule: str
    hint: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """Options of a pruning method; as it is, of a method without any. Subclasses declare fields with `option`.

    The functions are what the rest of the program asks of a method's options; the defaults suit most methods.
    """

    @classmethod
    def rules(cls) -> dict[str, OptionRule]:
        """Name -> rule, of every option."""
        return {one.name: one.metadata["rule"] for one in dataclass_fields(cls) if "rule" in one.metadata}

    @classmethod
    def default(cls, name: str) -> Any:
        value = next(one.default for one in dataclass_fields(cls) if one.name == name)
        assert value is not MISSING
        return value

    def conflicts(self) -> Iterator[OptionConflict]:
        """Rules over several options that are broken."""
        return iter(())

    def fixed_sparsity(self) -> float | None:
        """The sparsity that follows from the options; None where it is the trial's own."""
        return None

    def kept_in_layer(self, shape: tuple[int, ...]) -> int | None:
        """Weights kept of a layer of this shape; None where only their number in the whole network is fixed."""
        return None

    def levels(self, sparsity: float) -> int:
        """Times that a method of course LEVELS trains, prunes and rewinds."""
        return 0

    def kept_after_level(self, level: int, prunable: int) -> int | None:
        """Weights kept after a level; None where a density schedule over all levels says it."""
        return None

    def nm_pattern(self) -> str | None:
        """ "N:M" where every M weights keep N; the sparse model is saved as such."""
        return None


@dataclass(frozen=True, kw_only=True, slots=True)
class Rounds(Options):
    """Options of a method that scores in rounds."""

    density_schedule: DensitySchedule = option("exponential", "How the share of kept weights falls over the iterations.")


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageRounds(Rounds):
    """Options of rounds whose scores are taken over images."""

    score_batches: int = option(1, "Training batches of one score, where it has no images_per_class.", ge=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class CustomOptions(Options):
    """Options of a function of the user's: names with numbers, texts, booleans, null, or lists of them; not checked further."""

    values: tuple[tuple[str, Any], ...] = ()

    @staticmethod
    def from_mapping(values: Mapping[str, Any]) -> CustomOptions:
        """The options in the order of their names, so that equal ones are equal; lists become tuples."""
        pairs = ((name, tuple(value) if isinstance(value, list) else value) for name, value in sorted(values.items()))
        return CustomOptions(values=tuple(pairs))

    def to_mapping(self) -> dict[str, Any]:
        return {name: list(value) if isinstance(value, tuple) else value for name, value in self.values}

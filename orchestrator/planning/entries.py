"""What a plan lists: trials, shared warm-ups, and trials that a search stopped early."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from trainables.config.trial import TrialConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedTrial:
    """A trial of the sweep; key and warmup_key are empty while the data digest is not known."""

    name: str
    config: TrialConfig
    key: str
    warmup_key: str
    result: dict[str, Any] | None = None

    @property
    def uses_shared_warmup(self) -> bool:
        return bool(self.config.warmup_lengths)


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedWarmup:
    """A shared warm-up: the lengths at which its trials read it, and the configuration of any of them."""

    key: str
    name: str
    config: TrialConfig
    lengths: tuple[int, ...]
    trials: int


@dataclass(frozen=True, kw_only=True, slots=True)
class EarlyStop:
    """Why a search stopped a trial, after so many sparse epochs."""

    epoch: int
    reason: str

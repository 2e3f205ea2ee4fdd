"""The state of a sweep: its trials and warm-ups, as state.json stores them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from orchestrator.state.driver_liveness import driver_alive

DIGEST_MARK, DIGEST_END = b',\n"state_sha256": "', b'"\n}\n'  # around the SHA-256 of all that stands before it


@dataclass(kw_only=True, slots=True)
class TrialStatus:
    """One line of `status --json`; metrics holds the last value by full metric name.

    Attributes:
        rung: sparse epochs after which a search stopped the trial early; None of one that was stopped otherwise.
    """

    key: str
    name: str
    state: str
    config: dict[str, Any]
    metrics: dict[str, float] = field(default_factory=dict)
    mlflow_run_id: str | None = None
    model_sha256: str | None = None
    error: str | None = None
    phase: str | None = None
    position: int = 0
    rung: int | None = None

    @property
    def was_stopped_early(self) -> bool:
        return self.state == "stopped" and self.rung is not None


@dataclass(kw_only=True, slots=True)
class WarmupStatus:
    key: str
    name: str
    state: str
    epochs: int
    position: int = 0
    trained_epochs: int = 0
    mlflow_run_id: str | None = None
    error: str | None = None


@dataclass(kw_only=True, slots=True)
class SweepState:
    """The content of state.json.

    Attributes:
        search: group -> what its search is doing, in words; empty where the trials are known beforehand.
        settled: no further trials will join.
        recommendations: of each group with results: group, sentence, details.
    """

    sweep: str
    trials: dict[str, TrialStatus] = field(default_factory=dict)
    warmups: dict[str, WarmupStatus] = field(default_factory=dict)
    tracking_pending: int = 0
    tracking_error: str | None = None
    tracking_cpu_seconds: float = 0.0
    parent_run_id: str | None = None
    experiment_id: str | None = None
    tracking_database: int = 0  # number of the SQLite database that run ids and experiment are of; 0 elsewhere
    driver: dict[str, Any] = field(default_factory=dict)
    search: dict[str, str] = field(default_factory=dict)
    settled: bool = True
    recommendations: list[dict[str, Any]] = field(default_factory=list)

    def counts(self) -> dict[str, int]:
        states = [trial.state for trial in self.trials.values()]
        return {state: states.count(state) for state in ("finished", "failed", "stopped", "running", "waiting")}

    @property
    def stopped_early(self) -> int:
        """Trials that a search stopped, which are among the stopped ones."""
        return sum(trial.was_stopped_early for trial in self.trials.values())

    @property
    def is_complete(self) -> bool:
        """Whether nothing is left to run."""
        return self.settled and all(trial.state == "finished" or trial.was_stopped_early for trial in self.trials.values())

    def all_stages(self) -> list[TrialStatus | WarmupStatus]:
        return [*self.trials.values(), *self.warmups.values()]

    def to_status(self) -> dict[str, Any]:
        """The answer of `status --json`."""
        return {
            "sweep": self.sweep,
            "total": len(self.trials),
            **self.counts(),
            "stopped_early": self.stopped_early,
            "tracking_pending": self.tracking_pending,
            "tracking_error": self.tracking_error,
            "driver_alive": driver_alive(self.driver),
            "search": self.search,
            "settled": self.settled,
            "recommendations": self.recommendations,
            "warmups": [asdict(warmup) for warmup in self.warmups.values()],
            "trials": [asdict(trial) for trial in self.trials.values()],
        }


def state_to_bytes(state: SweepState, texts: dict[str, str]) -> bytes:
    """The content of state.json: a line for every trial and warm-up. `texts` caches the lines by key, and is filled."""
    for entry in state.all_stages():
        if entry.key not in texts:
            texts[entry.key] = json.dumps(asdict(entry))
    lines = {
        "trials": [f'"{key}": {texts[key]}' for key in state.trials],
        "warmups": [f'"{key}": {texts[key]}' for key in state.warmups],
    }
    others = asdict(replace(state, trials={}, warmups={}))
    fields = [f'"{name}": {json.dumps(value)}' for name, value in others.items() if name not in lines]
    fields += [f'"{name}": {{\n' + ",\n".join(entries) + "\n}" for name, entries in lines.items()]
    text = ("{\n" + ",\n".join(fields)).encode()
    return text + DIGEST_MARK + hashlib.sha256(text).hexdigest().encode() + DIGEST_END


def state_from_bytes(content: bytes) -> SweepState | None:
    """The state in a state.json; None if it is damaged. Earlier versions wrote no digest."""
    text, mark, digest = content.rpartition(DIGEST_MARK)
    if mark and digest != hashlib.sha256(text).hexdigest().encode() + DIGEST_END:
        return None
    try:
        values = json.loads(text + b"}" if mark else content)
        trials = {key: TrialStatus(**trial) for key, trial in values.pop("trials").items()}
        warmups = {key: WarmupStatus(**warmup) for key, warmup in values.pop("warmups").items()}
        return SweepState(**values, trials=trials, warmups=warmups)
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
        return None

"""The state of a sweep: its trials and warm-ups, as state.json stores them."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from orchestrator.state.driver_liveness import driver_alive
from trainables.config.metric_names import CHOSEN_WARMUP
from trainables.runtime.json_text import parse_json

DIGEST_MARK, DIGEST_END = b',\n"state_sha256": "', b'"\n}\n'  # around the SHA-256 of all that stands before it


@dataclass(kw_only=True, slots=True)
class TrialStatus:
    """One line of `status --json`; metrics holds the last value by full metric name.

    Attributes:
        failure: of a failed trial, the kind of its failure; None where an older version wrote the state.
        place: FILE:LINE of its error; empty where that is not known.
        rung: sparse epochs after which a search stopped the trial early; None of one that was stopped otherwise.
        started: Unix time at which the running attempt began; None while none runs.
        seconds: that its ended attempts have held a slot.
    """

    key: str
    name: str
    state: str
    config: dict[str, Any]
    metrics: dict[str, float] = field(default_factory=dict)
    mlflow_run_id: str | None = None
    model_sha256: str | None = None
    error: str | None = None
    failure: str | None = None
    place: str = ""
    phase: str | None = None
    position: int = 0
    rung: int | None = None
    started: float | None = None
    seconds: float = 0.0

    @property
    def was_stopped_early(self) -> bool:
        return self.state == "stopped" and self.rung is not None

    @property
    def warmup_epochs(self) -> int:
        """Epochs of its warm-up; of an automatic one those that it chose, or the most while it has not."""
        return int(self.metrics.get(CHOSEN_WARMUP, self.config["warmup_epochs"]))

    @property
    def sparse_epochs(self) -> int:
        """Epochs of training after pruning, as planned."""
        training = self.config["training"]
        return int(training["epochs"]) - (self.warmup_epochs if training["budget"] == "total" else 0)

    @property
    def has_used_warmup(self) -> bool:
        """Whether it got through its warm-up."""
        return self.state == "finished" or self.phase in ("prune", "level", "train")


@dataclass(kw_only=True, slots=True)
class WarmupStatus:
    """One shared warm-up; `started` and `seconds` are as of a trial."""

    key: str
    name: str
    state: str
    epochs: int
    position: int = 0
    trained_epochs: int = 0
    mlflow_run_id: str | None = None
    error: str | None = None
    started: float | None = None
    seconds: float = 0.0


@dataclass(kw_only=True, slots=True)
class Progress:
    """How far a sweep has come, as far as its trials do not say it.

    Attributes:
        slots: stages that can run at once; None before the cluster has said it.
        workers_per_trial: processes that train a stage together, and so hold a slot.
        seconds: that drivers of this sweep have run, all together.
        seconds_left: the least and the most that the rest will probably take; None while that is not known.
        left_unknown: why it is not known.
        search_epochs: that the search has trained; None of other sweeps.
        grid_epochs: that its full grid would train; None if it is infinite.
        last_error: the newest failure of a stage, in one line.
    """

    slots: int | None = None
    workers_per_trial: int = 1
    seconds: float = 0.0
    seconds_left: tuple[float, float] | None = None
    left_unknown: str = ""
    search_epochs: int | None = None
    grid_epochs: int | None = None
    last_error: str | None = None


@dataclass(kw_only=True, slots=True)
class SweepState:
    """The content of state.json.

    Attributes:
        search: group -> what its search is doing, in words; empty where the trials are known beforehand.
        settled: no further trials will join.
        groups: names of all groups whose configurations are compared, in the order of the sweep file.
        pause: the error that has paused the last run: its kind, message and place, the names of two trials, and the file of
            the user's to which it belongs; empty if none has.
        recommendations: of each group with results: group, sentence, details, and its short form.
    """

    sweep: str
    trials: dict[str, TrialStatus] = field(default_factory=dict)
    warmups: dict[str, WarmupStatus] = field(default_factory=dict)
    tracking_pending: int = 0
    tracking_error: str | None = None
    tracking_cpu_seconds: float = 0.0
    parent_run_id: str | None = None
    experiment_id: str | None = None
    identity: str = ""  # of the storage, if its runs go to a tracking server (state/storage_identity.py)
    tracking_database: int = 0  # number of the SQLite database that run ids and experiment are of; 0 elsewhere
    driver: dict[str, Any] = field(default_factory=dict)
    search: dict[str, str] = field(default_factory=dict)
    settled: bool = True
    recommendations: list[dict[str, Any]] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    pause: dict[str, Any] = field(default_factory=dict)
    progress: Progress = field(default_factory=Progress)

    def counts(self) -> dict[str, int]:
        states = [trial.state for trial in self.trials.values()]
        return {state: states.count(state) for state in ("finished", "failed", "stopped", "running", "waiting")}

    @property
    def busy(self) -> int:
        """Slots that are in use."""
        return sum(stage.state == "running" for stage in self.all_stages())

    def slot_seconds(self, now: float) -> float:
        """Seconds that stages have held a slot, those that run included."""
        stages = self.all_stages()
        return sum(stage.seconds for stage in stages) + sum(
            max(0.0, now - stage.started) for stage in stages if stage.state == "running" and stage.started is not None
        )

    @property
    def saved_by_sharing(self) -> int:
        """Epochs of warm-up that trials have used so far, less those that were trained for them; 0 until it has paid."""
        if not self.warmups:
            return 0
        used = sum(trial.warmup_epochs for trial in self.trials.values() if trial.has_used_warmup)
        trained = sum(one.position or (one.epochs if one.state == "finished" else 0) for one in self.warmups.values())
        return max(0, used - trained)

    @property
    def saved_by_stopping(self) -> int:
        """Epochs that trials had left when a search stopped them."""
        stopped = (trial for trial in self.trials.values() if trial.was_stopped_early)
        return sum(max(0, trial.sparse_epochs - (trial.rung or 0)) for trial in stopped)

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
            "groups": self.groups,
            "pause": self.pause,
            "progress": asdict(self.progress)
            | {
                "busy": self.busy,
                "slot_seconds": self.slot_seconds(time.time()),
                "epochs_saved_by_sharing": self.saved_by_sharing,
                "epochs_saved_by_stopping": self.saved_by_stopping,
            },
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
        values = parse_json(text + b"}" if mark else content)
        trials = {key: TrialStatus(**trial) for key, trial in values.pop("trials").items()}
        warmups = {key: WarmupStatus(**warmup) for key, warmup in values.pop("warmups").items()}
        progress = Progress(**values.pop("progress", {}))
        return SweepState(**values, trials=trials, warmups=warmups, progress=progress)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None

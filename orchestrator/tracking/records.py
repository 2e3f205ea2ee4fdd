"""One child run of a sweep, and its record in the storage: a trial's folder, or the snapshots of a shared warm-up."""

from __future__ import annotations

import hashlib
import json
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.state.warmup_points import warmup_points
from orchestrator.storage.base import Storage
from orchestrator.storage.layout import trial_file
from trainables.records.failure_record import read_failure
from trainables.records.file_names import ERROR, LATENCY, METRICS, MODEL, RESULT
from trainables.records.latency_record import decode_latency, latency_points, latency_text
from trainables.records.metrics import DamagedRecordError, Point, points_from_lines
from trainables.records.result_record import decode_result, metrics_damage


@dataclass(frozen=True, kw_only=True)
class RunSpec:
    """One child run.

    Attributes:
        key: trial key or warm-up key.
        name: run name, such as w04-i050-s0.95-r0 or warmup-r0-3fa9c1.
        role: "trial" or "warmup".
        params: search axes, method, model, dataset, seed; MLflow never changes a param.
    """

    key: str
    name: str
    role: str
    params: dict[str, str]
    tags: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """What the storage holds of a trial or a warm-up; result and error are empty where there is none.

    Attributes:
        digest: changes when anything of the record does.
        damage: which file is damaged, and how; its content is empty then.
        latency: a line for each measurement.
        start_ms, end_ms: recorded Unix time in milliseconds; None if there is none.
    """

    storage: Storage
    key: str
    points: list[Point]
    digest: str
    damage: str = ""
    result: dict[str, Any] = field(default_factory=dict)
    error: dict[str, Any] = field(default_factory=dict)
    latency: tuple[str, ...] = ()

    @property
    def start_ms(self) -> int | None:
        if self.result:
            return int(self.result["started_ms"])
        times = [point.time_ms for point in self.points]
        return min(times, default=self.end_ms)

    @property
    def end_ms(self) -> int | None:
        if self.result:
            return int(self.result["finished_ms"])
        times = [point.time_ms for point in self.points]
        return max([*times, int(self.error.get("time", 0))], default=None) or None

    @property
    def dataset_name(self) -> str:
        return str(self.result["config"]["dataset"]["name"])

    @property
    def dataset_digest(self) -> str:
        """Content digest of the data of a finished trial; MLflow takes 36 characters."""
        return str(self.result.get("data_digest") or "unknown")[:36]

    def file_mismatch(self, model: Path | None = None) -> str:
        """The mismatch between a finished trial's points, or its model file, and its result; empty if they match.

        An attempt that was cut off may have written one file later than that (TrialFolder).
        """
        if self.damage:
            return self.damage
        if model is not None and model.stat().st_size != self.result["model_bytes"]:
            return f"{MODEL} has {model.stat().st_size} bytes and not {self.result['model_bytes']}"
        return ""

    def model_file(self) -> AbstractContextManager[Path | None]:
        """The model file of a finished trial, for as long as the block lasts; None if there is none."""
        return self.storage.local_copy(trial_file(self.key, MODEL))


def read_record(storage: Storage, role: str, key: str) -> RunRecord:
    """The record of a "trial" or a "warmup"; empty if there is none yet."""
    return _trial_record(storage, key) if role == "trial" else _warmup_record(storage, key)


def _trial_record(storage: Storage, key: str) -> RunRecord:
    names = (RESULT, ERROR, METRICS)
    files = {name: storage.read(trial_file(key, name)) or b"" for name in names}
    if files[RESULT]:
        files[ERROR] = b""
    digest = hashlib.sha256(b"\0".join(files[name] for name in names)).hexdigest()
    result: dict[str, Any] = {}
    points: list[Point] = []
    damage = ""
    try:
        result = decode_result(files[RESULT], key) if files[RESULT] or storage.exists(trial_file(key, RESULT)) else {}
    except DamagedRecordError as error:
        damage = f"{RESULT} {error}"
    try:
        points = points_from_lines(files[METRICS])
        problem = metrics_damage(result, files[METRICS]) if result else ""
    except DamagedRecordError as error:
        problem = str(error)
    if problem:
        damage = damage or f"{METRICS} {problem}"
        points = []
    latency: tuple[str, ...] = ()
    if result and (content := storage.read(trial_file(key, LATENCY))) is not None:
        with suppress(DamagedRecordError):  # `doctor` names it
            measurements = decode_latency(content, key)
            points += latency_points(measurements)
            latency = tuple(map(latency_text, measurements))
            digest = hashlib.sha256(digest.encode() + content).hexdigest()
    return RunRecord(
        storage=storage,
        key=key,
        points=points,
        digest=digest,
        damage=damage,
        result=result,
        error=read_failure(files[ERROR]) or {},
        latency=latency,
    )


def _warmup_record(storage: Storage, key: str) -> RunRecord:
    points: list[Point] = []
    damage = ""
    try:
        points = warmup_points(storage, key)
    except DamagedRecordError as error:
        damage = str(error)
    digest = hashlib.sha256(json.dumps([point.to_json() for point in points]).encode()).hexdigest()
    return RunRecord(storage=storage, key=key, points=points, digest=digest, damage=damage)

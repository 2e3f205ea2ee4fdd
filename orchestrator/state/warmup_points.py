"""The metric points of a shared warm-up, which outlive its snapshots.

warmups/KEY/metrics.jsonl   written by `gc` before it removes the snapshots, for MLflow
"""

from __future__ import annotations

from orchestrator.storage.base import Storage
from orchestrator.storage.layout import SNAPSHOT_NAME, longest_snapshot
from trainables.errors import StorageFullError
from trainables.records.checkpoint_header import read_checkpoint_header
from trainables.records.file_names import METRICS
from trainables.records.metrics import DamagedRecordError, MetricLog, Point, points_from_json, points_from_lines
from trainables.runtime.json_text import parse_json


def warmup_points(storage: Storage, key: str) -> list[Point]:
    """The points of the longest snapshot, with the times of those that were kept when earlier snapshots went.

    Only the snapshot's header is read, which needs no torch.

    Raises:
        DamagedRecordError: the snapshot or the kept file is not what was written.
    """
    log = MetricLog(_snapshot_points(storage, key))
    if (kept := storage.read(_file(key))) is not None:
        try:
            log.merge(points_from_lines(kept))
        except DamagedRecordError as error:
            raise DamagedRecordError(f"{METRICS} {error}") from None
    return log.points()


def replace_snapshots(storage: Storage, key: str) -> None:
    """Removes the snapshots of a warm-up, and keeps its points. Raises DamagedRecordError as `warmup_points` does."""
    lines = MetricLog(warmup_points(storage, key)).to_lines()
    folder = f"warmups/{key}"
    snapshots = [f"{folder}/{name}" for name in storage.names(folder) if SNAPSHOT_NAME.fullmatch(name)]
    try:
        storage.write(_file(key), lines)
    except StorageFullError:  # the snapshots are what takes the room
        for path in snapshots:
            storage.remove(path)
        storage.write(_file(key), lines)
    for path in snapshots:
        storage.remove(path)


def _file(key: str) -> str:
    return f"warmups/{key}/{METRICS}"


def _snapshot_points(storage: Storage, key: str) -> list[Point]:
    longest = longest_snapshot(storage, key) or ""
    content = storage.read(longest) if longest else None
    if content is None:
        return []
    name = longest.rpartition("/")[2]
    try:
        state = parse_json(read_checkpoint_header(content)[0])
        points = [points_from_json(point) for point in state["metrics"]]
    except (ValueError, KeyError, TypeError):
        raise DamagedRecordError(f"{name} is no snapshot") from None
    if state.get("key", key) != key:
        raise DamagedRecordError(f"{name} is of {state['key']}")
    return points

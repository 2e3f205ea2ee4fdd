"""Points of trials that are not finished, such as those that a search has stopped: no result has a digest of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from orchestrator.repair.mismatch import Mismatch, Scope
from orchestrator.storage.base import Storage
from orchestrator.storage.layout import set_aside, trial_file
from trainables.records.checkpoint_header import read_checkpoint_header
from trainables.records.file_names import CHECKPOINT, METRICS, RESULT
from trainables.records.metrics import DamagedRecordError, MetricLog, Point, points_from_json, points_from_lines
from trainables.runtime.json_text import parse_json


def damaged_points(scope: Scope) -> Iterator[Mismatch]:
    """Files of points that are damaged, or lack points of the trial's checkpoint, which is written after them."""
    storage = scope.storage
    there = storage.files("trials")
    for key in scope.trials():
        path, checkpoint = trial_file(key, METRICS), trial_file(key, CHECKPOINT)
        if trial_file(key, RESULT) in there or not {path, checkpoint} & there.keys():
            continue
        kept = _points_of_checkpoint(storage, checkpoint) if scope.thorough and checkpoint in there else []
        if problem := _problem(storage.read(path), kept):
            yield Mismatch(
                kind="damaged points",
                place=f"{path} {problem}",
                remedy="moves it to trials/.aside" + ("; the points come back from the checkpoint" if kept else ""),
                mend=partial(_write_again, storage, path, kept),
                sweeps=scope.users_of(key),
            )


def _points_of_checkpoint(storage: Storage, path: str) -> list[Point]:
    """The points in a checkpoint; none if it is damaged."""
    try:
        state, _ = read_checkpoint_header(storage.read(path) or b"")
        return [points_from_json(point) for point in parse_json(state)["metrics"]]
    except (ValueError, KeyError, TypeError):
        return []


def _problem(content: bytes | None, kept: Sequence[Point]) -> str:
    """What is wrong with a file of points; empty if it is whole and has those that a checkpoint keeps."""
    try:
        points = points_from_lines(content or b"")
    except DamagedRecordError as error:
        return str(error)
    lacking = {(point.key, point.step, point.value) for point in kept} - {
        (point.key, point.step, point.value) for point in points
    }
    return f"lacks {len(lacking)} of the {len(kept)} points in the trial's checkpoint" if lacking else ""


def _write_again(storage: Storage, path: str, kept: Sequence[Point]) -> None:
    set_aside(storage, path)
    if kept:
        storage.write(path, MetricLog(kept).to_lines())

"""Points of a trial without a result: damage is seen, lost lines too, and the points come back from the checkpoint."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from orchestrator.repair.mismatch import Scope
from orchestrator.repair.unfinished_points import damaged_points
from orchestrator.storage.base import Storage
from orchestrator.storage.factory import open_storage
from orchestrator.storage.layout import trial_file
from trainables.records.checkpoint_header import checkpoint_header
from trainables.records.file_names import CHECKPOINT, METRICS, RESULT
from trainables.records.metrics import MetricLog, Point

KEY = "0123456789abcdef"
POINTS = [Point(key, step, step / 10, 1_790_000_000_000 + step) for step in (1, 2) for key in ("val/loss", "val/accuracy")]
LINES = MetricLog(POINTS).to_lines()
DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "cut within a line": lambda content: content[:-9],
    "cut between lines": lambda content: b"".join(content.splitlines(keepends=True)[:2]),
    "another number": lambda content: content.replace(b'"value": 0.1', b'"value": 0.3', 1),
    "foreign": lambda content: b"null\n",
}


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    """With a trial that was stopped: its points, and a checkpoint that holds them."""
    storage = open_storage(str(tmp_path / "runs"), create=True)
    state = json.dumps({"metrics": [point.to_json() for point in POINTS]})
    storage.write(trial_file(KEY, CHECKPOINT), save({"weight": torch.zeros(1)}, checkpoint_header(state, "")))
    storage.write(trial_file(KEY, METRICS), LINES)
    return storage


def mend(storage: Storage) -> list[str]:
    """Mends what there is, and returns its places."""
    mismatches = list(damaged_points(Scope.of(storage, thorough=True)))
    for one in mismatches:
        assert one.mend is not None
        one.mend()
    return [one.place for one in mismatches]


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_points_come_back_from_the_checkpoint(storage: Storage, damage: str) -> None:
    assert mend(storage) == []
    content = DAMAGES[damage](LINES)
    storage.write(trial_file(KEY, METRICS), content)
    (place,) = mend(storage)
    assert place.startswith(f"trials/{KEY}/{METRICS} ")
    assert storage.read(trial_file(KEY, METRICS)) == LINES
    assert storage.read(f"trials/.aside/{KEY}/{METRICS}") == content, "nothing is deleted"
    assert mend(storage) == []


def test_points_after_the_checkpoint_are_no_damage(storage: Storage) -> None:
    later = MetricLog([*POINTS, Point("val/loss", 3, 0.3, 1_790_000_000_003)]).to_lines()
    storage.write(trial_file(KEY, METRICS), later)
    assert mend(storage) == []


def test_without_a_checkpoint_damaged_points_are_set_aside(storage: Storage) -> None:
    storage.remove(trial_file(KEY, CHECKPOINT))
    storage.write(trial_file(KEY, METRICS), LINES[:-9])
    assert len(mend(storage)) == 1
    assert not storage.exists(trial_file(KEY, METRICS))


def test_finished_trials_have_a_digest_of_their_points(storage: Storage) -> None:
    storage.write(trial_file(KEY, RESULT), b"{}")
    storage.write(trial_file(KEY, METRICS), LINES[:-9])
    assert mend(storage) == []

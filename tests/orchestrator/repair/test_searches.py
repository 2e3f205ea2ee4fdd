"""A search whose decisions are damaged is as it was before it had decided anything; its trials stay."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from orchestrator.execution.driver import initial_state
from orchestrator.execution.sweep_files import write_sweep_files
from orchestrator.repair import repair as engine
from orchestrator.repair.repair import findings, repair
from orchestrator.repair.table import FAMILIES
from orchestrator.scheduling.stage_queue import StageQueue
from orchestrator.search.decided_trials import decided_trials
from orchestrator.search.decision_file import DecisionFile
from orchestrator.search.decisions import Decision, Kind
from orchestrator.search.plans import plan_sweep
from orchestrator.search.stop_record import stop_record
from orchestrator.spec.loader import load_spec
from orchestrator.state.sweep_folder import SweepFolder
from orchestrator.storage.layout import trial_file
from tests.support.search_decisions import EASY, configuration, trial
from tests.support.searched_sweep import searched_sweep
from tests.support.trials import new_storage
from trainables.records.file_names import STOPPED


@dataclass(frozen=True)
class Searched:
    """A search that has begun one trial besides the dense ones; `key` is the trial's."""

    folder: SweepFolder
    decisions: DecisionFile
    key: str
    dense: frozenset[str]


@pytest.fixture
def searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Searched:
    monkeypatch.setattr(engine, "FAMILIES", [one for one in FAMILIES if one.check not in ("orphans", "registry")])
    storage, file = new_storage(tmp_path / "runs"), searched_sweep(tmp_path)
    spec = load_spec(str(file), [f"storage={storage.root}"])
    folder, decisions = SweepFolder(storage, spec.name), DecisionFile(storage, spec.name)
    start = plan_sweep(spec, storage, hash_data=True)
    begun = [configuration(EASY, 0, 1, 5)]
    (config,) = set(decided_trials(spec, [*begun, trial(EASY, 0, "0" * 16)])) - set(decided_trials(spec, []))
    key = start.keys_of(config)[0]
    decisions.write([*begun, trial(EASY, 0, key)])
    plan = plan_sweep(spec, storage, hash_data=True)
    write_sweep_files(folder, plan, file.read_text())
    folder.write_state(initial_state(plan, None, StageQueue(warmups={}, trials={})))
    assert not list(findings(storage))
    return Searched(folder, decisions, key, frozenset(one.key for one in start.trials))


def test_damaged_decisions_are_set_aside(searched: Searched) -> None:
    folder, decisions = searched.folder, searched.decisions
    storage = folder.storage
    written = storage.read(decisions.path) or b""
    damaged = written.replace(b'"kind"', b'"kinds"', 1)
    storage.write(decisions.path, damaged)
    (found,) = findings(storage)
    assert found.mismatch.kind == "damaged decisions"
    assert storage.read(decisions.path) == damaged
    assert all(one.mended for one in repair(storage))
    assert not list(findings(storage))
    assert storage.read(folder.file("decisions-1.jsonl")) == damaged
    state = folder.read_state()
    assert state is not None
    assert state.trials.keys() == searched.dense


@pytest.mark.parametrize("damage", [b"", b"[]", b'{"sweep": "x", "epoch": 1'], ids=["empty", "foreign", "cut"])
def test_damaged_early_stop_is_written_again_from_the_decisions(searched: Searched, damage: bytes) -> None:
    storage, path = searched.folder.storage, trial_file(searched.key, STOPPED)
    rungs = [(1, 0.5, "continues", ""), (2, 0.25, "stops", "it is behind")]
    searched.decisions.write(
        [
            Decision(kind=Kind.RUNG, group=EASY, key=searched.key, epoch=epoch, value=value, state=state, reason=reason)
            for epoch, value, state, reason in rungs
        ]
    )
    whole = stop_record(searched.folder.name, 2, 0.25, "it is behind")
    storage.write(path, damage)
    (found,) = repair(storage)
    assert (found.mismatch.place, found.mended) == (path, True)
    assert storage.read(path) == whole
    assert not list(findings(storage))


def test_damaged_early_stop_without_decisions_is_set_aside(searched: Searched) -> None:
    storage, path = searched.folder.storage, trial_file(searched.key, STOPPED)
    storage.write(path, b"[]")
    assert [one.mended for one in repair(storage)] == [True]
    assert not storage.exists(path)

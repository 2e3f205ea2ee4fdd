"""A search whose decisions are damaged is as it was before it had decided anything; its trials stay."""

from __future__ import annotations

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
from orchestrator.search.plans import plan_sweep
from orchestrator.spec.loader import load_spec
from orchestrator.state.sweep_folder import SweepFolder
from tests.support.search_decisions import EASY, configuration, trial
from tests.support.searched_sweep import searched_sweep
from tests.support.trials import new_storage


def test_damaged_decisions_are_set_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "FAMILIES", [one for one in FAMILIES if one.check not in ("orphans", "registry")])
    storage, file = new_storage(tmp_path / "runs"), searched_sweep(tmp_path)
    spec = load_spec(str(file), [f"storage={storage.root}"])
    folder, decisions = SweepFolder(storage, spec.name), DecisionFile(storage, spec.name)
    start = plan_sweep(spec, storage, hash_data=True)
    group = EASY
    begun = [configuration(group, 0, 1, 5)]
    (config,) = set(decided_trials(spec, [*begun, trial(group, 0, "0" * 16)])) - set(decided_trials(spec, []))
    decisions.write([*begun, trial(group, 0, start.keys_of(config)[0])])
    plan = plan_sweep(spec, storage, hash_data=True)
    write_sweep_files(folder, plan, file.read_text())
    folder.write_state(initial_state(plan, None, StageQueue(warmups={}, trials={})))
    assert not list(findings(storage))

    written = storage.read(decisions.path) or b""
    damaged = written.replace(b'"kind"', b'"kinds"', 1)
    storage.write(decisions.path, damaged)
    (found,) = findings(storage)
    assert found.mismatch.kind == "damaged decisions"
    assert storage.read(decisions.path) == damaged
    assert all(one.mended for one in repair(storage))
    assert not list(findings(storage))
    assert storage.read(f"sweeps/{spec.name}/decisions-1.jsonl") == damaged
    state = folder.read_state()
    assert state is not None
    assert state.trials.keys() == {one.key for one in start.trials}

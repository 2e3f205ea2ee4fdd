"""The bytes that a plan will write, against the files of real trials."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.planning.entries import PlannedTrial
from orchestrator.planning.plan import Plan, make_plan
from orchestrator.planning.record_bytes import Written
from orchestrator.planning.written_bytes import WrittenBytes, model_kind, written_bytes
from orchestrator.spec.loader import load_spec
from orchestrator.storage.factory import open_storage
from tests.support.cli import tiny_sweep
from tests.support.trials import run, tiny_config
from trainables.config.trial import TrialConfig


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return make_plan(load_spec(str(tiny_sweep(tmp_path))), open_storage(str(tmp_path / "runs"), create=True))


def of_trials(plan: Plan, *configs: TrialConfig) -> Plan:
    trials = [PlannedTrial(name=str(n), config=one, key=str(n), warmup_key=f"w{one.seed}") for n, one in enumerate(configs)]
    return replace(plan, trials=tuple(trials))


@pytest.mark.parametrize("changes", [{}, {"sparsity": 0.5}, {"method": "srste"}, {"method": "dense", "sparsity": 0.0}])
def test_sizes_are_those_of_real_files(plan: Plan, tmp_path: Path, changes: dict[str, object]) -> None:
    config, storage = tiny_config(**changes), open_storage(str(tmp_path / "real"), create=True)
    if config.method != "dense":
        config = replace(config, warmup_epochs=2)
    result = run(config, storage, checkpoint_seconds=0.0)
    expected = written_bytes(of_trials(plan, config), {})
    assert expected.models == pytest.approx(result["model_bytes"], rel=0.12)
    snapshots = [path.stat().st_size for path in Path(storage.root).rglob("epoch-0002*")]
    if snapshots:
        assert expected.snapshots == pytest.approx(snapshots[0], rel=0.12)


def test_each_length_of_a_warmup_is_a_snapshot(plan: Plan) -> None:
    once = written_bytes(of_trials(plan, tiny_config(warmup_epochs=2)), {}).snapshots
    several = [tiny_config(warmup_epochs=epochs, seed=seed) for epochs in (0, 2, 4) for seed in (0, 1)]
    assert once is not None
    assert once == 4 * (15_418 + 15_581)  # momentum of the parameters, and all numbers of the network
    assert written_bytes(of_trials(plan, *several), {}).snapshots == 4 * once
    unshared = replace(plan, spec=plan.spec.model_copy(update={"share_warmups": False}))
    assert written_bytes(of_trials(unshared, *several), {}).snapshots == 0


def test_known_models_count_by_what_their_size_depends_on(plan: Plan) -> None:
    first, other, denser = tiny_config(), tiny_config(seed=3, warmup_epochs=0), tiny_config(sparsity=0.5)
    assert model_kind(first) == model_kind(other) != model_kind(denser)
    computed = written_bytes(of_trials(plan, denser), {}).models or 0
    assert written_bytes(of_trials(plan, first, other, denser), {model_kind(first): 777.0}).models == 2 * 777 + computed


def test_what_is_finished_writes_nothing_more(plan: Plan) -> None:
    (trial,) = of_trials(plan, tiny_config()).trials
    done = replace(plan, trials=(replace(trial, result={"metrics": {}}),))
    assert written_bytes(done, {}, Path()) == WrittenBytes(models=0, snapshots=0, checkpoint=0)
    assert written_bytes(done, {}, Path()).needed == Written()


def test_without_facts_of_the_data_sizes_are_not_known(plan: Plan) -> None:
    unknown = replace(of_trials(plan, tiny_config()), data_facts=None)
    written = written_bytes(unknown, {}, Path())
    assert (written.models, written.snapshots, written.checkpoint) == (None, None, None)
    assert (written.mlflow, written.needed) == (None, None)


def test_what_lies_side_by_side_is_needed_at_once(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.planning.written_bytes.processors", lambda: 4)
    configs = [tiny_config(warmup_epochs=epochs, seed=seed) for epochs in (2, 4) for seed in range(5)]
    shared = written_bytes(of_trials(plan, *configs), {})
    assert (shared.running, shared.mlflow) == (4, Written())
    assert shared.needed is not None
    assert (
        shared.needed.bytes
        == (shared.models or 0) + (shared.snapshots or 0) + 4 * (shared.checkpoint or 0) + shared.records.bytes
    )
    changes = {"share_warmups": False, "resources": plan.spec.resources.model_copy(update={"max_concurrent": 3})}
    unshared = replace(plan, spec=plan.spec.model_copy(update=changes))
    own = written_bytes(of_trials(unshared, *configs), {})
    assert (own.running, own.snapshots, own.own_snapshots) == (3, 0, (shared.snapshots or 0) // 10)


def test_mlflow_counts_where_its_files_lie_in_the_storage(plan: Plan, tmp_path: Path) -> None:
    trials = of_trials(plan, *(tiny_config(seed=seed) for seed in range(10)))
    new = written_bytes(trials, {}, tmp_path).mlflow
    (tmp_path / "mlflow.db").touch()
    there = written_bytes(trials, {}, tmp_path).mlflow
    assert new is not None
    assert there is not None
    assert new.bytes - there.bytes == 1_000_000  # the empty database, of 954,368 bytes


def test_mlflow_counts_as_the_sweep_file_says(plan: Plan, tmp_path: Path) -> None:
    trials = of_trials(plan, *(tiny_config(seed=seed) for seed in range(10)))

    def mlflow(**tracking: object) -> Written:
        changed = plan.spec.model_copy(update={"tracking": plan.spec.tracking.model_copy(update=tracking)})
        written = written_bytes(replace(trials, spec=changed), {}, tmp_path).mlflow
        assert written is not None
        return written

    assert mlflow(uri="http://127.0.0.1:9") == Written()
    assert mlflow().bytes - mlflow(models="none").bytes > 10 * 200_000

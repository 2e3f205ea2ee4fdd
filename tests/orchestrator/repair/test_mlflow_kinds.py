"""Each kind of mismatch between the records and MLflow is named, mended without deleting a run, and gone afterwards."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import ViewType

from orchestrator.execution import sync
from orchestrator.repair.repair import Finding, findings, repair
from orchestrator.state.sweep_folder import SweepFolder
from orchestrator.state.sweep_state import SweepState
from orchestrator.storage.layout import archive_trial
from orchestrator.tracking.records import read_record
from orchestrator.tracking.runs import SUPERSEDED
from tests.support.mlflow_stores import Content
from tests.support.whole_sweep import NAME, target_of

REGISTERED = f"{NAME}-convnet"
NEVER = "0" * 16
REVISION_OF_MLFLOW_2 = "0584bdc529eb"
NEW_STORES = ("database", "damaged database", "older database")


class Store:
    """The sweep's MLflow store, and what is done to it behind the sweep's back."""

    def __init__(self, folder: SweepFolder) -> None:
        self.folder = folder
        self.content = Content(target_of(folder))
        self.client = self.content.client
        self.experiment = self.content.runs[0].info.experiment_id
        state = folder.read_state()
        assert state is not None
        self.state: SweepState = state

    def run(self, role: str, number: int = 0) -> Any:
        runs = [run for run in self.content.runs if run.data.tags["drive.role"] == role]
        return sorted(runs, key=lambda run: str(run.info.run_name))[number]

    def model(self, number: int = 0) -> Any:
        return sorted(self.content.models, key=lambda model: str(model.name))[number]

    def execute(self, statement: str, *values: object) -> None:
        with closing(sqlite3.connect(Path(self.folder.storage.root, "mlflow.db"))) as database, database:
            assert database.execute(statement, values).rowcount

    def new_run(self, key: str, **tags: str) -> Any:
        like = self.run("trial").data.tags
        identity = {name: like[name] for name in ("drive.sweep", "drive.role", "mlflow.parentRunId")}
        return self.client.create_run(self.experiment, start_time=1, tags=identity | {"drive.trial_key": key} | tags)

    def new_version(self, model_id: str) -> str:
        version = self.client.create_model_version(
            REGISTERED,
            source=self.model().artifact_location,
            run_id=self.run("trial").info.run_id,
            model_id=model_id,
            tags={"drive.model_id": model_id},
        )
        return str(version.version)


def running(store: Store, role: str) -> str:
    store.client.update_run(store.run(role).info.run_id, status="RUNNING")
    return str(store.run(role).info.run_name)


def deleted(store: Store, role: str) -> str:
    store.client.delete_run(store.run(role).info.run_id)
    return f"trial {store.run(role).info.run_name}" if role == "trial" else f"that of sweep {NAME!r} itself"


def of_no_trial(store: Store) -> str:
    return str(store.new_run(NEVER).info.run_id)[:8]


def doubled(store: Store) -> str:
    """An older run without content: that of state.json is whole, and stays."""
    return str(store.new_run(store.run("trial").data.tags["drive.trial_key"]).info.run_id)[:8]


def without_points(store: Store) -> str:
    run = store.run("trial")
    store.execute("DELETE FROM metrics WHERE run_uuid = ? AND key = 'train/loss' AND step = 3", run.info.run_id)
    return f"{run.info.run_name} [{run.info.run_id[:8]}] (1 of "


def without_warmup_points(store: Store) -> str:
    run = store.run("warmup")
    store.execute("DELETE FROM metrics WHERE run_uuid = ? AND key = 'train/loss' AND step = 1", run.info.run_id)
    return str(run.info.run_name)


def further_points(store: Store) -> str:
    store.client.log_metric(store.run("trial").info.run_id, "val/accuracy", 0.99, step=77)
    return str(store.run("trial").info.run_name)


def without_model(store: Store) -> str:
    store.client.delete_logged_model(store.model(1).model_id)
    return str(store.run("trial", 1).info.run_name)


def foreign_digest(store: Store) -> str:
    store.client.set_logged_model_tags(store.model(1).model_id, {"drive.model_sha256": "1" * 64})
    return str(store.run("trial", 1).info.run_name)


def model_of_another(store: Store) -> str:
    from mlflow.entities import LoggedModelOutput

    store.client.log_outputs(store.run("trial", 1).info.run_id, [LoggedModelOutput(store.model(0).model_id, 4)])
    return str(store.run("trial", 1).info.run_name)


def damaged_artifact(store: Store) -> str:
    (file,) = Path(store.model(1).artifact_location).rglob("*.zst")
    file.write_bytes(file.read_bytes()[::-1])
    return f"that of {store.run('trial', 1).info.run_name}"


def wrong_tag(store: Store, tag: str) -> str:
    store.client.set_tag(store.run("trial").info.run_id, tag, "1" * 16)
    return str(store.run("trial").info.run_name)


def result_gone(store: Store) -> str:
    key = store.run("trial").data.tags["drive.trial_key"]
    archive_trial(store.folder.storage, key)
    store.state.trials[key].state, store.state.trials[key].metrics = "waiting", {}
    store.state.trials[key].model_sha256 = None
    store.folder.write_state(store.state)
    return str(store.run("trial").info.run_name)


def alias_elsewhere(store: Store) -> str:
    store.new_version(store.model(1 - recommended(store)).model_id)
    store.client.set_registered_model_alias(REGISTERED, "best-s90", "2")
    return f"{REGISTERED}@best-s90 (version 2)"


def recommended(store: Store) -> int:
    """The number of the model that the sweep has registered."""
    version = store.client.get_model_version(REGISTERED, "1")
    return int(store.model(1).model_id == version.tags["drive.model_id"])


def alias_nowhere(store: Store) -> str:
    store.execute(
        "INSERT INTO registered_model_aliases (name, alias, version, workspace) "
        "SELECT name, 'production', 9, workspace FROM registered_model_aliases LIMIT 1"
    )
    return f"{REGISTERED}@production (version 9)"


def doubled_version(store: Store) -> str:
    version = store.new_version(store.model(recommended(store)).model_id)
    return f"version {version} of {REGISTERED} is that of version 1 again"


def version_without_model(store: Store) -> str:
    version = store.new_version("m-0123456789abcdef")
    return f"version {version} of {REGISTERED} is of m-0123456789abcdef"


def unregistered(store: Store) -> str:
    store.client.delete_registered_model(REGISTERED)
    return f"sweep {NAME!r}"


def without_database(store: Store) -> str:
    for file in Path(store.folder.storage.root).glob("mlflow.db*"):
        file.unlink()
    return "MLflow's database is not there"


def damaged_database(store: Store) -> str:
    file = Path(store.folder.storage.root, "mlflow.db")
    without_database(store)
    file.write_bytes(b"another program's file" * 100)
    return "MLflow's database is damaged"


def older_database(store: Store) -> str:
    store.execute("UPDATE alembic_version SET version_num = ?", REVISION_OF_MLFLOW_2)
    return "MLflow's database has the schema of an older MLflow"


def without_experiment(store: Store) -> str:
    store.client.delete_experiment(store.experiment)
    return "experiment 'drive-sweep' is deleted in MLflow"


KINDS: dict[str, tuple[str, Callable[[Store], str]]] = {
    "trial's run": ("run left RUNNING without a driver", lambda store: running(store, "trial")),
    "sweep's run": ("run left RUNNING without a driver", lambda store: running(store, "sweep")),
    "no run": ("run that MLflow lacks", lambda store: deleted(store, "trial")),
    "no run of the sweep": ("run that MLflow lacks", lambda store: deleted(store, "sweep")),
    "run of no trial": ("run of no trial of its sweep", of_no_trial),
    "doubled run": ("doubled run", doubled),
    "points": ("run without its points", without_points),
    "points of a warm-up": ("run without its points", without_warmup_points),
    "further points": ("run with points that its record lacks", further_points),
    "no model": ("run without its model", without_model),
    "digest of the model": ("run with a foreign model", foreign_digest),
    "model of another": ("run with a foreign model", model_of_another),
    "artifact": ("damaged model in MLflow", damaged_artifact),
    "digest of the run": ("run with a wrong digest", lambda store: wrong_tag(store, "drive.model_sha256")),
    "out of date": ("run that is not up to date", lambda store: wrong_tag(store, "drive.projection")),
    "result": ("run of a result that is not here", result_gone),
    "alias": ("alias that is not at the recommended model", alias_elsewhere),
    "alias nowhere": ("alias that points nowhere", alias_nowhere),
    "version": ("doubled version", doubled_version),
    "version without a model": ("version without its model", version_without_model),
    "no registered model": ("recommended model that is not registered", unregistered),
    "database": ("MLflow lacks the sweep", without_database),
    "damaged database": ("MLflow lacks the sweep", damaged_database),
    "older database": ("MLflow lacks the sweep", older_database),
    "experiment": ("MLflow lacks the sweep", without_experiment),
}


@pytest.fixture(autouse=True)
def without_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """They take a second for each sync, and are not compared."""
    monkeypatch.setattr(sync, "with_report", lambda summary, folder, state: summary)


@pytest.mark.parametrize(
    "planted",
    [
        ("sweep's run", "run of no trial", "doubled run", "points of a warm-up", "further points", "digest of the model"),
        ("trial's run", "artifact", "no run of the sweep", "alias nowhere", "version", "version without a model"),
        ("points", "model of another"),
        ("no run", "no model"),
        ("alias",),
        *(pytest.param((kind,), marks=pytest.mark.long) for kind in KINDS),
    ],
    ids=", ".join,
)
def test_mismatch_is_named_mended_and_gone(planted: tuple[str, ...], folder: SweepFolder) -> None:
    store = Store(folder)
    said = [(KINDS[one][0], KINDS[one][1](store)) for one in planted]
    readable = planted[0] not in (*NEW_STORES, "experiment")
    before = Content(target_of(folder)).plain(ids=True) if readable else None
    files = contents(folder)
    assert_named(list(findings(folder.storage)), said)
    assert contents(folder) == files, "nothing is changed without --fix"
    if before is not None:
        assert Content(target_of(folder)).plain(ids=True) == before, "nothing is changed without --fix"
    mended = list(repair(folder.storage))
    assert all(one.mended for one in mended), mended
    assert_named(mended, said)
    assert not list(findings(folder.storage))
    assert_whole(folder, store, lost="result" in planted, new_store=planted[0] in NEW_STORES)


def contents(folder: SweepFolder) -> dict[str, bytes]:
    files = sorted(path for path in Path(folder.storage.root).rglob("*") if path.is_file())
    return {str(path): path.read_bytes() for path in files if "mlflow.db" not in path.name and path.name != "driver.lock"}


def assert_named(found: list[Finding], said: list[tuple[str, str]]) -> None:
    places = [(one.mismatch.kind, one.mismatch.place) for one in found]
    for kind, part in said:
        assert any(one == kind and part in place for one, place in places), (kind, part, places)


def assert_whole(folder: SweepFolder, before: Store, *, lost: bool, new_store: bool) -> None:
    """One run counts for each trial, as the records say; runs and models that were there are there."""
    content = Content(target_of(folder))
    counting = {run.info.run_id: run for run in content.runs if SUPERSEDED not in run.data.tags}
    state = folder.read_state()
    assert state is not None
    finished = [one for one in state.all_stages() if one.state == "finished"]
    assert len(finished) == 4 - lost
    assert counting.keys() == {state.parent_run_id, *(one.mlflow_run_id for one in finished)}
    for one in finished:
        run = counting[str(one.mlflow_run_id)]
        assert (run.info.run_name, run.info.status) == (one.name, "FINISHED")
        record = read_record(folder.storage, run.data.tags["drive.role"], one.key)
        sent = {(key, step, time_ms) for key, step, _, time_ms in content.points(run)}
        assert sent == {(point.key, point.step, point.time_ms) for point in record.points}
        assert run.data.tags["mlflow.parentRunId"] == state.parent_run_id
        if record.result:
            (model,) = [model for model in content.models if model.model_id == run.data.tags["drive.model_id"]]
            assert model.tags["drive.model_sha256"] == record.result["model_sha256"]
    if not new_store:
        kept = {run.info.run_id for run in content.client.search_runs([before.experiment], run_view_type=ViewType.ALL)}
        assert {run.info.run_id for run in before.content.runs} <= kept
        assert all(Path(model.artifact_location, "MLmodel").is_file() for model in before.content.models)

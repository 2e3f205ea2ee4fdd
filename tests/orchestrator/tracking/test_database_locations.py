"""The artifact locations in a storage's MLflow database follow the storage; a copy never touches its original."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from orchestrator.errors import SetupError, UserError
from orchestrator.state.driver_liveness import this_driver
from orchestrator.storage.local import LocalStorage
from orchestrator.tracking import ui_server
from orchestrator.tracking.client import TrackingTarget
from orchestrator.tracking.database_locations import COLUMNS, MOVED_FROM, follow_storage
from orchestrator.tracking.records import RunSpec
from orchestrator.tracking.sweep_run import SweepRunSpec
from orchestrator.tracking.sweep_summary import SweepSummary
from orchestrator.tracking.target import storage_target
from tests.support.mlflow_stores import Content, empty_database
from tests.support.trials import SWEEP, new_storage, run, tiny_config
from trainables.config.keys import trial_key
from trainables.data.digits import DIGITS_DIGEST

KEY = trial_key(tiny_config(), DIGITS_DIGEST)
TRIAL = RunSpec(key=KEY, name="w02-i002", role="trial", params={"seed": "0"}, tags={})


@dataclass(frozen=True)
class Stored:
    folder: Path
    target: TrackingTarget


def projected(folder: Path) -> TrackingTarget:
    """A storage's trial in the storage's own database, as `sync` brings it there."""
    target = storage_target(folder, "pruning")
    opening = SweepRunSpec(
        target=target,
        storage=LocalStorage(str(folder)),
        sweep=SWEEP,
        log_models=True,
        trial_keys=(KEY,),
        description="tiny",
        params={},
        tags={},
    )
    opened = opening.open(reopen=False)
    opened.reconcile([(TRIAL, "finished")])
    opened.close_sweep("FINISHED", SweepSummary(artifacts={"report.html": b"<p>done</p>"}))
    return target


@pytest.fixture(scope="module")
def finished_storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A storage with one trial, not in MLflow yet."""
    folder = tmp_path_factory.mktemp("made") / "runs"
    storage = new_storage(folder)
    run(tiny_config(), storage)
    return folder


@pytest.fixture
def stored(finished_storage: Path, tmp_path: Path) -> Stored:
    folder = tmp_path / "first" / "runs"
    shutil.copytree(finished_storage, folder)
    shutil.copyfile(empty_database()[0], folder / "mlflow.db")
    return Stored(folder, projected(folder))


def locations(folder: Path) -> set[str]:
    with closing(sqlite3.connect(folder / "mlflow.db")) as database:
        return {
            value
            for table, column in COLUMNS
            for (value,) in database.execute(f"SELECT {column} FROM {table} WHERE {column} IS NOT NULL")
            if "drive-sweep-tests-" not in value and "mlruns" not in value  # of the database that was copied
        }


def listing(folder: Path) -> dict[str, tuple[int, int, int]]:
    return {str(path): (path.stat().st_mtime_ns, path.stat().st_size, path.stat().st_ino) for path in folder.rglob("*")}


def load_all_models(target: TrackingTarget) -> int:
    """How many models load and predict, named by their id and by their run."""
    import mlflow

    mlflow.set_tracking_uri(target.uri)
    mlflow.set_registry_uri(target.uri)
    try:
        models = Content(target).models
        for model in models:
            assert mlflow.pyfunc.load_model(f"models:/{model.model_id}").predict(np.zeros((2, 1, 8, 8), np.float32)).shape == (
                2,
                10,
            )
        for run in Content(target).runs:
            assert Path(run.info.artifact_uri).is_relative_to(str(target.storage))
        return len(models)
    finally:
        mlflow.set_tracking_uri(None)
        mlflow.set_registry_uri(None)


@pytest.mark.parametrize("how", ["renamed", "copied", "copied and the original replaced"])
def test_locations_follow_a_storage_that_was(how: str, stored: Stored, tmp_path: Path) -> None:
    there = tmp_path / "second" / "runs with space"
    there.parent.mkdir()
    if how == "renamed":
        stored.folder.rename(there)
    else:
        shutil.copytree(stored.folder, there)
    if how == "copied and the original replaced":
        shutil.rmtree(stored.folder)
        stored.folder.mkdir()
        (stored.folder / "storage.json").write_text("{}")
    original = listing(stored.folder.parent)
    remarks: list[str] = []
    follow_storage(there, remarks.append)
    assert remarks == [
        f"the storage was at {stored.folder}; the artifact locations in its MLflow database follow it to {there}"
    ]
    assert all(location.startswith(f"{there}/artifacts") for location in locations(there)), locations(there)
    target = projected(there)
    assert load_all_models(target) == 1
    assert listing(stored.folder.parent) == original
    follow_storage(there, remarks.append)
    assert len(remarks) == 1, "told once"
    with closing(sqlite3.connect(there / "mlflow.db")) as database:
        rows = database.execute("SELECT value FROM experiment_tags WHERE key = ?", (MOVED_FROM,)).fetchall()
    assert rows == [(f"{stored.folder}/artifacts",)]


def test_another_name_of_the_same_folder_changes_nothing(stored: Stored, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(stored.folder)
    before = locations(link)
    follow_storage(link, pytest.fail)
    assert locations(link) == before
    load_all_models(storage_target(stored.folder, "pruning"))


def test_a_place_of_the_users_choice_stays(stored: Stored, tmp_path: Path) -> None:
    chosen = tmp_path / "large disk" / "artifacts"
    chosen.mkdir(parents=True)
    with closing(sqlite3.connect(stored.folder / "mlflow.db")) as database:
        database.execute(
            "INSERT INTO experiments (name, artifact_location, lifecycle_stage) VALUES (?, ?, 'active')",
            ("theirs", str(chosen)),
        )
        database.execute(
            "INSERT INTO experiments (name, artifact_location, lifecycle_stage) "
            "VALUES ('far', 's3://bucket/artifacts', 'active')"
        )
        database.commit()
    before = locations(stored.folder)
    follow_storage(stored.folder, pytest.fail)
    assert locations(stored.folder) == before
    there = tmp_path / "there"
    stored.folder.rename(there)
    follow_storage(there, lambda notify: None)
    assert {str(chosen), "s3://bucket/artifacts"} < locations(there)


def test_file_uris_of_experiments_created_in_the_ui_follow_too(stored: Stored, tmp_path: Path) -> None:
    old = tmp_path / "gone away"
    with closing(sqlite3.connect(stored.folder / "mlflow.db")) as database:
        database.execute(
            "UPDATE experiments SET artifact_location = ? WHERE name = 'pruning'", (f"{(old / 'artifacts').as_uri()}/7",)
        )
        database.execute("UPDATE runs SET artifact_uri = ?", (f"{(old / 'artifacts').as_uri()}/7/abc/artifacts",))
        database.commit()
    follow_storage(stored.folder, lambda notify: None)
    assert f"{stored.folder}/artifacts/7/abc/artifacts" in locations(stored.folder)
    assert not any("gone" in location for location in locations(stored.folder))


def test_two_mounts_at_once_do_not_change_each_others_locations(stored: Stored, tmp_path: Path) -> None:
    there = tmp_path / "mounted elsewhere"
    stored.folder.rename(there)
    state = there / "sweeps" / "other" / "state.json"
    state.parent.mkdir(parents=True)
    before = locations(there)
    driver = this_driver() | {"host": "node7", "storage": str(stored.folder)}
    state.write_text(json.dumps({"driver": driver}))
    with pytest.raises(SetupError, match=rf"must be used under one path .* 'other' on node7, which uses {stored.folder}"):
        follow_storage(there, pytest.fail)
    assert locations(there) == before
    for content in (json.dumps({"driver": driver | {"storage": str(there)}}), json.dumps({"driver": {}}), "{", "[]"):
        state.write_text(content)
        follow_storage(there, lambda notify: None)
        assert all(location.startswith(str(there)) for location in locations(there))


def test_the_ui_shows_a_copy_of_a_database_that_it_cannot_write(
    stored: Stored, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    there, scratch = tmp_path / "of another user", tmp_path / "scratch"
    scratch.mkdir()
    stored.folder.rename(there)
    before = {path: size for path, (_, size, _) in listing(there).items() if not path.endswith(("-wal", "-shm"))}
    monkeypatch.setattr(ui_server, "is_writable", lambda file: False)
    uri = ui_server.served_database(storage_target(there, "pruning"), scratch)
    assert uri == f"sqlite:///{scratch}/mlflow.db"
    assert all(location.startswith(str(there)) for location in locations(scratch))
    assert not any(location.startswith(str(there)) for location in locations(there)), "nothing is written there"
    assert {path: size for path, (_, size, _) in listing(there).items() if not path.endswith(("-wal", "-shm"))} == before
    assert "a copy of it is shown" in capsys.readouterr().err
    monkeypatch.setattr(ui_server, "is_writable", lambda file: True)
    assert ui_server.served_database(storage_target(there, "pruning"), scratch) == f"sqlite:///{there}/mlflow.db"
    assert all(location.startswith(str(there)) for location in locations(there))


@pytest.mark.parametrize("name", ["a?b", "a%20b", "a%3Fb", os.fsdecode(b"a\xe9b")])
def test_folders_that_a_uri_cannot_name_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="storage must be a folder without"):
        storage_target(tmp_path / name, "pruning")


@pytest.mark.parametrize(
    "name", ["a b", "a#b", "100%", "a&b", "a;b", "a:b", "a'b", 'a"b', "a\\b", "a\nb", "äé日", "a=b", "[a]", "a@b"]
)
def test_all_of_mlflow_is_inside_a_folder_with(
    name: str, finished_storage: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    folder = tmp_path / name
    shutil.copytree(finished_storage, folder)
    shutil.copyfile(empty_database()[0], folder / "mlflow.db")
    target = projected(folder)
    assert load_all_models(target) == 1
    assert (folder / "artifacts").is_dir()
    assert {path.name for path in tmp_path.iterdir()} == {"work", name}
    assert not list(work.iterdir())

"""A SQLite store is there as a whole or not at all; what is not whole is set aside, and nothing else is touched."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from orchestrator.errors import SetupError
from orchestrator.tracking import database as tracking_database
from orchestrator.tracking.client import TrackingTarget, connect, import_mlflow
from orchestrator.tracking.database import make_ready
from orchestrator.tracking.database_file import condition, database_id, file_identity
from tests.support.mlflow_stores import empty_database

FORMER_REVISION = "0584bdc529eb"  # of the schema before logged models, of MLflow 2


@pytest.fixture(scope="module", autouse=True)
def imported() -> None:
    import_mlflow()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """New databases are copies of one that MLflow made, which takes it seconds."""
    monkeypatch.setattr(tracking_database, "_migrate", lambda file, root: shutil.copyfile(empty_database()[0], file))


def ready(file: Path, replaceable: bool = True) -> list[str]:
    remarks: list[str] = []
    make_ready(file, str(file.parent / "artifacts"), remarks.append, replaceable=replaceable)
    return remarks


def filled(file: Path) -> Path:
    """A whole database with a run."""
    shutil.copyfile(empty_database()[0], file)
    add_run(file)
    return file


def add_run(file: Path) -> None:
    with closing(sqlite3.connect(file)) as database:
        database.execute("INSERT INTO runs (run_uuid, name, experiment_id) VALUES ('r1', 'kept', 0)")
        database.commit()


def runs_in(file: Path) -> list[str]:
    with closing(sqlite3.connect(file)) as database:
        return [name for (name,) in database.execute("SELECT name FROM runs")]


def without_alembic(file: Path) -> None:
    """As a kill before MLflow notes its first migration leaves it."""
    with closing(sqlite3.connect(file)) as database:
        database.execute("CREATE TABLE experiments (experiment_id INTEGER)")


def in_between(file: Path) -> None:
    """As a kill between two of the first migrations leaves it."""
    shutil.copyfile(empty_database()[0], file)
    with closing(sqlite3.connect(file)) as database:
        database.execute("UPDATE alembic_version SET version_num = ?", (FORMER_REVISION,))
        database.execute("DROP TABLE logged_models")
        database.commit()


def without_a_table(file: Path) -> None:
    filled(file)
    with closing(sqlite3.connect(file)) as database:
        database.execute("DROP TABLE logged_models")


def cut(file: Path) -> None:
    content = empty_database()[0].read_bytes()
    file.write_bytes(content[: len(content) // 2])


def flipped(file: Path) -> None:
    content = bytearray(empty_database()[0].read_bytes())
    content[100] ^= 0xFF  # the kind of the first page of the schema
    file.write_bytes(content)


NOT_WHOLE: dict[str, Callable[[Path], object]] = {
    "empty": lambda file: file.write_bytes(b""),
    "foreign": lambda file: file.write_bytes(b"PK\x03\x04" + bytes(5000)),
    "cut": cut,
    "flipped": flipped,
    "without alembic": without_alembic,
    "between two migrations": in_between,
    "without a table": without_a_table,
}


@pytest.mark.parametrize("damage", NOT_WHOLE)
def test_damaged_database_is_kept_aside_and_created_anew(damage: str, tmp_path: Path, quick: None) -> None:
    file = tmp_path / "mlflow.db"
    NOT_WHOLE[damage](file)
    content = file.read_bytes()
    (notify,) = ready(file)
    assert condition(file) == "whole"
    assert (tmp_path / "mlflow.db.damaged-1").read_bytes() == content
    assert "mlflow.db.damaged-1" in notify
    assert ready(file) == [], "told once"
    NOT_WHOLE["foreign"](file)
    ready(file)
    assert sorted(path.name for path in tmp_path.glob("mlflow.db.damaged-?")) == ["mlflow.db.damaged-1", "mlflow.db.damaged-2"]
    assert not list(tmp_path.glob(".*.partial"))


@pytest.mark.parametrize("damage", ["foreign", "cut", "flipped", "without a table"])
def test_a_damaged_database_that_no_storage_fills_is_left_alone(damage: str, tmp_path: Path, quick: None) -> None:
    file = tmp_path / "mlflow.db"
    NOT_WHOLE[damage](file)
    content = file.read_bytes()
    with pytest.raises(SetupError, match="must be a SQLite database of MLflow, got a damaged one"):
        ready(file, replaceable=False)
    assert file.read_bytes() == content


def test_a_log_without_its_database_does_not_meet_the_new_one(tmp_path: Path, quick: None) -> None:
    file = tmp_path / "mlflow.db"
    (tmp_path / "mlflow.db-wal").write_bytes(b"of a database that is gone")
    ready(file)
    assert (tmp_path / "mlflow.db.damaged-1-wal").read_bytes() == b"of a database that is gone"
    assert condition(file) == "whole"


def test_a_whole_database_is_never_replaced(tmp_path: Path) -> None:
    file = filled(tmp_path / "mlflow.db")
    before = file_identity(file), file.read_bytes()
    assert ready(file) == []
    assert (file_identity(file), file.read_bytes()) == before


def test_database_of_a_newer_mlflow_is_reported_and_unchanged(tmp_path: Path) -> None:
    file = filled(tmp_path / "mlflow.db")
    with closing(sqlite3.connect(file)) as database:
        database.execute("UPDATE alembic_version SET version_num = 'fffffffffff0'")
        database.commit()
    before = file.read_bytes()
    with pytest.raises(SetupError, match=r"got one of a newer MLflow; install that version here too"):
        ready(file)
    assert file.read_bytes() == before


def older(file: Path) -> None:
    """The schema of MLflow 2, made by its own migrations, with a run."""
    from alembic import command
    from mlflow.store.db.utils import InitialBase, _get_alembic_config, create_sqlalchemy_engine

    engine = create_sqlalchemy_engine(f"sqlite:///{file}")
    InitialBase.metadata.create_all(engine)
    config = _get_alembic_config(str(engine.url))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, FORMER_REVISION)
    engine.dispose()
    with closing(sqlite3.connect(file)) as database:
        database.execute("INSERT INTO experiments (experiment_id, name, lifecycle_stage) VALUES (0, 'Default', 'active')")
        database.commit()
    add_run(file)


@pytest.mark.slow
def test_older_schema_is_migrated_with_its_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "mlflow.db"
    older(file)
    untouched = tmp_path / "team.db"
    shutil.copyfile(file, untouched)
    broken = tmp_path / "half" / "mlflow.db"
    broken.parent.mkdir()
    shutil.copyfile(file, broken)
    with pytest.raises(SetupError, match=rf"got an older one; make a copy of it.*db upgrade sqlite:///{untouched}"):
        ready(untouched, replaceable=False)
    assert condition(untouched) == "older"

    identity = file_identity(file)
    (notify,) = ready(file)
    assert "it has that of MLflow" in notify
    assert (condition(file), runs_in(file), file_identity(file)) == ("whole", ["kept"], identity)

    # A migration that was killed halfway has made a table that the next one makes again.
    with closing(sqlite3.connect(broken)) as database:
        database.execute("CREATE TABLE logged_models (model_id TEXT)")
    (notify,) = ready(broken)
    assert "cannot be brought up to date" in notify
    assert (condition(broken), runs_in(broken)) == ("whole", [])
    assert runs_in(broken.with_name("mlflow.db.damaged-1")) == ["kept"]


def test_of_two_that_make_a_database_the_first_one_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "mlflow.db"

    def overtaken(new: Path, root: str) -> None:
        shutil.copyfile(empty_database()[0], new)
        filled(file)  # as a process on a host without locks does it meanwhile

    monkeypatch.setattr(tracking_database, "_migrate", overtaken)
    ready(file)
    assert runs_in(file) == ["kept"]


def test_without_hard_links_a_database_that_is_there_stays_too(
    tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unlinkable(source: Path, target: Path) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("os.link", unlinkable)
    file = tmp_path / "mlflow.db"
    ready(file)
    first_id = database_id(file)
    assert first_id
    tracking_database._create(file, "unused")
    assert database_id(file) == first_id


def test_each_new_database_has_another_id(tmp_path: Path, quick: None) -> None:
    files = [tmp_path / name / "mlflow.db" for name in ("one", "two")]
    for file in files:
        ready(file)
    assert database_id(files[0]) != database_id(files[1])
    assert database_id(tmp_path / "none.db") is None


def test_reading_a_database_releases_no_lock_of_this_process(tmp_path: Path) -> None:
    file = filled(tmp_path / "mlflow.db")
    with closing(sqlite3.connect(file)) as ours:
        ours.execute("BEGIN IMMEDIATE")
        database_id(file)
        file_identity(file)
        other = "import sqlite3, sys; sqlite3.connect(sys.argv[1], timeout=0).execute('BEGIN IMMEDIATE')"
        done = subprocess.run([sys.executable, "-c", other, str(file)], capture_output=True, text=True, check=False)
    assert "database is locked" in done.stderr


def test_experiments_created_at_once_are_one(tmp_path: Path) -> None:
    file = tmp_path / "mlflow.db"
    shutil.copyfile(empty_database()[0], file)
    target = TrackingTarget(uri=f"sqlite:///{file}", experiment="new", artifact_root=str(tmp_path / "artifacts"))
    ids: list[str] = []
    threads = [threading.Thread(target=lambda: ids.append(connect(target)[1])) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ids) == 4
    assert len(set(ids)) == 1


def test_a_write_ahead_log_is_not_used_on_a_network_file_system(
    tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for network, mode in ((False, "wal"), (True, "delete")):
        monkeypatch.setattr(tracking_database, "is_network_folder", lambda folder, network=network: network)
        file = tmp_path / mode / "mlflow.db"
        ready(file)
        with closing(sqlite3.connect(file)) as database:
            assert database.execute("PRAGMA journal_mode").fetchone() == (mode,)

"""MLflow's SQLite database as a file: opened, identified, and judged whether it can be used."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from alembic.script import ScriptDirectory

NAME = "mlflow.db"
BUSY_TIMEOUT_S = 20.0  # that MLflow waits too, for a lock of SQLite


def open_database(file: Path, options: str = "mode=rw") -> sqlite3.Connection:
    """A connection to a database that exists. Every statement is its own transaction unless BEGIN starts one."""
    return sqlite3.connect(f"file:{quote(str(file))}?{options}", uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None)


def open_read_only(file: Path) -> sqlite3.Connection:
    """A read-only connection, also where the folder cannot be written, which a write-ahead log would need."""
    database = open_database(file, "mode=ro")
    try:
        database.execute("PRAGMA schema_version").fetchone()
    except sqlite3.OperationalError as error:
        database.close()
        if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY) or not file.exists():
            raise
        return open_database(file, "mode=ro&immutable=1")
    return database


def database_id(file: Path) -> int | None:
    """The random number that the database got when it was created; 0 for one of an older version, None if there is none.

    It was written before the file got its name, so it is read without a lock or the log. SQLite reads it, since opening and
    closing the file here would release the locks that this process holds on it (sqlite.org, How To Corrupt An SQLite Database
    File, 2.2).
    """
    try:
        with closing(open_database(file, "mode=ro&immutable=1")) as database:
            return int(database.execute("PRAGMA user_version").fetchone()[0])
    except sqlite3.Error:
        return None


def file_identity(file: Path) -> tuple[int, int] | None:
    """Differs between a database and another one that replaced it while it was open; None if there is none."""
    try:
        stat = file.stat()
    except OSError:
        return None
    return stat.st_dev, stat.st_ino


def condition(file: Path) -> str:
    """One of: missing, whole, older (its schema), newer, damaged, unfinished (its creation was cut off).

    Raises:
        sqlite3.Error, OSError: it cannot be judged now.
    """
    if not file.exists():
        return "missing"
    try:
        with closing(open_database(file)) as database:
            if database.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
                return "damaged"
            tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            row = (
                database.execute("SELECT version_num FROM alembic_version").fetchone() if "alembic_version" in tables else None
            )
            used = "runs" in tables and database.execute("SELECT 1 FROM runs LIMIT 1").fetchone() is not None
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            return "damaged"
        raise
    revision = None if row is None else str(row[0])
    if revision is not None and revision == _newest_revision():
        return "whole" if {"experiments", "runs", "logged_models"} <= tables else "damaged"
    if revision is not None and not _is_known(revision):
        return "newer"
    return "older" if used else "unfinished"


def _newest_revision() -> str:
    return str(_revisions().get_current_head())


def _is_known(revision: str) -> bool:
    from alembic.util import CommandError

    try:
        return _revisions().get_revision(revision) is not None
    except CommandError:
        return False


@cache
def _revisions() -> ScriptDirectory:
    import mlflow
    from alembic.script import ScriptDirectory

    return ScriptDirectory(str(Path(mlflow.__file__).parent / "store" / "db_migrations"))

"""MLflow's SQLite database in a folder: it is there as a whole, or not at all.

A new one is made elsewhere, with every migration, and gets its name by a hard link, which fails where another process was
faster. So a kill at any moment leaves no database or a whole one, and of two sweeps that begin together one uses what the other
made. What an older version, a kill within MLflow's own migration, or a bad disk left of a storage's database is set aside under
another name: the storage holds everything that its database shows. A database that is whole is never replaced.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import shlex
import shutil
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from functools import cache
from importlib.metadata import version
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from orchestrator.errors import SetupError
from orchestrator.storage.mounts import is_network_folder
from orchestrator.tracking.error_hints import database_trouble
from trainables.wording import one_line

if TYPE_CHECKING:
    from alembic.script import ScriptDirectory

NAME = "mlflow.db"
LOCK_S = 180.0  # a busy machine migrates slowly
BUSY_S = 20.0  # that MLflow waits too, for a lock of SQLite
JOURNALS = ("-wal", "-shm", "-journal")
UNLINKABLE = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK)  # where a file system has no hard links

Remark = Callable[[str], object]


def database_id(file: Path) -> int | None:
    """The number that was drawn when the database was made; 0 for one of an older version, None if there is none.

    It was in the file before that had its name, so nothing is read but the file: no lock, no log, no trace that one looked.
    It is asked of SQLite: to open and close the file here would release the locks that this process holds on it (sqlite.org,
    How To Corrupt An SQLite Database File, 2.2).
    """
    try:
        with closing(connected(file, "mode=ro&immutable=1")) as database:
            return int(database.execute("PRAGMA user_version").fetchone()[0])
    except sqlite3.Error:
        return None


def file_identity(file: Path) -> tuple[int, int] | None:
    """Differs between a database and another one that took its place while the first one was open; None if there is none."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def make_ready(file: Path, artifact_root: str, remark: Remark, *, replaceable: bool) -> None:
    """Sees to it that the database is there, whole, and of the installed MLflow's schema.

    Args:
        artifact_root: where the default experiment of a new database puts its artifacts.
        remark: is told what was done to a database that was there.
        replaceable: whether trial folders hold what the database shows, so that one that is not whole may be set aside.

    Raises:
        SetupError: it cannot be made or read, is damaged and not to be replaced, or needs another version of MLflow.
    """
    with _troubles(file):
        if condition(file) == "whole":
            return
        file.parent.mkdir(parents=True, exist_ok=True)
        with _locked(file):
            for left_over in file.parent.glob(f".{file.name}.*.partial"):
                left_over.unlink(missing_ok=True)
            found = condition(file)  # now that no other process works on it
            if found == "older":
                _upgrade(file, artifact_root, remark, replaceable)
            elif found != "whole":
                _renew(file, artifact_root, remark, found, replaceable)


def condition(file: Path) -> str:
    """One of: missing, whole, older (its schema), newer, damaged, unfinished (MLflow did not come to the end of making it).

    Raises:
        sqlite3.Error, OSError: it cannot be told now.
    """
    if not file.exists():
        return "missing"
    try:
        with closing(connected(file)) as database:
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


def _renew(file: Path, artifact_root: str, remark: Remark, found: str, replaceable: bool) -> None:
    """A new database where there is none, or in the place of one that is of no use."""
    if found == "newer":
        raise SetupError(
            f"tracking database {file} must have a schema that the installed MLflow {version('mlflow')} knows, got one of a "
            "newer MLflow; install that version here too, or give another tracking store with --tracking-uri"
        )
    if found == "damaged" and not replaceable:
        raise SetupError(
            f"tracking database {file} must be a SQLite database of MLflow, got a damaged one or another file; restore a "
            "backup, or move it away and a new one is made"
        )
    aside = _set_aside(file)
    _make(file, artifact_root)
    if found != "missing":
        remark(f"MLflow's database was {found}; it is kept as {aside.name}, and a new one is filled from the trial folders")


def _make(file: Path, artifact_root: str) -> None:
    """A whole new database; one that another process has put there meanwhile stays."""
    partial = file.with_name(f".{file.name}.{os.getpid()}-{secrets.token_hex(4)}.partial")
    with tempfile.TemporaryDirectory(prefix="drive-sweep-mlflow-") as scratch:
        new = Path(scratch, NAME)
        with closing(sqlite3.connect(new)) as database:  # writing takes half as long so, and readers do not wait for it
            database.execute("PRAGMA journal_mode = WAL")
        _migrate(new, artifact_root)
        with closing(connected(new)) as database:
            database.execute(f"PRAGMA user_version = {secrets.randbelow(2**31 - 1) + 1}")
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            if is_network_folder(file.parent):  # a write-ahead log needs memory that all its processes share
                database.execute("PRAGMA journal_mode = DELETE")
        try:
            shutil.copyfile(new, partial)
            with open(partial, "rb") as written:
                os.fsync(written.fileno())
            _name(partial, file)
        finally:
            partial.unlink(missing_ok=True)


def _name(partial: Path, file: Path) -> None:
    """Gives the file its name unless that is taken."""
    try:
        os.link(partial, file)
    except FileExistsError:
        return
    except OSError as error:
        if error.errno not in UNLINKABLE:
            raise
        if not file.exists():  # then the lock has to do
            os.rename(partial, file)


def _upgrade(file: Path, artifact_root: str, remark: Remark, replaceable: bool) -> None:
    """Brings an older schema up to date in a copy, and takes that over in one transaction.

    Raises:
        SetupError: the database is not ours to change, or was changed meanwhile.
    """
    ours = version("mlflow")
    if not replaceable:
        upgrade = shlex.join([str(Path(sys.executable).with_name("mlflow")), "db", "upgrade", f"sqlite:///{file.absolute()}"])
        raise SetupError(
            f"tracking database {file} must have the schema of the installed MLflow {ours}, got an older one; make a copy of "
            f"it, and bring it up to date: {upgrade}"
        )
    with tempfile.TemporaryDirectory(prefix="drive-sweep-mlflow-") as scratch, closing(connected(file)) as original:
        copy = Path(scratch, NAME)
        before = original.execute("PRAGMA data_version").fetchone()
        with closing(sqlite3.connect(copy)) as target:
            original.backup(target)
        try:
            _migrate(copy, artifact_root)
        except Exception as error:  # such as the rest of a migration that was killed
            reason = one_line(error)
        else:
            if original.execute("PRAGMA data_version").fetchone() != before:
                raise SetupError(
                    f"tracking database {file} must not be written during its migration, got a change; run this again"
                )
            with closing(connected(copy)) as migrated:
                migrated.backup(original)
            remark(f"MLflow's database had the schema of an older version; it has that of MLflow {ours} now")
            return
    aside = _set_aside(file)
    _make(file, artifact_root)
    remark(
        f"MLflow's database has the schema of an older version and cannot be brought up to date ({reason}); it is kept as "
        f"{aside.name}, and a new one is filled from the trial folders"
    )


def _set_aside(file: Path) -> Path:
    """The name under which the file and its journals are kept; one without its database must not meet a new one."""
    names = (file.with_name(f"{file.name}.damaged-{number}") for number in count(1))
    aside = next(name for name in names if not any(os.path.lexists(f"{name}{suffix}") for suffix in ("", *JOURNALS)))
    for suffix in ("", *JOURNALS):
        with suppress(FileNotFoundError):
            os.rename(f"{file}{suffix}", f"{aside}{suffix}")
    return aside


def _migrate(file: Path, artifact_root: str) -> None:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    SqlAlchemyStore(f"sqlite:///{file}", artifact_root).engine.dispose()


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


def connected(file: Path, options: str = "mode=rw") -> sqlite3.Connection:
    """The database, which must be there. Every statement is a transaction of its own unless BEGIN says otherwise."""
    return sqlite3.connect(f"file:{quote(str(file))}?{options}", uri=True, timeout=BUSY_S, isolation_level=None)


def connected_to_read(file: Path) -> sqlite3.Connection:
    """The same without writing, also where the folder cannot be written, as a write-ahead log else needs it."""
    database = connected(file, "mode=ro")
    try:
        database.execute("PRAGMA schema_version").fetchone()
    except sqlite3.OperationalError as error:
        database.close()
        if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY) or not file.exists():
            raise
        return connected(file, "mode=ro&immutable=1")
    return database


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    """No other process makes or replaces this database meanwhile, where the file system has locks.

    Raises:
        SetupError: another one has been at it for long.
    """
    deadline = time.monotonic() + LOCK_S
    with open(file.with_name(f".{file.name}.lock"), "a") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise SetupError(
                        f"tracking database {file} must be ready within {LOCK_S:.0f} s, got another process that is still "
                        "making it; end that one, or run this again later"
                    ) from None
                time.sleep(0.1)
            except OSError:
                break
        yield


@contextmanager
def _troubles(file: Path) -> Iterator[None]:
    """What the file system or SQLite raise inside becomes a SetupError with the fix."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise SetupError(database_trouble(file, error)) from error

"""Creates, migrates and replaces MLflow's SQLite database in a folder: it is there complete, or not at all.

A new one is created elsewhere, with every migration, and gets its name by a hard link, which fails if another process was
faster. So a kill at any moment leaves no database or a complete one, and of two sweeps that start together one uses what the
other created. A storage's database that is of an older version, half migrated or damaged is kept under another name: the trial
folders hold everything that it shows. A usable database is never replaced.
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
from importlib.metadata import version
from itertools import count
from pathlib import Path

from orchestrator.errors import SetupError
from orchestrator.storage.mounts import is_network_folder
from orchestrator.tracking.database_file import NAME, condition, open_database
from orchestrator.tracking.error_hints import database_error
from trainables.wording import one_line

LOCK_TIMEOUT_S = 180.0  # a busy machine migrates slowly
JOURNALS = ("-wal", "-shm", "-journal")
UNLINKABLE = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK)  # where a file system has no hard links

Notify = Callable[[str], object]


def make_ready(file: Path, artifact_root: str, notify: Notify, *, replaceable: bool) -> None:
    """Ensures that the database exists, complete and with the schema of the installed MLflow.

    Args:
        artifact_root: where the default experiment of a new database puts its artifacts.
        notify: gets a message on what was done to an existing database.
        replaceable: whether trial folders hold what the database shows, so that an unusable one may be replaced.

    Raises:
        SetupError: it cannot be created or read, is damaged and not replaceable, or needs another version of MLflow.
    """
    with _as_setup_error(file):
        if condition(file) == "whole":
            return
        file.parent.mkdir(parents=True, exist_ok=True)
        with _locked(file):
            for left_over in file.parent.glob(f".{file.name}.*.partial"):
                left_over.unlink(missing_ok=True)
            state = condition(file)  # now that no other process works on it
            if state == "older":
                _upgrade(file, artifact_root, notify, replaceable)
            elif state != "whole":
                _replace(file, artifact_root, notify, state, replaceable)


def _replace(file: Path, artifact_root: str, notify: Notify, state: str, replaceable: bool) -> None:
    """Creates a database where there is none, or replaces an unusable one."""
    if state == "newer":
        raise SetupError(
            f"tracking database {file} must have a schema that the installed MLflow {version('mlflow')} knows, got one of a "
            "newer MLflow",
            "install that version here too, or give another tracking store with --tracking-uri",
            code="tracking-database-newer",
        )
    if state == "damaged" and not replaceable:
        raise SetupError(
            f"tracking database {file} must be a SQLite database of MLflow, got a damaged one or another file",
            "restore a backup, or move it away and a new one is created",
            code="tracking-database-damaged",
        )
    kept = _move_away(file)
    _create(file, artifact_root)
    if state != "missing":
        notify(f"MLflow's database was {state}; it is kept as {kept.name}, and a new one is filled from the trial folders")


def _create(file: Path, artifact_root: str) -> None:
    """Creates a complete new database; one that another process has put there meanwhile stays."""
    partial = file.with_name(f".{file.name}.{os.getpid()}-{secrets.token_hex(4)}.partial")
    with tempfile.TemporaryDirectory(prefix="drive-sweep-mlflow-") as scratch:
        new = Path(scratch, NAME)
        with closing(sqlite3.connect(new)) as database:  # halves the time of writing, and readers do not wait for it
            database.execute("PRAGMA journal_mode = WAL")
        _migrate(new, artifact_root)
        with closing(open_database(new)) as database:
            database.execute(f"PRAGMA user_version = {secrets.randbelow(2**31 - 1) + 1}")
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            if is_network_folder(file.parent):  # a write-ahead log needs memory shared by all processes
                database.execute("PRAGMA journal_mode = DELETE")
        try:
            shutil.copyfile(new, partial)
            with open(partial, "rb") as written:
                os.fsync(written.fileno())
            _name(partial, file)
        finally:
            partial.unlink(missing_ok=True)


def _name(partial: Path, file: Path) -> None:
    """Gives the file its final name unless that is taken."""
    try:
        os.link(partial, file)
    except FileExistsError:
        return
    except OSError as error:
        if error.errno not in UNLINKABLE:
            raise
        if not file.exists():  # the lock has to be enough
            os.rename(partial, file)


def _upgrade(file: Path, artifact_root: str, notify: Notify, replaceable: bool) -> None:
    """Migrates a copy of a database with an older schema, and copies it back in one transaction.

    Raises:
        SetupError: the database is not a storage's, or was changed meanwhile.
    """
    installed = version("mlflow")
    if not replaceable:
        upgrade = shlex.join([str(Path(sys.executable).with_name("mlflow")), "db", "upgrade", f"sqlite:///{file.absolute()}"])
        raise SetupError(
            f"tracking database {file} must have the schema of the installed MLflow {installed}, got an older one",
            f"make a copy of it, and migrate it: {upgrade}",
            code="tracking-database-older",
        )
    with tempfile.TemporaryDirectory(prefix="drive-sweep-mlflow-") as scratch, closing(open_database(file)) as original:
        copy = Path(scratch, NAME)
        before = original.execute("PRAGMA data_version").fetchone()
        with closing(sqlite3.connect(copy)) as target:
            original.backup(target)
        try:
            _migrate(copy, artifact_root)
        except Exception as error:  # such as a migration that was killed half way
            reason = one_line(error)
        else:
            if original.execute("PRAGMA data_version").fetchone() != before:
                raise SetupError(
                    f"tracking database {file} must not be written during its migration, got a change",
                    "run this again",
                    code="tracking-database-busy",
                )
            with closing(open_database(copy)) as migrated:
                migrated.backup(original)
            notify(f"MLflow's database had the schema of an older version; it has that of MLflow {installed} now")
            return
    kept = _move_away(file)
    _create(file, artifact_root)
    notify(
        f"MLflow's database has the schema of an older version and cannot be brought up to date ({reason}); it is kept as "
        f"{kept.name}, and a new one is filled from the trial folders"
    )


def _move_away(file: Path) -> Path:
    """Renames the file with its journals, since a journal must not meet a new database; the new name."""
    names = (file.with_name(f"{file.name}.damaged-{number}") for number in count(1))
    kept = next(name for name in names if not any(os.path.lexists(f"{name}{suffix}") for suffix in ("", *JOURNALS)))
    for suffix in ("", *JOURNALS):
        with suppress(FileNotFoundError):
            os.rename(f"{file}{suffix}", f"{kept}{suffix}")
    return kept


def _migrate(file: Path, artifact_root: str) -> None:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    SqlAlchemyStore(f"sqlite:///{file}", artifact_root).engine.dispose()


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    """Keeps other processes from creating or replacing the database, where the file system has locks.

    Raises:
        SetupError: another process holds the lock for too long.
    """
    deadline = time.monotonic() + LOCK_TIMEOUT_S
    with open(file.with_name(f".{file.name}.lock"), "a") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise SetupError(
                        f"tracking database {file} must be ready within {LOCK_TIMEOUT_S:.0f} s, got another process that is "
                        "still creating it",
                        "end that one, or run this again later",
                        code="tracking-database-busy",
                    ) from None
                time.sleep(0.1)
            except OSError:
                break
        yield


@contextmanager
def _as_setup_error(file: Path) -> Iterator[None]:
    """Turns errors of the file system and of SQLite into a SetupError with the fix."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise database_error(file, error) from error

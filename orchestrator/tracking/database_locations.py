"""Corrects the artifact locations in a storage's MLflow database when the storage was moved, copied or mounted elsewhere.

MLflow stores absolute paths. Those below a former path of the storage are corrected in one transaction; a tag of the experiment
keeps the former path. Nothing is written at the former path, since the original of a copy may be in use.
"""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlsplit

from orchestrator.errors import SetupError
from orchestrator.state.driver_liveness import driver_alive
from orchestrator.tracking.database import Notify
from orchestrator.tracking.database_file import NAME, open_database
from orchestrator.tracking.error_hints import database_error
from trainables.runtime.json_text import parse_json

ARTIFACTS = "artifacts"
COLUMNS = (  # table and column of each location
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
    ("trace_tags", "value"),
)
MOVED_FROM = "drive.moved_from"  # tag of an experiment
OF_STORAGE = re.compile(rf"(?P<folder>.*)/{ARTIFACTS}(?:/\d+)?")  # of the sweeps' experiments, and of those created in the UI


def follow_storage(folder: Path, notify: Notify) -> None:
    """Corrects the locations in the database of the storage at `folder`, and reports that; correct ones stay as they are.

    Raises:
        SetupError: a running sweep uses this storage under its former path; or the database cannot be read or written.
    """
    try:
        with closing(open_database(folder / NAME)) as database:
            roots = moved_roots(database, folder)
            if not roots:
                return
            _require_not_used_elsewhere(folder, roots)
            _correct(database, folder)
    except (sqlite3.Error, OSError) as error:
        raise database_error(folder / NAME, error) from error
    former = ", ".join(sorted({root.removesuffix(f"/{ARTIFACTS}") for root in roots}))
    notify(f"the storage was at {former}; the artifact locations in its MLflow database follow it to {folder}")


def moved_roots(database: sqlite3.Connection, folder: Path) -> list[str]:
    """The artifact folders at the storage's former paths, spelled as in the database."""
    present = _spellings(folder / ARTIFACTS)
    roots = {}
    for (location,) in database.execute(
        "SELECT DISTINCT artifact_location FROM experiments WHERE artifact_location IS NOT NULL"
    ):
        root = re.sub(r"/\d+$", "", location) if OF_STORAGE.fullmatch(location) else ""
        if root and root not in present and local_folder(root) is not None:
            roots[root] = local_folder(root)
    return [root for root, path in roots.items() if path is not None and _belongs_to_storage(database, root, path, folder)]


def correct_locations(file: Path, folder: Path) -> None:
    """Corrects the locations in a copy of a database for the storage at `folder`."""
    with closing(open_database(file)) as database:
        _correct(database, folder)


def _correct(database: sqlite3.Connection, folder: Path) -> None:
    """Corrects all locations in one transaction, looking for them inside it."""
    database.execute("BEGIN IMMEDIATE")
    try:
        for root in moved_roots(database, folder):
            _replace(database, root, str(folder / ARTIFACTS))
        database.execute("COMMIT")
    except BaseException:
        database.execute("ROLLBACK")
        raise


def _require_not_used_elsewhere(folder: Path, roots: list[str]) -> None:
    """Raises SetupError if a driver uses a former path that is not visible from here, such as on another host."""
    if all(path is not None and path.parent.exists() for path in map(local_folder, roots)):
        return  # the original of a copy has its own database
    for file in sorted((folder / "sweeps").glob("*/state.json")):
        try:
            driver = parse_json(file.read_bytes()).get("driver") or {}
        except (OSError, ValueError, AttributeError):
            continue
        if driver.get("storage") != str(folder) and driver_alive(driver):
            raise SetupError(
                f"storage {folder} must be used under one path by sweeps that run at the same time, got sweep "
                f"{file.parent.name!r} on {driver.get('host')}, which uses {driver.get('storage') or roots[0]}",
                "wait until that sweep has ended, or use a tracking server (--tracking-uri)",
                code="storage-path-differs",
            )


def _replace(database: sqlite3.Connection, root: str, present: str) -> None:
    """Replaces a former artifact folder at the start of every location."""
    tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    former = "artifact_location = ? OR substr(artifact_location, 1, ?) = ?"
    prefix = (root, len(root) + 1, f"{root}/")
    database.execute(
        "INSERT OR REPLACE INTO experiment_tags (key, value, experiment_id) "
        f"SELECT ?, ?, experiment_id FROM experiments WHERE {former}",
        (MOVED_FROM, root, *prefix),
    )
    for table, column in COLUMNS:
        if table in tables:
            database.execute(
                f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE {column} = ? OR substr({column}, 1, ?) = ?",
                (present, len(root) + 1, *prefix),
            )


def _belongs_to_storage(database: sqlite3.Connection, root: str, path: Path, folder: Path) -> bool:
    """Whether a former artifact folder was this storage's, and not a folder that the user chose."""
    if not path.parent.exists():
        return True  # moved, or mounted elsewhere
    if os.path.samefile(path.parent, folder):
        return False  # another path of the same folder
    if (path.parent / NAME).exists() or (path.parent / "storage.json").exists():
        return True  # the original of a copy
    return any((folder / ARTIFACTS / name).exists() for name in _names_below(database, root))


def _names_below(database: sqlite3.Connection, root: str) -> Iterator[str]:
    """Paths of runs' and models' artifacts below the folder."""
    for table, column in COLUMNS[1:3]:
        rows = database.execute(f"SELECT {column} FROM {table} WHERE substr({column}, 1, ?) = ?", (len(root) + 1, f"{root}/"))
        yield from (unquote(location[len(root) + 1 :]) for (location,) in rows.fetchall())


def _spellings(folder: Path) -> set[str]:
    return {str(folder), folder.as_uri()}


def local_folder(location: str) -> Path | None:
    """The local folder of a location; None for one of an artifact server or an object store."""
    if location.startswith("/"):
        return Path(location)
    split = urlsplit(location)
    return Path(unquote(split.path)) if split.scheme == "file" and not split.netloc else None

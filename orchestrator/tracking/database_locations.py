"""The artifact locations in a storage's MLflow database follow the storage when it is moved, copied or mounted elsewhere.

MLflow keeps them as absolute paths. Where they lie below another folder than the storage's, they are corrected, all in one
transaction; what lay under the former place is noted with the experiment. Nothing is read from the former place but whether it
is there, and nothing is written there, since a copy's original may be in use.
"""

from __future__ import annotations

import json
import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlsplit

from orchestrator.errors import SetupError
from orchestrator.state.driver_liveness import driver_alive
from orchestrator.tracking.database import NAME, Remark, connected
from orchestrator.tracking.error_hints import database_trouble

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
OF_STORAGE = re.compile(rf"(?P<folder>.*)/{ARTIFACTS}(?:/\d+)?")  # as the sweeps' experiments have it, and those made in the UI


def follow_storage(folder: Path, remark: Remark) -> None:
    """Corrects the locations in the database of the storage at `folder`, and says so; again it changes nothing.

    Raises:
        SetupError: a sweep runs that sees this storage under its former path; or the database cannot be read or written.
    """
    try:
        with closing(connected(folder / NAME)) as database:
            roots = misplaced_roots(database, folder)
            if not roots:
                return
            _refuse_while_used_elsewhere(folder, roots)
            _correct(database, folder)
    except (sqlite3.Error, OSError) as error:
        raise SetupError(database_trouble(folder / NAME, error)) from error
    former = ", ".join(sorted({root.removesuffix(f"/{ARTIFACTS}") for root in roots}))
    remark(f"the storage was at {former}; the artifact locations in its MLflow database follow it to {folder}")


def misplaced_roots(database: sqlite3.Connection, folder: Path) -> list[str]:
    """Artifact folders, as the database writes them, that lay in the storage when it was elsewhere."""
    present = _spelled(folder / ARTIFACTS)
    roots = {}
    for (location,) in database.execute(
        "SELECT DISTINCT artifact_location FROM experiments WHERE artifact_location IS NOT NULL"
    ):
        root = re.sub(r"/\d+$", "", location) if OF_STORAGE.fullmatch(location) else ""
        if root and root not in present and local_folder(root) is not None:
            roots[root] = local_folder(root)
    return [root for root, path in roots.items() if path is not None and _was_here(database, root, path, folder)]


def correct_locations(file: Path, folder: Path) -> None:
    """Makes the locations in a copy of a storage's database those of the storage at `folder`."""
    with closing(connected(file)) as database:
        _correct(database, folder)


def _correct(database: sqlite3.Connection, folder: Path) -> None:
    """One transaction, on what is misplaced by then."""
    database.execute("BEGIN IMMEDIATE")
    try:
        for root in misplaced_roots(database, folder):
            _replace(database, root, str(folder / ARTIFACTS))
        database.execute("COMMIT")
    except BaseException:
        database.execute("ROLLBACK")
        raise


def _refuse_while_used_elsewhere(folder: Path, roots: list[str]) -> None:
    """Raises SetupError if a driver works under a former path that is not seen from here, such as on another host."""
    if all(path is not None and path.parent.exists() for path in map(local_folder, roots)):
        return  # an original, which has a database of its own
    for file in sorted((folder / "sweeps").glob("*/state.json")):
        try:
            driver = json.loads(file.read_bytes()).get("driver") or {}
        except (OSError, ValueError, AttributeError):
            continue
        if driver.get("storage") != str(folder) and driver_alive(driver):
            raise SetupError(
                f"storage {folder} must be used under one path by sweeps that run at once, got sweep {file.parent.name!r} on "
                f"{driver.get('host')}, which sees it as {driver.get('storage') or roots[0]}; MLflow gets these runs when that "
                "sweep has ended, or give a tracking server with --tracking-uri"
            )


def _replace(database: sqlite3.Connection, root: str, present: str) -> None:
    """Puts the present artifact folder in the place of a former one, wherever a location begins with it."""
    tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    former = "artifact_location = ? OR substr(artifact_location, 1, ?) = ?"
    begins = (root, len(root) + 1, f"{root}/")
    database.execute(
        "INSERT OR REPLACE INTO experiment_tags (key, value, experiment_id) "
        f"SELECT ?, ?, experiment_id FROM experiments WHERE {former}",
        (MOVED_FROM, root, *begins),
    )
    for table, column in COLUMNS:
        if table in tables:
            database.execute(
                f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE {column} = ? OR substr({column}, 1, ?) = ?",
                (present, len(root) + 1, *begins),
            )


def _was_here(database: sqlite3.Connection, root: str, path: Path, folder: Path) -> bool:
    """Whether the files of a former artifact folder are those of this storage, and it is not a place of the user's choice."""
    if not path.parent.exists():
        return True  # moved, or mounted elsewhere
    if os.path.samefile(path.parent, folder):
        return False  # another name of this folder, and as good
    if (path.parent / NAME).exists() or (path.parent / "storage.json").exists():
        return True  # the original of a copy
    return any((folder / ARTIFACTS / name).exists() for name in _names_below(database, root))


def _names_below(database: sqlite3.Connection, root: str) -> Iterator[str]:
    """Paths of runs' and models' artifacts below the folder."""
    for table, column in COLUMNS[1:3]:
        rows = database.execute(f"SELECT {column} FROM {table} WHERE substr({column}, 1, ?) = ?", (len(root) + 1, f"{root}/"))
        yield from (unquote(location[len(root) + 1 :]) for (location,) in rows.fetchall())


def _spelled(folder: Path) -> set[str]:
    return {str(folder), folder.as_uri()}


def local_folder(location: str) -> Path | None:
    """The local folder of a location; None for one of an artifact server or an object store."""
    if location.startswith("/"):
        return Path(location)
    split = urlsplit(location)
    return Path(unquote(split.path)) if split.scheme == "file" and not split.netloc else None

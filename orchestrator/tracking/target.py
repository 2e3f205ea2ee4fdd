"""Where the runs of a sweep go in MLflow."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import quote

from orchestrator.errors import UserError
from orchestrator.spec.schema import SweepSpec
from orchestrator.storage.base import Storage
from orchestrator.tracking.client import SQLITE, TrackingTarget, database_file
from orchestrator.tracking.database_file import NAME as DATABASE


def tracking_target(spec: SweepSpec, storage: Storage) -> TrackingTarget:
    """Where the runs of a sweep go: the URI that was given, else a SQLite file in the storage; artifacts beside such a file.

    Raises:
        UserError: no URI was given, and the storage is no folder.
    """
    uri = spec.tracking.uri
    if uri is None:
        root = storage.folder
        if root is None:
            raise UserError(
                f"tracking.uri must be given, since storage {storage.root} is no folder that could hold MLflow's database",
                "give --tracking-uri, such as http://mlflow:5000",
                code="tracking-uri-missing",
            )
        return storage_target(root, spec.tracking.experiment)
    return given_target(uri, spec.tracking.experiment)


def storage_target(folder: Path, experiment: str) -> TrackingTarget:
    """The database in a storage's folder, and its artifacts there.

    Raises:
        UserError: MLflow would take the folder's name for another one.
    """
    name = str(folder)
    escapes = re.search(r"\?|%[0-9a-fA-F]{2}|[\udc80-\udcff]", name)
    if escapes:
        raise UserError(
            "storage must be a folder without '?', %XX and bytes that are no UTF-8 in its path, since MLflow's database there "
            f"is named by a URI, got {escapes[0]!a} in {name!a}",
            "rename the folder, or give a tracking server with --tracking-uri",
            code="storage-path-invalid",
        )
    return TrackingTarget(
        uri=f"{SQLITE}{folder / DATABASE}", experiment=experiment, artifact_root=str(folder / "artifacts"), storage=name
    )


def given_target(uri: str, experiment: str) -> TrackingTarget:
    """A tracking URI that was given; artifacts lie beside a SQLite file."""
    database = database_file(uri)  # without a word MLflow would put artifacts into the current folder
    if database is None:
        return TrackingTarget(uri=uri, experiment=experiment, artifact_root=None)
    if not database.is_absolute():
        uri = uri.replace(SQLITE, f"{SQLITE}{quote(str(Path.cwd()))}/", 1)
    return TrackingTarget(uri=uri, experiment=experiment, artifact_root=str(database.absolute().parent / "artifacts"))

"""What commands share: the specification and the storage of their options, and lines beside the answer."""

from __future__ import annotations

import json
import os
import sys
from argparse import Namespace
from typing import TYPE_CHECKING

from orchestrator.command_line import DEFAULT_STORAGE, note_sweep
from orchestrator.errors import SetupError
from orchestrator.state.sweep_folder import SweepFolder
from orchestrator.storage.base import Storage
from orchestrator.storage.factory import open_storage
from orchestrator.uris import redacted

if TYPE_CHECKING:
    from orchestrator.spec.schema import SweepSpec


def spec_from(options: Namespace) -> SweepSpec:
    from orchestrator.spec.loader import load_spec

    overrides = list(options.set)
    overrides += [f"name={json.dumps(options.name)}"] if options.name else []
    overrides += [f"storage={json.dumps(options.storage)}"] if options.storage else []
    overrides += [f"tracking.uri={json.dumps(options.tracking_uri)}"] if options.tracking_uri else []
    spec = load_spec(options.file, overrides)
    note_sweep(spec.name, spec.storage)
    return spec


def spec_of(folder: SweepFolder) -> SweepSpec:
    """The specification of a sweep that exists, with the storage where it is now (which may have moved)."""
    from orchestrator.spec.loader import spec_from_resolved

    spec = spec_from_resolved(folder.storage.read_json(folder.file("spec.json")))
    return spec.model_copy(update={"storage": folder.storage.root})


def storage_from(options: Namespace) -> Storage:
    return open_storage(options.storage or DEFAULT_STORAGE)


def warn_of_unused_environment(spec: SweepSpec) -> None:
    """Says which of MLflow's variables have no effect: where a sweep is tracked must not depend on who continues it."""
    if (uri := os.environ.get("MLFLOW_TRACKING_URI")) and spec.tracking.uri is None:
        effect = "has no effect: runs go to the database in the storage"
        notify(f"MLFLOW_TRACKING_URI is set to {redacted(uri)} and {effect}; --tracking-uri names another")
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME")
    if name and name != spec.tracking.experiment:
        effect = f"has no effect: runs are in experiment {spec.tracking.experiment}, as tracking.experiment says"
        notify(f"MLFLOW_EXPERIMENT_NAME is set to {name} and {effect}")


def follow_moved_storage(storage: Storage) -> None:
    """Corrects the locations in MLflow's database if the storage was moved; says so, or why it cannot."""
    from orchestrator.tracking.database_file import NAME
    from orchestrator.tracking.database_locations import follow_storage

    if storage.folder is not None and (storage.folder / NAME).exists():
        try:
            follow_storage(storage.folder, notify)
        except SetupError as error:
            notify(str(error))


def notify(line: str) -> None:
    """Prints a line for the user that is no part of the answer."""
    print(line, file=sys.stderr)

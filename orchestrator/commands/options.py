"""What commands make of their options: the specification, the storage, what is said beside the answer."""

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
    """The spec of a sweep that exists, at the storage where it was found (which may have moved)."""
    from orchestrator.spec.loader import spec_from_resolved

    spec = spec_from_resolved(folder.storage.read_json(folder.file("spec.json")))
    return spec.model_copy(update={"storage": folder.storage.root})


def storage_from(options: Namespace) -> Storage:
    return open_storage(options.storage or DEFAULT_STORAGE)


def say_unused_environment(spec: SweepSpec) -> None:
    """Says which of MLflow's variables decide nothing here, since a sweep's place must not depend on who continues it."""
    if (uri := os.environ.get("MLFLOW_TRACKING_URI")) and spec.tracking.uri is None:
        place = "in the storage's own database"
        say(
            f"MLFLOW_TRACKING_URI is set to {redacted(uri)} and decides nothing: runs are {place}; --tracking-uri names another"
        )
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME")
    if name and name != spec.tracking.experiment:
        used = f"experiment {spec.tracking.experiment}"
        say(f"MLFLOW_EXPERIMENT_NAME is set to {name} and decides nothing: runs are in {used}, as tracking.experiment says")


def follow_moved_storage(storage: Storage) -> None:
    """Corrects the locations in MLflow's database where the storage was moved; says so, or why it cannot."""
    from orchestrator.tracking.database import NAME
    from orchestrator.tracking.database_locations import follow_storage

    if storage.folder is not None and (storage.folder / NAME).exists():
        try:
            follow_storage(storage.folder, say)
        except SetupError as error:
            say(str(error))


def say(line: str) -> None:
    print(line, file=sys.stderr)

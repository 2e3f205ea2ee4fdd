"""What tells a storage from others on a tracking server that several of them use, where sweeps of one name would mix.

identity/identity.json has it, and state.json of each sweep a copy, so that the loss of either costs nothing. Storages whose
MLflow database lies inside them need none.
"""

from __future__ import annotations

import secrets
import time

from orchestrator.errors import SetupError
from orchestrator.state.driver_lease import LEASE_TIMES, LeaseHeldError, LeaseTimes, driver_lease
from orchestrator.state.driver_liveness import driver_alive, this_driver
from orchestrator.state.sweep_folder import SweepFolder

FOLDER = "identity"  # in the storage
FILE = f"{FOLDER}/identity.json"
TRIES, PAUSE_S = 20, 1.0  # for another process that creates it


def known_identity(folder: SweepFolder) -> str:
    """16 hex digits, as the storage of the sweep or its state has them; empty if neither has."""
    if recorded := _recorded(folder):
        return recorded
    state = folder.read_state()
    return state.identity if state is not None else ""


def ensure_identity(folder: SweepFolder, times: LeaseTimes = LEASE_TIMES) -> str:
    """The same, created if there is none.

    Raises:
        SetupError: another process has been creating it for too long.
    """
    if recorded := _recorded(folder):
        return recorded
    for _ in range(TRIES):
        try:
            with driver_lease(folder.storage, FOLDER, this_driver, driver_alive, times):
                identity = known_identity(folder) or secrets.token_hex(8)
                folder.storage.write_json(FILE, {"identity": identity})
                return identity
        except LeaseHeldError as error:
            holder = str(error)
            time.sleep(PAUSE_S)
            if recorded := _recorded(folder):
                return recorded
    raise SetupError(
        f"the identity of storage {folder.storage.root} is being made by {holder}", "try again", code="storage-unavailable"
    )


def _recorded(folder: SweepFolder) -> str:
    record = folder.storage.read_json(FILE, fields=("identity",))
    return "" if record is None else str(record["identity"])

"""The folder of a sweep: its trials and their state.

    <storage>/sweeps/<name>/sweep.yaml      the sweep file as written
                            spec.json       the same with every default, and the options of the command line
                            trials.json     keys and names of the trials; the data's digest
                            resolved.json   automatic settings, resolved once: device, threads, precision
                            state.json      states, last metrics, run ids, the driver and its heartbeat
                            sweep.log       events, a line each
                            driver.lock     held by the driver; driver.json if there are no locks
                            stop, stop-KEY  requests to stop
                            deleting.json   what a deletion has begun to remove; gone when it is done
                            renamed.json    the former name; gone when MLflow shows the new one
                            .reserve        room for the last state and log, while a driver runs (space_reserve.py)

`status` reads nothing else. The driver writes state.json after a change, at most every 2 s (less often if a write takes long),
and at least every 10 s as a heartbeat, unless a write takes longer than that.
"""

from __future__ import annotations

import time
from collections.abc import Container, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from orchestrator.command_line import command
from orchestrator.errors import SetupError, UserError
from orchestrator.state.driver_lease import LEASE_TIMES, LeaseHeldError, LeaseTimes, driver_lease, lease_holder
from orchestrator.state.driver_liveness import driver_alive, this_driver
from orchestrator.state.gc_lease import require_no_gc
from orchestrator.state.sweep_state import SweepState, state_from_bytes, state_to_bytes
from orchestrator.storage.base import Storage, report_damage
from orchestrator.storage.layout import stop_files
from trainables.runtime.secrets import without_secrets

DELETING, RENAMED, RESERVE = "deleting.json", "renamed.json", ".reserve"


@dataclass(frozen=True, slots=True)
class SweepFolder:
    """The files of one sweep."""

    storage: Storage
    name: str

    def file(self, name: str) -> str:
        return f"sweeps/{self.name}/{name}"

    def exists(self) -> bool:
        return self.storage.exists(self.file("trials.json"))

    def read_state(self) -> SweepState | None:
        """The last state written; trials that ran under a driver that is gone are waiting again.

        None if there is none, or if it is damaged, which is reported; the next run, resume or sync writes it again.
        """
        content = self.storage.read(self.file("state.json"))
        state = None if content is None else state_from_bytes(content)
        if content is not None and state is None:
            report_damage(self.storage, self.file("state.json"))
        if state is None:
            return None
        if not driver_alive(state.driver):
            for entry in state.all_stages():
                if entry.state == "running":
                    entry.state = "waiting"
        return state

    def write_state(self, state: SweepState) -> None:
        self.storage.write(self.file("state.json"), state_to_bytes(state, {}))

    def request_stop(self, key: str | None = None) -> None:
        whole, one = stop_files(self.name, key or "")
        self.storage.write(one if key else whole, b"")

    def withdraw_stop(self, key: str) -> None:
        """Removes the request to stop one trial."""
        self.storage.remove(stop_files(self.name, key)[1])

    def clear_stop_requests(self) -> None:
        for name in self.storage.names(f"sweeps/{self.name}"):
            if name == "stop" or name.startswith("stop-"):
                self.storage.remove(self.file(name))

    def log(self, line: str) -> None:
        """Adds a line to sweep.log; nothing depends on it, so errors of the storage are ignored."""
        with suppress(OSError):
            self.storage.append(self.file("sweep.log"), f"{time.strftime('%Y-%m-%d %H:%M:%S')} {without_secrets(line)}\n")

    def live_driver(self) -> str:
        """The driver that its state names, on whichever host, in words; empty if it has none or a dead one."""
        state = self.read_state()
        alive = state is not None and driver_alive(state.driver)
        return f"process {state.driver['pid']} on {state.driver['host']}" if state is not None and alive else ""

    def require_no_driver(self) -> None:
        """Raises SetupError if the sweep has a live driver."""
        if driver := self.live_driver():
            raise self._in_use_error(driver)

    def lease_holder(self) -> str:
        """Who holds the sweep's lease, in words; empty if nobody does."""
        return lease_holder(self.storage, f"sweeps/{self.name}", driver_alive)

    @contextmanager
    def driver_lease(self, times: LeaseTimes = LEASE_TIMES) -> Iterator[None]:
        """Holds the sweep during the block, as its only driver or as a command that changes it.

        Raises:
            SetupError: another process holds it, or a gc of the storage runs.
        """
        self.require_no_driver()
        try:
            with driver_lease(self.storage, f"sweeps/{self.name}", this_driver, driver_alive, times):
                require_no_gc(self.storage)
                yield
        except LeaseHeldError as error:
            others = "; `sync`, `doctor --fix`, `rename` and `delete` hold a sweep too, and end by themselves"
            raise self._in_use_error(str(error), others) from None

    def _in_use_error(self, owner: str, others: str = "") -> SetupError:
        return SetupError(
            f"sweep {self.name!r} is being run by {owner}",
            f"`{command('stop', self.name)}` ends it{others}",
            code="sweep-running",
        )


def sweep_names(storage: Storage) -> list[str]:
    """The names of the sweeps in a storage, without folders that are no whole sweep."""
    return [name for name in storage.names("sweeps") if SweepFolder(storage, name).exists()]


def open_sweep(storage: Storage, name: str) -> SweepFolder:
    """The folder of a sweep. Raises UserError, with the names of those that exist, if there is none."""
    folder = SweepFolder(storage, name)
    if not folder.exists():
        raise _interrupted_change(folder) or sweep_not_found(folder)
    return folder


def sweep_not_found(folder: SweepFolder) -> UserError:
    known = ", ".join(sweep_names(folder.storage)) or "none"
    return UserError(
        f"no sweep {folder.name!r} in storage {folder.storage.root}",
        f"sweeps there: {known} (another storage: --storage)",
        code="sweep-not-found",
    )


def _interrupted_change(folder: SweepFolder) -> UserError | None:
    """The error for a sweep whose deletion or renaming was interrupted; None if neither was."""
    if folder.storage.exists(folder.file(DELETING)):
        hint = f"`{command('delete', folder.name)}` removes the rest"
        return UserError(f"the deletion of sweep {folder.name!r} was interrupted", hint, code="sweep-half-deleted")
    for name in folder.storage.names("sweeps"):
        other = SweepFolder(folder.storage, name)
        if folder.storage.exists(other.file(RENAMED)) and not other.exists():
            record = folder.storage.read_json(other.file(RENAMED), fields=("from",))
            if record and folder.name in (name, record["from"]):
                message = f"the renaming of sweep {record['from']!r} to {name!r} was interrupted"
                hint = f"`{command('rename', record['from'], name)}` completes it"
                return UserError(message, hint, code="sweep-half-renamed")
    return None


def require_known_trials(sweep: str, keys: Iterable[str], known: Container[str]) -> None:
    """Raises UserError if one of the keys belongs to no trial of the sweep."""
    for key in keys:
        if key not in known:
            raise UserError(
                f"--trial {key}: no such trial in sweep {sweep!r}",
                f"`{command('status', sweep)}` lists them",
                code="trial-not-found",
            )

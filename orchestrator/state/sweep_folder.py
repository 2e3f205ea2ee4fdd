"""A sweep's own folder: its trials, and how they stand.

    <storage>/sweeps/<name>/sweep.yaml      the sweep file as written
                            spec.json       the same with every default, and the options of the command line
                            trials.json     keys and names of the trials; the data's digest
                            resolved.json   automatic choices, made once: device, threads, precision
                            state.json      states, last metrics, run ids, the driver and its heartbeat
                            sweep.log       what happened, a line each
                            driver.lock     held by the driver; driver.json where there are no locks
                            stop, stop-KEY  requests to end

`status` reads these files alone. The driver writes state.json when something changed, at most every 2 s (more rarely where
writing takes long), and at least every 10 s as a heartbeat, if a writing takes no longer than that.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import threading
import time
from collections.abc import Container, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from orchestrator.command_line import command
from orchestrator.errors import SetupError, UserError
from orchestrator.state.driver_lease import DEAD_AFTER_S, HeldError, sole_driver
from orchestrator.storage.base import Storage, tell_damage
from orchestrator.storage.layout import stop_files

DIGEST_MARK, DIGEST_END = b',\n"state_sha256": "', b'"\n}\n'  # around the SHA-256 of all that stands before it
WRITE_S = 2.0
PATIENCE = 20.0  # times as long as the last writing took: it may take a twentieth of the driver's time
HEARTBEAT_S = 10.0
CLOSE_S = 5.0  # for the last writing, where the storage hangs


@dataclass(kw_only=True, slots=True)
class TrialStatus:
    """One line of `status --json`; metrics holds the last value by full metric name."""

    key: str
    name: str
    state: str
    config: dict[str, Any]
    metrics: dict[str, float] = field(default_factory=dict)
    mlflow_run_id: str | None = None
    model_sha256: str | None = None
    error: str | None = None
    phase: str | None = None
    position: int = 0


@dataclass(kw_only=True, slots=True)
class WarmupStatus:
    key: str
    name: str
    state: str
    epochs: int
    position: int = 0
    trained_epochs: int = 0
    mlflow_run_id: str | None = None
    error: str | None = None


@dataclass(kw_only=True, slots=True)
class SweepState:
    """The content of state.json."""

    sweep: str
    trials: dict[str, TrialStatus] = field(default_factory=dict)
    warmups: dict[str, WarmupStatus] = field(default_factory=dict)
    tracking_pending: int = 0
    tracking_error: str | None = None
    tracking_cpu_seconds: float = 0.0
    parent_run_id: str | None = None
    experiment_id: str | None = None
    tracking_database: int = 0  # number of the SQLite database that run ids and experiment are of; 0 elsewhere
    driver: dict[str, Any] = field(default_factory=dict)

    def counts(self) -> dict[str, int]:
        states = [trial.state for trial in self.trials.values()]
        return {state: states.count(state) for state in ("finished", "failed", "stopped", "running", "waiting")}

    def entries(self) -> list[TrialStatus | WarmupStatus]:
        return [*self.trials.values(), *self.warmups.values()]

    def to_status(self) -> dict[str, Any]:
        """The answer of `status --json`."""
        return {
            "sweep": self.sweep,
            "total": len(self.trials),
            **self.counts(),
            "tracking_pending": self.tracking_pending,
            "tracking_error": self.tracking_error,
            "driver_alive": driver_alive(self.driver),
            "warmups": [asdict(warmup) for warmup in self.warmups.values()],
            "trials": [asdict(trial) for trial in self.trials.values()],
        }


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

        None if there is none, or if it is damaged, which is told: it is written anew by the next run, resume or sync.
        """
        content = self.storage.read(self.file("state.json"))
        state = None if content is None else _decoded(content)
        if content is not None and state is None:
            tell_damage(self.storage, self.file("state.json"))
        if state is None:
            return None
        if not driver_alive(state.driver):
            for entry in state.entries():
                if entry.state == "running":
                    entry.state = "waiting"
        return state

    def write_state(self, state: SweepState) -> None:
        self.storage.write(self.file("state.json"), encoded(state, {}))

    def request_stop(self, key: str | None = None) -> None:
        whole, one = stop_files(self.name, key or "")
        self.storage.write(one if key else whole, b"")

    def clear_stop_requests(self) -> None:
        for name in self.storage.names(f"sweeps/{self.name}"):
            if name == "stop" or name.startswith("stop-"):
                self.storage.remove(self.file(name))

    def log(self, line: str) -> None:
        """Adds a line to sweep.log; nothing depends on it, so a full disk is no reason to end a sweep here."""
        with suppress(OSError):
            self.storage.append(self.file("sweep.log"), f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}\n")

    def refuse_second_driver(self) -> None:
        """Raises SetupError if a live driver works on this sweep."""
        state = self.read_state()
        if state is not None and driver_alive(state.driver):
            raise self._held(f"process {state.driver['pid']} on {state.driver['host']}")

    @contextmanager
    def held(self) -> Iterator[None]:
        """The right to be the sweep's driver, for as long as the block lasts; two that start together cannot both have it.

        Raises:
            SetupError: another driver has it.
        """
        self.refuse_second_driver()
        try:
            with sole_driver(self.storage, f"sweeps/{self.name}", this_driver, driver_alive):
                yield
        except HeldError as error:
            raise self._held(str(error)) from None

    def _held(self, who: str) -> SetupError:
        return SetupError(f"sweep {self.name!r} is being run by {who}; `{command('stop', self.name)}` ends it")


def open_sweep(storage: Storage, name: str) -> SweepFolder:
    """The folder of a sweep that exists. Raises UserError naming the sweeps that there are."""
    folder = SweepFolder(storage, name)
    if not folder.exists():
        known = ", ".join(sorted(storage.names("sweeps"))) or "none"
        raise UserError(f"no sweep {name!r} in storage {storage.root}; sweeps there: {known} (another storage: --storage)")
    return folder


def refuse_unknown_trial(sweep: str, wanted: Iterable[str], known: Container[str]) -> None:
    """Raises UserError if a key that the user gave is none of the sweep's trials."""
    for key in wanted:
        if key not in known:
            raise UserError(f"--trial {key}: no such trial in sweep {sweep!r}; `{command('status', sweep)}` lists them")


def this_driver() -> dict[str, Any]:
    """Identifies this process, so that others can tell whether it still lives; the host's name is for people."""
    return {
        "host": socket.gethostname(),
        "process_table": _process_table(),
        "pid": os.getpid(),
        "pid_started": _pid_started(os.getpid()),
        "started": time.time(),
        "heartbeat": time.time(),
    }


def driver_alive(driver: dict[str, Any]) -> bool:
    """Whether a driver still works: by its process where that can be seen, by its heartbeat from anywhere else."""
    if not driver:
        return False
    here = _process_table()
    if here is not None and driver.get("process_table") == here:
        started = _pid_started(driver["pid"])
        return started is not None and started == driver["pid_started"]
    return time.time() - float(driver["heartbeat"]) < DEAD_AFTER_S


def _process_table() -> str | None:
    """Names the boot of this machine and the process ids that are seen here; None where the system does not tell.

    Two machines may have one name, as may a container and its host, and then an id means another process.
    """
    try:
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return None


def _pid_started(pid: int) -> str | None:
    """Start time of a process in clock ticks since boot, since process ids come again; None if it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]


class StateWriter:
    """Keeps state.json up to date from a thread of its own, so that a slow storage never holds the driver up.

    Entries that did not change are not encoded again: with thousands of trials that alone would keep a processor busy. A
    change of an entry is told to `changed`; changes happen under `lock`.
    """

    def __init__(self, folder: SweepFolder, state: SweepState) -> None:
        self.folder = folder
        self.state = state
        self.lock = threading.Lock()
        self._texts: dict[str, str] = {}  # key of a trial or trunk -> its JSON
        self._changed = threading.Event()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="state-writer", daemon=True)

    def start(self) -> None:
        with self.lock:
            self.state.driver = this_driver() | {"storage": self.folder.storage.root}
        self._write()
        self._thread.start()

    def changed(self, entry: TrialStatus | WarmupStatus | None = None) -> None:
        """Notes that an entry, or what the sweep itself tells, is to be written anew."""
        if entry is not None:
            with self.lock:
                self._texts.pop(entry.key, None)
        self._changed.set()

    def close(self) -> None:
        """Has the last state written, without a driver. Where the storage hangs it is not waited for longer than CLOSE_S."""
        self._closed.set()
        self._changed.set()
        self._thread.join(CLOSE_S)

    def _run(self) -> None:
        """Writes until the end and once more then: no other thread does, so an older state never lands after a newer one."""
        begun = time.monotonic()
        while not self._closed.is_set():
            self._changed.wait(timeout=max(0.0, begun + HEARTBEAT_S - time.monotonic()))
            self._changed.clear()
            begun = time.monotonic()
            self._write()
            took = time.monotonic() - begun
            self._closed.wait(timeout=min(max(WRITE_S, PATIENCE * took), max(0.0, HEARTBEAT_S - took)))
        with self.lock:
            self.state.driver = {}
            self._texts.clear()
        self._write()

    def _write(self) -> None:
        with self.lock:
            if self.state.driver:
                self.state.driver["heartbeat"] = time.time()
            content = encoded(self.state, self._texts)
        try:
            self.folder.storage.write(self.folder.file("state.json"), content)
        except OSError as error:  # the next change tries again; results do not depend on this file
            self.state.tracking_error = f"state.json cannot be written: {error}"


def encoded(state: SweepState, texts: dict[str, str]) -> bytes:
    """The content of state.json: a line for every trial and trunk. `texts` holds those that are encoded already, by key."""
    for entry in state.entries():
        if entry.key not in texts:
            texts[entry.key] = json.dumps(asdict(entry))
    lines = {
        "trials": [f'"{key}": {texts[key]}' for key in state.trials],
        "warmups": [f'"{key}": {texts[key]}' for key in state.warmups],
    }
    own = asdict(replace(state, trials={}, warmups={}))
    parts = [f'"{name}": {json.dumps(value)}' for name, value in own.items() if name not in lines]
    parts += [f'"{name}": {{\n' + ",\n".join(entries) + "\n}" for name, entries in lines.items()]
    text = ("{\n" + ",\n".join(parts)).encode()
    return text + DIGEST_MARK + hashlib.sha256(text).hexdigest().encode() + DIGEST_END


def _decoded(content: bytes) -> SweepState | None:
    """The state of a state.json; None if it is not what was written. One without a digest is of an earlier version."""
    text, mark, digest = content.rpartition(DIGEST_MARK)
    if mark and digest != hashlib.sha256(text).hexdigest().encode() + DIGEST_END:
        return None
    try:
        values = json.loads(text + b"}" if mark else content)
        trials = {key: TrialStatus(**trial) for key, trial in values.pop("trials").items()}
        warmups = {key: WarmupStatus(**warmup) for key, warmup in values.pop("warmups").items()}
        return SweepState(**values, trials=trials, warmups=warmups)
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
        return None

"""The storage layout: trial folders, warm-up snapshots, sweep folders.

    <storage>/storage.json                                  version of this layout
    <storage>/trials/<key>/                                 the record of one trial (trainables/checkpoint.py names its files)
    <storage>/warmups/<warm-up key>/epoch-0004.<fingerprint>.safetensors
    <storage>/sweeps/<name>/                                sweep file, trials, state, stop requests
    <storage>/data/<signature>.json                         content digest of a data set, made once

Every file is written as a whole, so a reader never meets half of one. Read by: everything above; the folders are handed to
`trainables/` as the protocols of trainables/checkpoint.py.
"""

from __future__ import annotations

import json
import os
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.errors import SetupError, UserError
from trainables.failures import SupersededError
from trainables.records import RESULT

LAYOUT = 1


@dataclass(frozen=True, slots=True)
class Storage:
    """Whole files below one folder, addressed by relative path. Small and picklable: workers get a copy."""

    root: str

    def path(self, name: str) -> Path:
        return Path(self.root, name)

    def read(self, name: str) -> bytes | None:
        try:
            return self.path(name).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def write(self, name: str, content: bytes, before_publish: Callable[[], None] = lambda: None) -> None:
        """Replaces the file at once: temporary name, fsync, rename. `before_publish` may raise to leave it as it is."""
        path = self.path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.partial")
        try:
            with open(partial, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            before_publish()
            os.replace(partial, path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise

    def remove(self, name: str) -> None:
        self.path(name).unlink(missing_ok=True)

    def exists(self, name: str) -> bool:
        return self.path(name).exists()

    def names(self, folder: str) -> list[str]:
        """Names in a folder, sorted; those of files that are being written are left out."""
        try:
            return sorted(name for name in os.listdir(self.path(folder)) if not name.startswith("."))
        except FileNotFoundError:
            return []

    def read_json(self, name: str) -> Any:
        """The content of a JSON file, or None if there is none or it is not whole."""
        content = self.read(name)
        try:
            return None if content is None else json.loads(content)
        except ValueError:
            return None

    def write_json(self, name: str, content: Any) -> None:
        self.write(name, json.dumps(content, indent=1).encode())


def open_storage(uri: str, create: bool = False) -> Storage:
    """The storage at a folder.

    Raises:
        UserError: the URI is not a folder's.
        SetupError: the folder cannot be written, or has the layout of a newer version.
    """
    if "://" in uri and not uri.startswith("file://"):
        raise UserError(f"storage: {uri!r} is not a folder; object stores are not supported in this version")
    root = Path(uri.removeprefix("file://")).expanduser().absolute()
    storage = Storage(str(root))
    layout = storage.read_json("storage.json")
    if layout is not None and layout["layout"] > LAYOUT:
        raise SetupError(f"storage {root} has layout {layout['layout']}, this version knows {LAYOUT}; update drive-sweep")
    if create and layout is None:
        try:
            storage.write_json("storage.json", {"layout": LAYOUT})
        except OSError as error:
            raise SetupError(
                f"storage {root} cannot be written: {error.strerror}; give another folder with --storage"
            ) from error
    return storage


def trial_file(key: str, name: str) -> str:
    return f"trials/{key}/{name}"


@dataclass(slots=True)
class TrialFolder:
    """One trial's folder as one attempt sees it (TrialFiles).

    `attempt.json` holds the newest attempt. It is compared right before each publication, so that a worker that was
    cut off and comes back changes nothing.
    """

    storage: Storage
    key: str
    attempt: int
    sweep: str | None = None
    stop_asked: bool = False
    owner: str = field(default_factory=lambda: secrets.token_hex(8))

    def begin(self) -> None:
        """Makes this the newest attempt; of two with the same number the one that began last. A finished trial is left alone.

        Raises:
            SupersededError: a newer attempt has begun.
        """
        if self.storage.exists(trial_file(self.key, RESULT)):
            return
        newest = newest_attempt(self.storage, self.key)
        if newest > self.attempt:
            raise self._superseded(newest)
        self.storage.write_json(trial_file(self.key, "attempt.json"), {"attempt": self.attempt, "owner": self.owner})

    def read(self, name: str) -> bytes | None:
        return self.storage.read(trial_file(self.key, name))

    def publish(self, name: str, content: bytes) -> None:
        self.storage.write(trial_file(self.key, name), content, before_publish=self._raise_if_superseded)

    def remove(self, name: str) -> None:
        self._raise_if_superseded()
        self.storage.remove(trial_file(self.key, name))

    def stop_requested(self) -> bool:
        if self.stop_asked or self.sweep is None:
            return self.stop_asked
        return any(self.storage.exists(name) for name in stop_files(self.sweep, self.key))

    def _raise_if_superseded(self) -> None:
        record = self.storage.read_json(trial_file(self.key, "attempt.json")) or {"attempt": 0}
        same = record["attempt"] == self.attempt and record.get("owner", self.owner) != self.owner
        if record["attempt"] > self.attempt or same:
            raise self._superseded(record["attempt"])

    def _superseded(self, newest: int) -> SupersededError:
        return SupersededError(f"trial {self.key}: attempt {newest} has begun, attempt {self.attempt} gives up")


def newest_attempt(storage: Storage, key: str) -> int:
    """Number of the newest attempt at a trial that has begun; 0 before the first."""
    record = storage.read_json(trial_file(key, "attempt.json"))
    return int(record["attempt"]) if record else 0


def set_aside(storage: Storage, key: str) -> None:
    """Moves a trial's folder out of the way, so that it begins again; nothing is deleted.

    Attempts go on counting, so that a late worker of the old folder cannot write into the new one.
    """
    folder, attempt = storage.path(f"trials/{key}"), newest_attempt(storage, key)
    if folder.exists():
        aside = storage.path(f"trials/.aside/{key}-{attempt}")
        aside.parent.mkdir(parents=True, exist_ok=True)
        if not aside.exists():  # else nothing but the count has been in the folder since
            folder.rename(aside)
        storage.write_json(trial_file(key, "attempt.json"), {"attempt": attempt + 1})


def stop_files(sweep: str, key: str) -> tuple[str, str]:
    """Paths whose existence asks the whole sweep, or one trial of it, to stop."""
    return f"sweeps/{sweep}/stop", f"sweeps/{sweep}/stop-{key}"


@dataclass(frozen=True, slots=True)
class WarmupFolder:
    """Snapshots of one dense trunk under one fingerprint (SnapshotFiles).

    `folder` is warmups/<warm-up key>, or a private folder where warm-ups are not shared.
    """

    storage: Storage
    folder: str
    fingerprint_id: str

    def epochs(self) -> list[int]:
        suffix = f".{self.fingerprint_id}.safetensors"
        names = [name for name in self.storage.names(self.folder) if name.startswith("epoch-") and name.endswith(suffix)]
        return sorted(int(name.removeprefix("epoch-").split(".")[0]) for name in names)

    def read(self, epoch: int) -> bytes | None:
        return self.storage.read(self._name(epoch))

    def publish(self, epoch: int, content: bytes) -> None:
        self.storage.write(self._name(epoch), content)

    def remove(self, epoch: int) -> None:
        self.storage.remove(self._name(epoch))

    def _name(self, epoch: int) -> str:
        return f"{self.folder}/epoch-{epoch:04d}.{self.fingerprint_id}.safetensors"


@dataclass(frozen=True, slots=True)
class StageFolders:
    """The folders that a stage of one sweep works in; pickled and handed to every worker."""

    storage: Storage
    sweep: str | None

    def trial(self, key: str, attempt: int) -> TrialFolder:
        folder = TrialFolder(self.storage, key, attempt, self.sweep)
        folder.begin()
        return folder

    def warmups(self, warmup_key: str, fingerprint_id: str) -> WarmupFolder:
        return WarmupFolder(self.storage, f"warmups/{warmup_key}", fingerprint_id)

    def private_warmups(self, key: str, fingerprint_id: str) -> WarmupFolder:
        """Where a trial keeps its own warm-up while warm-ups are not shared."""
        return WarmupFolder(self.storage, f"trials/{key}/warmup", fingerprint_id)

    def layer_counts(self, key: str) -> dict[str, int] | None:
        """Kept weights by layer of a finished trial; None if there is no such trial."""
        result = self.storage.read_json(trial_file(key, RESULT))
        return None if result is None else {layer["name"]: layer["kept"] for layer in result["layers"]}

    def stop_requested(self) -> bool:
        """Whether the whole sweep was asked to stop."""
        return self.sweep is not None and self.storage.exists(f"sweeps/{self.sweep}/stop")

"""The storage layout: trial folders, warm-up snapshots, sweep folders.

<storage>/storage.json                                  version of this layout
<storage>/trials/<key>/                                 the record of one trial (trainables/trial/checkpoint.py names its files)
<storage>/warmups/<warm-up key>/epoch-0004.<fingerprint>.safetensors
<storage>/warmups/<warm-up key>/rule-<key>.<fingerprint>.json   an automatic warm-up: what it read, and the length it chose
<storage>/sweeps/<name>/                                sweep file, trials, state, stop requests
<storage>/data/<signature>.json                         content digest of a data set, computed once
<storage>/identity/                                     what tells the storage from others on a tracking server
"""

from __future__ import annotations

import re
import secrets
import time
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from orchestrator.storage.base import Storage
from orchestrator.storage.full_storage import write_with_grace
from trainables.errors import ConfigError, StaleAttemptError
from trainables.records.file_names import RESULT
from trainables.records.metrics import DamagedRecordError

LAYOUT_VERSION, LAYOUT_FILE = 1, "storage.json"
ASIDE = ".aside"  # folder beside those of trials, of warm-ups and of sweeps, for what was replaced
SNAPSHOT_NAME = re.compile(r"epoch-(?P<epoch>\d+)\.(?P<fingerprint>[^.]+)\.safetensors")
DAMAGED_COUNT_GAP = 1000  # added to the attempts that a damaged attempt.json may have counted
SLOW_WRITE_GRACE_S = 5.0  # after a slower write, check again for a newer attempt


def trial_file(key: str, name: str) -> str:
    return f"trials/{key}/{name}"


@dataclass(slots=True)
class TrialFolder:
    """One trial's folder as one attempt sees it (TrialFiles).

    `attempt.json` names the newest attempt. Each write first checks that this attempt is still the newest, so a worker that was
    cut off and comes back changes nothing. A worker that stalls between check and write (an object store retries for up to two
    minutes) can overwrite one file of the newer attempt. So a slow write is checked again, and ends its worker. Attempts on
    like machines write the same bytes, readers of a finished trial compare its files with result.json, and no trial continues
    from a checkpoint beside a result.
    """

    storage: Storage
    key: str
    attempt: int
    sweep: str | None = None
    stop_asked: bool = False
    owner: str = field(default_factory=lambda: secrets.token_hex(8))
    slow_write_grace_s: float = SLOW_WRITE_GRACE_S

    def claim_attempt(self) -> None:
        """Makes this the newest attempt; of two with the same number the last one wins. Does nothing to a finished trial.

        Raises:
            StaleAttemptError: a newer attempt has started.
        """
        if self.storage.exists(trial_file(self.key, RESULT)):
            return
        newest = newest_attempt(self.storage, self.key)
        if newest > self.attempt:
            raise self._stale_attempt(newest)
        record = {"attempt": self.attempt, "owner": self.owner}
        write_with_grace(lambda: self.storage.write_json(trial_file(self.key, "attempt.json"), record))

    def read(self, name: str) -> bytes | None:
        return self.storage.read(trial_file(self.key, name))

    def publish(self, name: str, content: bytes) -> None:
        """Writes a file. Raises StaleAttemptError if a newer attempt has started, by then or during a slow write."""
        started, path = time.time(), trial_file(self.key, name)
        write_with_grace(lambda: self.storage.write(path, content, before_publish=self._require_newest))
        if time.time() - started > self.slow_write_grace_s:
            self._require_newest(f"; its {name} was written late and may have replaced that of the newer attempt")

    def remove(self, name: str) -> None:
        self._require_newest()
        self.storage.remove(trial_file(self.key, name))

    def stop_requested(self, *, at_once: bool = False) -> bool:
        if self.stop_asked or self.sweep is None:
            return self.stop_asked
        exists = self.storage.exists if at_once else self.storage.poll_exists
        return any(exists(name) for name in stop_files(self.sweep, self.key))

    def _require_newest(self, remark: str = "") -> None:
        record = _attempt_record(self.storage, self.key) or {"attempt": 0}
        same = record["attempt"] == self.attempt and record.get("owner", self.owner) != self.owner
        if record["attempt"] > self.attempt or same:
            raise self._stale_attempt(record["attempt"], remark)

    def _stale_attempt(self, newest: int, remark: str = "") -> StaleAttemptError:
        return StaleAttemptError(f"trial {self.key}: attempt {newest} has started, attempt {self.attempt} gives up{remark}")


def newest_attempt(storage: Storage, key: str) -> int:
    """The number of the newest attempt at a trial; 0 before the first."""
    name = trial_file(key, "attempt.json")
    record = _attempt_record(storage, key)
    if record is None and (content := storage.read(name)) is not None:
        # A late worker must see a number above its own, so count on from above every number that the file may have held.
        numbers = [int(number) for number in re.findall(rb"\d{1,6}", content)]
        return max(numbers, default=0) + DAMAGED_COUNT_GAP
    return int(record["attempt"]) if record else 0


def _attempt_record(storage: Storage, key: str) -> dict[str, Any] | None:
    """The content of attempt.json; None if there is none, or if it is damaged."""
    record = storage.read_json(trial_file(key, "attempt.json"), fields=("attempt",))
    return record if record is not None and type(record["attempt"]) is int else None


def archive_trial(storage: Storage, key: str) -> None:
    """Moves a trial's folder to trials/.aside, so that the trial starts again; deletes nothing.

    The attempts keep counting, so that a late worker of the old folder cannot write into the new one.
    """
    folder, attempt = f"trials/{key}", newest_attempt(storage, key)
    names = storage.names(folder)
    if names:
        if names != ["attempt.json"]:  # else it was archived before, and nothing was written since
            targets = (f"trials/{ASIDE}/{key}-{number}" for number in count(attempt))
            storage.move_folder(folder, next(target for target in targets if not storage.names(target)))
        storage.write_json(trial_file(key, "attempt.json"), {"attempt": attempt + 1})


def set_aside(storage: Storage, path: str) -> str:
    """Moves a file into the hidden folder .aside beside the folders of its kind, and returns where it is now."""
    kind, _, rest = path.partition("/")
    targets = (f"{kind}/{ASIDE}/{rest}" + (f"-{number}" if number else "") for number in count())
    target = next(name for name in targets if not storage.exists(name))
    storage.write(target, storage.read(path) or b"")
    storage.remove(path)
    return target


def stop_files(sweep: str, key: str) -> tuple[str, str]:
    """Paths whose existence asks the whole sweep, or one trial of it, to stop."""
    return f"sweeps/{sweep}/stop", f"sweeps/{sweep}/stop-{key}"


@dataclass(frozen=True, slots=True)
class WarmupFolder:
    """Snapshots of one warm-up under one fingerprint (SnapshotFiles).

    `folder` is warmups/<warm-up key>, or a folder of the trial if warm-ups are not shared.
    """

    storage: Storage
    folder: str
    fingerprint_id: str

    @property
    def key(self) -> str:
        """The key of the shared warm-up, or of the trial to which this one belongs."""
        return self.folder.removesuffix("/warmup").rpartition("/")[2]

    def epochs(self) -> list[int]:
        matches = map(SNAPSHOT_NAME.fullmatch, self.storage.names(self.folder))
        return sorted(int(match["epoch"]) for match in matches if match and match["fingerprint"] == self.fingerprint_id)

    def read(self, epoch: int) -> bytes | None:
        return self.storage.read(self._name(epoch))

    def publish(self, epoch: int, content: bytes) -> None:
        """Writes a snapshot. One that another sweep has published meanwhile stays: trials may have begun from it."""
        if not self.storage.exists(self._name(epoch)):
            write_with_grace(lambda: self.storage.write(self._name(epoch), content))

    def remove(self, epoch: int) -> None:
        self.storage.remove(self._name(epoch))

    def read_rule(self, key: str) -> bytes | None:
        return self.storage.read(self._rule_name(key))

    def publish_rule(self, key: str, content: bytes) -> None:
        write_with_grace(lambda: self.storage.write(self._rule_name(key), content))

    def remove_rules(self) -> None:
        for name in self.storage.names(self.folder):
            if name.startswith("rule-"):
                self.storage.remove(f"{self.folder}/{name}")

    def _rule_name(self, key: str) -> str:
        return f"{self.folder}/rule-{key}.{self.fingerprint_id}.json"

    def _name(self, epoch: int) -> str:
        return f"{self.folder}/epoch-{epoch:04d}.{self.fingerprint_id}.safetensors"


def longest_snapshot(storage: Storage, warmup_key: str) -> str | None:
    """Path of the snapshot of a shared warm-up's last epoch, under any fingerprint."""
    longest = _longest_name(storage, warmup_key)
    return f"warmups/{warmup_key}/{longest[0]}" if longest else None


def longest_warmup(storage: Storage, warmup_key: str) -> int:
    """Epochs of a shared warm-up's longest snapshot, under any fingerprint; 0 if it has none."""
    longest = _longest_name(storage, warmup_key)
    return int(longest["epoch"]) if longest else 0


def _longest_name(storage: Storage, warmup_key: str) -> re.Match[str] | None:
    matches = [match for name in storage.names(f"warmups/{warmup_key}") if (match := SNAPSHOT_NAME.fullmatch(name))]
    return max(matches, key=lambda match: int(match["epoch"]), default=None)


@dataclass(frozen=True, slots=True)
class StageFolders:
    """The folders that a stage of a sweep uses; pickled and sent to every worker."""

    storage: Storage
    sweep: str | None

    def trial(self, key: str, attempt: int) -> TrialFolder:
        folder = TrialFolder(self.storage, key, attempt, self.sweep)
        folder.claim_attempt()
        return folder

    def warmups(self, warmup_key: str, fingerprint_id: str) -> WarmupFolder:
        return WarmupFolder(self.storage, f"warmups/{warmup_key}", fingerprint_id)

    def private_warmups(self, key: str, fingerprint_id: str) -> WarmupFolder:
        """Where a trial keeps its warm-up if warm-ups are not shared."""
        return WarmupFolder(self.storage, f"trials/{key}/warmup", fingerprint_id)

    def layer_counts(self, key: str) -> dict[str, int] | None:
        """Kept weights by layer of a finished trial; None if there is none."""
        from trainables.records.result_record import decode_result  # which imports the table of methods

        content = self.storage.read(trial_file(key, RESULT))
        try:
            layers = None if content is None else decode_result(content, key)["layers"]
        except DamagedRecordError as error:
            raise ConfigError(f"random.layers: {RESULT} of trial {key} {error}; run that trial's sweep again") from error
        return None if layers is None else {layer["name"]: layer["kept"] for layer in layers}

    def stop_requested(self) -> bool:
        """Whether the whole sweep was asked to stop."""
        return self.sweep is not None and self.storage.poll_exists(stop_files(self.sweep, "")[0])

    def is_visible(self) -> bool:
        """Whether this process sees the sweep's files: a node without the storage would write where nobody reads."""
        return self.sweep is None or self.storage.exists(f"sweeps/{self.sweep}/trials.json")

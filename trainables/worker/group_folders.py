"""The storage as the workers of one trial use it: the first reads and writes, the others learn what it has read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from trainables.records.protocols import SnapshotFiles, TrialFiles
from trainables.runtime.group import Group
from trainables.worker.stage import Folders


@dataclass(frozen=True)
class GroupFolders:
    """The folders of a stage (Folders), the same on every worker."""

    folders: Folders
    group: Group

    def trial(self, key: str, attempt: int) -> TrialFiles:
        """The trial's folder; of the other workers an empty one, as `run_trial` asks the first for what it reads."""
        return self.folders.trial(key, attempt) if self.group.is_first else NoFiles(key, attempt)

    def warmups(self, warmup_key: str, fingerprint_id: str) -> SnapshotFiles:
        snapshots = self.folders.warmups(warmup_key, fingerprint_id) if self.group.is_first else NoSnapshots(warmup_key)
        return GroupSnapshots(snapshots, self.group)

    def private_warmups(self, key: str, fingerprint_id: str) -> SnapshotFiles:
        snapshots = self.folders.private_warmups(key, fingerprint_id) if self.group.is_first else NoSnapshots(key)
        return GroupSnapshots(snapshots, self.group)

    def layer_counts(self, key: str) -> Mapping[str, int] | None:
        return self.group.of_first(lambda: self.folders.layer_counts(key))

    def stop_requested(self) -> bool:
        """Whether the sweep should stop; only the first worker is asked."""
        return self.group.is_first and self.folders.stop_requested()

    def is_visible(self) -> bool:
        return not self.group.is_first or self.folders.is_visible()


@dataclass
class NoFiles:
    """A trial folder that stays empty (TrialFiles)."""

    key: str
    attempt: int

    def read(self, name: str) -> bytes | None:
        return None

    def publish(self, name: str, content: bytes) -> None:
        pass

    def remove(self, name: str) -> None:
        pass

    def stop_requested(self, *, at_once: bool = False) -> bool:
        return False


@dataclass(frozen=True)
class NoSnapshots:
    """A warm-up folder that stays empty (SnapshotFiles)."""

    key: str

    def epochs(self) -> list[int]:
        return []

    def read(self, epoch: int) -> bytes | None:
        return None

    def publish(self, epoch: int, content: bytes) -> None:
        pass

    def remove(self, epoch: int) -> None:
        pass

    def read_rule(self, key: str) -> bytes | None:
        return None

    def publish_rule(self, key: str, content: bytes) -> None:
        pass

    def remove_rules(self) -> None:
        pass


@dataclass(frozen=True)
class GroupSnapshots:
    """The snapshots that the first worker reads and writes (SnapshotFiles)."""

    snapshots: SnapshotFiles
    group: Group

    @property
    def key(self) -> str:
        return self.snapshots.key

    def epochs(self) -> list[int]:
        return self.group.of_first(self.snapshots.epochs)

    def read(self, epoch: int) -> bytes | None:
        return self.group.of_first(lambda: self.snapshots.read(epoch))

    def publish(self, epoch: int, content: bytes) -> None:
        self.snapshots.publish(epoch, content)

    def remove(self, epoch: int) -> None:
        self.snapshots.remove(epoch)

    def read_rule(self, key: str) -> bytes | None:
        return self.group.of_first(lambda: self.snapshots.read_rule(key))

    def publish_rule(self, key: str, content: bytes) -> None:
        self.snapshots.publish_rule(key, content)

    def remove_rules(self) -> None:
        self.snapshots.remove_rules()

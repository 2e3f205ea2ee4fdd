"""What a trial needs of the storage; implemented by orchestrator/storage/layout.py."""

from __future__ import annotations

from typing import Protocol


class TrialFiles(Protocol):
    """One trial's folder, as one attempt at the trial sees it."""

    key: str
    attempt: int

    def read(self, name: str) -> bytes | None:
        """The whole file, or None if there is none."""

    def publish(self, name: str, content: bytes) -> None:
        """Puts the whole file in place at once. Raises StaleAttemptError if a newer attempt has begun."""

    def remove(self, name: str) -> None:
        """Removes the file if it is there. Raises StaleAttemptError if a newer attempt has begun."""

    def stop_requested(self) -> bool:
        """Whether the trial should leave a checkpoint and end."""


class SnapshotFiles(Protocol):
    """The snapshots of one dense trunk under one fingerprint."""

    @property
    def key(self) -> str:
        """Of the trunk; of the trial where warm-ups are not shared."""

    def epochs(self) -> list[int]:
        """Epochs at which there is a snapshot, ascending."""

    def read(self, epoch: int) -> bytes | None:
        """The whole file, or None if there is none."""

    def publish(self, epoch: int, content: bytes) -> None:
        """Puts the whole file in place at once; several writers publish equal bits, so the last one may win."""

    def remove(self, epoch: int) -> None:
        """Removes the file if it is there."""

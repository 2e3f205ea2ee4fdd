"""The storage interface of a trial; implemented by orchestrator/storage/layout.py."""

from __future__ import annotations

from typing import Protocol


class TrialFiles(Protocol):
    """One trial's folder, as one attempt at the trial sees it."""

    key: str
    attempt: int

    def read(self, name: str) -> bytes | None:
        """The whole file, or None if there is none."""

    def publish(self, name: str, content: bytes) -> None:
        """Writes the file atomically. Raises StaleAttemptError if a newer attempt has started."""

    def remove(self, name: str) -> None:
        """Removes the file if it exists. Raises StaleAttemptError if a newer attempt has started."""

    def stop_requested(self, *, at_once: bool = False) -> bool:
        """Whether the trial should write a checkpoint and end.

        Args:
            at_once: look now; otherwise an object store is asked every few seconds.
        """


class SnapshotFiles(Protocol):
    """The snapshots of one dense warm-up under one fingerprint."""

    @property
    def key(self) -> str:
        """The warm-up key; the trial key where warm-ups are not shared."""

    def epochs(self) -> list[int]:
        """Epochs at which there is a snapshot, ascending."""

    def read(self, epoch: int) -> bytes | None:
        """The whole file, or None if there is none."""

    def publish(self, epoch: int, content: bytes) -> None:
        """Writes the file atomically, unless there is one: several writers publish equal content, and the first one stays."""

    def remove(self, epoch: int) -> None:
        """Removes the file if it exists."""

    def read_rule(self, key: str) -> bytes | None:
        """What a rule for the length of the warm-up has read and chosen so far, or None if there is nothing."""

    def publish_rule(self, key: str, content: bytes) -> None:
        """Writes the file atomically; several writers publish equal choices, so the last one may win."""

    def remove_rules(self) -> None:
        """Removes all such files."""

"""What a worker is given: one stage of a plan, and the settings that all stages of a sweep share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from trainables.custom.files import NO_CUSTOM_FILES, CustomFiles
from trainables.data.staging import StagedDataset
from trainables.preflight.network_case import Adjustments
from trainables.runtime.device import Runtime
from trainables.runtime.heartbeat import INTERVAL_S

if TYPE_CHECKING:
    from trainables.records.protocols import SnapshotFiles, TrialFiles


class Folders(Protocol):
    """The storage interface of a stage; implemented by orchestrator/storage/layout.py."""

    def trial(self, key: str, attempt: int) -> TrialFiles:
        """The trial's folder, claimed for `attempt`. Raises StaleAttemptError if a newer attempt has started."""

    def warmups(self, warmup_key: str, fingerprint_id: str) -> SnapshotFiles:
        """The shared snapshots of a warm-up key."""

    def private_warmups(self, key: str, fingerprint_id: str) -> SnapshotFiles:
        """The snapshots of one trial that shares no warm-up."""

    def layer_counts(self, key: str) -> Mapping[str, int] | None:
        """Kept weights by layer of another trial; None without a result."""

    def stop_requested(self) -> bool:
        """Whether the whole sweep should stop."""

    def is_visible(self) -> bool:
        """Whether this node sees the sweep's files, and so the driver the files that a stage writes here."""


@dataclass(frozen=True, kw_only=True)
class SweepSettings:
    """The settings that all stages of a sweep share.

    Attributes:
        runtime: its precision is what "auto" stands for.
        progress_seconds: shortest time between two progress reports of a stage.
        alive_seconds: between two signs of life of a stage that has nothing else to report.
        adjustments: fields of the runtime that differ for some networks.
    """

    folders: Folders
    data: StagedDataset
    runtime: Runtime
    share_warmups: bool
    checkpoint_seconds: float
    metrics_seconds: float
    provenance: dict[str, Any]
    progress_seconds: float
    alive_seconds: float = INTERVAL_S
    custom_files: CustomFiles = NO_CUSTOM_FILES
    adjustments: Adjustments = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One unit of scheduling: kind "warmup" (key is the warm-up key) or "trial". Plain values, so that Tune can copy it.

    Attributes:
        rules: of a warm-up, those that choose a length, as canonical configurations; `lengths` then holds the most.
        rungs: sparse epochs after which a trial waits for the decision whether it goes on.
    """

    kind: str
    key: str
    name: str
    config: dict[str, Any]
    attempt: int
    warmup_key: str | None = None
    lengths: tuple[int, ...] = ()
    rules: tuple[dict[str, Any], ...] = ()
    rungs: tuple[int, ...] = ()

"""The environment of a trial: everything it needs besides its configuration."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from trainables.custom.files import NO_CUSTOM_FILES, CustomFiles
from trainables.data.source import DatasetSource
from trainables.pruning.sparsity_distributions import LayerCounts
from trainables.records.protocols import SnapshotFiles, TrialFiles
from trainables.runtime.device import Runtime
from trainables.trial.checkpoint import TrialState


@dataclass(frozen=True, kw_only=True)
class TrialContext:
    """The files, data and runtime of a trial.

    Attributes:
        shares_snapshots: whether other trials may read them; if not, they are removed when the trial has finished.
        checkpoint_seconds: a checkpoint is written at the first boundary after so many seconds, and at the end of a phase.
        metrics_seconds: the same for metrics.jsonl; `on_progress` gets published points only.
        on_progress: called with the state at boundaries, after its points were published.
        rungs: sparse epochs after which `on_rung` is called in its place; the trial then looks whether it should stop.
        provenance: copied into the result: key, data digest, revision.
        counts_of: kept weights by layer of another trial, by its key.
        custom_files: the user's modules and initial weights; the result holds their digests.
    """

    source: DatasetSource
    runtime: Runtime
    files: TrialFiles
    snapshots: SnapshotFiles
    shares_snapshots: bool = True
    checkpoint_seconds: float = 60.0
    metrics_seconds: float = 5.0
    on_progress: Callable[[TrialState], None] = lambda state: None
    on_rung: Callable[[TrialState], None] = lambda state: None
    rungs: tuple[int, ...] = ()
    provenance: dict[str, Any] = field(default_factory=dict)
    counts_of: LayerCounts = lambda key: None
    custom_files: CustomFiles = NO_CUSTOM_FILES

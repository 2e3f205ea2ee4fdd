"""What the driver may call on the tracking of a sweep, whether it runs in a thread or in a process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from orchestrator.tracking.records import RunSpec
from orchestrator.tracking.sweep_summary import SweepSummary
from trainables.records.metrics import Point


class Tracking(Protocol):
    """Takes updates of a sweep's items at any time, and sends them to MLflow; never raises or blocks.

    Attributes:
        last_error: why an attempt failed; None again when all is sent.
        run_ids: trial key or warm-up key -> run id.
        experiment_id, parent_run_id: empty until MLflow was reached for the first time.
        database: number of the database that these are in; see RunSync.
        cpu_seconds: CPU time of the process since mlflow was imported, which takes seconds; opening the store counts.
    """

    last_error: str | None
    run_ids: dict[str, str]
    experiment_id: str
    parent_run_id: str
    database: int | None
    cpu_seconds: float

    def start(self) -> None: ...

    def start_item(self, item: RunSpec) -> None:
        """A worker has taken the item up."""

    def points(self, item: RunSpec, points: Sequence[Point]) -> None: ...

    def finish(self, item: RunSpec) -> None: ...

    def fail(self, item: RunSpec, message: str) -> None: ...

    def stop(self, item: RunSpec) -> None: ...

    def reconcile(self, items: Sequence[tuple[RunSpec, str]]) -> None:
        """Brings MLflow up to date with the states as they are now, before the updates that come later."""

    def summarize(self, summary: SweepSummary) -> None:
        """Brings what is shown of the sweep as a whole up to date; of several that wait, the last one counts."""

    def close_sweep(self, status: str, summary: SweepSummary) -> None:
        """Ends the sweep's run after all other updates, with its last summary."""

    @property
    def pending(self) -> int:
        """Events that are not in MLflow yet."""

    @property
    def progress(self) -> int:
        """Grows with all that gets into MLflow; a long event counts more than once."""

    def flush(self, stalled_s: float, most_s: float) -> bool:
        """Waits until everything is in MLflow, and returns whether it is.

        Gives up when nothing has got in for `stalled_s` or several attempts failed, and after `most_s` in any case.
        """

    def close(self) -> None:
        """Ends the tracking; what is pending stays so."""

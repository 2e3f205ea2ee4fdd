"""The table of what is compared, in the order of mending: what a later family reads, an earlier one has put right."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from orchestrator.repair.checkpoints import damaged_checkpoints
from orchestrator.repair.mismatch import Mismatch, Scope
from orchestrator.repair.partial_files import partial_files
from orchestrator.repair.small_files import damaged_small_files
from orchestrator.repair.sweep_files import damaged_sweep_files
from orchestrator.repair.sweep_folders import half_made_sweeps
from orchestrator.repair.sweep_state import stale_leases, stale_states, stale_stop_requests
from orchestrator.repair.tracked_runs import wrong_registrations, wrong_runs
from orchestrator.repair.trial_records import damaged_records
from orchestrator.repair.unfinished_points import damaged_points


@dataclass(frozen=True)
class Family:
    """Mismatches that one function finds.

    Attributes:
        check: the name under which the doctor shows them.
    """

    check: str
    compare: Callable[[Scope], Iterator[Mismatch]]


FAMILIES = (
    Family("files", partial_files),
    Family("sweeps", half_made_sweeps),
    Family("records", damaged_records),
    Family("files", damaged_small_files),
    Family("files", damaged_points),
    Family("files", damaged_checkpoints),
    Family("sweeps", damaged_sweep_files),
    Family("leases", stale_leases),
    Family("leases", stale_stop_requests),
    Family("sweeps", stale_states),
    Family("orphans", wrong_runs),
    Family("registry", wrong_registrations),
)

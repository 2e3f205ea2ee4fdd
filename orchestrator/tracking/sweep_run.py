"""Everything that a sync of a sweep needs, as plain values that can go to another process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from orchestrator.state.sweep_folder import SweepFolder
from orchestrator.storage.base import Storage
from orchestrator.tracking.client import TrackingTarget, print_on_stderr
from orchestrator.tracking.database import Notify
from orchestrator.tracking.renamed_runs import follow_renaming, follow_renamings_from
from orchestrator.tracking.run_sync import RunSync


@dataclass(frozen=True, kw_only=True)
class SweepRunSpec:
    """What it takes to sync a sweep from any process: plain values.

    Attributes:
        trial_keys: trials whose models may be in MLflow already.
        description, params, tags: of the sweep's own run.
        identity: of the storage (state/storage_identity.py); empty where the database lies inside it.
    """

    target: TrackingTarget
    storage: Storage
    sweep: str
    log_models: bool
    trial_keys: tuple[str, ...]
    description: str
    params: dict[str, str]
    tags: dict[str, str]
    identity: str = ""

    def sync(self, notify: Notify = print_on_stderr, connection: tuple[Any, str] | None = None) -> RunSync:
        """The sync of the sweep, which has opened nothing yet; arguments as those of RunSync."""
        return RunSync(
            self.target,
            self.storage,
            self.sweep,
            log_models=self.log_models,
            identity=self.identity,
            trial_keys=self.trial_keys,
            notify=notify,
            connection=connection,
        )

    def open(self, start_ms: int | None = None, reopen: bool = True, notify: Notify = print_on_stderr) -> RunSync:
        """The sync of the sweep, with the sweep's own run; see `RunSync.open_sweep`."""
        sync = self.sync(notify)
        follow_renamings_from(sync.client, sync.experiment_id, self.storage, self.sweep, self.target.uri)
        follow_renaming(sync.client, sync.experiment_id, SweepFolder(self.storage, self.sweep), self.target.uri)
        sync.open_sweep(self.description, self.params, self.tags, start_ms=start_ms, reopen=reopen)
        return sync

"""Small trials by the real phases on the real storage, without Ray."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.gpu.images import Images
from tests.support.small_trials import small_trial
from trainables.config.keys import canonical, trial_key, warmup_key
from trainables.config.trial import TrialConfig
from trainables.data.staging import StagedDataset
from trainables.errors import StopRequestedError
from trainables.export.sparse_model import SparseModel, load_sparse_model
from trainables.records.file_names import METRICS, MODEL, RESULT
from trainables.records.metrics import points_from_lines
from trainables.runtime.device import Runtime
from trainables.trial.checkpoint import TrialState
from trainables.trial.context import TrialContext
from trainables.trial.runner import run_trial
from trainables.worker.peers import Peers
from trainables.worker.stage import Stage, SweepSettings
from trainables.worker.trainable import execute_stage

if TYPE_CHECKING:
    from orchestrator.storage.layout import TrialFolder, WarmupFolder

SWEEP = "gpu"
Points = dict[tuple[str, int], float | None]


def small_config(images: Images, **changes: Any) -> TrialConfig:
    """2 warm-up epochs, 2 rounds to 90 %, 2 sparse epochs."""
    return replace(small_trial(images.config()), **changes)


@dataclass(frozen=True, kw_only=True)
class TrialGround:
    """A storage of its own, and what its trials compute with."""

    folder: Path
    images: Images
    runtime: Runtime

    def run(self, config: TrialConfig, *, attempt: int = 1, shares: bool = True, **settings: Any) -> dict[str, Any]:
        """One attempt at a trial: the content of its result.

        Args:
            shares: its warm-up with other trials of this storage.
        """
        files = self.files(config, attempt)
        files.claim_attempt()
        context = TrialContext(
            source=self.images.source,
            runtime=self.runtime,
            files=files,
            snapshots=self.snapshots(config, shares),
            shares_snapshots=shares,
            checkpoint_seconds=0.0,
            metrics_seconds=0.0,
            **settings,
        )
        return run_trial(config, context)

    def run_stage(self, config: TrialConfig, peers: Peers | None) -> dict[str, Any]:
        """The result of a trial that is run as a worker of the cluster runs it, with other workers if there are some.

        Raises:
            AssertionError: the trial has failed.
        """
        report = self.attempt(config, peers)
        assert report["status"] == "finished", report["message"]
        return self.result(config)

    def attempt(
        self,
        config: TrialConfig,
        peers: Peers | None,
        number: int = 1,
        on_report: Callable[[dict[str, Any]], None] = lambda report: None,
    ) -> dict[str, Any]:
        """The last report of one attempt at a trial as a worker of the cluster makes it."""
        from orchestrator.storage.layout import StageFolders

        files = self.files(config, number)
        files.claim_attempt()
        settings = SweepSettings(
            folders=StageFolders(files.storage, None),
            data=StagedDataset(source=self.images.source),
            runtime=self.runtime,
            share_warmups=False,
            checkpoint_seconds=0.0,
            metrics_seconds=0.0,
            provenance={},
            progress_seconds=0.0,
        )
        lengths = config.warmup_lengths
        stage = Stage(kind="trial", key=files.key, name="small", config=canonical(config), attempt=number, lengths=lengths)
        return execute_stage(stage, settings, on_report, peers)

    def result(self, config: TrialConfig) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(self.files(config).read(RESULT) or b"")
        return content

    def run_with_stop(self, config: TrialConfig, when: Callable[[TrialState], bool]) -> dict[str, Any]:
        """The result of a second attempt, after the first one was asked to stop as soon as `when` held."""
        from orchestrator.storage.layout import stop_files

        (stop, _), storage = stop_files(SWEEP, ""), self.files(config).storage

        def ask(state: TrialState) -> None:
            if when(state):
                storage.write(stop, b"")

        try:
            self.run(config, on_progress=ask)
        except StopRequestedError:
            storage.remove(stop)
            return self.run(config, attempt=2)
        raise AssertionError("the trial must stop when it is asked, but it went on to its end")

    def files(self, config: TrialConfig, attempt: int = 1) -> TrialFolder:
        from orchestrator.storage.layout import TrialFolder
        from orchestrator.storage.local import LocalStorage

        storage = LocalStorage(str(self.folder))
        return TrialFolder(storage, trial_key(config, self.images.digest), attempt, SWEEP, owner="gpu")

    def snapshots(self, config: TrialConfig, shares: bool = True) -> WarmupFolder:
        from orchestrator.storage.layout import StageFolders

        files = self.files(config)
        folders, fingerprint = StageFolders(files.storage, None), self.runtime.fingerprint_id()
        if shares:
            return folders.warmups(warmup_key(config, self.images.digest), fingerprint)
        return folders.private_warmups(files.key, fingerprint)

    def points(self, config: TrialConfig) -> Points:
        """Value of each metric by key and step, of measured seconds only that they are there."""
        points = points_from_lines(self.files(config).read(METRICS) or b"")
        return {(one.key, one.step): None if one.key.startswith("cost/") else one.value for one in points}

    def model(self, config: TrialConfig) -> SparseModel:
        content = self.files(config).read(MODEL)
        assert content is not None
        return load_sparse_model(content)

"""The Ray Tune trainable: one stage of a plan, a shared warm-up or a trial, in a worker that is reused from stage to stage.

Errors of a stage are the status of its last report, so that the driver decides about retries; to Tune only a lost process is an
error. Points are reported after they were published. PyTorch is imported in the worker only: the driver never runs `run_stage`.
"""

from __future__ import annotations

import logging
import os
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from trainables.config.keys import from_canonical
from trainables.config.trial import TrialConfig
from trainables.custom.files import NO_CUSTOM_FILES, CustomFiles
from trainables.custom.references import is_custom, without_method
from trainables.data.staging import StagedDataset
from trainables.errors import (
    ConfigError,
    DataError,
    StopRequestedError,
    TrialError,
    WrongNodeError,
    kind_of,
)
from trainables.preflight.network_case import Adjustments, adjusted_runtime
from trainables.runtime.device import Runtime

if TYPE_CHECKING:
    from trainables.data.source import DatasetSource
    from trainables.records.protocols import SnapshotFiles, TrialFiles
    from trainables.trial.checkpoint import TrialState
    from trainables.trial.context import TrialContext


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


Report = Callable[[dict[str, Any]], None]


def run_stage(config: dict[str, Any], settings: SweepSettings) -> None:
    """Runs one stage and reports its status; the entry point that Tune calls."""
    from ray import tune

    tune.report({"event": "begun", "pid": os.getpid(), "node": _node_id()})
    tune.report(execute_stage(Stage(**config["stage"]), settings, tune.report))


def _node_id() -> str:
    import ray

    return str(ray.get_runtime_context().get_node_id())


def execute_stage(stage: Stage, settings: SweepSettings, report: Report) -> dict[str, Any]:
    """Runs the stage, reports its progress through `report`, and returns its last report.

    Its status is "finished" or a FailureKind.
    """
    reporter = ProgressReporter(report, settings.progress_seconds)
    logging.getLogger("trainables").addHandler(reporter)
    try:
        outcome = _run(stage, settings, reporter)
        status, message = "finished", ""
    except Exception as error:
        outcome, status, message = {}, kind_of(error).value, str(error)
        if not isinstance(error, TrialError):
            message = f"{type(error).__name__}: {error}"
            reporter.lines.append(traceback.format_exc())  # a warm-up has no error.json
    finally:
        logging.getLogger("trainables").removeHandler(reporter)
    return {"event": "ended", "status": status, "message": message, "log": reporter.new_lines(), **outcome}


def _run(stage: Stage, settings: SweepSettings, reporter: ProgressReporter) -> dict[str, Any]:
    from trainables.trial.runner import run_trial

    config = from_canonical(TrialConfig, stage.config)
    runtime = adjusted_runtime(settings.runtime, config, settings.adjustments)
    runtime.activate()
    source = _locate_inputs(config, settings)
    if settings.folders.stop_requested():
        raise StopRequestedError("stopped before it began")
    if stage.kind == "warmup":
        return _run_warmup(stage, config, runtime, source, settings, reporter)
    files = settings.folders.trial(stage.key, stage.attempt)
    if files.stop_requested():
        raise StopRequestedError("stopped before it began")
    context = trial_context(stage, settings, source, runtime, files, reporter.progress)
    context = replace(context, rungs=stage.rungs, on_rung=partial(reporter.progress, force=True))
    result = run_trial(config, context)
    reporter.lines += [f"{key} {choice['value']}: {choice['reason']}" for key, choice in result.get("choices", {}).items()]
    # Pairs, since Tune flattens dicts in reports.
    return {"metrics": list(result["metrics"].items()), "model_sha256": result["model_sha256"]}


def trial_context(
    stage: Stage,
    settings: SweepSettings,
    source: DatasetSource,
    runtime: Runtime,
    files: TrialFiles,
    on_progress: Callable[[TrialState], None],
) -> TrialContext:
    """The context of a trial, the same in a worker and in the command `trial`.

    Args:
        source: where the data are on this node.
        runtime: of the settings, with the adjustments for the trial's network.
    """
    from trainables.trial.context import TrialContext

    if settings.share_warmups and stage.warmup_key:
        snapshots = settings.folders.warmups(stage.warmup_key, runtime.fingerprint_id())
    else:
        snapshots = settings.folders.private_warmups(stage.key, runtime.fingerprint_id())
    return TrialContext(
        source=source,
        runtime=runtime,
        files=files,
        snapshots=snapshots,
        shares_snapshots=settings.share_warmups,
        checkpoint_seconds=settings.checkpoint_seconds,
        metrics_seconds=settings.metrics_seconds,
        on_progress=on_progress,
        provenance=settings.provenance | {"key": stage.key, "warmup_key": stage.warmup_key},
        counts_of=settings.folders.layer_counts,
        custom_files=settings.custom_files,
    )


def _locate_inputs(config: TrialConfig, settings: SweepSettings) -> DatasetSource:
    """The source of the data on this node. Raises WrongNodeError if the node lacks anything that the stage needs."""
    if not settings.folders.is_visible():
        raise WrongNodeError("it does not see the sweep's files in the storage", "mount it there as on the driver's host")
    if missing := settings.custom_files.missing(config):
        raise missing
    try:
        if is_custom(settings.data.source.name):
            settings.custom_files.import_modules(config)
        return settings.data.prepare()
    except (DataError, ConfigError):  # the trial raises it again, and records it
        return settings.data.locate()


def _run_warmup(
    stage: Stage,
    config: TrialConfig,
    runtime: Runtime,
    source: DatasetSource,
    settings: SweepSettings,
    reporter: ProgressReporter,
) -> dict[str, Any]:
    """Trains the warm-up to its longest length, or until every rule has chosen one, and reports each published snapshot."""
    from trainables.data.splits import load_data
    from trainables.models.losses import check_loss
    from trainables.trial.auto_warmup import AutoWarmup
    from trainables.trial.checkpoint import to_bytes
    from trainables.trial.warmup import WarmupTrainer

    rules = [from_canonical(TrialConfig, rule) for rule in stage.rules]
    for one in (without_method(config), *rules):
        settings.custom_files.import_modules(one)
    lengths = sorted(set(stage.lengths) - {rule.warmup_epochs for rule in rules})
    snapshots = settings.folders.warmups(stage.key, runtime.fingerprint_id())
    trained = 0

    def after_epoch(state: TrialState) -> None:
        nonlocal trained
        trained += 1
        reporter.progress(state)
        if settings.folders.stop_requested():
            snapshots.publish(state.position, to_bytes(state, snapshots.key))
            raise StopRequestedError(f"warm-up stopped after epoch {state.position}")

    warmup = WarmupTrainer(
        config=config,
        data=load_data(config.dataset, source, runtime.device, runtime.threads),
        runtime=runtime,
        snapshots=snapshots,
        snapshot_seconds=settings.checkpoint_seconds,
        after_epoch=after_epoch,
        custom_files=settings.custom_files,
    )
    check_loss(config.training.loss, warmup.data.num_classes, warmup.data.train.labels.device)
    for length in lengths:
        state = warmup.state_at(length)
        reporter.progress(state, force=True)
    if rules:
        chosen = AutoWarmup(trainer=warmup, counts_of=settings.folders.layer_counts).choose(rules)
        state = warmup.state_at(max(one.choice.value for one in chosen))
    return {
        "phase": "warmup",
        "position": state.position,
        "trained_epochs": trained,
        "points": reporter.new_points(state),
        "seconds": state.seconds["warmup"],
    }


class ProgressReporter(logging.Handler):
    """Reports a stage's progress, its new points and its warnings to the driver."""

    def __init__(self, report: Report, interval_s: float) -> None:
        super().__init__(level=logging.WARNING)
        self.report = report
        self.interval_s = interval_s
        self.reported_points = 0
        self.lines: list[str] = []
        self.last_report = time.monotonic()

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())

    def new_lines(self) -> list[str]:
        lines, self.lines = self.lines, []
        return lines

    def new_points(self, state: TrialState) -> list[dict[str, Any]]:
        points = [point.to_json() for point in state.metrics.points()]
        new, self.reported_points = points[self.reported_points :], len(points)
        return new

    def progress(self, state: TrialState, force: bool = False) -> None:
        """Reports phase and position, at most once per interval unless forced."""
        if not force and time.monotonic() - self.last_report < self.interval_s:
            return
        self.last_report = time.monotonic()
        self.report(
            {
                "event": "progress",
                "phase": state.phase,
                "position": state.position,
                "points": self.new_points(state),
                "log": self.new_lines(),
            }
        )

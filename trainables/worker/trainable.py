"""The Ray Tune trainable: one stage of a plan, a shared warm-up or a trial, in a worker that is reused from stage to stage.

Errors of a stage are the status of its last report, so that the driver decides about retries; to Tune only a lost process is an
error. Points are reported after they were published. PyTorch is imported in the worker only: the driver never runs `run_stage`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import replace
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from trainables.config.keys import from_canonical
from trainables.config.trial import TrialConfig
from trainables.custom.references import is_custom
from trainables.errors import (
    ConfigError,
    DataError,
    FailureKind,
    OtherWorkerError,
    StopRequestedError,
    TrialError,
    WrongNodeError,
    kind_of,
)
from trainables.preflight.network_case import adjusted_runtime
from trainables.records.failure_place import place_of, traceback_of
from trainables.runtime.device import Runtime
from trainables.runtime.group import group_of
from trainables.runtime.heartbeat import heard_by
from trainables.runtime.secrets import without_secrets
from trainables.runtime.stacks import stacks_on_signal
from trainables.worker.peers import FINISHED, Peers, following, led, stage_runtime
from trainables.worker.progress import ProgressReporter, Report
from trainables.worker.ray_peers import RayPeers, node_id, place_of_node
from trainables.worker.stage import Stage, SweepSettings

if TYPE_CHECKING:
    from trainables.data.source import DatasetSource
    from trainables.records.protocols import TrialFiles
    from trainables.trial.checkpoint import TrialState
    from trainables.trial.context import TrialContext


def run_stage(config: dict[str, Any], settings: SweepSettings) -> None:
    """Runs one stage and reports its status; the entry point that Tune calls."""
    from ray import tune

    process: dict[str, Any] = {"pid": os.getpid(), "node": node_id(), "stacks": stacks_on_signal()}
    peers = _peers_of_process(settings.runtime.workers)
    if peers is not None:
        process["peers"] = peers.identities()
    tune.report({"event": "begun", **process})
    tune.report(execute_stage(Stage(**config["stage"]), settings, tune.report, peers))


@cache
def _peers_of_process(workers: int) -> RayPeers | None:
    """The other workers, which this process keeps from stage to stage."""
    return RayPeers(workers) if workers > 1 else None


def execute_stage(stage: Stage, settings: SweepSettings, report: Report, peers: Peers | None = None) -> dict[str, Any]:
    """Runs the stage, reports its progress through `report`, and returns its last report.

    Its status is "finished" or a FailureKind, of a failure with its place and traceback; "node" is that of another worker which
    has failed.

    Args:
        peers: the other workers of a trial of several, of which this process is the first.
    """
    reporter = ProgressReporter(report, settings.progress_seconds)
    logging.getLogger("trainables").addHandler(reporter)
    try:
        leading = led(stage, settings, peers, prepare_part, work_part) if peers else nullcontext(settings)
        with heard_by(reporter.alive, settings.alive_seconds), leading as own:
            outcome = {"status": FINISHED, "message": "", "place": ""} | _run(stage, own, reporter)
    except Exception as error:
        outcome = _failure(error)
        if not isinstance(error, TrialError) or error.kind is FailureKind.CODE:
            reporter.lines.append(outcome["traceback"])  # a warm-up has no error.json
    finally:
        logging.getLogger("trainables").removeHandler(reporter)
    return {"event": "ended", "log": reporter.new_lines()} | outcome


def prepare_part(rank: int, stage: Stage, settings: SweepSettings) -> dict[str, Any]:
    """Another worker's look for its inputs, and its data read: its status, "finished" or a FailureKind.

    A node may have to decode them first, for which the others would wait in silence.
    """
    from trainables.data.splits import load_data

    config, runtime = from_canonical(TrialConfig, stage.config), stage_runtime(stage, settings)
    try:
        source = _locate_inputs(config, settings)
        with suppress(DataError, ConfigError):  # the trial raises it again, and records it
            load_data(config.dataset, source, runtime.device, runtime.threads)
    except Exception as error:
        return _failed_part(error)
    return {"status": FINISHED, "message": ""}


def work_part(rank: int, stage: Stage, settings: SweepSettings, address: str, port: int) -> dict[str, Any]:
    """The part of another worker in the stage: its last report, which goes to the first worker."""
    try:
        with following(rank, stage, settings, address, port) as own:
            return execute_stage(stage, own, lambda report: None) | place_of_node()
    except Exception as error:  # of the connection
        return _failed_part(error)


def _failed_part(error: Exception) -> dict[str, Any]:
    return _failure(error) | place_of_node()


def _failure(error: Exception) -> dict[str, Any]:
    """Kind, text and origin of an error; of another worker's error the origin there."""
    message = str(error) if isinstance(error, TrialError) else f"{type(error).__name__}: {error}"
    origin = {"place": place_of(error), "traceback": without_secrets(traceback_of(error))}
    if isinstance(error, OtherWorkerError) and error.node:
        origin["node"] = error.node
    return {"status": kind_of(error).value, "message": without_secrets(message)} | origin


def _run(stage: Stage, settings: SweepSettings, reporter: ProgressReporter) -> dict[str, Any]:
    from trainables.trial.runner import run_trial

    config = from_canonical(TrialConfig, stage.config)
    runtime = adjusted_runtime(settings.runtime, config, settings.adjustments)
    runtime.activate()
    if not settings.folders.is_visible():
        raise WrongNodeError("it does not see the sweep's files in the storage", "mount it there as on the driver's host")
    source = _locate_inputs(config, settings)
    group = group_of(runtime)
    if settings.folders.stop_requested():
        raise StopRequestedError("stopped before it began")
    if stage.kind == "warmup":
        from trainables.worker.warmup_stage import run_warmup

        return run_warmup(stage, config, runtime, source, settings, reporter)
    files = settings.folders.trial(stage.key, stage.attempt)
    if files.stop_requested():
        raise StopRequestedError("stopped before it began")
    context = trial_context(stage, settings, source, runtime, files, reporter.progress)
    context = replace(context, rungs=stage.rungs, on_rung=partial(reporter.progress, force=True))
    result = run_trial(config, context)
    if not group.is_first:
        return {}
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
    if missing := settings.custom_files.missing(config):
        raise missing
    try:
        if is_custom(settings.data.source.name):
            settings.custom_files.import_modules(config)
        return settings.data.prepare()
    except (DataError, ConfigError):  # the trial raises it again, and records it
        return settings.data.locate()

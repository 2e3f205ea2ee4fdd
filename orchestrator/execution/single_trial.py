"""`drive-sweep trial`: one trial in this process, without Ray, to debug it or to reproduce its record.

It uses the sweep's storage, so `run` reuses its result. A finished trial is computed again in a temporary storage, and the
digests are compared.
"""

from __future__ import annotations

import json
import re
import signal
import sys
import tempfile
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from types import FrameType
from typing import TYPE_CHECKING, Any

from orchestrator.command_line import DEFAULT_STORAGE
from orchestrator.errors import EXIT_DONE, EXIT_TRIALS_FAILED, UserError
from orchestrator.planning.entries import PlannedTrial
from orchestrator.planning.plan import Plan
from orchestrator.preflight.networks import checked_runtime
from orchestrator.process.output import answer
from orchestrator.process.own_silence import ended_if_silent
from orchestrator.process.patience import limit_s
from orchestrator.process.setup import stop_signals
from orchestrator.search.plans import plan_sweep
from orchestrator.spec.loader import spec_from_resolved
from orchestrator.spec.schema import SweepSpec
from orchestrator.state.sweep_folder import SweepFolder
from orchestrator.state.used_keys import require_not_in_use
from orchestrator.storage.base import Storage
from orchestrator.storage.factory import open_storage
from orchestrator.storage.layout import StageFolders, TrialFolder, newest_attempt
from orchestrator.terminal.tables import plain_table, stdout_console
from orchestrator.version import source_revision
from trainables.config.keys import canonical
from trainables.data.staging import StagedDataset
from trainables.errors import FailureKind, StopRequestedError, StorageError, TrialError
from trainables.records.failure_record import publish_failure
from trainables.runtime.group import group_of
from trainables.wording import without_controls
from trainables.worker.local_peers import LocalPeers
from trainables.worker.peers import led
from trainables.worker.stage import Stage, SweepSettings
from trainables.worker.trainable import prepare_part, trial_context, work_part

if TYPE_CHECKING:
    from trainables.trial.checkpoint import TrialState

KEY = re.compile(r"[0-9a-f]{16}")


def run_one(options: Namespace, load: Callable[[Namespace], SweepSpec]) -> int:
    """Runs the trial that FILE and its options select, or the one with that key; prints its result."""
    if KEY.fullmatch(options.file):
        plan, storage, trial = _by_key(options)
    else:
        spec = load(options)
        storage = open_storage(spec.storage, create=True)
        plan = plan_sweep(spec, storage, hash_data=True)
        trial = _by_index(plan, options.index)
    if trial.key in plan.accepted.finished:
        raise UserError(
            f"trial {trial.key} was made with an earlier file, which is not there any more",
            "put that file back to compute it again",
            code="file-changed",
        )
    if trial.result is not None:
        return _reproduce(plan, trial, storage, options)
    return _run(plan, trial, storage, options)


def _by_key(options: Namespace) -> tuple[Plan, Storage, PlannedTrial]:
    storage = open_storage(options.storage or DEFAULT_STORAGE)
    for name in storage.names("sweeps"):
        folder = SweepFolder(storage, name)
        record = storage.read_json(folder.file("trials.json"), fields=("trials",))
        if record and any(one["key"] == options.file for one in record["trials"]):
            spec = spec_from_resolved(storage.read_json(folder.file("spec.json")))
            plan = plan_sweep(spec, storage, hash_data=True)
            for trial in plan.trials:
                if trial.key == options.file:
                    return plan, storage, trial
            raise UserError(
                f"trial {options.file} of sweep {name!r} was run by code with other numerics, or with other data",
                "use that version and that data",
                code="numerics-differ",
            )
    raise UserError(
        f"no sweep in storage {storage.root} has a trial {options.file}",
        "choose another storage with --storage",
        code="trial-unknown",
    )


def _by_index(plan: Plan, index: int | None) -> PlannedTrial:
    if index is None and len(plan.trials) > 1:
        first = "\n".join(f"  --index {i}: {trial.name}" for i, trial in enumerate(plan.trials[:10]))
        more = f"\n  and {len(plan.trials) - 10} more" if len(plan.trials) > 10 else ""
        raise UserError(
            f"the sweep has {len(plan.trials)} trials",
            f"choose one with --index, or narrow it with --set:\n{first}{more}",
            code="trial-ambiguous",
        )
    try:
        return plan.trials[index or 0]
    except IndexError:
        raise UserError(f"--index must be in 0..{len(plan.trials) - 1}, got {index}", code="trial-unknown") from None


def _run(plan: Plan, trial: PlannedTrial, storage: Storage, options: Namespace) -> int:
    require_not_in_use(storage, [trial.key])
    files = TrialFolder(storage, trial.key, newest_attempt(storage, trial.key) + 1)
    files.claim_attempt()
    signals: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        signals.append(number)
        files.stop_asked = True

    for number in stop_signals():
        signal.signal(number, stop)
    try:
        result = _compute(plan, trial, files, storage, storage)
    except StorageError:
        raise  # not the trial's failure
    except StopRequestedError as error:
        print(f"{trial.name}: {without_controls(str(error))}", file=sys.stderr)
        return 128 + signals[-1]
    except TrialError as error:
        print(f"{trial.key} {trial.name} failed ({error.kind}): {without_controls(str(error))}", file=sys.stderr)
        return EXIT_TRIALS_FAILED
    return _print_result(result, trial, options)


def _reproduce(plan: Plan, trial: PlannedTrial, recorded_in: Storage, options: Namespace) -> int:
    """Computes a finished trial again in a temporary storage, and compares the digests."""
    assert trial.result is not None
    with tempfile.TemporaryDirectory() as folder:
        storage = open_storage(folder, create=True)
        files = TrialFolder(storage, trial.key, 1)
        files.claim_attempt()
        try:
            result = _compute(plan, trial, files, storage, recorded_in)
        except TrialError as error:
            print(
                f"{trial.key} {trial.name} cannot be computed again ({error.kind}): {without_controls(str(error))}",
                file=sys.stderr,
            )
            return EXIT_TRIALS_FAILED
    same = result["model_sha256"] == trial.result["model_sha256"]
    then, now = trial.result["fingerprints"], result["fingerprints"]
    print(f"{trial.name} computed again: the record {'is reproduced' if same else 'differs'}", file=sys.stderr)
    if not same and then != now:
        print(f"the record was made under {json.dumps(then)}, this is {json.dumps(now)}", file=sys.stderr)
    _print_result(result, trial, options)
    return EXIT_DONE if same else EXIT_TRIALS_FAILED


def _compute(plan: Plan, trial: PlannedTrial, files: TrialFolder, storage: Storage, recorded_in: Storage) -> dict[str, Any]:
    """The trial's result, with the automatic settings that the sweep has resolved in `recorded_in`."""

    def on_hang(message: str, stacks: str) -> None:
        publish_failure(files, FailureKind.HANG, message, stacks)

    with ended_if_silent(limit_s(plan.spec.stage_timeout), on_hang):
        return _compute_watched(plan, trial, files, storage, recorded_in)


def _compute_watched(
    plan: Plan, trial: PlannedTrial, files: TrialFolder, storage: Storage, recorded_in: Storage
) -> dict[str, Any]:
    from trainables.trial.runner import run_trial

    runtime = checked_runtime(
        plan, trial.config, SweepFolder(recorded_in, plan.spec.name), lambda line: print(line, file=sys.stderr)
    )
    settings = SweepSettings(
        folders=StageFolders(storage, None),
        data=StagedDataset(source=plan.source),
        runtime=runtime,
        share_warmups=plan.spec.share_warmups,
        checkpoint_seconds=plan.spec.checkpoint_seconds,
        metrics_seconds=0.0,
        provenance={"data_digest": plan.data_digest, "revision": source_revision(), "sweep": plan.spec.name},
        progress_seconds=0.0,
        custom_files=plan.custom_files,
    )
    stage = Stage(
        kind="trial",
        key=trial.key,
        name=trial.name,
        config=canonical(trial.config),
        attempt=files.attempt,
        warmup_key=plan.shared_warmup_key(trial),
        lengths=trial.config.warmup_lengths,
    )
    recorded, show = StageFolders(recorded_in, None), _progress_printer(trial.name)
    with _with_other_workers(stage, settings) as own:
        context = trial_context(stage, own, plan.source, runtime, files, show)
        group = group_of(runtime)

        def counts_of(key: str) -> Mapping[str, int] | None:
            return group.of_first(lambda: recorded.layer_counts(key))

        return run_trial(trial.config, replace(context, counts_of=counts_of))


@contextmanager
def _with_other_workers(stage: Stage, settings: SweepSettings) -> Iterator[SweepSettings]:
    """The settings with which this process runs the trial; its other workers, if it has some, are further processes."""
    if settings.runtime.workers == 1:
        yield settings
        return
    peers = LocalPeers(settings.runtime.workers, settings.runtime.device)
    try:
        with led(stage, settings, peers, prepare_part, work_part) as own:
            yield own
    finally:
        peers.end()


def _progress_printer(name: str) -> Callable[[TrialState], None]:
    """Prints a line for each state of the trial that differs from all before."""
    printed: set[str] = set()

    def show(state: TrialState) -> None:
        line = f"{name}: {state.phase} {state.position}"
        values = state.metrics.last_values()
        shown = ("prune/sparsity", "prune/loss") if state.phase == "prune" else ("train/loss", "val/accuracy")
        line += "".join(f"  {key} {values[key]:.4f}" for key in shown if key in values)
        if line not in printed:
            printed.add(line)
            print(line, file=sys.stderr)

    return show


def _print_layers(result: dict[str, Any]) -> None:
    """Prints the layers of a result as a table."""
    table = plain_table("layer", numbers=("shape", "kept", "density", "multiply-adds", "score"))
    for layer in result["layers"]:
        score = f"{layer['score_mean']:.2e} ± {layer['score_std']:.1e}" if "score_mean" in layer else ""
        shape = "x".join(str(size) for size in layer["shape"])
        flops = "not known" if layer["kept_flops"] is None else f"{layer['kept_flops']:,}"
        table.add_row(layer["name"], shape, str(layer["kept"]), f"{layer['density']:.4f}", flops, score)
    stdout_console().print(table)


def _print_result(result: dict[str, Any], trial: PlannedTrial, options: Namespace) -> int:
    if options.json:
        answer(json.dumps(result, indent=1))
        return EXIT_DONE
    metrics = result["metrics"]
    print(f"{trial.key} {trial.name}: test/accuracy {metrics['test/accuracy']:.4f}, {metrics['cost/total_seconds']:.1f} s")
    connected = (
        "the number of connected weights is not known" if (count := result["live_weights"]) is None else f"{count} connected"
    )
    print(f"kept {result['kept_weights']} of {result['prunable_weights']} weights, {connected}")
    speedup = metrics.get("model/theoretical_speedup")
    fewer = "multiply-adds not known" if speedup is None else f"{speedup:.2f} times fewer multiply-adds"
    print(f"{fewer}, model {result['model_bytes']} bytes")
    _print_layers(result)
    print(f"model_sha256 {result['model_sha256']}")
    if result["emptied_layers"]:
        print(f"collapsed layers: {', '.join(result['emptied_layers'])}")
    print(f"config {json.dumps(canonical(trial.config))}")
    return EXIT_DONE

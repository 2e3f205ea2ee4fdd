"""`drive-sweep trial`: one trial in this process, without Ray: to debug, or to reproduce a record.

Works in the sweep's own storage, so a trial run here is a trial that `run` need not run again. A key whose record is
finished is computed once more in a temporary storage and compared.
"""

from __future__ import annotations

import json
import re
import signal
import sys
import tempfile
from argparse import Namespace
from collections.abc import Callable
from types import FrameType
from typing import Any

from rich.console import Console
from rich.table import Table

from orchestrator.command_line import DEFAULT_STORAGE
from orchestrator.errors import EXIT_DONE, EXIT_TRIALS_FAILED, UserError
from orchestrator.planning.plan import Plan, PlannedTrial, make_plan
from orchestrator.preflight.networks import checked_runtime
from orchestrator.process.output import answer
from orchestrator.process.setup import stop_signals
from orchestrator.spec.loader import spec_from_resolved
from orchestrator.spec.schema import SweepSpec
from orchestrator.state.sweep_folder import SweepFolder
from orchestrator.storage.base import Storage
from orchestrator.storage.factory import open_storage
from orchestrator.storage.layout import StageFolders, TrialFolder, newest_attempt
from orchestrator.version import source_revision
from trainables.config.keys import canonical
from trainables.errors import StopRequestedError, StorageError, TrialError

KEY = re.compile(r"[0-9a-f]{16}")


def run_one(options: Namespace, load: Callable[[Namespace], SweepSpec]) -> int:
    """Runs the trial that FILE and its options single out, or the one with that key; prints its result."""
    if KEY.fullmatch(options.file):
        plan, storage, chosen = _by_key(options)
    else:
        spec = load(options)
        storage = open_storage(spec.storage, create=True)
        plan = make_plan(spec, storage, hash_data=True)
        chosen = _by_index(plan, options.index)
    if chosen.result is not None:
        return _reproduce(plan, chosen, storage, options)
    return _run_here(plan, chosen, storage, options)


def _by_key(options: Namespace) -> tuple[Plan, Storage, PlannedTrial]:
    storage = open_storage(options.storage or DEFAULT_STORAGE)
    for name in storage.names("sweeps"):
        folder = SweepFolder(storage, name)
        record = storage.read_json(folder.file("trials.json"), fields=("trials",))
        if record and any(one["key"] == options.file for one in record["trials"]):
            spec = spec_from_resolved(storage.read_json(folder.file("spec.json")))
            plan = make_plan(spec, storage, hash_data=True)
            for trial in plan.trials:
                if trial.key == options.file:
                    return plan, storage, trial
            raise UserError(
                f"trial {options.file} of sweep {name!r} was named by code with other numerics or other data; use that version"
            )
    raise UserError(f"no sweep in storage {storage.root} has a trial {options.file}; another storage: --storage")


def _by_index(plan: Plan, index: int | None) -> PlannedTrial:
    if index is None and len(plan.trials) > 1:
        first = "\n".join(f"  --index {i}: {trial.name}" for i, trial in enumerate(plan.trials[:10]))
        more = f"\n  and {len(plan.trials) - 10} more" if len(plan.trials) > 10 else ""
        raise UserError(
            f"the sweep has {len(plan.trials)} trials; choose one with --index, or narrow it with --set:\n{first}{more}"
        )
    try:
        return plan.trials[index or 0]
    except IndexError:
        raise UserError(f"--index must be in 0..{len(plan.trials) - 1}, got {index}") from None


def _run_here(plan: Plan, chosen: PlannedTrial, storage: Storage, options: Namespace) -> int:
    files = TrialFolder(storage, chosen.key, newest_attempt(storage, chosen.key) + 1)
    files.claim_attempt()
    signals: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        signals.append(number)
        files.stop_asked = True

    for number in stop_signals():
        signal.signal(number, stop)
    try:
        result = _compute(plan, chosen, files, storage, storage)
    except StorageError:
        raise  # not the trial's failure
    except StopRequestedError as error:
        print(f"{chosen.name}: {error}", file=sys.stderr)
        return 128 + signals[-1]
    except TrialError as error:
        print(f"{chosen.key} {chosen.name} failed ({error.kind}): {error}", file=sys.stderr)
        return EXIT_TRIALS_FAILED
    return _tell(result, chosen, options)


def _reproduce(plan: Plan, chosen: PlannedTrial, made_in: Storage, options: Namespace) -> int:
    """Computes a finished record again, elsewhere, and compares the digests."""
    assert chosen.result is not None
    with tempfile.TemporaryDirectory() as folder:
        storage = open_storage(folder, create=True)
        files = TrialFolder(storage, chosen.key, 1)
        files.claim_attempt()
        try:
            result = _compute(plan, chosen, files, storage, made_in)
        except TrialError as error:
            print(f"{chosen.key} {chosen.name} cannot be computed again ({error.kind}): {error}", file=sys.stderr)
            return EXIT_TRIALS_FAILED
    same = result["model_sha256"] == chosen.result["model_sha256"]
    then, now = chosen.result["fingerprints"], result["fingerprints"]
    print(f"{chosen.name} computed again: the record {'is reproduced' if same else 'differs'}", file=sys.stderr)
    if not same and then != now:
        print(f"the record was made under {json.dumps(then)}, this is {json.dumps(now)}", file=sys.stderr)
    _tell(result, chosen, options)
    return EXIT_DONE if same else EXIT_TRIALS_FAILED


def _compute(plan: Plan, chosen: PlannedTrial, files: TrialFolder, storage: Storage, made_in: Storage) -> dict[str, Any]:
    """The trial's result; automatic choices are those of the sweep in `made_in`, where it made them already."""
    from trainables.trial.checkpoint import TrialState
    from trainables.trial.context import TrialContext
    from trainables.trial.runner import run_trial

    runtime = checked_runtime(
        plan, chosen.config, SweepFolder(made_in, plan.spec.name), lambda line: print(line, file=sys.stderr)
    )
    told: list[str] = []

    def show(state: TrialState) -> None:
        line = f"{chosen.name}: {state.phase} {state.position}"
        values = state.metrics.last_values()
        shown = ("prune/sparsity", "prune/loss") if state.phase == "prune" else ("train/loss", "val/accuracy")
        line += "".join(f"  {key} {values[key]:.4f}" for key in shown if key in values)
        if line not in told:
            told.append(line)
            print(line, file=sys.stderr)

    folders = StageFolders(storage, None)
    return run_trial(
        chosen.config,
        TrialContext(
            source=plan.source,
            runtime=runtime,
            files=files,
            snapshots=folders.warmups(chosen.warmup_key, runtime.fingerprint_id())
            if plan.spec.share_warmups
            else folders.private_warmups(chosen.key, runtime.fingerprint_id()),
            shares_snapshots=plan.spec.share_warmups,
            checkpoint_seconds=plan.spec.checkpoint_seconds,
            metrics_seconds=0.0,
            counts_of=StageFolders(made_in, None).layer_counts,
            on_progress=show,
            custom_files=plan.custom_files,
            provenance={
                "key": chosen.key,
                "warmup_key": chosen.warmup_key if chosen.uses_shared_warmup else None,
                "data_digest": plan.data_digest,
                "revision": source_revision(),
                "sweep": plan.spec.name,
            },
        ),
    )


def _print_layers(result: dict[str, Any]) -> None:
    """The layer table of a result."""
    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    for column in ("layer", "shape", "kept", "density", "multiply-adds", "score"):
        table.add_column(column, justify="left" if column == "layer" else "right")
    for layer in result["layers"]:
        score = f"{layer['score_mean']:.2e} ± {layer['score_std']:.1e}" if "score_mean" in layer else ""
        shape = "x".join(str(size) for size in layer["shape"])
        flops = "not known" if layer["kept_flops"] is None else f"{layer['kept_flops']:,}"
        table.add_row(layer["name"], shape, str(layer["kept"]), f"{layer['density']:.4f}", flops, score)
    Console(highlight=False).print(table)


def _tell(result: dict[str, Any], chosen: PlannedTrial, options: Namespace) -> int:
    if options.json:
        answer(json.dumps(result, indent=1))
        return EXIT_DONE
    metrics = result["metrics"]
    print(f"{chosen.key} {chosen.name}: test/accuracy {metrics['test/accuracy']:.4f}, {metrics['cost/total_seconds']:.1f} s")
    live = (
        "how many are on a live path is not known" if (count := result["live_weights"]) is None else f"{count} on a live path"
    )
    print(f"kept {result['kept_weights']} of {result['prunable_weights']} weights, {live}")
    speedup = metrics.get("model/theoretical_speedup")
    fewer = "multiply-adds not known" if speedup is None else f"{speedup:.2f} times fewer multiply-adds"
    print(f"{fewer}, model {result['model_bytes']} bytes")
    _print_layers(result)
    print(f"model_sha256 {result['model_sha256']}")
    if result["emptied_layers"]:
        print(f"emptied layers: {', '.join(result['emptied_layers'])}")
    print(f"config {json.dumps(canonical(chosen.config))}")
    return EXIT_DONE

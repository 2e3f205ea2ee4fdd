"""A whole sweep in a storage, as if it had run: records, curves, state. Its numbers follow from the configurations."""

from __future__ import annotations

import json
import random
from typing import Any

from orchestrator.execution.driver import initial_state
from orchestrator.execution.sweep_files import write_sweep_files
from orchestrator.planning.plan import make_plan
from orchestrator.scheduling.stage_queue import StageQueue
from orchestrator.spec.loader import spec_from_resolved
from orchestrator.spec.schema import SweepSpec
from orchestrator.state.sweep_folder import SweepFolder
from orchestrator.state.sweep_state import SweepState, TrialStatus
from orchestrator.storage.base import Storage
from orchestrator.storage.layout import trial_file
from tests.support.sweep_files import load_text
from tests.support.trials import write_result
from trainables.config.keys import canonical
from trainables.config.trial import TrialConfig
from trainables.custom.files import CustomFiles
from trainables.custom.references import custom_references
from trainables.records.file_names import ERROR, METRICS

LAYERS = (("conv1.weight", (16, 1, 3, 3), 64), ("conv2.weight", (32, 16, 3, 3), 16), ("head.weight", (10, 128), 1))
STARTED_MS = 1_790_000_000_000
FAILED, WAITING = "failed", "waiting"

SIX_METHODS = """
name: six
dataset: {name: digits}
model: convnet
method: [drive, magnitude, snip, grasp, synflow, random]
search:
  warmup_epochs: [0, 2, 5]
  prune_iterations: [1, 10, 50]
  sparsity: [0.9, 0.95, 0.98]
  seed: [0, 1, 2, 3]
training: {epochs: 20, batch_size: 64}
"""

TWO_METHODS = """
name: two
dataset: {name: digits}
model: convnet
method: [drive, imp]
search:
  warmup_epochs: [0, 2]
  prune_iterations: [1, 10]
  sparsity: [0.9, 0.95]
  seed: [0, 1, 2]
training: {epochs: 4, batch_size: 64}
"""


def stored_sweep(
    text: str, storage: Storage, not_finished: dict[int, str] | None = None, digest: str | None = "0" * 32
) -> tuple[SweepFolder, SweepState]:
    """The sweep of a file's text, with all trials finished but those in `not_finished`: number of a trial -> its state.

    Args:
        digest: of the data; None is that of the data themselves, as sweeps with files of the user's need it.
    """
    spec = load_text(text).model_copy(update={"storage": storage.root})
    plan = make_plan(spec, storage, digest=digest, hash_data=digest is None)
    folder = SweepFolder(storage, spec.name)
    write_sweep_files(folder, plan, text)
    state = initial_state(plan, None, StageQueue(warmups={}, trials={}))
    for warmup in state.warmups.values():
        warmup.state, warmup.trained_epochs, warmup.seconds = "finished", warmup.epochs, 0.2 + 0.1 * warmup.epochs
    for number, trial in enumerate(plan.trials):
        status = state.trials[trial.key]
        status.state = (not_finished or {}).get(number, "finished")
        if status.state == "finished":
            _finish(status, trial.config, plan.shared_warmup_key(trial), folder, number, plan.custom_files)
        elif status.state == FAILED:
            status.error = "ValueError: the loss is not finite"
            traceback = 'Traceback (most recent call last):\n  File "x.py", line 1, in f\n' + status.error
            record = {"kind": "error", "message": status.error, "traceback": traceback, "attempt": 1, "time": STARTED_MS}
            storage.write_json(trial_file(trial.key, ERROR), record)
    state.progress.slots, state.progress.seconds = 2, 4.0 * len(plan.trials)
    folder.write_state(state)
    return folder, state


def spec_of(folder: SweepFolder) -> SweepSpec:
    return spec_from_resolved(folder.storage.read_json(folder.file("spec.json")))


def accuracy(config: TrialConfig, draw: random.Random) -> float:
    """Falls with sparsity, rises with iterations and a short warm-up; each method has a level of its own."""
    level = 0.98 - 0.3 * config.sparsity**8 - 0.01 * (sum(map(ord, config.method)) % 7) * config.sparsity**8
    gain = 0.01 * min(config.warmup_epochs, 3) + 0.01 * (config.rounds > 1)
    return min(1.0, level + gain + draw.gauss(0, 0.004))


def _finish(
    status: TrialStatus, config: TrialConfig, warmup_key: str | None, folder: SweepFolder, number: int, files: CustomFiles
) -> None:
    draw = random.Random(status.key)
    top = accuracy(config, draw)
    layers = [_layer(name, shape, uses, config) for name, shape, uses in LAYERS]
    kept, prunable = (sum(layer[name] for layer in layers) for name in ("kept", "weights"))
    flops, kept_flops = (sum(layer[name] for layer in layers) for name in ("flops", "kept_flops"))
    warmup, pruning, training = 0.1 * config.warmup_epochs, 0.02 * config.rounds, 0.1 * config.total_epochs
    metrics = {
        "val/accuracy": top,
        "test/accuracy": min(1.0, top + draw.gauss(-0.005, 0.004)),
        "cost/warmup_seconds": warmup,
        "cost/prune_seconds": pruning,
        "cost/search_seconds": warmup + pruning,
        "cost/total_seconds": warmup + pruning + training,
        "cost/prune_dense_epochs": 10 * pruning,
        "cost/search_dense_epochs": 10 * (warmup + pruning),
        "cost/total_dense_epochs": 10 * (warmup + pruning + training),
        "model/sparsity": 1 - kept / prunable,
        "model/compression_ratio": prunable / kept,
        "model/theoretical_speedup": flops / kept_flops,
        "model/flops": float(kept_flops),
        "model/bytes": 300.0 + 4.4 * kept,
        "prune/emptied_layers": 0.0,
    }
    epochs = range(1, config.total_epochs + 1)
    points = [("val/accuracy", epoch, top * (1 - 0.5 / (1 + epoch) + 0.5 / (1 + epochs[-1]))) for epoch in epochs]
    lines = [{"key": key, "step": step, "value": value, "time": STARTED_MS + 100 * step} for key, step, value in points]
    content = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    folder.storage.write(trial_file(status.key, METRICS), content)
    record: dict[str, Any] = {
        "config": canonical(config),
        "sweep": folder.name,
        "revision": "0123456",
        "warmup_key": warmup_key,
        "metrics": metrics,
        "model_sha256": "0" * 64,
        "model_bytes": int(metrics["model/bytes"]),
        "flops": flops,
        "kept_flops": kept_flops,
        "prunable_weights": prunable,
        "kept_weights": kept,
        "layers": layers,
        "fingerprints": [{"processor": "a processor", "torch": "2.0", "precision": "fp32", "threads": 1}],
        "device": "a processor",
        "started_ms": STARTED_MS + 1000 * number,
        "finished_ms": STARTED_MS + 1000 * number + 900,
    }
    record |= {"own_digests": files.digests_of(config)} if custom_references(config) else {}
    write_result(folder.storage, status.key, record)
    status.metrics, status.model_sha256, status.seconds = metrics, "0" * 64, pruning + training + 0.3
    status.mlflow_run_id = f"{number:032x}"


def _layer(name: str, shape: tuple[int, ...], uses: int, config: TrialConfig) -> dict[str, Any]:
    weights = 1
    for length in shape:
        weights *= length
    kept = max(1, round(weights * (1 - config.sparsity) ** (1.0 if len(shape) == 4 else 0.8)))
    density = kept / weights
    return {
        "name": name,
        "shape": list(shape),
        "weights": weights,
        "kept": kept,
        "density": density,
        "flops": weights * uses,
        "kept_flops": kept * uses,
    }


def smaller(text: str, **axes: list[Any]) -> str:
    """A sweep file's text with other values of axes."""
    for name, values in axes.items():
        lines = text.splitlines()
        text = "\n".join(f"  {name}: {values}" if line.startswith(f"  {name}:") else line for line in lines) + "\n"
    return text

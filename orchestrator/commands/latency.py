"""`drive-sweep latency`: how fast pruned networks run here, beside the dense one."""

from __future__ import annotations

import json
from argparse import Namespace
from typing import Any

from orchestrator.commands.options import notify, storage_from
from orchestrator.errors import EXIT_DONE, SweepError, UserError
from orchestrator.process.output import answer
from orchestrator.storage.base import Storage


def latency(options: Namespace) -> int:
    from orchestrator.export.measured_trials import measure_trial

    storage = storage_from(options)
    batches = options.batch or [1, 64]
    if min(batches) < 1 or options.threads < 1:
        raise UserError("--batch and --threads must be at least 1", code="option-invalid")
    if options.half and not options.gpu:
        raise UserError("--half must stand with --gpu: 2:4 layers run on GPUs alone", "add --gpu", code="option-invalid")
    if options.gpu:
        _require_gpu()
    measured: dict[str, list[dict[str, Any]]] = {}
    for key in dict.fromkeys(options.keys):
        notify(f"measuring trial {key}, its networks in turns ...")
        measured[key] = measure_trial(
            storage,
            key,
            batches=batches,
            threads=options.threads,
            device="cuda" if options.gpu else "cpu",
            half=options.half,
        )
        if not options.json:
            _print(key, measured[key])
    if options.json:
        answer(json.dumps(measured, indent=1))
    _show_in_mlflow(storage, list(measured))
    return EXIT_DONE


def _require_gpu() -> None:
    import torch

    if not torch.cuda.is_available():
        raise UserError("--gpu must have a CUDA device, and PyTorch sees none here", "leave it out", code="option-invalid")


def _print(key: str, measurements: list[dict[str, Any]]) -> None:
    from orchestrator.terminal.tables import plain_table, stdout_console
    from trainables.records.latency_record import latency_text

    table = plain_table("batch", "network", "milliseconds", "times as fast as dense")
    for one in measurements:
        for name, (median, low, high) in one["milliseconds"].items():
            times = ""
            if name in one["speedups"]:
                middle, least, most = one["speedups"][name]
                times = f"{middle:.2f} ({least:.2f} to {most:.2f})"
            table.add_row(str(one["batch"]), name, f"{median:.3g} ({low:.3g} to {high:.3g})", times)
    stdout_console().print(table)
    for one in measurements:
        print(f"{key}, {latency_text(one)}")
        if one["verdict"] != "faster":
            print(
                "  Nothing is gained here: most runtimes multiply by zeros too, and small layers cost as much as larger ones."
            )


def _show_in_mlflow(storage: Storage, keys: list[str]) -> None:
    """Brings the runs of all sweeps with these trials up to date; where that fails, what was measured is kept all the same."""
    from orchestrator.execution.sync import sync_sweep
    from orchestrator.export.measured_trials import sweeps_with

    folders = {folder.name: folder for key in keys for folder in sweeps_with(storage, key)}
    for name, folder in folders.items():
        try:
            sync_sweep(folder)
        except SweepError as error:
            notify(f"sweep {name!r} does not show it in MLflow yet: {error}")

"""The automatic settings of a sweep: device, precision, CPUs, GPU share, compilation. Kept in resolved.json.

Later runs of the sweep use the same ones, since they are part of the fingerprint under which warm-ups are shared.
Knows no Ray: execution/autotune.py measures what needs a worker.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from orchestrator.spec.schema import Resources
from orchestrator.state.sweep_folder import SweepFolder
from trainables.config.trial import TrialConfig
from trainables.preflight.network_case import Adjustments
from trainables.runtime.device import Runtime

RESOLVED = "resolved.json"
RAY_UNITS = 10_000  # in which Ray counts a resource
ANSWERS = ("device", "precision", "cpus_per_trial", "gpus_per_trial", "compile", "compile_problem")


@dataclass(frozen=True, kw_only=True)
class ResolvedSettings:
    """All settings of a sweep.

    Attributes:
        cpus_per_trial, gpus_per_trial: of all workers of a trial together.
        workers: processes that train one trial together.
        precision: what `precision: auto` stands for; None while no trial needed it.
        adjustments: what differs for networks that fail with the sweep's precision or memory order (preflight/networks.py).
    """

    device: str
    precision: Literal["fp32", "bf16"] | None = None
    cpus_per_trial: float = 1.0
    gpus_per_trial: float = 0.0
    workers: int = 1
    compile: bool = False
    adjustments: Adjustments = field(default_factory=dict)

    @property
    def cpus_per_worker(self) -> float:
        """What a worker reserves; rounded down as Ray rounds, so that all of them fit into the trial's CPUs."""
        return (
            self.cpus_per_trial if self.workers == 1 else math.floor(self.cpus_per_trial / self.workers * RAY_UNITS) / RAY_UNITS
        )

    @property
    def gpus_per_worker(self) -> float:
        return self.gpus_per_trial / self.workers

    def runtime(self, resources: Resources) -> Runtime:
        """What every trial of the sweep computes with."""
        return Runtime(
            device=self.device,
            threads=max(1, int(self.cpus_per_trial / self.workers)),
            precision=self.precision or "fp32",
            deterministic=self.device == "cpu" if resources.deterministic is None else resources.deterministic,
            compile=self.compile,
            workers=self.workers,
            sync_batch_norm=resources.sync_batch_norm or self.workers == 1,
        )


def merge_settings(resources: Resources, cached: dict[str, Any]) -> ResolvedSettings:
    """Merges explicit settings with cached automatic ones. `cached` must contain at least `device`."""
    share = configured_gpu_share(resources.gpus_per_trial, cached["device"])
    return ResolvedSettings(
        device=cached["device"],
        precision=cached.get("precision"),
        cpus_per_trial=cached.get("cpus_per_trial", 1.0) if resources.cpus == "auto" else resources.cpus,
        gpus_per_trial=cached.get("gpus_per_trial", 1.0) if share is None else share,
        workers=resources.workers,
        compile=resources.compile and bool(cached.get("compile")),
    )


def read_resolved(folder: SweepFolder) -> dict[str, Any]:
    """The recorded automatic settings by name; empty before the first run. Explicit ones are not among them."""
    record = folder.storage.read_json(folder.file(RESOLVED), fields=("device",)) or {}
    return {name: value for name, value in record.items() if name in ANSWERS}


def valid_on_device(device: str, cached: dict[str, Any]) -> dict[str, Any]:
    """The cached settings if they are of this device, else only the device."""
    return cached if cached.get("device") == device else {"device": device}


def leaves_precision_open(configs: Iterable[TrialConfig], cached: dict[str, Any]) -> bool:
    """Whether a trial has precision "auto" and none is cached."""
    return "precision" not in cached and any(config.precision == "auto" for config in configs)


def write_resolved(folder: SweepFolder, cached: dict[str, Any]) -> None:
    folder.storage.write_json(folder.file(RESOLVED), cached)


def configured_gpu_share(value: float | Literal["auto"] | None, device: str) -> float | None:
    """GPUs of a trial by the sweep file, a whole one by default; None if its share is to be measured."""
    if device != "cuda":
        return 0.0
    if value == "auto":
        return None
    return 1.0 if value is None else value

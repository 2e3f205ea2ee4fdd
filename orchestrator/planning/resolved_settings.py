"""What a sweep decides by itself, once: device, precision, threads, packing, compilation. Kept in resolved.json.

Later runs of the sweep use the same choices, since they are part of the fingerprint under which warm-ups are shared.
Knows no Ray; what has to be asked of a worker is asked by execution/autotune.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from orchestrator.spec.schema import Resources
from orchestrator.state.sweep_folder import SweepFolder
from trainables.config.trial import TrialConfig
from trainables.preflight.network_case import Adjustments
from trainables.runtime.device import Runtime

RESOLVED = "resolved.json"
ANSWERS = ("device", "precision", "cpus_per_trial", "gpus_per_trial", "compile", "compile_problem")


@dataclass(frozen=True, kw_only=True)
class ResolvedSettings:
    """All choices of a sweep.

    Attributes:
        precision: what `precision: auto` stands for; None while no trial needed to know.
        adjustments: what differs for networks that do not stand the sweep's precision or memory order (preflight/networks.py).
    """

    device: str
    precision: Literal["fp32", "bf16"] | None = None
    cpus_per_trial: float = 1.0
    gpus_per_trial: float = 0.0
    compile: bool = False
    adjustments: Adjustments = field(default_factory=dict)

    def runtime(self, resources: Resources) -> Runtime:
        """What every trial of the sweep computes with."""
        return Runtime(
            device=self.device,
            threads=max(1, int(self.cpus_per_trial)),
            precision=self.precision or "fp32",
            deterministic=self.device == "cpu" if resources.deterministic is None else resources.deterministic,
            compile=self.compile,
        )


def choices_of(resources: Resources, made: dict[str, Any]) -> ResolvedSettings:
    """What the sweep file says, and where it leaves a choice what was answered; `made` needs no more than the device."""
    share = configured_gpu_share(resources.gpus_per_trial, made["device"])
    return ResolvedSettings(
        device=made["device"],
        precision=made.get("precision"),
        cpus_per_trial=made.get("cpus_per_trial", 1.0) if resources.cpus_per_trial == "auto" else resources.cpus_per_trial,
        gpus_per_trial=made.get("gpus_per_trial", 1.0) if share is None else share,
        compile=resources.compile and bool(made.get("compile")),
    )


def read_choices(folder: SweepFolder) -> dict[str, Any]:
    """The answers on record by name; empty before the first run. What the sweep file itself says is not among them."""
    record = folder.storage.read_json(folder.file(RESOLVED), fields=("device",)) or {}
    return {name: value for name, value in record.items() if name in ANSWERS}


def valid_on_device(device: str, made: dict[str, Any]) -> dict[str, Any]:
    """The answers that hold on a device: those of another one do not."""
    return made if made.get("device") == device else {"device": device}


def leaves_precision_open(configs: Iterable[TrialConfig], made: dict[str, Any]) -> bool:
    """Whether a trial asks for "auto" and no answer is on record."""
    return "precision" not in made and any(config.precision == "auto" for config in configs)


def write_choices(folder: SweepFolder, made: dict[str, Any]) -> None:
    folder.storage.write_json(folder.file(RESOLVED), made)


def configured_gpu_share(value: float | Literal["auto"] | None, device: str) -> float | None:
    """GPUs per trial as the sweep file says; None if it is to be measured. Without a word it is a whole one."""
    if device != "cuda":
        return 0.0
    if value == "auto":
        return None
    return 1.0 if value is None else value

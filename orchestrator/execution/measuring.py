"""Measures in a child process how long epochs and pruning rounds of a plan take on this machine, for `plan --measure`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from orchestrator.command_line import command
from orchestrator.errors import UserError
from orchestrator.planning.durations import Timed, Work, network_of
from orchestrator.planning.plan import Plan
from orchestrator.planning.resolved_settings import read_resolved
from orchestrator.process.child import ChildError, ask, serve
from orchestrator.process.patience import limit_s
from orchestrator.spec.schema import Resources
from orchestrator.state.sweep_folder import SweepFolder
from trainables.config.keys import canonical, from_canonical
from trainables.config.trial import TrialConfig
from trainables.custom.files import CustomFiles
from trainables.data.source import DatasetSource
from trainables.data.staging import StagedDataset
from trainables.runtime.device import Runtime, resolve_precision
from trainables.runtime.machine import processors
from trainables.wording import counted

SECONDS = 4.0  # for each network, besides its start
LEAST_SECONDS = 0.3  # for each method


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What was measured.

    Attributes:
        timed: an epoch and a round of each network and method.
        device: cpu or cuda.
        processor: name of the processor, or of the GPU.
        threads: of a trial.
    """

    timed: tuple[Timed, ...]
    device: str
    processor: str
    threads: int

    @property
    def where(self) -> str:
        """Such as "alone on this machine (AMD EPYC AVX512, 1 thread)"."""
        threads = "" if self.device == "cuda" else f", {counted(self.threads, 'thread')}"
        return f"alone on this machine ({self.processor}{threads})"


def measure(plan: Plan, folder: SweepFolder) -> Measurement:
    """Times a few batches and rounds of each network and method of the plan's unfinished trials.

    Raises:
        UserError: they cannot run here, or take several workers.
    """
    if plan.spec.resources.workers > 1:
        raise UserError(
            f"--measure: must be of trials of one worker, got {plan.spec.resources.workers} workers, whose steps also wait for "
            "each other",
            "leave it out: the first finished trials of as many workers tell the time",
            code="option-invalid",
        )
    kinds: dict[tuple[str, str], TrialConfig] = {}
    for trial in plan.unfinished:
        kind = (network_of(trial.config), trial.config.method)
        known = kinds.get(kind)
        if known is None or trial.config.rounds > known.rounds:
            kinds[kind] = trial.config
    request = {
        "configs": [canonical(config) for config in kinds.values()],
        "source": asdict(plan.source),
        "resources": plan.spec.resources.model_dump(),
        "resolved": read_resolved(folder),
        "custom_files": asdict(plan.custom_files),
        "seconds": max(LEAST_SECONDS, SECONDS * len({network for network, _ in kinds}) / max(1, len(kinds))) / 2,
    }
    try:
        answer = ask(__name__, request, keep_errors=True, limit_s=limit_s(plan.spec.stage_timeout))
    except ChildError as error:
        raise UserError(
            f"--measure: a batch of each network must run on this machine, got {error}",
            f"`{command('trial')}` shows what is wrong",
            code="probe-failed",
        ) from None
    timed = []
    for (network, method), speed in zip(kinds, answer["speeds"], strict=True):
        timed.append(_timed(Work(network=network, method=method, epochs=1), speed["epoch_seconds"], 0.0))
        timed.append(_timed(Work(network=network, method=method, epochs=0, rounds=1), 0.0, speed["round_seconds"]))
    return Measurement(timed=tuple(timed), **answer["machine"])


def _timed(work: Work, epoch_seconds: float, round_seconds: float) -> Timed:
    return Timed(work=work, seconds=epoch_seconds + round_seconds, epoch_seconds=epoch_seconds, round_seconds=round_seconds)


def main() -> None:
    """The child process."""
    serve(_respond)


def _respond(request: Mapping[str, Any]) -> dict[str, Any]:
    from trainables.worker.speed import measure_speed

    custom_files, source = CustomFiles(**request["custom_files"]), StagedDataset(source=DatasetSource(**request["source"]))
    runtime = _runtime(request["resources"], request["resolved"])
    speeds = []
    for values in request["configs"]:
        config = from_canonical(TrialConfig, values)
        custom_files.import_modules(config)
        try:
            speed = measure_speed(config, source, runtime, request["seconds"])
        except RuntimeError:  # of a network that needs contiguous images, as the checks before a sweep find out
            speed = measure_speed(config, source, replace(runtime, channels_last=False), request["seconds"])
        speeds.append(asdict(speed))
    machine = {"device": runtime.device, "processor": runtime.fingerprint()["processor"], "threads": runtime.threads}
    return {"speeds": speeds, "machine": machine}


def _runtime(resources: Mapping[str, Any], resolved: Mapping[str, Any]) -> Runtime:
    """What a trial of the sweep will compute with, as far as that is known before a run."""
    import torch

    device = resources["device"]
    if device == "auto":
        device = resolved.get("device") or ("cuda" if torch.cuda.is_available() else "cpu")
    cpus = Resources(**resources).cpus
    if cpus == "auto":
        cpus = resolved.get("cpus_per_trial", processors())
    deterministic = resources["deterministic"]
    return Runtime(
        device=device,
        threads=max(1, int(cpus)),
        precision=resolved.get("precision") or resolve_precision("auto", device),
        deterministic=device == "cpu" if deterministic is None else deterministic,
    )

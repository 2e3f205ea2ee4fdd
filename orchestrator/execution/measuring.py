"""Measures in a child process how long epochs and pruning rounds of a plan take on this machine, for `plan --measure`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from orchestrator.command_line import command
from orchestrator.errors import UserError
from orchestrator.planning.durations import Timed, Work, network_of
from orchestrator.planning.plan import Plan
from orchestrator.planning.resolved_settings import merge_settings, read_resolved, valid_on_device
from orchestrator.process.child import ChildError, ask, serve
from orchestrator.process.patience import limit_s
from orchestrator.spec.schema import Resources
from orchestrator.state.sweep_folder import SweepFolder
from trainables.config.keys import canonical, from_canonical
from trainables.config.trial import TrialConfig
from trainables.custom.files import CustomFiles
from trainables.data.source import DatasetSource
from trainables.data.staging import StagedDataset
from trainables.errors import FailureKind, TrialError, kind_of
from trainables.runtime.device import Runtime, resolve_precision
from trainables.runtime.machine import processor, processors
from trainables.wording import counted
from trainables.worker.local_peers import LocalPeers
from trainables.worker.peers import FINISHED, Outcome, joining, leading

if TYPE_CHECKING:
    from trainables.worker.speed import Speed

SECONDS = 4.0  # for each network, besides its start
LEAST_SECONDS = 0.3  # for each method


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What was measured.

    Attributes:
        timed: an epoch and a round of each network and method.
        device: cpu or cuda.
        processor: name of the processor, or of the GPU.
        threads: of each worker.
        workers: of a trial.
    """

    timed: tuple[Timed, ...]
    device: str
    processor: str
    threads: int
    workers: int

    @property
    def where(self) -> str:
        """Such as "alone on this machine (AMD EPYC AVX512, 2 workers of 1 thread)"."""
        parts = [f"{self.workers} workers"] if self.workers > 1 else []
        parts += [counted(self.threads, "thread")] if self.device == "cpu" else []
        return f"alone on this machine ({', '.join(filter(None, (self.processor, ' of '.join(parts))))})"


def measure(plan: Plan, folder: SweepFolder) -> Measurement:
    """Times a few batches and rounds of each network and method of the plan's unfinished trials.

    Raises:
        UserError: they cannot run here.
    """
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
        problem, hint = answer.get("error"), answer.get("hint")
    except ChildError as error:
        problem, hint = str(error), None
    if problem:
        raise UserError(
            f"--measure: a batch of each network must run on this machine, got {problem}",
            hint or f"`{command('trial')}` shows what is wrong",
            code="probe-failed",
        )
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


def _respond(request: dict[str, Any]) -> dict[str, Any]:
    import torch

    runtime = _runtime(request["resources"], request["resolved"])
    if runtime.device == "cuda" and (gpus := torch.cuda.device_count()) < runtime.workers:
        hint = "measure on a machine with as many, or give a speed with --images-per-second"
        return {"error": f"{counted(gpus, 'GPU')} for a trial that takes {runtime.workers}", "hint": hint}
    try:
        with _with_other_workers(runtime, request):
            speeds = [asdict(speed) for speed in _speeds(request, runtime)]
    except TrialError as error:
        return {"error": str(error)}
    machine = {"device": runtime.device, "processor": processor(runtime.device), "threads": runtime.threads}
    return {"speeds": speeds, "machine": machine | {"workers": runtime.workers}}


@contextmanager
def _with_other_workers(runtime: Runtime, request: Mapping[str, Any]) -> Iterator[None]:
    """Has the other workers of a trial of several measure in step while the block runs."""
    if runtime.workers == 1:
        yield
        return
    peers = LocalPeers(runtime.workers, runtime.device)
    try:
        with leading(runtime, peers, _measure_part, request):
            yield
    finally:
        peers.end()


def _measure_part(rank: int, request: Mapping[str, Any], address: str, port: int) -> Outcome:
    """The part of another worker in the measurement."""
    runtime = _runtime(request["resources"], request["resolved"])
    try:
        with joining(runtime, rank, address, port):
            _speeds(request, runtime)
    except Exception as error:
        message = str(error) if isinstance(error, TrialError) else f"{type(error).__name__}: {error}"
        return {"status": kind_of(error).value, "message": message}
    return {"status": FINISHED, "message": ""}


def _speeds(request: Mapping[str, Any], runtime: Runtime) -> list[Speed]:
    from trainables.worker.speed import measure_speed

    custom_files, source = CustomFiles(**request["custom_files"]), StagedDataset(source=DatasetSource(**request["source"]))
    speeds = []
    for values in request["configs"]:
        config = from_canonical(TrialConfig, values)
        custom_files.import_modules(config)
        try:
            speed = measure_speed(config, source, runtime, request["seconds"])
        except RuntimeError as error:  # of a network that needs contiguous images, as the checks before a sweep find out
            if kind_of(error) is FailureKind.OUT_OF_MEMORY:
                raise
            speed = measure_speed(config, source, replace(runtime, channels_last=False), request["seconds"])
        speeds.append(speed)
    return speeds


def _runtime(resources: Mapping[str, Any], resolved: Mapping[str, Any]) -> Runtime:
    """What a trial of the sweep will compute with, as far as that is known before a run."""
    import torch

    settings = Resources(**resources)
    device = settings.required_device
    if device == "auto":
        device = resolved.get("device") or ("cuda" if torch.cuda.is_available() else "cpu")
    guessed = {"precision": resolve_precision("auto", device), "cpus_per_trial": processors()}
    known = guessed | valid_on_device(device, dict(resolved))
    return replace(merge_settings(settings, known).runtime(settings), compile=False)

"""The result of one check of the doctor, and the checks of any machine: free space, versions, GPUs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from orchestrator.cluster.node_info import NodeInfo, Problem
from orchestrator.errors import SweepError
from trainables.errors import TrialError

MIN_FREE_BYTES = 2 << 30  # checkpoints of large networks side by side, and what Ray spills
MIN_FREE_MEMORY = 0.1  # of a GPU; with less, another process computes on it


@dataclass(frozen=True, kw_only=True)
class Check:
    """What one check saw, and how to fix it if it failed.

    Attributes:
        places: of a kind of mismatch all places, of which the message has the first ones.
    """

    name: str
    ok: bool
    message: str
    hint: str = ""
    places: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """One entry of `doctor --json`."""
        entry = {"check": self.name, "ok": self.ok, "message": self.message, "way_out": self.hint}
        return entry | ({"places": list(self.places)} if self.places else {})


def run_check(name: str, action: Callable[[], str], hint: str = "") -> Check:
    """The message that an action returns, or its error; `hint` is for errors without one."""
    try:
        return Check(name=name, ok=True, message=action())
    except (SweepError, OSError) as error:  # a StorageError is one too
        return from_error(name, error, hint)


def from_error(name: str, error: Exception, hint: str = "") -> Check:
    if isinstance(error, SweepError | TrialError):
        return Check(name=name, ok=False, message=error.message, hint=error.hint or hint)
    return Check(name=name, ok=False, message=str(error), hint=hint)


def from_problem(name: str, machine: str, problem: Problem | None, ok_message: str) -> Check:
    """The check of a machine that has this problem, if any."""
    if problem is None:
        return Check(name=name, ok=True, message=f"{machine}: {ok_message}")
    return Check(name=name, ok=False, message=f"{machine}: {problem.message}", hint=problem.hint)


def check_free_space(name: str, folder: str, free_bytes: int) -> Check:
    message, ok = f"{folder} has {free_bytes / 2**30:.1f} GiB free", free_bytes >= MIN_FREE_BYTES
    return Check(
        name=name,
        ok=ok,
        message=message if ok else f"{message}, a sweep needs {MIN_FREE_BYTES / 2**30:.0f} GiB",
        hint="" if ok else "make room there, or use another folder",
    )


def machine_checks(machine: str, info: NodeInfo, driver: NodeInfo, ray_gpus: int) -> Iterator[Check]:
    """The checks of one machine.

    Args:
        driver: the driver's machine, which the versions must match.
        ray_gpus: how many GPUs Ray counts there.
    """
    versions = info.versions.items()
    differing = [
        f"{package} {version} (driver: {driver.versions[package]})"
        for package, version in versions
        if version != driver.versions[package]
    ]
    yield Check(
        name="versions",
        ok=not differing,
        message=f"{machine}: {', '.join(differing or [' '.join(pair) for pair in versions])}",
        hint="install the same versions on every node; others compute other numbers" if differing else "",
    )
    if info.processors:
        size = f"{info.processors} processors, {info.memory_bytes / 2**30:.1f} GiB of memory"
        yield Check(name="machine", ok=True, message=f"{machine}: {size}" + (f" ({info.limits})" if info.limits else ""))
    if info.cache_problem:
        yield from_problem("cache", machine, info.cache_problem, "")
    for folder, free_bytes in info.free_bytes.items():
        yield check_free_space("disk", f"{machine}: {folder}", free_bytes)
    if info.gpu_problem:
        message = f"{machine}: GPUs cannot be queried: {info.gpu_problem}"
        yield Check(name="gpu", ok=False, message=message, hint="repair PyTorch or the driver there")
    elif ray_gpus > len(info.gpus):
        yield Check(
            name="gpu",
            ok=False,
            message=f"{machine}: Ray counts {ray_gpus} GPUs, CUDA sees {len(info.gpus)}",
            hint="start the node with the true --num-gpus, or repair its driver; trials on GPUs would fail there",
        )
    for gpu in info.gpus:
        yield _check_gpu(machine, gpu)


def _check_gpu(machine: str, gpu: dict[str, Any]) -> Check:
    if "problem" in gpu:
        message = f"{machine}: GPU {gpu['index']} does not work: {gpu['problem']}"
        hint = "take it out of the cluster (CUDA_VISIBLE_DEVICES at `ray start`), or repair it"
        return Check(name="gpu", ok=False, message=message, hint=hint)
    free, total = gpu["free"] / 2**30, gpu["total"] / 2**30
    ok = free >= MIN_FREE_MEMORY * total
    return Check(
        name="gpu",
        ok=ok,
        message=f"{machine}: GPU {gpu['index']}, {gpu['name']}: {free:.1f} of {total:.1f} GiB free",
        hint="" if ok else "end what computes there, or exclude this GPU",
    )

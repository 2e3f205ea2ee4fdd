"""One check of the doctor, and those that any machine takes: free space, versions, GPUs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from orchestrator.cluster.node_info import NodeInfo
from orchestrator.errors import SweepError

MIN_FREE_BYTES = 2 << 30  # checkpoints of large networks side by side, and what Ray spills
MIN_FREE_MEMORY = 0.1  # of a GPU; with less, somebody else computes on it


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that was looked at: what was found, and what to do about it where it is not well."""

    check: str
    ok: bool
    message: str
    hint: str = ""


def run_check(check: str, action: Callable[[], str], hint: str = "") -> Check:
    """What an action tells, or how it failed."""
    try:
        return Check(check=check, ok=True, message=action())
    except (SweepError, OSError) as error:  # a StorageError is one too
        return from_error(check, error, hint)


def from_error(check: str, error: Exception, hint: str = "") -> Check:
    message, _, rest = str(error).partition("; ")
    return Check(check=check, ok=False, message=message, hint=rest or hint)


def from_problem(check: str, name: str, problem: str, well: str) -> Check:
    message, _, hint = problem.partition("; ")
    return Check(check=check, ok=not problem, message=f"{name}: {message or well}", hint=hint)


def check_free_space(check: str, place: str, free: int) -> Check:
    least = MIN_FREE_BYTES / 2**30
    message, ok = f"{place} has {free / 2**30:.1f} GiB free", free >= MIN_FREE_BYTES
    return Check(
        check=check,
        ok=ok,
        message=message if ok else f"{message}, a sweep needs {least:.0f} GiB",
        hint="" if ok else "make room there, or use another folder",
    )


def machine_checks(name: str, facts: NodeInfo, ours: NodeInfo, gpus_counted: int) -> Iterator[Check]:
    """The checks of a machine's own facts, beside those of the driver's machine."""
    versions = facts.versions.items()
    other = [
        f"{package} {found} (here {ours.versions[package]})" for package, found in versions if found != ours.versions[package]
    ]
    yield Check(
        check="versions",
        ok=not other,
        message=f"{name}: {', '.join(other or [' '.join(one) for one in versions])}",
        hint="install the same versions on every node; other ones compute other numbers" if other else "",
    )
    if facts.processors:
        size = f"{facts.processors} processors, {facts.memory_bytes / 2**30:.1f} GiB of memory"
        yield Check(check="machine", ok=True, message=f"{name}: {size}" + (f" ({facts.limits})" if facts.limits else ""))
    if facts.cache_problem:
        yield from_problem("cache", name, facts.cache_problem, "")
    for folder, free in facts.free_bytes.items():
        yield check_free_space("disk", f"{name}: {folder}", free)
    if facts.gpu_problem:
        hint = "repair PyTorch or the driver there"
        yield Check(check="gpu", ok=False, message=f"{name}: GPUs cannot be asked: {facts.gpu_problem}", hint=hint)
    elif gpus_counted > len(facts.gpus):
        yield Check(
            check="gpu",
            ok=False,
            message=f"{name}: Ray counts {gpus_counted} GPUs, CUDA sees {len(facts.gpus)}",
            hint="start the node with the true --num-gpus, or repair its driver; trials on GPUs would fail there",
        )
    for gpu in facts.gpus:
        yield _gpu(name, gpu)


def _gpu(name: str, gpu: dict[str, Any]) -> Check:
    if "problem" in gpu:
        hint = "take it out of the cluster (CUDA_VISIBLE_DEVICES at `ray start`), or repair it"
        return Check(check="gpu", ok=False, message=f"{name}: GPU {gpu['index']} is broken: {gpu['problem']}", hint=hint)
    free, total = gpu["free"] / 2**30, gpu["total"] / 2**30
    ok = free >= MIN_FREE_MEMORY * total
    return Check(
        check="gpu",
        ok=ok,
        message=f"{name}: GPU {gpu['index']}, {gpu['name']}: {free:.1f} of {total:.1f} GiB free",
        hint="" if ok else "end what computes there, or leave this GPU out",
    )

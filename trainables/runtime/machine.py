"""Processors and memory that this process may use, within the limits of its container, and their names.

Limits are those of Linux control groups, versions 1 and 2 (Documentation/admin-guide/cgroup-v1 and cgroup-v2.rst of the
kernel). The limits of all parent groups apply too, so the smallest one counts.
"""

from __future__ import annotations

import os
import platform
import resource
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path, PurePosixPath

PROCESS = Path("/proc/self")
NO_LIMIT = 1 << 60  # bytes; version 1 writes "no limit" as a number near 2^63


def processors(process: Path = PROCESS) -> int:
    """Number of usable processors: the smaller of the CPU affinity and the container's quota, at least 1."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cpu_quota(process)
    return allowed if quota is None else max(1, min(allowed, int(quota)))


def processor_name() -> str:
    """The model of the processors, or their architecture where the model is unknown."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


@lru_cache(maxsize=2)
def processor(device: str) -> str:
    """Name of the GPU, or of the processor with the instruction set that PyTorch's kernels use."""
    import torch

    if device == "cuda":
        return torch.cuda.get_device_name()
    return f"{processor_name()} {torch.backends.cpu.get_cpu_capability()}"


def cpu_quota(process: Path = PROCESS) -> float | None:
    """Processors that the container may use, such as 1.5; None without a limit."""

    def of_v1(group: Path) -> float:
        quota = int((group / "cpu.cfs_quota_us").read_text())
        return quota / int((group / "cpu.cfs_period_us").read_text()) if quota > 0 else float("inf")

    def of_v2(group: Path) -> float:
        quota, period = (group / "cpu.max").read_text().split()
        return float("inf") if quota == "max" else int(quota) / int(period)

    return _smallest(process, "cpu", of_v1, of_v2, float("inf"))


def memory_limit(process: Path = PROCESS) -> int | None:
    """Bytes of memory that the container may use; None without a limit."""

    def of_v1(group: Path) -> float:
        return int((group / "memory.limit_in_bytes").read_text())

    def of_v2(group: Path) -> float:
        limit = (group / "memory.max").read_text().strip()
        return NO_LIMIT if limit == "max" else int(limit)

    limit = _smallest(process, "memory", of_v1, of_v2, min(NO_LIMIT, machine_memory()))
    return None if limit is None else int(limit)


def machine_id() -> str:
    """The same for all processes of a machine, and another one after it was started anew."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return platform.node()


def machine_memory() -> int:
    """Bytes of the whole machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def peak_memory(process: Path = PROCESS) -> int:
    """The most bytes of memory that this process has had at a time.

    The count of getrusage begins with what the parent process had when it started this one.
    """
    try:
        status = (process / "status").read_text()
        return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def limits(process: Path = PROCESS) -> str:
    """The container's limits as text for messages; empty without limits."""
    quota, memory = cpu_quota(process), memory_limit(process)
    parts = [] if quota is None else [f"{quota:g} processors"]
    parts += [] if memory is None else [f"{memory / 2**30:.1f} GiB of memory"]
    return f"its container allows {' and '.join(parts)}" if parts else ""


def _smallest(
    process: Path, controller: str, of_v1: Callable[[Path], float], of_v2: Callable[[Path], float], unlimited: float
) -> float | None:
    """The smallest limit of the process's groups; None where it is `unlimited`. Groups with unreadable limits have none."""
    smallest = unlimited
    for version, group in _groups(process, controller):
        try:
            smallest = min(smallest, (of_v1 if version == 1 else of_v2)(group))
        except (OSError, ValueError, ZeroDivisionError):
            continue
    return smallest if smallest < unlimited else None


def _groups(process: Path, controller: str) -> Iterator[tuple[int, Path]]:
    """Version and mounted folder of each group that the process is in, parent groups included."""
    try:
        members = [line.split(":", 2) for line in (process / "cgroup").read_text().splitlines()]
        mounts = (process / "mountinfo").read_text().splitlines()
    except OSError:
        return
    for line in mounts:
        before, _, after = line.partition(" - ")
        root, mount = before.split()[3:5]
        kind, _, options = after.split(maxsplit=2)
        for _, controllers, path in members:
            if kind == "cgroup2" and not controllers:
                version = 2
            elif kind == "cgroup" and controller in controllers.split(",") and controller in options.split(","):
                version = 1
            else:
                continue
            inside = PurePosixPath(path)  # in the whole hierarchy, of which a container may see only a subtree
            inside = inside.relative_to(root) if inside.is_relative_to(root) else inside.relative_to("/")
            for group in (inside, *inside.parents):
                if ".." not in group.parts:
                    yield version, Path(mount.replace("\\040", " "), group)

"""Limits of containers: made-up trees of control groups of both versions, and a real group where one can be created."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from trainables.runtime.machine import cpu_quota, limits, machine_memory, memory_limit, peak_memory, processors

GIB = 1 << 30


def process_in(folder: Path, groups: dict[str, str], members: str, mounts: str) -> Path:
    """A made-up /proc/self; `groups` are files below the folder `cgroup`, MOUNT stands for that folder."""
    for name, content in groups.items():
        file = folder / "cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    process = folder / "proc"
    process.mkdir(parents=True, exist_ok=True)
    (process / "cgroup").write_text(members)
    (process / "mountinfo").write_text(mounts.replace("MOUNT", str(folder / "cgroup").replace(" ", "\\040")))
    return process


V2 = "29 23 0:26 / MOUNT rw,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = "33 31 0:30 / MOUNT/cpu rw - cgroup cgroup rw,cpu,cpuacct\n35 31 0:32 / MOUNT/memory rw - cgroup cgroup rw,memory\n"
DOCKER_V1 = V1.replace(" / MOUNT", " /docker/ab MOUNT")
CASES = {
    "v2, no limit": ({"a/cpu.max": "max 100000", "a/memory.max": "max"}, "0::/a\n", V2, None, None),
    "v2": ({"a/cpu.max": "150000 100000", "a/memory.max": f"{GIB}"}, "0::/a\n", V2, 1.5, GIB),
    "v2, the one above is smaller": (
        {"a/cpu.max": "100000 100000", "a/b/cpu.max": "200000 100000", "a/memory.max": "max", "a/b/memory.max": f"{GIB}"},
        *("0::/a/b\n", V2, 1.0, GIB),
    ),
    "v2, a container's own view": ({"cpu.max": "50000 100000", "memory.max": f"{2 * GIB}"}, "0::/\n", V2, 0.5, 2 * GIB),
    "v1": (
        {
            "cpu/a/cpu.cfs_quota_us": "250000",
            "cpu/a/cpu.cfs_period_us": "100000",
            "memory/a/memory.limit_in_bytes": f"{GIB}",
            "memory/memory.limit_in_bytes": "9223372036854771712",
        },
        *("4:memory:/a\n3:cpu,cpuacct:/a\n0::/\n", V1, 2.5, GIB),
    ),
    "v1, no limit": (
        {
            "cpu/a/cpu.cfs_quota_us": "-1",
            "cpu/a/cpu.cfs_period_us": "100000",
            "memory/a/memory.limit_in_bytes": "9223372036854771712",
        },
        *("4:memory:/a\n3:cpu,cpuacct:/a\n", V1, None, None),
    ),
    "v1, docker's view": (
        {"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "100000", "memory/memory.limit_in_bytes": f"{GIB}"},
        *("4:memory:/docker/ab\n3:cpu,cpuacct:/docker/ab\n", DOCKER_V1, 1.0, GIB),
    ),
    "nothing that can be read": ({"a/cpu.max": "lots"}, "0::/../a\n", V2, None, None),
}


@pytest.mark.parametrize("case", CASES)
def test_smallest_limit_of_all_parent_groups_counts(tmp_path: Path, case: str) -> None:
    groups, members, mounts, quota, memory = CASES[case]
    process = process_in(tmp_path / "with space", groups, members, mounts)
    assert cpu_quota(process) == quota
    assert memory_limit(process) == memory


def test_processors_are_at_least_one_and_within_the_affinity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 5}, raising=False)
    for quota, counted in {"50000": 1, "150000": 1, "399999": 3, "900000": 4, "max": 4}.items():
        process = process_in(tmp_path, {"a/cpu.max": f"{quota} 100000"}, "0::/a\n", V2)
        assert processors(process) == counted


def test_limit_above_the_machine_memory_is_none(tmp_path: Path) -> None:
    process = process_in(tmp_path, {"a/memory.max": f"{machine_memory() + GIB}"}, "0::/a\n", V2)
    assert memory_limit(process) is None
    assert limits(process) == ""


def test_limits_as_text(tmp_path: Path) -> None:
    process = process_in(tmp_path, {"a/cpu.max": "150000 100000", "a/memory.max": f"{GIB}"}, "0::/a\n", V2)
    assert limits(process) == "its container allows 1.5 processors and 1.0 GiB of memory"


def test_real_cgroup_quota_is_read() -> None:
    """As root, with control groups of version 1 or 2 that can be written."""
    for parent, files in {
        Path("/sys/fs/cgroup/cpu"): {"cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "100000"},
        Path("/sys/fs/cgroup"): {"cpu.max": "100000 100000"},
    }.items():
        group = parent / f"drive-sweep-{os.getpid()}"
        try:
            group.mkdir()
            for name, content in files.items():
                (group / name).write_text(content)
        except OSError:
            with suppress(OSError):
                group.rmdir()
            continue
        try:
            code = "from trainables.runtime.machine import cpu_quota, processors; print(cpu_quota(), processors())"
            enter = f"echo $$ > {group}/cgroup.procs && exec {sys.executable} -c '{code}'"
            done = subprocess.run(["sh", "-c", enter], capture_output=True, text=True, check=True)
        finally:
            group.rmdir()
        assert done.stdout == "1.0 1\n"
        return
    pytest.skip("no control group can be made here")


def test_peak_memory_is_that_of_the_process_alone(tmp_path: Path) -> None:
    before = peak_memory()
    assert peak_memory() >= int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    block = b"x" * before
    assert peak_memory() >= 1.5 * len(block)
    del block
    code = "from trainables.runtime.machine import peak_memory; print(peak_memory())"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(child.stdout) < 0.5 * peak_memory()
    (tmp_path / "status").write_text("Name:\tx\nVmHWM:\t    1234 kB\n")
    assert peak_memory(tmp_path) == 1234 * 1024
    assert peak_memory(tmp_path / "nowhere") >= 0.9 * peak_memory()

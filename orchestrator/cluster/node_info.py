"""What a machine reports about itself: versions, clock, free disk space, GPUs. Runs on the node in question, without Ray."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from orchestrator.version import source_revision
from trainables.errors import StorageError, TrialError
from trainables.runtime.cache_folder import cache_folder
from trainables.runtime.machine import limits, machine_memory, memory_limit, processors
from trainables.wording import last_line

PACKAGES = ("torch", "torchvision", "numpy")  # those that decide numbers
GPU_TIMEOUT_S = 120.0
# In a child process, since a CUDA context would hold memory for as long as the worker lives.
GPU_SCRIPT = """
import json, torch
gpus = []
for index in range(torch.cuda.device_count()):
    entry = {"index": index}
    try:
        entry["name"] = torch.cuda.get_device_name(index)
        assert torch.ones(8, device=f"cuda:{index}").sum().item() == 8.0, "it adds wrongly"
        entry["free"], entry["total"] = torch.cuda.mem_get_info(index)
    except Exception as error:
        entry["problem"] = (str(error).strip() or type(error).__name__).splitlines()[0]
    gpus.append(entry)
print(json.dumps(gpus))
"""


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a node cannot run trials, and how to fix it."""

    message: str
    hint: str = ""

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message

    @staticmethod
    def of(error: TrialError) -> Problem:
        return Problem(error.message, error.hint)


@dataclass(frozen=True, kw_only=True)
class NodeInfo:
    """One machine.

    Attributes:
        versions: name -> version, of Python, this code and the packages that decide numbers; "none" if there is none.
        clock: its time, in seconds since 1970.
        free_bytes: folder -> free space, of the folders that trials fill on the node.
        gpus: an entry for each GPU that CUDA sees: index, name, free and total bytes, or its problem.
        gpu_problem: why CUDA could not be queried.
        processors: number that processes can use; 0 if unknown. `memory_bytes` likewise.
        limits: limits of a container on both, in words.
        cache_problem: why decoded data sets cannot be cached there.
    """

    versions: dict[str, str]
    clock: float
    free_bytes: dict[str, int]
    gpus: list[dict[str, Any]]
    gpu_problem: str = ""
    processors: int = 0
    memory_bytes: int = 0
    limits: str = ""
    cache_problem: Problem | None = None


def local_node_info(with_gpus: bool) -> NodeInfo:
    """This machine; GPUs only if requested, which takes seconds."""
    gpus, gpu_problem = _gpus() if with_gpus else ([], "")
    folders: set[str] = {tempfile.gettempdir()}
    cache_problem: Problem | None = None
    try:
        folders.add(str(cache_folder()))
    except StorageError as error:
        cache_problem = Problem.of(error)
    return NodeInfo(
        versions={"python": platform.python_version(), "drive-sweep": source_revision()}
        | {name: _version(name) for name in PACKAGES},
        clock=time.time(),
        free_bytes={folder: shutil.disk_usage(folder).free for folder in sorted(folders)},
        gpus=gpus,
        gpu_problem=gpu_problem,
        processors=processors(),
        memory_bytes=memory_limit() or machine_memory(),
        limits=limits(),
        cache_problem=cache_problem,
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


def _gpus() -> tuple[list[dict[str, Any]], str]:
    """The GPUs that CUDA sees, or why it could not be queried. Ray hides them from tasks that reserve none."""
    environment = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    try:
        command = [sys.executable, "-c", GPU_SCRIPT]
        child = subprocess.run(command, capture_output=True, text=True, check=True, timeout=GPU_TIMEOUT_S, env=environment)
        return list(json.loads(child.stdout.splitlines()[-1])), ""
    except subprocess.CalledProcessError as error:
        has_message = error.stderr.strip()
        return [], last_line(error.stderr) if has_message else f"PyTorch exited with {error.returncode} and no message"
    except (OSError, subprocess.SubprocessError, ValueError, IndexError) as error:
        return [], str(error)

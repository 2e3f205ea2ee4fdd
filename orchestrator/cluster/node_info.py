"""What a machine tells about itself: versions, clock, free disk space, GPUs. Runs on the node in question, without Ray."""

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
from trainables.errors import StorageError
from trainables.runtime.cache_folder import cache_folder
from trainables.runtime.machine import limits, machine_memory, memory_limit, processors

PACKAGES = ("torch", "torchvision", "numpy")  # those that decide numbers
GPU_TIMEOUT_S = 120.0
# In a process of its own, since a CUDA context would hold memory for as long as the worker lives.
ASK_GPUS = """
import json, torch
told = []
for index in range(torch.cuda.device_count()):
    entry = {"index": index}
    try:
        entry["name"] = torch.cuda.get_device_name(index)
        assert torch.ones(8, device=f"cuda:{index}").sum().item() == 8.0, "it adds wrongly"
        entry["free"], entry["total"] = torch.cuda.mem_get_info(index)
    except Exception as error:
        entry["problem"] = (str(error).strip() or type(error).__name__).splitlines()[0]
    told.append(entry)
print(json.dumps(told))
"""


@dataclass(frozen=True, kw_only=True)
class NodeInfo:
    """One machine.

    Attributes:
        versions: name -> version, of Python, this code and the packages that decide numbers; "none" if there is none.
        clock: its time, in seconds since 1970.
        free_bytes: folder -> free space, of the folders that trials fill on the node.
        gpus: one entry a GPU that CUDA sees: index, name, free and total bytes, or its problem.
        gpu_problem: why CUDA could not be asked.
        processors: that processes can use there; 0 is not known. `memory_bytes` likewise.
        limits: what a container takes away of both, in words.
        cache_problem: why decoded data sets cannot be kept there.
    """

    versions: dict[str, str]
    clock: float
    free_bytes: dict[str, int]
    gpus: list[dict[str, Any]]
    gpu_problem: str = ""
    processors: int = 0
    memory_bytes: int = 0
    limits: str = ""
    cache_problem: str = ""


def local_node_info(with_gpus: bool) -> NodeInfo:
    """The facts of this machine; GPUs only if asked for, which takes seconds."""
    gpus, problem = _gpus() if with_gpus else ([], "")
    folders, cache_problem = {tempfile.gettempdir()}, ""
    try:
        folders.add(str(cache_folder()))
    except StorageError as error:
        cache_problem = str(error)
    return NodeInfo(
        versions={"python": platform.python_version(), "drive-sweep": source_revision()}
        | {name: _version(name) for name in PACKAGES},
        clock=time.time(),
        free_bytes={folder: shutil.disk_usage(folder).free for folder in sorted(folders)},
        gpus=gpus,
        gpu_problem=problem,
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
    # Ray hides the GPUs from a task that asks for none.
    environment = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    try:
        asked = [sys.executable, "-c", ASK_GPUS]
        answer = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=GPU_TIMEOUT_S, env=environment)
        return list(json.loads(answer.stdout.splitlines()[-1])), ""
    except subprocess.CalledProcessError as error:
        return [], (error.stderr.strip() or "PyTorch ended without a word").splitlines()[-1]
    except (OSError, subprocess.SubprocessError, ValueError, IndexError) as error:
        return [], str(error)

"""The machine as the report names it. Runs in a section's process, since it asks PyTorch."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from trainables.runtime.machine import processor_name, processors

QUERIED = "driver_version,clocks.sm,clocks.max.sm,power.draw,power.limit,temperature.gpu"
REPORTED = ("torch", "torchvision", "numpy", "safetensors", "zstandard")


def machine_facts(wanted: str) -> dict[str, Any]:
    """The device ("auto" is cuda where there is one) and all that figures may depend on.

    Raises:
        RuntimeError: cuda is wanted, and there is none.
    """
    import torch

    has_gpu = torch.cuda.is_available()
    if wanted == "cuda" and not has_gpu:
        raise RuntimeError("--device: must be cpu where PyTorch sees no CUDA device, got cuda")
    device = "cuda" if has_gpu and wanted != "cpu" else "cpu"
    facts: dict[str, Any] = {
        "device": device,
        "name": processor_name(),
        "processors": processors(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in REPORTED},
    }
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        facts |= {
            "name": properties.name,
            "devices": torch.cuda.device_count(),
            "capability": f"{properties.major}.{properties.minor}",
            "memory_gib": round(properties.total_memory / 2**30, 1),
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "state": gpu_state(),
        }
    return facts


def gpu_state() -> dict[str, str]:
    """Driver, clocks, power and temperature now; empty where nvidia-smi is missing or fails."""
    if shutil.which("nvidia-smi") is None:
        return {}
    command = ["nvidia-smi", f"--query-gpu={QUERIED}", "--format=csv,noheader", "--id=0"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return {}
    return dict(zip(QUERIED.split(","), (value.strip() for value in done.stdout.split(",")), strict=False))


def loaded_packages() -> set[str]:
    """Top-level packages of this process that come neither with Python nor from this project's own code below tests/."""
    names = {name.partition(".")[0] for name in sys.modules}
    return {name for name in names - sys.stdlib_module_names if not name.startswith(("_", "tests"))}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None

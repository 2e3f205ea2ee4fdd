"""What a process computes with: device, threads, precision, determinism. The fingerprint names it.

Equal fingerprints and `deterministic` promise equal bits; a warm-up snapshot is used only under its own fingerprint.
Read by: phases.py, warmup.py, stage.py. Chosen once per sweep by orchestrator/sweep.py.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True, slots=True)
class Runtime:
    """Settings that a whole sweep shares.

    Attributes:
        device: "cpu" or "cuda".
        threads: PyTorch threads of one trial; part of the fingerprint, since it changes the order of additions.
        precision: what the forward pass runs in; weights, scores and masks are float32 in both.
        deterministic: refuse kernels whose result changes from run to run.
        channels_last: keep convolutions in NHWC order, which is faster where the processor has wide vectors.
    """

    device: str = "cpu"
    threads: int = 1
    precision: Literal["fp32", "bf16"] = "fp32"
    deterministic: bool = True
    channels_last: bool = False

    def activate(self) -> None:
        """Sets the process-wide switches of PyTorch; a reused worker calls it before every stage."""
        torch.set_num_threads(self.threads)
        if self.deterministic and self.device == "cuda":
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(self.deterministic)
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        torch.backends.cudnn.benchmark = not self.deterministic
        torch.backends.cudnn.deterministic = self.deterministic

    def autocast(self) -> AbstractContextManager[object]:
        """The forward pass runs inside; off for fp32."""
        return torch.autocast(self.device, dtype=torch.bfloat16, enabled=self.precision == "bf16")

    def place(self, model: nn.Module) -> nn.Module:
        model = model.to(self.device)
        return model.to(memory_format=torch.channels_last) if self.channels_last else model

    def arranged(self, images_BCHW: Tensor) -> Tensor:
        return images_BCHW.contiguous(memory_format=torch.channels_last) if self.channels_last else images_BCHW

    def fingerprint(self) -> dict[str, Any]:
        """Everything besides the configuration that can move a bit."""
        return asdict(self) | {
            "processor": processor(self.device),
            "torch": torch.__version__,
            "cudnn": torch.backends.cudnn.version() if self.device == "cuda" else None,
            "compile": False,
        }

    def fingerprint_id(self) -> str:
        text = json.dumps(self.fingerprint(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:8]


@lru_cache(maxsize=2)
def processor(device: str) -> str:
    """Name of the processor or GPU, with the instruction set that PyTorch's kernels use on it."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    return f"{model} {torch.backends.cpu.get_cpu_capability()}"


def resolve_precision(written: str, device: str) -> Literal["fp32", "bf16"]:
    """What "auto" stands for on this machine: bf16 where the hardware multiplies it, fp32 elsewhere."""
    if written in ("fp32", "bf16"):
        return "fp32" if written == "fp32" else "bf16"
    if device == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    has_bf16 = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bf16" if has_bf16 else "fp32"

"""What a process computes with: device, threads, precision, determinism; and its fingerprint.

Equal fingerprints and `deterministic` promise equal bits; a warm-up snapshot is used only under its own fingerprint.
PyTorch is imported late, so that the driver, which only passes these settings to its workers, starts seconds earlier.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from trainables.runtime.machine import processor

if TYPE_CHECKING:
    from torch import Tensor, nn

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h of glibc


@dataclass(frozen=True, kw_only=True, slots=True)
class Runtime:
    """The settings that all trials of a sweep share.

    Attributes:
        device: "cpu" or "cuda".
        threads: PyTorch threads of one trial; part of the fingerprint, since it changes the order of additions.
        precision: of the forward pass; weights, scores and masks are float32 in both.
        deterministic: raise an error in kernels whose result changes from run to run.
        channels_last: keep convolutions in NHWC order; 1.2 to 1.7 times as fast on processors with wide vectors.
        compile: compile training steps, on a GPU as CUDA graphs.
        workers: processes that train one trial together, each on its own device.
        sync_batch_norm: several workers normalise by the statistics of the whole batch, not each by those of its share.
    """

    device: str = "cpu"
    threads: int = 1
    precision: Literal["fp32", "bf16"] = "fp32"
    deterministic: bool = True
    channels_last: bool = True
    compile: bool = False
    workers: int = 1
    sync_batch_norm: bool = True

    def for_trial(self, precision: str) -> Runtime:
        """The runtime with the precision of a trial's configuration; unchanged for "auto"."""
        return self if precision == "auto" else replace(self, precision="fp32" if precision == "fp32" else "bf16")

    def alone(self) -> Runtime:
        """The runtime of one worker that computes whole batches by itself."""
        return replace(self, workers=1)

    def activate(self) -> None:
        """Sets the process-wide switches of PyTorch; a reused worker calls it before every stage."""
        import torch

        torch.set_num_threads(self.threads)
        tune_malloc()
        if self.deterministic and self.device == "cuda":
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
            os.environ.setdefault("NCCL_NVLS_ENABLE", "0")  # a switch that adds promises no order
        if self.compile:
            torch.use_deterministic_algorithms(self.deterministic)  # sets the compiler too, which takes seconds to import
        else:
            torch.set_deterministic_debug_mode("error" if self.deterministic else "default")
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        torch.backends.cudnn.benchmark = not self.deterministic
        torch.backends.cudnn.deterministic = self.deterministic
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False  # fp32 is fp32, not 10 of its 23 bits

    def autocast(self) -> AbstractContextManager[object]:
        """The context of the forward pass; does nothing for fp32."""
        import torch

        return torch.autocast(self.device, dtype=torch.bfloat16, enabled=self.precision == "bf16")

    def to_device(self, model: nn.Module) -> nn.Module:
        """The network on the device, in the memory format of the computation."""
        import torch

        model = model.to(self.device)
        return model.to(memory_format=torch.channels_last) if self.channels_last else model

    def to_memory_format(self, images_BCHW: Tensor) -> Tensor:
        """The images in the memory format of the network."""
        import torch

        return images_BCHW.contiguous(memory_format=torch.channels_last) if self.channels_last else images_BCHW

    def compiled(self, model: nn.Module, *, as_graphs: bool = True) -> Callable[[Tensor], Tensor]:
        """The network's forward pass in training steps; compiled once per process and shape if `compile` is set.

        Args:
            as_graphs: on a GPU as CUDA graphs. Not for a network that keeps tensors from one call for the next, which the next
                replay would overwrite.
        """
        if not self.compile:
            return model
        import torch

        forward: Callable[[Tensor], Tensor] = torch.compile(model, mode="reduce-overhead" if as_graphs else "default")
        return forward

    def fingerprint(self) -> dict[str, Any]:
        """Everything besides the configuration that can change a result; of several workers only where there are some."""
        import torch

        settings, name = asdict(self), processor(self.device)
        if self.workers == 1:
            del settings["workers"], settings["sync_batch_norm"]
        else:
            from trainables.runtime.group import group_of

            group = group_of(self)
            name = " and ".join(group.processors)
            if self.device == "cuda" and self.workers > 2 and self.deterministic:
                settings["layout"] = group.layout  # NCCL adds in the order of the connections; two in any order
        if self.device == "cuda":
            settings["tf32"] = False  # snapshots of a time when convolutions used it are others
        return settings | {
            "processor": name,
            "torch": torch.__version__,
            "cudnn": torch.backends.cudnn.version() if self.device == "cuda" else None,
        }

    def fingerprint_id(self) -> str:
        """8 hex digits of the fingerprint."""
        text = json.dumps(self.fingerprint(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:8]


@cache
def tune_malloc() -> None:
    """Makes glibc reuse large blocks instead of returning them to the system; does nothing with another C library.

    Activations are such blocks: on a virtual machine their page faults took a tenth of a training step and most of a
    pruning round.
    """
    with suppress(AttributeError, OSError):
        libc = ctypes.CDLL("libc.so.6")
        if any(libc.mallopt(_M_MMAP_THRESHOLD, size) for size in (1 << 30, 1 << 25)):  # older versions accept 32 MiB at most
            libc.mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)


def resolve_precision(precision: str, device: str) -> Literal["fp32", "bf16"]:
    """The precision; "auto" is bf16 where the hardware multiplies it, fp32 elsewhere."""
    if precision in ("fp32", "bf16"):
        return "fp32" if precision == "fp32" else "bf16"
    import torch

    if device == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    has_bf16 = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bf16" if has_bf16 else "fp32"

"""The kinds of failures that raise no error of this project."""

from __future__ import annotations

import pytest
import torch

from trainables.errors import FailureKind, kind_of


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("CUDA error: out of memory\nCompile with `TORCH_USE_CUDA_DSA` to enable device-side assertions."),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        torch.distributed.DistBackendError(
            "ncclUnhandledCudaError: Call to CUDA function failed.\nLast error:\nCuda failure 2 'out of memory'"
        ),
    ],
    ids=["python", "allocator", "cuda", "cublas", "cudnn", "nccl"],
)
def test_a_lack_of_memory_is_one_wherever_it_is_found(error: Exception) -> None:
    assert kind_of(error) is FailureKind.OUT_OF_MEMORY


def test_the_cpu_allocator_is_without_memory() -> None:
    with pytest.raises(RuntimeError) as raised:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert kind_of(raised.value) is FailureKind.OUT_OF_MEMORY


@pytest.mark.parametrize(
    "error", [RuntimeError("CUDA error: an illegal memory access was encountered"), ValueError("out of memory")]
)
def test_other_errors_are_in_the_code(error: Exception) -> None:
    assert kind_of(error) is FailureKind.CODE

"""Networks whose results depend on uninitialised memory or are wrong in bf16 are detected."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.support.examined_networks import MODULE, Small, errors, examined, sound
from tests.support.trials import tiny_config
from trainables.preflight.arithmetic import disagreement
from trainables.preflight.network_case import adjusted_runtime
from trainables.runtime.device import Runtime


class Garbage(Small):
    """Reads memory that nothing was written to, where it computes in bf16: as kernels of PyTorch did."""

    only_bf16 = True

    def features(self, x: Tensor) -> Tensor:
        hidden = super().features(x)
        if self.only_bf16 and not torch.is_autocast_enabled("cpu"):
            return hidden
        return hidden + garbage_like(hidden)


def garbage_like(like: Tensor) -> Tensor:
    """Memory as the C library hands it out; PyTorch itself would fill it with NaN while it is deterministic."""
    import ctypes

    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    libc.malloc.argtypes, libc.free.argtypes = [ctypes.c_size_t], [ctypes.c_void_p]
    place = libc.malloc(4 * like.numel())
    values = torch.frombuffer(bytearray(ctypes.string_at(place, 4 * like.numel())), dtype=torch.float32).clone()
    libc.free(place)
    return values.nan_to_num(1.0, 1.0, 1.0).clamp(-1, 1).view(like.shape)


def test_auto_is_fp32_where_bf16_depends_on_unused_memory() -> None:
    report = examined(lambda shape, classes: Garbage(), runtime=Runtime(precision="bf16"), precision="auto")
    assert report.adjusted == {"precision": "fp32"}
    (finding,) = report.findings
    assert finding.severity == "warning"
    assert "precision: auto is fp32" in finding.message
    config = tiny_config(model=f"module:{MODULE}.net", precision="auto")
    assert adjusted_runtime(Runtime(precision="bf16"), config, {report.case: report.adjusted}) == Runtime()


def test_bf16_is_rejected_where_it_depends_on_unused_memory() -> None:
    findings = errors(lambda shape, classes: Garbage(), precision="bf16")
    assert "set precision: fp32" in findings["arithmetic"]


def test_fp32_that_depends_on_unused_memory_is_rejected() -> None:
    class Always(Garbage):
        only_bf16 = False

    assert list(errors(lambda shape, classes: Always())) in (["arithmetic"], ["outputs"])


def test_auto_falls_back_to_fp32_where_bf16_is_far_off() -> None:
    class Coarse(Small):
        def features(self, x: Tensor) -> Tensor:
            hidden = super().features(x)
            return hidden.round() if torch.is_autocast_enabled("cpu") else hidden * 3

    assert examined(lambda shape, classes: Coarse(), runtime=Runtime(precision="bf16"), precision="auto").adjusted == {
        "precision": "fp32"
    }
    sound_in_bf16 = examined(sound, runtime=Runtime(precision="bf16"), precision="auto")
    assert (sound_in_bf16.adjusted, sound_in_bf16.findings) == ({}, ())


def test_disagreement_allows_the_error_of_rounding() -> None:
    exact = {"outputs": torch.ones(4, 2), "loss": torch.zeros(()), "weight": torch.ones(8)}
    chaotic = exact | {"weight": torch.tensor([1.0, -1.0] * 4)}
    assert disagreement(exact, exact, lambda: pytest.fail("asked without need")) == ""
    assert disagreement(chaotic, exact, lambda: chaotic) == ""
    assert "its gradients differ from those in fp32 by 1.4 of their size, where rounding weights and images makes 0" in (
        disagreement(chaotic, exact, lambda: exact)
    )
    broken = exact | {"outputs": torch.full((4, 2), float("nan"))}
    assert "its outputs differ from those in fp32 by inf" in disagreement(broken, exact, lambda: chaotic)

"""Checks that this machine computes a network correctly: independent of uninitialised memory, and in bf16 near fp32.

Some kernels read uninitialised memory (pytorch#169688); their results then depend on what the process did before. Two runs with
different garbage in all newly allocated memory reveal it. Shapes: B batch, K classes.
"""

from __future__ import annotations

import ctypes
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from copy import deepcopy

import numpy as np
import torch
from torch import Tensor, nn

from trainables.models.loss_parts import loss_parts
from trainables.models.losses import Loss
from trainables.runtime.device import Runtime
from trainables.runtime.heartbeat import beat
from trainables.training.backward import backward
from trainables.wording import listed

M_PERTURB = -6  # malloc.h of glibc: new memory is filled with the complement of this byte
GARBAGE = (0x80, 0x40)  # new memory is 3.4e38 everywhere, then -1.5, in float32 and in bfloat16
# Errors of bf16 relative to the norm of the outputs and of all gradients together; smaller ones are accepted at once. Deep
# networks at their initial weights are chaotic: on random images of 32 x 32 gradients are off by 0.26 in resnet20, 0.57 in
# vgg19, 0.74 in resnet56. Larger errors are compared with those of rounding weights and images to bf16 in fp32: 1.3 to 1.8
# times as large in these networks.
MAX_OUTPUT_ERROR = 0.2
MAX_GRADIENT_ERROR = 0.7
MAX_TIMES_ROUNDING = 3.0

Values = Mapping[str, Tensor]
Run = Callable[[Runtime], Values]


@contextmanager
def garbage_in_memory(byte: int, runtime: Runtime) -> Iterator[None]:
    """Inside, newly allocated memory holds garbage, as far as the C library and the GPU's allocator allow it."""
    libc = None
    with suppress(AttributeError, OSError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(M_PERTURB, byte)
    if runtime.device == "cuda":
        _fill_freed_gpu_memory(3.4e38 if byte == GARBAGE[0] else -1.5)
    try:
        yield
    finally:
        if libc is not None:
            with suppress(AttributeError):
                libc.mallopt(M_PERTURB, 0)


def _fill_freed_gpu_memory(value: float) -> None:
    """Fills blocks of many sizes and frees them; PyTorch's allocator reuses them with their content."""
    blocks = [torch.full((1 << power,), value, device="cuda") for power in range(6, 26) for _ in range(2)]
    del blocks


def seed_forward() -> None:
    """Seeds the random numbers of a forward pass, such as those of dropout."""
    torch.manual_seed(0)


def training_run(model: nn.Module, images_BCHW: Tensor, labels_B: Tensor, loss_of: Loss) -> Run:
    """A run of one forward and backward pass in training mode: outputs, loss and all gradients."""
    before = {name: value.clone() for name, value in model.state_dict().items()}

    def run(runtime: Runtime) -> Values:
        beat()
        model.load_state_dict(before)
        model.train()
        model.zero_grad(set_to_none=True)
        seed_forward()
        loss, outputs_BK = backward(loss_parts(model, model, images_BCHW, labels_B, loss_of, runtime))
        grads = {name: one.grad.clone() for name, one in model.named_parameters() if one.grad is not None}
        model.zero_grad(set_to_none=True)
        return {"outputs": outputs_BK.float(), "loss": loss, **grads}

    return run


def seconds_of(run: Run, runtime: Runtime) -> float:
    """Duration of a training run; one before it has warmed the device up."""
    start = time.perf_counter()
    float(run(runtime)["loss"])  # waits for the device
    return time.perf_counter() - start


def rounded_run(model: nn.Module, images_BCHW: Tensor, labels_B: Tensor, loss_of: Loss) -> Run:
    """The same with weights and images rounded to bf16."""
    rounded = deepcopy(model)
    with torch.no_grad():
        for parameter in rounded.parameters():
            parameter.copy_(parameter.bfloat16())
    return training_run(rounded, images_BCHW.bfloat16().float(), labels_B, loss_of)


def evaluation_run(model: nn.Module, images_BCHW: Tensor) -> Run:
    """A run of one forward pass in eval mode."""

    def run(runtime: Runtime) -> Values:
        beat()
        model.eval()
        seed_forward()
        with torch.inference_mode(), runtime.autocast():
            outputs_BK = model(runtime.to_memory_format(images_BCHW)).float()
        return {"outputs": outputs_BK.clone()}

    return run


def nondeterministic_values(run: Run, runtime: Runtime) -> tuple[str, Values]:
    """Names of the values that differ between two runs with different garbage in memory; and the values of the first run."""
    with garbage_in_memory(GARBAGE[0], runtime):
        first = run(runtime)
    if not runtime.deterministic:
        return "", first
    with garbage_in_memory(GARBAGE[1], runtime):
        second = run(runtime)
    return _differences(first, second), first


def foreign_generator(run: Run, runtime: Runtime) -> str:
    """The module whose random numbers make two runs differ: "numpy" or "random"; empty if neither."""
    states = np.random.get_state(), random.getstate()
    try:
        for name, seed in (("numpy", np.random.seed), ("random", random.seed)):
            results = []
            for _ in range(2):
                seed(0)
                results.append(run(runtime))
            if not _differences(*results):
                return name
    finally:
        np.random.set_state(states[0])
        random.setstate(states[1])
    return ""


def _differences(first: Values, second: Values) -> str:
    """Names of the values that are not equal, empty if all are; NaN equals NaN."""
    names = [
        name
        for name, value in first.items()
        if name not in second or not torch.equal(value.nan_to_num(7e30), second[name].nan_to_num(7e30))
    ]
    return listed(names, 3)


def disagreement(values: Values, exact: Values, rounded: Callable[[], Values]) -> str:
    """How bf16 differs from fp32 by more than rounding explains; empty if it does not.

    Args:
        rounded: computes the values in fp32 of rounded weights and images.
    """
    errors = {
        "outputs": (relative_error(values["outputs"], exact["outputs"]), MAX_OUTPUT_ERROR),
        "gradients": (gradient_error(values, exact), MAX_GRADIENT_ERROR),
    }
    if all(error <= accepted for error, accepted in errors.values()):
        return ""
    near = rounded()
    rounding = {"outputs": relative_error(near["outputs"], exact["outputs"]), "gradients": gradient_error(near, exact)}
    for kind, (error, accepted) in errors.items():
        if not error <= max(accepted, MAX_TIMES_ROUNDING * rounding[kind]):
            return (
                f"its {kind} differ from those in fp32 by {error:.2g} of their size, where rounding weights and images makes "
                f"{rounding[kind]:.2g}"
            )
    return ""


def relative_error(value: Tensor, exact: Tensor) -> float:
    """Norm of the difference over the norm of the exact value; NaN counts as infinite."""
    size = float(exact.double().norm())
    error = float((value.double() - exact.double()).norm())
    if error != error:
        return float("inf")
    return error / size if size > 0 else (0.0 if error == 0 else float("inf"))


def gradient_error(values: Values, exact: Values) -> float:
    """The relative error of all gradients together; that of a single small tensor may be large on any machine."""
    names = [name for name in exact if name not in ("outputs", "loss") and name in values]
    size = sum(float(exact[name].double().square().sum()) for name in names) ** 0.5
    error = sum(float((values[name].double() - exact[name].double()).square().sum()) for name in names) ** 0.5
    if error != error:
        return float("inf")
    return error / size if size > 0 else 0.0

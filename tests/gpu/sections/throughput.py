"""Images per second of training on images of CIFAR's shape, beside a plain loop, and as a share of the matmul rate.

Where one is compiled, the same without compilation has turns with it again, so that both are measured at one time.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import torch

from tests.gpu.plain_loop import PlainLoop
from tests.gpu.rows import Bench, Row, measured, not_run, skipped
from tests.gpu.training import SHAPE, Training, Work, seconds_per_image
from trainables.analysis.multiply_adds import multiply_adds
from trainables.models.prunable import prunable_weights
from trainables.models.registry import build_model
from trainables.runtime.device import Runtime
from trainables.worker.probe import compile_problem

AIM = 60_000  # images per second, ResNet-18 in bf16 on an H200
AIMED_MODEL = "resnet18"
PASSES = 3  # multiply-adds of a step over those of its forward pass: gradients of the inputs and of the weights
MATMUL_SIDE = {"cuda": 8192, "cpu": 1024}
MATMUL_CALLS = 20
COMPILE_S = 40.0  # that should be left before a network is compiled


@dataclass(frozen=True, kw_only=True)
class Case:
    """A network with its batches; on a CPU smaller ones."""

    model: str
    batch_size: int
    steps: int


def cases(bench: Bench) -> Sequence[Case]:
    if bench.device == "cuda":
        return (
            Case(model="resnet18", batch_size=512, steps=50),
            Case(model="resnet20", batch_size=512, steps=50),
            Case(model="resnet18", batch_size=128, steps=100),
        )
    return Case(model="resnet20", batch_size=16, steps=2), Case(model="resnet18", batch_size=8, steps=1)


def measure(bench: Bench) -> Iterator[Row]:
    rate = matmul_flops(bench.device)
    yield measured(
        f"bf16 product of {MATMUL_SIDE[bench.device]} x {MATMUL_SIDE[bench.device]}", round(rate / 1e12, 2), "TFLOP/s"
    )
    problem = "compiling takes half a minute on a CPU" if bench.device == "cpu" else compile_problem(bench.device)
    if problem:
        yield skipped("compiled training", problem)
    all_cases = cases(bench)
    for number, case in enumerate(all_cases):
        share = bench.left / (len(all_cases) - number)
        yield from _uncompiled(case, bench, rate, share / 3)
        if problem:
            continue
        for precision in ("bf16", "fp32"):
            if bench.left < COMPILE_S:
                yield not_run(_label(case, precision, compiled=True))
            else:
                yield from _compiled(case, precision, bench, rate, share / 6)


def _uncompiled(case: Case, bench: Bench, rate: float, seconds: float) -> Iterator[Row]:
    images = case.steps * case.batch_size
    calls: dict[str, Work] = {
        _label(case, precision): Training(case.model, images, case.batch_size, _runtime(bench, precision))
        for precision in ("bf16", "fp32")
    }
    plain = f"{case.model}, plain loop, batches of {case.batch_size}"
    plain_images = images if bench.brief else min(images, 10_240)  # it is the slowest
    calls[plain] = PlainLoop(case.model, plain_images, case.batch_size, bench.device, 0 if bench.brief else None)
    times = seconds_per_image(calls, seconds)
    yield measured(plain, round(1 / median(times[plain])), "images/s", note=_spread(times[plain]))
    for name, seconds_each in times.items():
        if name != plain:
            yield _row(name, case, seconds_each, rate, bench, {"the plain loop": times[plain]})


def _compiled(case: Case, precision: str, bench: Bench, rate: float, seconds: float) -> Iterator[Row]:
    images, label = case.steps * case.batch_size, _label(case, precision, compiled=True)
    runtime = _runtime(bench, precision)
    compiled = Training(case.model, images, case.batch_size, _runtime(bench, precision, compiled=True))
    began = time.perf_counter()
    compiled()
    first_s = time.perf_counter() - began
    calls: dict[str, Work] = {label: compiled, "without": Training(case.model, images, case.batch_size, runtime)}
    times = seconds_per_image(calls, seconds)
    yield _row(label, case, times[label], rate, bench, {"the same without": times["without"]})
    yield measured(f"first epoch of {label}", round(first_s, 1), "s", note="compiling included")


def _row(
    name: str, case: Case, times: Sequence[float], rate: float, bench: Bench, others: Mapping[str, Sequence[float]]
) -> Row:
    """Images per second, beside those of others that were measured in turns."""
    speed = 1 / median(times)
    shares = [f"{median(other) / median(times):.2f} of {label}" for label, other in others.items()]
    if "bf16" in name and bench.device == "cuda":  # a CPU may only emulate it
        shares.append(f"{speed * step_flops(case.model) / rate:.1%} of the rate of the product")
    is_aimed = bench.device == "cuda" and case.model == AIMED_MODEL and "bf16" in name
    aim, ok = (f"{AIM:,}", speed >= AIM) if is_aimed else ("", None)
    return measured(name, round(speed), "images/s", aim=aim, ok=ok, note="; ".join([*shares, _spread(times)]))


def _runtime(bench: Bench, precision: str, compiled: bool = False) -> Runtime:
    name = "bf16" if precision == "bf16" else "fp32"
    return Runtime(device=bench.device, precision=name, deterministic=False, compile=compiled)  # type: ignore[arg-type]


def _label(case: Case, precision: str, compiled: bool = False) -> str:
    return f"{case.model}, {precision}{', compiled' if compiled else ''}, batches of {case.batch_size}"


def _spread(times: Sequence[float]) -> str:
    return f"{1 / max(times):,.0f} to {1 / min(times):,.0f} in {len(times)} rounds"


def step_flops(model: str) -> float:
    """Operations of one training step for one image, by the project's own counter; norms and the optimizer not counted."""
    network = build_model(model, SHAPE, 10)
    total = multiply_adds(network, set(prunable_weights(network)), SHAPE).total
    assert total is not None
    return 2.0 * PASSES * total


def matmul_flops(device: str) -> float:
    """Operations per second of a square product in bf16, the median of several."""
    side = MATMUL_SIDE[device]
    first, second = (torch.randn(side, side, device=device).bfloat16() for _ in range(2))
    times = []
    for _ in range(MATMUL_CALLS + 3):
        began = time.perf_counter()
        first @ second
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return 2.0 * side**3 / median(times[3:])

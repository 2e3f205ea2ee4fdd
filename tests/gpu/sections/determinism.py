"""Resumed and shared trials end as plain ones do, bit for bit; and what the deterministic kernels for that cost."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from statistics import median

from tests.gpu.images import write_images
from tests.gpu.rows import Bench, Row, checked, measured
from tests.gpu.training import Training, seconds_per_image
from tests.gpu.trials import TrialGround, small_config
from trainables.runtime.device import Runtime


def measure(bench: Bench) -> Iterator[Row]:
    images = write_images(bench.folder, 8, train=60, test=20)
    for precision in ("fp32", "bf16"):
        runtime = Runtime(device=bench.device, precision="bf16" if precision == "bf16" else "fp32")
        config = small_config(images, model="convnet" if bench.brief else "resnet20", precision=precision)
        grounds = {
            name: TrialGround(folder=bench.folder / f"{name}-{precision}", images=images, runtime=runtime)
            for name in ("plain", "repeated", "resumed", "shared")
        }
        plain = grounds["plain"].run(config, shares=False)
        others = {
            "repeated": grounds["repeated"].run(config, shares=False),
            "resumed": grounds["resumed"].run_with_stop(config, lambda state: state.phase == "prune"),
        }
        grounds["shared"].run(replace(config, warmup_epochs=1))
        others["shared"] = grounds["shared"].run(config)
        points = grounds["plain"].points(config)
        for name, result in others.items():
            holds = result["model_sha256"] == plain["model_sha256"] and grounds[name].points(config) == points
            yield checked(f"{name} trial against a plain one, {precision}", holds, "the same bits", result["model_sha256"][:12])
    yield from _cost(bench)


def _cost(bench: Bench) -> Iterator[Row]:
    model, batch, steps = ("resnet20", 16, 2) if bench.brief else ("resnet18", 512, 30)
    runtime = Runtime(device=bench.device, precision="fp32" if bench.brief else "bf16")
    calls = {
        name: Training(model, steps * batch, batch, replace(runtime, deterministic=deterministic))
        for name, deterministic in (("deterministic", True), ("free", False))
    }
    times = seconds_per_image(calls, bench.left)
    ratios = [one / other for one, other in zip(times["deterministic"], times["free"], strict=True)]
    note = f"{model}, batches of {batch}, {runtime.precision}, {len(ratios)} rounds"
    yield measured("time with deterministic kernels over that without", round(median(ratios), 3), "times", note=note)

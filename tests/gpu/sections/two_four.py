"""2:4 sparse layers on sparse tensor cores against dense ones: those of a trained `srste` model, and a large one."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor, nn

from tests.gpu.images import write_images
from tests.gpu.rows import Bench, Row, SkippedError, checked, measured
from tests.gpu.trials import TrialGround, small_config
from trainables.config.methods import SrsteConfig
from trainables.config.trial import TrainingConfig
from trainables.export.fresh_process import seconds_in_turns
from trainables.export.measured_latency import measure as measure_latency
from trainables.export.two_four_format import is_two_of_four
from trainables.export.variants import DENSE, MASKED, TWO_FOUR, SemiStructured, variants
from trainables.pruning.nm_masks import pattern_masks
from trainables.runtime.device import Runtime

TOLERANCE = 0.01  # of the norm of the outputs; half precision has 11 bits, and sums are taken in another order
BATCHES = (64, 1024)
SIDE, ROWS = 8192, 4096  # of the large layer, and what it gets
PATTERN = "2:4"


def measure(bench: Bench) -> Iterator[Row]:
    model, side = ("lenet300", 8) if bench.brief else ("alexnet", 32)
    images = write_images(bench.folder, side, train=250, test=40)
    ground = TrialGround(folder=bench.folder, images=images, runtime=Runtime(device=bench.device))
    training = TrainingConfig(epochs=1, batch_size=20)
    options = SrsteConfig(pattern=PATTERN)
    config = small_config(
        images, model=model, method="srste", warmup_epochs=0, sparsity=0.5, training=training, options=options
    )
    ground.run(config)
    trained = ground.model(config)
    pruned = {name: mask for name, mask in trained.masks.items() if not bool(mask.all())}
    holds = bool(pruned) and all(map(is_two_of_four, pruned.values()))
    yield checked(f"masks of {model} trained by srste", holds, "2 of 4 input channels", f"{len(pruned)} layers")
    bench.require_gpu("sparse tensor cores")

    Runtime(device=bench.device, deterministic=False).activate()
    networks = variants(trained, dict(trained.masks), device=bench.device, half=True)
    if TWO_FOUR not in networks:
        raise SkippedError(f"no layer of {model} has a size that sparse kernels take")
    batch = (
        torch.rand(BATCHES[0], *trained.card.image_shape, generator=torch.Generator().manual_seed(0)).to(bench.device).half()
    )
    with torch.no_grad():
        yield _same(f"outputs of {model}", networks[TWO_FOUR](batch), networks[MASKED](batch))
    shape = trained.card.image_shape
    for record in measure_latency(networks, shape, trained.memory_format, batches=BATCHES, threads=1, seconds=2.0):
        speedup, low, high = record["speedups"][TWO_FOUR]
        note = f"{low:.2f} to {high:.2f}; dense takes {record['milliseconds'][DENSE][0]:.3f} ms in fp16"
        yield measured(f"{model}, {record['batch']} images: dense over 2:4", round(speedup, 3), "times", note=note)
    yield from _large_layer(bench)


def _large_layer(bench: Bench) -> Iterator[Row]:
    layer = nn.Linear(SIDE, SIDE, device=bench.device, dtype=torch.float16)
    generator = torch.Generator(device=bench.device).manual_seed(0)
    features = torch.randn(ROWS, SIDE, generator=generator, device=bench.device, dtype=torch.float16)
    with torch.no_grad():
        layer.weight.mul_(pattern_masks({"": layer.weight}, 2, 4)[""])
        sparse = SemiStructured(layer)
        yield _same(f"outputs of a layer of {SIDE} x {SIDE}", sparse(features), layer(features))
        times = seconds_in_turns([partial(_run, layer, features), partial(_run, sparse, features)], 2.0)
    dense_s, sparse_s = (torch.tensor(each).median().item() for each in times)
    note = f"{ROWS} rows; dense takes {1000 * dense_s:.3f} ms in fp16"
    yield measured(f"a layer of {SIDE} x {SIDE}: dense over 2:4", round(dense_s / sparse_s, 3), "times", note=note)


def _same(name: str, got: Tensor, wanted: Tensor) -> Row:
    error = float((got.double() - wanted.double()).norm() / wanted.double().norm())
    return checked(name, error <= TOLERANCE, f"those of the masked dense one within {TOLERANCE}", f"{error:.2g}")


def _run(layer: nn.Module, features: Tensor) -> None:
    layer(features)
    torch.cuda.synchronize()

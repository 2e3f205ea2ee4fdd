"""One trial by two processes, each on its own device: the same bits twice, and nearly the weights that one worker keeps.

On a single GPU they share it, and their tensors travel by gloo instead of NCCL.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from statistics import median

import torch

from tests.gpu.images import Images, write_images
from tests.gpu.rows import Bench, Row, SkippedError, checked, measured
from tests.gpu.trials import TrialGround, small_config
from trainables.config.trial import TrainingConfig
from trainables.runtime.device import Runtime
from trainables.worker.local_peers import LocalPeers

WORKERS = 2


def measure(bench: Bench) -> Iterator[Row]:
    images = write_images(bench.folder, 8, train=200, test=50)
    runtime, config = Runtime(device=bench.device), small_config(images)
    together = replace(runtime, workers=WORKERS)
    peers = LocalPeers(WORKERS, bench.device)
    try:
        grounds = {
            name: TrialGround(folder=bench.folder / name, images=images, runtime=runtime if name == "alone" else together)
            for name in ("alone", "together", "again")
        }
        results = {name: ground.run_stage(config, None if name == "alone" else peers) for name, ground in grounds.items()}
        first, again, alone = results["together"], results["again"], results["alone"]
        layout = first["fingerprints"][-1].get("layout", f"{WORKERS} processes")
        note = f"{first['model_sha256'][:12]}, {layout}"
        yield checked("a trial of two workers twice", first["model_sha256"] == again["model_sha256"], "the same bits", note)
        holds = first["kept_weights"] == alone["kept_weights"]
        yield checked("a trial of two workers and of one", holds, "equal counts of kept weights")
        masks, others = grounds["together"].model(config).masks, grounds["alone"].model(config).masks
        different = sum(int((masks[name] ^ others[name]).sum()) for name in masks)
        yield measured("weights that only one of both keeps", float(different), "weights", note=f"of {alone['kept_weights']}")
        if bench.device == "cuda" and (found := torch.cuda.device_count()) < WORKERS:
            raise SkippedError(f"speed of {WORKERS} workers: each needs a GPU of its own, got {found}")
        yield from _speed(bench, images if bench.brief else write_images(bench.folder, 32, train=20_000, test=500), peers)
    finally:
        peers.end()


def _speed(bench: Bench, images: Images, peers: LocalPeers) -> Iterator[Row]:
    """Seconds of training of the same trial by one worker and by two."""
    model, batch = ("convnet", 20) if bench.brief else ("resnet18", 1024)
    training = TrainingConfig(epochs=2, batch_size=batch, lr=0.05)
    config = small_config(images, model=model, training=training, method="dense", warmup_epochs=0, precision="auto")
    runtime = Runtime(device=bench.device, precision="fp32" if bench.brief else "bf16", deterministic=bench.brief)
    seconds: dict[int, list[float]] = {1: [], WORKERS: []}
    for round_ in range(1 if bench.brief else 3):
        for workers in seconds:
            folder = bench.folder / f"speed-{workers}-{round_}"
            ground = TrialGround(folder=folder, images=images, runtime=replace(runtime, workers=workers))
            result = ground.run_stage(config, None if workers == 1 else peers)
            seconds[workers].append(result["metrics"]["cost/total_seconds"])
    ratio = median(seconds[1]) / median(seconds[WORKERS])
    note = f"{model}, batches of {batch}, {runtime.precision}, with synchronized batch norm"
    yield measured("speed of two workers over one", round(ratio, 2), "times", note=note)

"""One trial by two processes: the same bits twice and after a loss, and nearly the weights that one worker keeps.

Each has a device of its own. On a single GPU they share it, and their tensors travel by gloo instead of NCCL.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from statistics import median
from typing import Any

import torch

from tests.gpu.images import Images, write_images
from tests.gpu.rows import Bench, Row, SkippedError, checked, measured
from tests.gpu.trials import TrialGround, small_config
from trainables.config.trial import TrainingConfig, TrialConfig
from trainables.errors import FailureKind
from trainables.runtime.device import Runtime
from trainables.worker.local_peers import LocalPeers

WORKERS = 2
LITTLE = 200 << 20  # bytes, of which ResNet-18 on half a batch takes more than ten times as many


def measure(bench: Bench) -> Iterator[Row]:
    images = write_images(bench.folder, 8, train=200, test=50)
    runtime, config = Runtime(device=bench.device), small_config(images)
    together = replace(runtime, workers=WORKERS)
    peers = LocalPeers(WORKERS, bench.device, shares_gpus=True)
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
        yield from _loss(TrialGround(folder=bench.folder / "killed", images=images, runtime=together), config, peers, first)
        if bench.device == "cuda" and (found := torch.cuda.device_count()) < WORKERS:
            raise SkippedError(f"speed of {WORKERS} workers: each needs a GPU of its own, got {found}")
        large = images if bench.brief else write_images(bench.folder, 32, train=20_000, test=500)
        yield from _speed(bench, large, peers)
        if bench.device == "cuda":
            yield _lack_of_memory(TrialGround(folder=bench.folder / "memory", images=large, runtime=together), peers)
    finally:
        peers.end()


def _loss(ground: TrialGround, config: TrialConfig, peers: LocalPeers, undisturbed: dict[str, Any]) -> Iterator[Row]:
    """A trial whose second worker is killed while it trains, and what the next attempt makes of it."""

    def kill(report: dict[str, Any]) -> None:
        if (report.get("phase"), report.get("position")) == ("train", 1):
            os.kill(peers.pids()[0], signal.SIGKILL)

    report = ground.attempt(config, peers, 1, kill)
    yield checked("a worker is killed", report["status"] == FailureKind.WORKER_LOST, "the attempt is lost", report["message"])
    again = ground.attempt(config, peers, 2)
    holds = again["status"] == "finished" and again["model_sha256"] == undisturbed["model_sha256"]
    yield checked("the next attempt", holds, "goes on, and ends with the same bits", again["message"])


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


def _lack_of_memory(ground: TrialGround, peers: LocalPeers) -> Row:
    """The second worker alone finds no memory while the first one waits for it, which only its own end can tell."""
    peers.begin(_limit_memory)
    while peers.working():
        peers.poll(1.0)
    training = TrainingConfig(epochs=1, batch_size=1024)
    config = small_config(ground.images, model="resnet18", training=training, method="dense", warmup_epochs=0)
    report = ground.attempt(config, peers)
    holds = report["status"] == FailureKind.OUT_OF_MEMORY
    return checked("a worker without memory", holds, f"the attempt is of kind {FailureKind.OUT_OF_MEMORY}", report["message"])


def _limit_memory(rank: int) -> dict[str, Any]:
    torch.cuda.set_per_process_memory_fraction(LITTLE / torch.cuda.mem_get_info()[1])
    return {"status": "finished", "message": ""}

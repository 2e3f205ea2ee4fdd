"""100 pruning rounds against 100 bare forward-backward passes, float32, batch 128, normalize mean, 95 %.

    python -m tests.benchmarks.pruning_round [--models resnet20 resnet18] [--rounds 100] [--threads 2] [--device cpu]

A bare pass is the network's forward pass, the loss and its gradient by all parameters, on the batch that the round scores.
Rounds and passes take turns. Needs neither data, Ray nor MLflow.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median

import torch
from torch.nn.functional import cross_entropy

from tests.benchmarks.summary import spread
from trainables.config.trial import DatasetConfig, TrialConfig
from trainables.data.batches import scoring_batches
from trainables.data.normalization import Normalization
from trainables.data.splits import Data, Split
from trainables.models.prunable import prunable_weights
from trainables.models.registry import build_model, initialize
from trainables.pruning.masks import full_masks
from trainables.pruning.rounds import prune_round
from trainables.runtime.device import Runtime

BATCH = 128


def compare(name: str, rounds: int, runtime: Runtime) -> tuple[list[float], list[float]]:
    """Seconds of each round and of each bare pass."""
    runtime.activate()
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (10 * BATCH, 3, 32, 32), generator=generator, dtype=torch.uint8).to(runtime.device)
    labels = torch.randint(0, 10, (10 * BATCH,), generator=generator).to(runtime.device)
    split = Split(images=images, labels=labels)
    data = Data(
        train=split,
        validation=split,
        test=split,
        normalization=Normalization(mean=(0.5,) * 3, std=(0.25,) * 3),
        num_classes=10,
        augment="none",
    )
    model = build_model(name, (3, 32, 32), 10)
    initialize(model, 0)
    model = runtime.to_device(model).train()
    weights = prunable_weights(model)
    masks = full_masks(weights)
    config = TrialConfig(dataset=DatasetConfig(name="random"), model=name, prune_iterations=rounds, sparsity=0.95)

    def bare() -> None:
        for inputs, wanted in scoring_batches(data, BATCH, 1, 0, 1):
            cross_entropy(model(runtime.to_memory_format(inputs)), wanted).backward()
        model.zero_grad(set_to_none=True)

    def timed(call: Callable[[], None]) -> float:
        started_at = time.perf_counter()
        call()
        if runtime.device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - started_at

    bare()
    of_rounds: list[float] = []
    of_passes: list[float] = []

    def one_round() -> None:
        nonlocal masks
        masks, *_ = prune_round(model, weights, masks, data, config, len(of_rounds) + 1, runtime)

    for _ in range(rounds):
        of_passes.append(timed(bare))
        of_rounds.append(timed(one_round))
    return of_rounds, of_passes


def main() -> None:
    parser = argparse.ArgumentParser(description="pruning rounds against gradients")
    parser.add_argument("--models", nargs="+", default=["resnet20", "resnet18"])
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    options = parser.parse_args()
    for name in options.models:
        runtime = Runtime(device=options.device, threads=options.threads, deterministic=options.device == "cpu")
        rounds, passes = compare(name, options.rounds, runtime)
        print(f"{name}: round {spread(rounds)} s, bare pass {spread(passes)} s")
        pairs = [round_ / bare for round_, bare in zip(rounds, passes, strict=True)]
        print(
            f"  sum of rounds over sum of passes {sum(rounds) / sum(passes):.3f}, median of pairs {median(pairs):.3f}",
            flush=True,
        )


if __name__ == "__main__":
    main()

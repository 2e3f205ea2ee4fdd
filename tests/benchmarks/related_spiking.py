"""Spiking networks on digits by BPTT, SLTT and SLTT-1, beside what an independent implementation reached.

    python -m tests.benchmarks.related_spiking

64-128-128-10 neurons with BN, 6 steps, tau 1.1, 12 epochs of SGD from 0.1 along a cosine, 1,297 images to train and 500 to
test, seeds 0 and 1. The first part is the neuron and the training step alone; the second one real trials, dense and pruned.
"""

from __future__ import annotations

import math
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import Tensor
from torch.nn.functional import cross_entropy

from tests.support.spiking_networks import EXACT, Perceptron
from tests.support.trials import new_storage, run, tiny_config
from trainables.config.spiking import SpikingConfig
from trainables.config.trial import DatasetConfig, TrainingConfig
from trainables.models.loss_parts import loss_parts
from trainables.models.spiking import with_spikes
from trainables.training.backward import backward, sampled_steps

EPOCHS, BATCH, RATE = 12, 128, 0.1
RULES = {
    "BPTT": (SpikingConfig(rule="bptt"), (97.0, 96.6)),
    "SLTT": (SpikingConfig(rule="sltt"), (96.6, 96.6)),
    "SLTT-1": (SpikingConfig(rule="sltt-k"), (95.4, 94.2)),
}
TRIALS = {"dense": 0.0, "drive": 0.8}  # method -> sparsity


def accuracy(spiking: SpikingConfig, seed: int) -> float:
    """Test accuracy in percent after the training."""
    train, test = images_and_labels()
    torch.manual_seed(seed)
    network = with_spikes(Perceptron((64, 128, 128, 10)), spiking)
    optimizer = torch.optim.SGD(network.parameters(), lr=RATE, momentum=0.9)
    for epoch in range(EPOCHS):
        for group in optimizer.param_groups:
            group["lr"] = RATE * (1 + math.cos(math.pi * epoch / EPOCHS)) / 2
        order = torch.randperm(len(train[1])).split(BATCH)
        for chosen, sampled in zip(order, sampled_steps(network, seed, epoch), strict=False):
            images, labels = train[0][chosen], train[1][chosen]
            backward(loss_parts(network, network, images, labels, cross_entropy, EXACT, sampled))
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
    network.eval()
    with torch.no_grad():
        return 100 * float((network(test[0]).argmax(1) == test[1]).double().mean())


def images_and_labels() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    digits = load_digits()
    order = torch.randperm(len(digits.target), generator=torch.Generator().manual_seed(0))
    images = torch.tensor(digits.images, dtype=torch.float32)[order].div(16)[:, None]
    labels = torch.tensor(digits.target)[order]
    return (images[:1297], labels[:1297]), (images[1297:], labels[1297:])


def trial_accuracy(method: str, sparsity: float, spiking: SpikingConfig) -> float:
    """Test accuracy in percent of a whole trial of convnet on digits."""
    training = TrainingConfig(epochs=10, batch_size=64, lr=0.1, schedule="cosine", spiking=spiking)
    config = tiny_config(
        **{"dataset": DatasetConfig(name="digits"), "method": method, "sparsity": sparsity, "prune_iterations": 5},
        training=training,
    )
    with tempfile.TemporaryDirectory() as folder:
        return 100 * float(run(config, new_storage(Path(folder)))["metrics"]["test/accuracy"])


def main() -> int:
    torch.set_num_threads(1)
    failed = False
    reached: dict[str, float] = {}
    for name, (spiking, expected) in RULES.items():
        for seed, other in enumerate(expected):
            start = time.perf_counter()
            ours = accuracy(spiking, seed)
            reached[name] = min(reached.get(name, 100.0), ours)
            print(f"{name:7} seed {seed}: expected {other:.1f} %, got {ours:.1f} % in {time.perf_counter() - start:.1f} s")
    failed |= reached["SLTT"] < reached["BPTT"] - 1.5 or reached["SLTT-1"] < 92
    for method, sparsity in TRIALS.items():
        for rule in ("none", "sltt"):
            spiking = replace(RULES["SLTT"][0], rule=rule)
            ours = trial_accuracy(method, sparsity, spiking)
            print(f"convnet, {method}, sparsity {sparsity:.0%}, rule {rule}: test accuracy {ours:.1f} %")
            failed |= ours < 90
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())

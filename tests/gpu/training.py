"""Training through the project's own epoch on images of CIFAR's shape, and measuring several of them in turns."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping

import torch

from tests.gpu.images import CLASSES
from trainables.config.trial import TrainingConfig
from trainables.data.normalization import Normalization
from trainables.data.splits import Data, Split
from trainables.models.registry import build_model, initialize
from trainables.pruning.sparse_trainers import MaskUpdater
from trainables.runtime.device import Runtime
from trainables.training.loop import train_epoch
from trainables.training.optimizer import make_optimizer

SHAPE = (3, 32, 32)
FEWEST_ROUNDS, MOST_ROUNDS = 2, 15
NORMALIZATION = Normalization(mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616))  # of CIFAR-10

Work = Callable[[], int]  # returns a number of images


class Training:
    """One epoch at every call: random crops and flips, forward, backward, step. Returns the number of images."""

    def __init__(self, model: str, images: int, batch_size: int, runtime: Runtime) -> None:
        self.runtime = runtime
        generator = torch.Generator().manual_seed(0)
        pixels = torch.randint(0, 256, (images, *SHAPE), generator=generator, dtype=torch.uint8)
        labels = torch.randint(0, CLASSES, (images,), generator=generator)
        split = Split(images=pixels.to(runtime.device), labels=labels.to(runtime.device))
        self.data = Data(
            train=split, validation=split, test=split, normalization=NORMALIZATION, num_classes=CLASSES, augment="crop_flip"
        )
        network = build_model(model, SHAPE, CLASSES)
        initialize(network, seed=0)
        self.network = runtime.to_device(network)
        self.config = TrainingConfig(batch_size=batch_size)
        self.optimizer = make_optimizer(self.network, self.config)

    def __call__(self) -> int:
        self.runtime.activate()
        train_epoch(
            self.network,
            self.optimizer,
            MaskUpdater(),
            self.data,
            training=self.config,
            lr=0.0,  # a diverging loss would end the measurement
            seed=0,
            epoch=0,
            runtime=self.runtime,
        )  # reads the loss, which waits for the device
        return len(self.data.train) // self.config.batch_size * self.config.batch_size


def seconds_per_image(calls: Mapping[str, Work], seconds: float) -> dict[str, list[float]]:
    """By name the seconds for an image in each round, in which every call has a turn; the first one, a warm-up, is not counted.

    The order changes from round to round. There are at least FEWEST_ROUNDS, however long they take.
    """
    ends = time.monotonic() + seconds
    for call in calls.values():
        call()
    times: dict[str, list[float]] = {name: [] for name in calls}
    turns = random.Random(0)
    for round_ in range(MOST_ROUNDS):
        if round_ >= FEWEST_ROUNDS and time.monotonic() > ends:
            break
        for name in turns.sample(list(calls), len(calls)):
            began = time.perf_counter()
            images = calls[name]()
            times[name].append((time.perf_counter() - began) / images)
    return times

"""The training loop as people write it for CIFAR: torchvision's transforms in a DataLoader, bf16 by autocast, channels last."""

from __future__ import annotations

import shutil
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset

from tests.gpu.images import CLASSES
from tests.gpu.training import NORMALIZATION, SHAPE
from trainables.models.registry import build_model, initialize
from trainables.runtime.machine import processors

PAD = 4
MOST_WORKERS = 8
SHARED_MEMORY = Path("/dev/shm")
BATCHES_OF_WORKER = 4  # two that it prefetches, one in the making, one in use


class ImagesInMemory(Dataset[tuple[Tensor, int]]):
    """Random images as torchvision's CIFAR10 holds and transforms them."""

    def __init__(self, count: int) -> None:
        from torchvision import transforms

        generator = np.random.default_rng(0)
        self.images = generator.integers(0, 256, (count, *SHAPE[1:], SHAPE[0]), dtype=np.uint8)
        self.labels = generator.integers(0, CLASSES, count).tolist()
        self.transform: Any = transforms.Compose(
            [
                transforms.RandomCrop(SHAPE[1], padding=PAD),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(NORMALIZATION.mean, NORMALIZATION.std),
            ]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        from PIL import Image

        return self.transform(Image.fromarray(self.images[index])), self.labels[index]


class PlainLoop:
    """One epoch at every call; returns the number of images.

    Args:
        workers: that load and transform; None for as many as there are other processors and shared memory for their batches, at
            most MOST_WORKERS.
    """

    def __init__(self, model: str, images: int, batch_size: int, device: str, workers: int | None = None) -> None:
        workers = usual_workers(batch_size) if workers is None else workers
        is_gpu = device == "cuda"
        self.device, self.batch_size = device, batch_size
        self.loader = DataLoader(
            ImagesInMemory(images),
            batch_size=batch_size,
            shuffle=True,
            drop_last=True,
            num_workers=workers,
            pin_memory=is_gpu,
            persistent_workers=workers > 0,
        )
        network = build_model(model, SHAPE, CLASSES)
        initialize(network, seed=0)
        self.network = network.to(device).to(memory_format=torch.channels_last).train()
        self.optimizer = torch.optim.SGD(self.network.parameters(), lr=0.0, momentum=0.9, weight_decay=1e-4)

    def __call__(self) -> int:
        _usual_switches()
        loss = torch.zeros(())
        for images_BCHW, labels_B in self.loader:
            images_BCHW = images_BCHW.to(self.device, non_blocking=True, memory_format=torch.channels_last)
            labels_B = labels_B.to(self.device, non_blocking=True)
            with torch.autocast(self.device, dtype=torch.bfloat16, enabled=self.device == "cuda"):
                loss = cross_entropy(self.network(images_BCHW), labels_B)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()
        loss.item()  # waits for the device
        return len(self.loader) * self.batch_size


def usual_workers(batch_size: int) -> int:
    """Processes that load; a container may have little shared memory, in which each keeps some float32 batches."""
    room = shutil.disk_usage(SHARED_MEMORY).free if SHARED_MEMORY.is_dir() else 0
    batch_bytes = 4 * batch_size * prod(SHAPE)
    return max(0, min(MOST_WORKERS, processors() - 1, room // (BATCHES_OF_WORKER * batch_bytes)))


def _usual_switches() -> None:
    """What such a loop sets, and PyTorch's default for TF32 in convolutions."""
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.deterministic = False
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = True

"""Images per second of one plain training loop in PyTorch: no sweep, no Ray, no pruning.

    python -m tests.benchmarks.baseline_loop ROOT [--model resnet20] [--threads 1] [--steps 30] [--batch-size 128]

It is the loop that one writes first: torchvision decodes and augments every image of ROOT/train/CLASS/* in the training
process, float32 in the default memory order, SGD. Images must be 32 x 32. Prints one line of JSON. The transforms are
those of baseline_tune.py too.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from trainables.models.registry import build_model, initialize

MODELS = ("resnet20", "resnet18")
STEPS_NOT_COUNTED = 5  # the first ones pay for memory and for the choice of kernels
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)  # of CIFAR-10, as every tutorial has them


def main() -> None:
    parser = argparse.ArgumentParser(description="images per second of one plain training loop")
    parser.add_argument("root", type=Path, help="folder with train/CLASS/*, images of 32 x 32")
    parser.add_argument("--model", choices=MODELS, default="resnet20")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=30, help="steps that count")
    parser.add_argument("--batch-size", type=int, default=128)
    options = parser.parse_args()
    speed = images_per_second(options.root, options.model, options.threads, options.steps, options.batch_size)
    settings = {name: value for name, value in vars(options).items() if name != "root"}
    print(json.dumps(settings | {"images_per_second": round(speed, 1)}))


def images_per_second(
    root: Path | str, model: str, threads: int, steps: int, batch_size: int = 128, device: str = "cpu"
) -> float:
    """Training speed over `steps` steps after STEPS_NOT_COUNTED others, data loading included; sets PyTorch's threads."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    images = datasets.ImageFolder(str(Path(root, "train")), augmented(32))
    loader = DataLoader(images, batch_size=batch_size, shuffle=True, drop_last=True)
    network = build_model(model, (3, 32, 32), len(images.classes))
    initialize(network, seed=0)
    network.to(device).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    started_at = 0.0
    for step, (images_BCHW, labels_B) in enumerate(itertools.islice(endless(loader), STEPS_NOT_COUNTED + steps)):
        images_BCHW, labels_B = images_BCHW.to(device), labels_B.to(device)
        loss = cross_entropy(network(images_BCHW), labels_B)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step == STEPS_NOT_COUNTED - 1:
            loss.item()  # waits for the device
            started_at = time.perf_counter()
    loss.item()
    return steps * batch_size / (time.perf_counter() - started_at)


def endless(loader: DataLoader[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of one epoch after the other.

    Raises:
        ValueError: an epoch has no batch.
    """
    if not len(loader):
        raise ValueError(f"there are fewer images than one batch of {loader.batch_size}")
    while True:
        yield from loader


def augmented(size: int) -> transforms.Compose:
    """For training: crop out of 4 pixels of padding, mirror, normalise."""
    return transforms.Compose(
        [
            transforms.RandomCrop(size, padding=4),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )


def unchanged() -> transforms.Compose:
    """For scoring and evaluation: normalise alone."""
    return transforms.Compose([transforms.ToTensor(), transforms.Normalize(MEAN, STD)])


if __name__ == "__main__":
    main()

"""The measured latency of the ways to run a pruned network, in turns in one process."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from trainables.export.fresh_process import seconds_in_turns
from trainables.export.latency import SPREAD
from trainables.export.variants import DENSE
from trainables.runtime.machine import processor_name

SECONDS = 2.0  # for each batch size
PRECISIONS = {torch.float32: "fp32", torch.float16: "fp16"}


def measure(
    networks: Mapping[str, nn.Module],
    image_shape: tuple[int, int, int],
    memory_format: torch.memory_format,
    *,
    batches: Sequence[int],
    threads: int,
    seconds: float = SECONDS,
) -> list[dict[str, Any]]:
    """One measurement for each number of images in a batch, as JSON.

    Each has milliseconds of every network (median, and the range of the middle 80 %), and how many times as fast as the dense
    one it is (of the rounds, the same). `fastest` is the one with the smallest median of those that are not dense, and
    `verdict` says whether nine of ten rounds have it faster or slower than the dense network.

    Args:
        networks: on one device and in one precision, which the images have too.
    """
    numbers = next(networks[DENSE].parameters(), torch.empty(0))
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return [
            _measured(networks, _images(batch, image_shape, memory_format).to(numbers), threads, seconds) for batch in batches
        ]
    finally:
        torch.set_num_threads(before)


def _images(batch: int, shape: tuple[int, int, int], memory_format: torch.memory_format) -> Tensor:
    images = torch.rand(batch, *shape, generator=torch.Generator().manual_seed(0))
    return images.contiguous(memory_format=memory_format)


def _measured(networks: Mapping[str, nn.Module], images: Tensor, threads: int, seconds: float) -> dict[str, Any]:
    device = images.device.type
    with torch.no_grad():  # a sparse matrix does not work in inference mode
        times = seconds_in_turns([partial(_run, network, images, _waiting(device)) for network in networks.values()], seconds)
    by_name = {name: np.array(one) for name, one in zip(networks, times, strict=True)}
    speedups = {name: _spread(by_name[DENSE] / one) for name, one in by_name.items() if name != DENSE}
    medians = {name: float(np.median(one)) for name, one in by_name.items() if name != DENSE}
    fastest = min(medians, key=lambda name: medians[name])
    _, low, high = speedups[fastest]
    return {
        "time_ms": int(time.time() * 1000),
        "processor": torch.cuda.get_device_name() if device == "cuda" else processor_name(),
        "device": device,
        "precision": PRECISIONS[images.dtype],
        "threads": threads,
        "torch": torch.__version__,
        "batch": len(images),
        "rounds": len(times[0]),
        "milliseconds": {name: _spread(1000 * one) for name, one in by_name.items()},
        "speedups": speedups,
        "fastest": fastest,
        "verdict": "faster" if low > 1 else "slower" if high < 1 else "no faster",
    }


def _run(network: nn.Module, images: Tensor, wait: Callable[[], None]) -> None:
    network(images)
    wait()


def _waiting(device: str) -> Callable[[], None]:
    """Waits until the device has done what it was asked."""
    return torch.cuda.synchronize if device == "cuda" else lambda: None


def _spread(values: Any) -> list[float]:
    """Median, and the range of the middle 80 %."""
    return [float(one) for one in np.quantile(values, [0.5, *SPREAD])]

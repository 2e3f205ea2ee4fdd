"""Seeds derived from a trial's seed, one for each purpose and step; what is computed on the side leaves no trace in them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager


def derived_seed(seed: int, purpose: str, index: int = 0) -> int:
    """A 63-bit seed for one purpose at one step, so that no generator state has to be kept between steps."""
    digest = hashlib.sha256(f"{seed}/{purpose}/{index}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


@contextmanager
def unchanged_random_numbers(device: str) -> Iterator[None]:
    """Sets PyTorch's random numbers, on the CPU and on a GPU, back to where they were."""
    import torch

    with torch.random.fork_rng(devices=[torch.cuda.current_device()] if device == "cuda" else []):
        yield

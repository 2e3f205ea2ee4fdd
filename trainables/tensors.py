"""What a tensor means outside the process that made it: its hash, and how images are normalised and batched for a network.

Apart from data.py and checkpoint.py because a saved model carries this file and nothing of the training
(served_model.py).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor

EVALUATION_BATCH = 500  # images; part of the numbers, since the order of additions depends on it


@dataclass(frozen=True, kw_only=True, slots=True)
class Normalization:
    """Per-channel mean and standard deviation of the training images, in units of 0..1."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def apply(self, images_BCHW: Tensor) -> Tensor:
        """Float32 images in 0..1 -> normalised images."""
        shape = (1, -1, 1, 1)
        mean = torch.tensor(self.mean, dtype=torch.float32, device=images_BCHW.device).view(shape)
        std = torch.tensor(self.std, dtype=torch.float32, device=images_BCHW.device).view(shape)
        return (images_BCHW - mean) / std


def tensors_sha256(tensors: dict[str, Tensor]) -> str:
    """64 hex digits over sorted names, types, shapes and bytes of CPU tensors."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()

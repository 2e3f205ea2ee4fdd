"""Normalisation of images, and the batch size of evaluation. This file travels with saved models."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

EVALUATION_BATCH = 500  # images; it changes results, since the order of additions depends on it


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

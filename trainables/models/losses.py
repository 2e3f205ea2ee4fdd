"""Losses by name: cross-entropy, or a user's function of logits and labels.

Shapes: B batch, K classes; logits float32 (B, K), labels int64 (B,).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from trainables.custom.imports import load_function
from trainables.custom.references import is_custom
from trainables.errors import ConfigError

Loss = Callable[[Tensor, Tensor], Tensor]
IMAGES = 7  # on which a loss is tried in two parts of different sizes


def batch_loss(name: str, label_smoothing: float = 0.0) -> Loss:
    """The mean loss of a batch; custom losses take no label smoothing."""
    return load_function(name) if is_custom(name) else partial(cross_entropy, label_smoothing=label_smoothing)


def summed_loss(name: str) -> Loss:
    """The summed loss of a batch, for means over batches of several sizes."""
    if not is_custom(name):
        return partial(cross_entropy, reduction="sum")
    mean_loss = load_function(name)
    return lambda logits_BK, labels_B: mean_loss(logits_BK, labels_B).double() * len(labels_B)


def check_loss(name: str, num_classes: int, device: torch.device, workers: int = 1) -> None:
    """Tries a custom loss on a few images, before a trial takes hours.

    Args:
        workers: of the trial; several add up what each makes of its part of a batch.

    Raises:
        ConfigError: it fails, does not return a scalar with a gradient, or is no mean over images where it must be.
    """
    if not is_custom(name):
        return
    logits_BK = torch.zeros(2, num_classes, device=device, requires_grad=True)
    try:
        loss = load_function(name)(logits_BK, torch.zeros(2, dtype=torch.int64, device=device))
    except Exception as error:
        raise ConfigError(
            f"training.loss: {name} must take logits (B, {num_classes}) and labels (B,), got {type(error).__name__}: {error}",
            "correct it",
        ) from error
    if not isinstance(loss, Tensor) or loss.ndim or not loss.requires_grad:
        got = f"shape {tuple(loss.shape)}" if isinstance(loss, Tensor) and loss.ndim else repr(loss)
        raise ConfigError(
            f"training.loss: {name} must return the mean loss as a scalar tensor with a gradient, got {got}", "correct it"
        )
    if workers > 1:
        require_mean_over_images(name, num_classes, device)


def require_mean_over_images(name: str, num_classes: int, device: torch.device) -> None:
    """Raises ConfigError if the loss of random images is not the weighted mean of those of two parts of them.

    Several workers add up what each makes of its part of a batch.
    """
    generator = torch.Generator().manual_seed(0)
    logits_BK = torch.randn(IMAGES, num_classes, generator=generator).to(device)
    labels_B = torch.randint(num_classes, (IMAGES,), generator=generator).to(device)
    loss_of = load_function(name)
    whole = float(loss_of(logits_BK, labels_B))
    halves = zip(logits_BK.tensor_split(2), labels_B.tensor_split(2), strict=True)
    parts = sum(len(labels) / IMAGES * float(loss_of(logits, labels)) for logits, labels in halves)
    if not math.isclose(whole, parts, rel_tol=1e-4, abs_tol=1e-6):
        raise ConfigError(
            f"training.loss: {name} must be a mean over images for a trial of several workers, got {whole:.6g} for {IMAGES} "
            f"images and {parts:.6g} for the mean of their parts",
            "divide by the number of images alone, or train with one worker",
        )

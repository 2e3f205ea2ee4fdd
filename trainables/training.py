"""One epoch of SGD under masks, and evaluation.

No step waits for the device: loss and hits are summed there and read once per epoch. Read by: warmup.py, phases.py.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from trainables.config import TrainingConfig, derived_seed
from trainables.data import Data, Split, evaluation_batches, training_batches
from trainables.failures import NonFiniteError
from trainables.losses import batch_loss, summed_loss
from trainables.masks import Masks
from trainables.runtime import Runtime
from trainables.tensors import Normalization


def make_optimizer(model: nn.Module, training: TrainingConfig, momentum: dict[str, Tensor] | None = None) -> torch.optim.SGD:
    """SGD over every parameter, weight decay included; `momentum` continues the buffers of `momentum_of`."""
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=training.lr,
        momentum=training.momentum,
        nesterov=training.nesterov,
        weight_decay=training.weight_decay,
        foreach=True,
    )
    for name, parameter in model.named_parameters():
        if momentum and name in momentum:
            buffer = torch.empty_like(parameter, requires_grad=False).copy_(momentum[name])  # in the weight's memory order
            optimizer.state[parameter]["momentum_buffer"] = buffer
    return optimizer


def momentum_of(optimizer: torch.optim.SGD, model: nn.Module) -> dict[str, Tensor]:
    """Parameter name -> momentum buffer; empty before the first step."""
    buffers = {name: optimizer.state[parameter].get("momentum_buffer") for name, parameter in model.named_parameters()}
    return {name: buffer for name, buffer in buffers.items() if buffer is not None}


def train_epoch(
    model: nn.Module,
    optimizer: torch.optim.SGD,
    masks: Masks,
    data: Data,
    *,
    training: TrainingConfig,
    lr: float,
    seed: int,
    epoch: int,
    runtime: Runtime,
) -> dict[str, float]:
    """Trains in place; pruned weights are zero after every step, so no gradient, decay or momentum brings them back.

    Args:
        masks: empty for dense training.
        epoch: 0-based over the whole trial, warm-up included; decides order and augmentation.

    Returns:
        train/loss and train/accuracy, means over the epoch.

    Raises:
        NonFiniteError: a loss of this epoch was infinite or not a number.
    """
    model.train()
    torch.manual_seed(derived_seed(seed, "dropout", epoch))
    for group in optimizer.param_groups:
        group["lr"] = lr
    device = data.train.labels.device
    forward = runtime.compiled(model)
    loss_of = batch_loss(training.loss, training.label_smoothing)
    parameters = dict(model.named_parameters())
    pruned = [parameters[name].detach() for name in masks]
    keep = [torch.empty_like(parameters[name]).copy_(mask) for name, mask in masks.items()]  # in the weight's memory order
    loss_sum = torch.zeros((), dtype=torch.float64, device=device)
    hits = torch.zeros((), dtype=torch.int64, device=device)
    seen = 0
    for images_BCHW, labels_B in training_batches(data, training.batch_size, seed, epoch):
        with runtime.autocast():
            logits_BK = forward(runtime.arranged(images_BCHW))
        loss = loss_of(logits_BK.float(), labels_B)
        loss.backward()
        if training.clip_norm is not None:
            nn.utils.clip_grad_norm_(model.parameters(), training.clip_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if pruned:
            torch._foreach_mul_(pruned, keep)
        loss_sum += loss.detach()
        hits += (logits_BK.detach().argmax(1) == labels_B).sum()
        seen += len(labels_B)
    batches = seen // training.batch_size
    mean_loss = float(loss_sum) / batches
    if not math.isfinite(mean_loss):
        raise NonFiniteError(f"the training loss became {mean_loss} in epoch {epoch + 1} (learning rate {lr:g})")
    return {"train/loss": mean_loss, "train/accuracy": int(hits) / seen}


def evaluate(
    model: nn.Module,
    split: Split,
    normalization: Normalization,
    runtime: Runtime,
    prefix: str,
    loss_name: str = "cross_entropy",
) -> dict[str, float]:
    """{prefix}/loss and {prefix}/accuracy over the whole split, each image counted once; empty for an empty split.

    Raises:
        NonFiniteError: the loss is infinite or not a number: the last step before has diverged.
    """
    if not len(split):
        return {}
    model.eval()
    summed = summed_loss(loss_name)
    loss_sum = torch.zeros((), dtype=torch.float64, device=split.labels.device)
    hits = torch.zeros((), dtype=torch.int64, device=split.labels.device)
    with torch.inference_mode():
        for images_BCHW, labels_B in evaluation_batches(split, normalization):
            with runtime.autocast():
                logits_BK = model(runtime.arranged(images_BCHW))
            loss_sum += summed(logits_BK.float(), labels_B)
            hits += (logits_BK.argmax(1) == labels_B).sum()
    loss = float(loss_sum) / len(split)
    if not math.isfinite(loss):
        raise NonFiniteError(f"the {prefix} loss became {loss}")
    return {f"{prefix}/loss": loss, f"{prefix}/accuracy": int(hits) / len(split)}

"""One epoch of SGD under masks, and evaluation.

No step waits for the device: loss and hits are summed there and read once per epoch. Masks are changed by the updaters of
pruning/sparse_trainers.py. Several workers compute a part of each batch and sum their gradients, so that they all take the
same step.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from trainables.config.trial import TrainingConfig
from trainables.data.batches import evaluation_batches, training_batches
from trainables.data.normalization import Normalization
from trainables.data.splits import Data, Split
from trainables.errors import NonFiniteError
from trainables.models.loss_parts import loss_parts
from trainables.models.losses import batch_loss, summed_loss
from trainables.models.spiking import SpikingNetwork
from trainables.models.synchronized_norms import average_statistics, synchronized_norms
from trainables.pruning.sparse_trainers import MaskUpdater
from trainables.runtime.device import Runtime
from trainables.runtime.group import group_of
from trainables.runtime.seeding import derived_seed
from trainables.training.backward import backward, sampled_steps
from trainables.training.gradient_sum import GradientSum

TOP5_CLASSES = 100  # from which number of classes on top-5 accuracy is recorded


def train_epoch(
    model: nn.Module,
    optimizer: torch.optim.SGD,
    updater: MaskUpdater,
    data: Data,
    *,
    training: TrainingConfig,
    lr: float,
    seed: int,
    epoch: int,
    runtime: Runtime,
    first_step: int = 0,
) -> dict[str, float]:
    """Trains the model in place.

    Args:
        first_step: steps that were done before, as `updater` counts them.
        epoch: 0-based over the whole trial, warm-up included; decides order and augmentation.

    Returns:
        train/loss and train/accuracy, means over the epoch.

    Raises:
        NonFiniteError: a loss of this epoch was infinite or not a number.
    """
    model.train()
    group = group_of(runtime)
    torch.manual_seed(derived_seed(seed, "dropout" if group.is_first else f"dropout {group.rank}", epoch))
    for settings in optimizer.param_groups:
        settings["lr"] = lr
    device = data.train.labels.device
    as_graphs = not isinstance(model, SpikingNetwork)  # whose neurons keep their voltages from one step to the next
    forward = model if updater.changes_forward else runtime.compiled(model, as_graphs=as_graphs)
    loss_of = batch_loss(training.loss, training.label_smoothing)
    loss_sum = torch.zeros((), dtype=torch.float64, device=device)
    hits = torch.zeros((), dtype=torch.int64, device=device)
    steps, share = 0, group.share(training.batch_size)
    own = training_batches(data, training.batch_size, seed, epoch, group)
    batches = zip(own, sampled_steps(model, seed, epoch), strict=False)
    sum_gradients = GradientSum(model, group)
    with synchronized_norms(model, runtime):
        for step, ((images_BCHW, labels_B), sampled) in enumerate(batches, first_step + 1):
            updater.before_forward()
            parts = loss_parts(model, forward, images_BCHW, labels_B, loss_of, runtime, sampled)
            loss, logits_BK = backward(parts, updater.penalty, share)
            sum_gradients()
            updater.after_backward(step)
            if training.clip_norm is not None:
                nn.utils.clip_grad_norm_(model.parameters(), training.clip_norm)
            optimizer.step()
            updater.after_step(step)
            optimizer.zero_grad(set_to_none=True)
            loss_sum += loss if share == 1 else loss * share
            hits += (logits_BK.argmax(1) == labels_B).sum()
            steps += 1
    average_statistics(model, runtime, share)
    mean_loss, seen = float(group.total(loss_sum)) / steps, steps * training.batch_size
    if not math.isfinite(mean_loss):
        raise NonFiniteError(f"the training loss became {mean_loss} in epoch {epoch + 1} (learning rate {lr:g})")
    return {"train/loss": mean_loss, "train/accuracy": int(group.total(hits)) / seen}


def evaluate(
    model: nn.Module,
    split: Split,
    normalization: Normalization,
    runtime: Runtime,
    prefix: str,
    loss_name: str = "cross_entropy",
) -> dict[str, float]:
    """{prefix}/loss, {prefix}/accuracy and from TOP5_CLASSES classes on {prefix}/top5_accuracy over the whole split.

    Every image is counted once; empty for an empty split.

    Raises:
        NonFiniteError: the loss is infinite or not a number: the last step before has diverged.
    """
    metrics = evaluate_raw(model, split, normalization, runtime, loss_name)
    if metrics and not math.isfinite(metrics["loss"]):
        raise NonFiniteError(f"the {prefix} loss became {metrics['loss']}")
    return {f"{prefix}/{name}": value for name, value in metrics.items()}


def evaluate_raw(
    model: nn.Module, split: Split, normalization: Normalization, runtime: Runtime, loss_name: str = "cross_entropy"
) -> dict[str, float]:
    """The metrics of `evaluate` without a prefix; the loss may be infinite, as after pruning."""
    if not len(split):
        return {}
    model.eval()
    summed, group = summed_loss(loss_name), group_of(runtime)
    loss_sum = torch.zeros((), dtype=torch.float64, device=split.labels.device)
    counts = torch.zeros((3, 1), dtype=torch.int64, device=split.labels.device)
    hits, hits_top5, has_top5 = counts
    with torch.inference_mode():
        for images_BCHW, labels_B in evaluation_batches(split, normalization, group):
            with runtime.autocast():
                logits_BK = model(runtime.to_memory_format(images_BCHW))
            loss_sum += summed(logits_BK.float(), labels_B)
            hits += (logits_BK.argmax(1) == labels_B).sum()
            if logits_BK.shape[1] >= TOP5_CLASSES:
                hits_top5 += (logits_BK.topk(5, dim=1).indices == labels_B[:, None]).sum()
                has_top5 += 1
    hits, hits_top5, has_top5 = group.total(counts)
    metrics = {"loss": float(group.total(loss_sum)) / len(split), "accuracy": int(hits) / len(split)}
    return metrics | {"top5_accuracy": int(hits_top5) / len(split)} if has_top5 else metrics

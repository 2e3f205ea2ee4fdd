"""Whether a network's weights do what pruning takes them for, and what the sweep's methods and its optimizer need of it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trainables.config.trial import TrialConfig
from trainables.errors import ConfigError
from trainables.models.losses import batch_loss
from trainables.models.prunable import prunable_weights
from trainables.models.weight_use import densified_layers, gradient_findings, unchanged_state
from trainables.preflight.examination import OUT_OF_MEMORY, Examination, error_line
from trainables.pruning.score_gradients import hessian_gradient_products, scoring_mode
from trainables.pruning.synflow import require_flow
from trainables.training.optimizer import make_optimizer


def check_weight_use(examination: Examination, model: nn.Module) -> None:
    count = min(examination.case.config.training.batch_size, 8)
    images, labels = examination.runtime.to_memory_format(examination.images(count)), examination.labels(count)
    loss_of = batch_loss(examination.case.config.training.loss)
    for member in examination.configs_by_exclude():
        weights = prunable_weights(model, member.prunable.exclude)
        with unchanged_state(model), scoring_mode(model, "batch"):
            findings = gradient_findings(loss_of(model(images).float(), labels), weights)
        examination.findings += findings
        if findings:
            continue
        with unchanged_state(model):
            examination.findings += densified_layers(model, weights, images[:2])


def check_methods(examination: Examination, model: nn.Module) -> None:
    for member in examination.case.configs:
        weights = prunable_weights(model, member.prunable.exclude)
        if member.method == "synflow":
            try:
                require_flow(model, weights, examination.image_shape)
            except ConfigError as error:
                message, _, hint = str(error).partition("; ")
                examination.add("synflow", message, hint)
        if member.method == "grasp":
            _twice_differentiable(examination, model, weights, member)


def _twice_differentiable(examination: Examination, model: nn.Module, weights: dict[str, Tensor], member: TrialConfig) -> None:
    count = min(member.training.batch_size, 8)
    batches = [(examination.images(count), examination.labels(count))]
    masks = {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in weights.items()}
    options, loss = member.grasp, member.training.loss
    try:
        with unchanged_state(model):
            hessian_gradient_products(
                model,
                weights,
                masks,
                batches,
                examination.runtime,
                options.batch_norm,
                options.temperature,
                loss,
            )
    except OUT_OF_MEMORY:
        raise
    except (ConfigError, RuntimeError) as error:
        examination.add(
            "grasp",
            f"method grasp must have a network whose gradient can be differentiated again, got {error_line(error)}",
            "use layers with a second derivative, or take another method",
        )


def check_step(examination: Examination, model: nn.Module) -> None:
    """The optimizer takes every parameter, with what the training asks of it."""
    count = min(examination.case.config.training.batch_size, 8)
    try:
        with unchanged_state(model):
            optimizer = make_optimizer(model, examination.case.config.training)
            with scoring_mode(model, "batch"), examination.runtime.autocast():
                outputs = model(examination.runtime.to_memory_format(examination.images(count)))
            batch_loss(examination.case.config.training.loss)(outputs.float(), examination.labels(count)).backward()
            optimizer.step()
    except OUT_OF_MEMORY:
        raise
    except RuntimeError as error:
        examination.add(
            "training_step",
            f"the optimizer must be able to step, got {error_line(error)}",
            "correct the network's parameters",
        )

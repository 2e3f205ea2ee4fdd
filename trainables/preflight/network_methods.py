"""Whether a network's weights do what pruning takes them for, and what the sweep's methods and its optimizer need of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import nn

from trainables.channels.dependencies import find_units
from trainables.channels.equality import check_removal
from trainables.config.trial import TrialConfig
from trainables.errors import ConfigError
from trainables.models.losses import batch_loss
from trainables.models.prunable import prunable_weights
from trainables.models.weight_use import densified_layers, gradient_findings, unchanged_state
from trainables.preflight.examination import OUT_OF_MEMORY, Examination, error_line
from trainables.pruning.channel_selection import require_implantable
from trainables.pruning.implementations import load_implementation
from trainables.pruning.kept_weights import kept_weights
from trainables.pruning.score_gradients import scoring_mode
from trainables.pruning.scoring import Batch, ScoringContext
from trainables.pruning.sparse_trainers import updater_class
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


def check_methods(examination: Examination, model: nn.Module, members: Iterable[TrialConfig]) -> None:
    """What the method of each of these trials asks of the network, by its entry in the table of methods."""
    for member in members:
        if not member.pruning.preflight:
            continue
        with unchanged_state(model):
            try:
                load_implementation(member.pruning.preflight)(_context(examination, model, member))
            except ConfigError as error:
                examination.add(member.pruning.name, error.message, error.hint)


def check_channels(examination: Examination, model: nn.Module) -> None:
    """Channels of the network can be removed, where trials ask for that."""
    excludes = {one.prunable.exclude for one in examination.case.configs if one.prunes_channels}
    for exclude in sorted(excludes):
        try:
            units = find_units(model, examination.image_shape, exclude)
            check_removal(model, units, examination.image_shape)
        except ConfigError as error:
            examination.add("channels", error.message, error.hint)


def check_channel_methods(examination: Examination, model: nn.Module) -> None:
    """The network has what methods of channels need that have implants or train for the removal."""
    for config in examination.case.configs:
        if not config.prunes_channels or not (config.options.implant_share() or config.pruning.course.is_during_training):
            continue
        try:
            units = find_units(model, examination.image_shape, config.prunable.exclude)
            require_implantable(config, model, units)
            updater_class(config).check(model, config, units, examination.image_shape)
        except ConfigError as error:
            examination.add(config.method, error.message, error.hint)


def _context(examination: Examination, model: nn.Module, member: TrialConfig) -> ScoringContext:
    """The first round of a trial on some images of noise."""
    weights = prunable_weights(model, member.prunable.exclude)
    count = min(member.training.batch_size, 8)

    def images(images_per_class: int | None, score_batches: int) -> Iterator[Batch]:
        yield examination.images(count), examination.labels(count)

    return ScoringContext(
        model=model,
        weights=weights,
        masks={name: torch.ones_like(weight, dtype=torch.bool) for name, weight in weights.items()},
        surviving=None,
        keep=kept_weights(member, {name: tuple(weight.shape) for name, weight in weights.items()}),
        config=member,
        round_=1,
        image_shape=examination.image_shape,
        runtime=examination.runtime,
        train_images=count,
        draw_batches=images,
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

"""Checks for trials of several workers: the parts of a batch, computed by themselves, must add up to the whole batch.

Batch norm is left out: its layers exchange their statistics (models/synchronized_norms.py). Shapes: B batch, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from trainables.custom.references import is_custom
from trainables.errors import ConfigError
from trainables.models.losses import require_mean_over_images
from trainables.models.weight_use import unchanged_buffers, unchanged_state
from trainables.preflight.examination import Examination
from trainables.preflight.network_outputs import same_bits
from trainables.wording import listed

ONE_WORKER = "train with one worker (gpus_per_trial: 1, or workers_per_trial: 1 on CPUs)"


def check_parts(examination: Examination, model: nn.Module) -> None:
    """Adds a finding for a custom loss that is no mean over images, and for a custom network whose images are not apart.

    This project's own losses and networks are checked by its tests.
    """
    config = examination.case.config
    if is_custom(config.training.loss):
        try:
            require_mean_over_images(config.training.loss, examination.num_classes, torch.device(examination.runtime.device))
        except ConfigError as error:
            examination.add("workers", error.message, error.hint)
    if not is_custom(config.model):
        return
    images = examination.runtime.to_memory_format(examination.images(4))
    if (layer := mixing_layer(model, images)) is not None:
        examination.add(
            "workers",
            "a network that several workers train must compute each image by itself, apart from batch norm layers, got a mix "
            f"of the images of a batch in {layer}",
            f"use torch's batch norm there, or {ONE_WORKER}",
        )
    elif buffers := divided_buffers(model, images):
        examination.add(
            "workers",
            "a network that several workers train must keep buffers that do not depend on the images or on chance, got "
            f"others for other parts of a batch in {listed(buffers, 3)}",
            ONE_WORKER,
        )


def mixing_layer(model: nn.Module, images_BCHW: Tensor) -> str | None:
    """The first layer, in training mode, where an image's numbers depend on other images of the batch; None without one.

    Batch norm uses its running statistics here. The whole network has the name "forward".
    """
    computed: list[tuple[str, Tensor]] = []

    def record(name: str, output: Any) -> None:
        if isinstance(output, Tensor) and output.requires_grad and output.dim() and len(output) == len(images_BCHW):
            computed.append((name, output))

    names = {module: name or "forward" for name, module in model.named_modules()}
    hooks = [module.register_forward_hook(lambda module, _, output: record(names[module], output)) for module in names]
    images = images_BCHW.detach().clone().requires_grad_()
    try:
        with unchanged_state(model), torch.enable_grad():
            model.train()
            for module in names:
                module.training = module.training and not isinstance(module, _BatchNorm)
            model(images)
            if not computed or not _mixes(computed[-1][1], images):
                return None
            return next(name for name, output in computed if _mixes(output, images))
    finally:
        for hook in hooks:
            hook.remove()


def _mixes(output: Tensor, images: Tensor) -> bool:
    """Whether the numbers of the first image depend on the others."""
    (grad,) = torch.autograd.grad(output[0].float().sum(), images, retain_graph=True, allow_unused=True)
    return grad is not None and bool(grad[1:].nan_to_num(nan=0.0).any())


def divided_buffers(model: nn.Module, images_BCHW: Tensor) -> list[str]:
    """Buffers that one training pass leaves with other values for each half of a batch; without those of norm layers."""
    ours, theirs = (_buffers_after(model, half, seed) for seed, half in enumerate(images_BCHW.chunk(2)))
    return [name for name, buffer in ours.items() if not same_bits(buffer, theirs[name])]


def _buffers_after(model: nn.Module, images: Tensor, seed: int) -> Mapping[str, Tensor]:
    with unchanged_buffers(model), unchanged_state(model), torch.no_grad():
        torch.manual_seed(seed)
        model.train()(images)
        return {
            f"{name}.{own}".lstrip("."): buffer.clone()
            for name, module in model.named_modules()
            if not isinstance(module, _BatchNorm | _InstanceNorm)
            for own, buffer in module.named_buffers(recurse=False)
        }

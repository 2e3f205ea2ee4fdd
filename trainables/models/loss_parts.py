"""The loss of a batch in parts, one after another, so that the graph of one can be freed before the next is computed.

The loss is the sum of the parts, and so is its gradient. A network that does not spike has one part. Training and scoring take
their gradients from here.

Shapes: B images, C channels, H height, W width, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

import torch
from torch import Tensor, nn

from trainables.config.spiking import SpikingConfig
from trainables.models.losses import Loss
from trainables.models.spiking import SpikingNetwork
from trainables.runtime.device import Runtime

Part = tuple[Tensor, Tensor]  # loss, with its graph if it has a gradient, and scores (B, K), which are added over the parts
Forward = Callable[..., Tensor]  # of the images, or of the images and a time step


def loss_parts(
    model: nn.Module,
    forward: Forward,
    images_BCHW: Tensor,
    labels_B: Tensor,
    loss_of: Loss,
    runtime: Runtime,
    sampled: Collection[int] | None = None,
) -> Iterator[Part]:
    """The parts of a batch's loss.

    Args:
        forward: calls the model.
        sampled: the time steps that have a gradient; all by default.
    """
    images_BCHW = runtime.to_memory_format(images_BCHW)
    if isinstance(model, SpikingNetwork):
        parts = _parts_of_steps(model.spiking, forward, images_BCHW, labels_B, loss_of, runtime, sampled)
        yield from [_together(parts)] if model.spiking.rule == "bptt" else parts
        return
    with runtime.autocast():
        logits_BK = forward(images_BCHW)
    yield loss_of(logits_BK.float(), labels_B), logits_BK


def _parts_of_steps(
    spiking: SpikingConfig,
    forward: Forward,
    images_BCHW: Tensor,
    labels_B: Tensor,
    loss_of: Loss,
    runtime: Runtime,
    sampled: Collection[int] | None,
) -> Iterator[Part]:
    """One part for each time step: [(1 - c) loss(o[t], y) + c MSE(o[t], 1)] / T, with the scores o[t] / T.

    Steps without a gradient are computed all the same, as later ones and norm statistics depend on them; their loss counts but
    has no graph. With K of T steps the gradient is on average K / T of the whole one, as in the authors' code, which acts like
    a smaller learning rate. Source: SLTT (arXiv:2302.14311); the target of the mean square is 1 for all classes.
    """
    for step in range(spiking.steps):
        has_gradient = torch.is_grad_enabled() and (sampled is None or step in sampled)
        with torch.set_grad_enabled(has_gradient):
            with runtime.autocast():
                scores_BK = forward(images_BCHW, step)
            scores_BK = scores_BK.to(torch.promote_types(scores_BK.dtype, torch.float32))
            loss = (1 - spiking.mse_share) * loss_of(scores_BK, labels_B)
            loss = loss + spiking.mse_share * (scores_BK - 1).square().mean()
            part = loss / spiking.steps, scores_BK / spiking.steps
        yield part


def _together(parts: Iterator[Part]) -> Part:
    losses, scores = zip(*parts, strict=True)
    return torch.stack(losses).sum(), torch.stack(scores).sum(0)

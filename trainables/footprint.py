"""What is left of a pruned network: parameters, multiply-adds, and weights that still connect input and output.

Shapes: B batch of 1, C channels, H height, W width. Reads: synflow.py, gradients.py. Read by: outcome.py, publication.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trainables.gradients import scoring_mode
from trainables.masks import Masks, full_masks, num_kept
from trainables.synflow import neutralized
from trainables.tensors import tensors_sha256


@dataclass(frozen=True, kw_only=True, slots=True)
class Footprint:
    """Counts of one pruned network.

    Attributes:
        parameters: all trainable ones, biases and norm layers included; `kept_parameters` are those that are left.
        flops: multiply-adds of all conv and linear layers for one image, by layer; a layer that is not prunable counts too.
        kept_flops: the same for the kept weights alone, what a machine would need that skips every zero.
        live_weights: kept prunable weights on some path from input to output; the others may as well be pruned. None where
            paths cannot be told: in a network whose parts do more than multiply, add and rectify.
    """

    parameters: int
    kept_parameters: int
    prunable: int
    kept: int
    live_weights: int | None
    flops: Mapping[str, int]
    kept_flops: Mapping[str, int]

    @property
    def effective_sparsity(self) -> float | None:
        """Share of the prunable weights that do nothing (Vysogorets and Kempe, arXiv:2107.02306); None if not known."""
        return None if self.live_weights is None else 1 - self.live_weights / self.prunable

    @property
    def parameter_sparsity(self) -> float:
        """Share of all parameters that are pruned."""
        return 1 - self.kept_parameters / self.parameters

    @property
    def compression_ratio(self) -> float:
        """All parameters over those that are left (Blalock et al., arXiv:2003.03033)."""
        return self.parameters / self.kept_parameters

    @property
    def speedup(self) -> float:
        """Multiply-adds of the dense network over those of the pruned one; of an empty network infinite."""
        left = sum(self.kept_flops.values())
        return sum(self.flops.values()) / left if left else float("inf")


def footprint(model: nn.Module, masks: Masks, image_shape: tuple[int, int, int]) -> Footprint:
    """The counts of a network under its masks; the network stays as it is."""
    positions = positions_by_layer(model, image_shape)
    weights = {name: weight for name, weight in model.named_parameters() if name in positions or name in masks}
    kept = {name: int(masks[name].count_nonzero()) if name in masks else weight.numel() for name, weight in weights.items()}
    parameters = sum(parameter.numel() for parameter in model.parameters())
    prunable, kept_prunable = sum(mask.numel() for mask in masks.values()), sum(kept[name] for name in masks)
    return Footprint(
        parameters=parameters,
        kept_parameters=parameters - prunable + kept_prunable,
        prunable=prunable,
        kept=kept_prunable,
        live_weights=_live_weights(model, masks, image_shape),
        flops={name: positions.get(name, 0) * weight.numel() for name, weight in weights.items()},
        kept_flops={name: positions.get(name, 0) * kept[name] for name in weights},
    )


def _live_weights(model: nn.Module, masks: Masks, image_shape: tuple[int, int, int]) -> int | None:
    """None where a network that is whole would seem to have dead weights, or cannot be run without its norm layers."""
    try:
        network = _averaging(neutralized(model))
        if not all(bool(mask.all()) for mask in _on_a_path(network, full_masks(masks), image_shape).values()):
            return None
        return num_kept(_on_a_path(network, masks, image_shape))
    except Exception:  # whatever a user's network does: this figure alone is missing
        return None


def positions_by_layer(model: nn.Module, image_shape: tuple[int, int, int]) -> dict[str, int]:
    """How often one image uses each weight of a conv or linear layer, by the name of the layer's weight.

    For a convolution these are its output pixels; a layer that is called twice counts twice, and one whose weight is read by
    others (as the output projection of MultiheadAttention) does not count.
    """
    used: dict[str, int] = {}
    hooks = []
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):

            def count(module: nn.Module, inputs: object, output: Tensor, name: str = f"{name}.weight") -> None:
                per_channel = output.numel() // output.shape[1 if isinstance(module, nn.Conv2d) else -1]
                used[name] = used.get(name, 0) + per_channel

            hooks.append(module.register_forward_hook(count))
    try:
        with scoring_mode(model, "running"), torch.inference_mode():
            model(torch.zeros((1, *image_shape), device=next(model.parameters()).device))
    finally:
        for hook in hooks:
            hook.remove()
    return used


def live_masks(model: nn.Module, masks: Masks, image_shape: tuple[int, int, int]) -> Masks:
    """The masks without the weights that lie on no path from input to output.

    A path exists where the product of its masks is 1; summed over all paths through a weight that is its synaptic flow in a
    network whose weights are the masks. Pooling by the maximum would follow one path of several, so it averages here.
    """
    return _on_a_path(_averaging(neutralized(model)), masks, image_shape)


def _averaging(linear: nn.Module) -> nn.Module:
    """The network itself, its pools changed."""
    for module in list(linear.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.MaxPool2d):
                average = nn.AvgPool2d(child.kernel_size, child.stride, child.padding, ceil_mode=child.ceil_mode)
                setattr(module, name, average)
    return linear


def _on_a_path(linear: nn.Module, masks: Masks, image_shape: tuple[int, int, int]) -> Masks:
    """Sets the network's weights to the masks, and follows them."""
    parameters = dict(linear.named_parameters())
    with torch.no_grad():
        for name, parameter in parameters.items():
            if name in masks:
                parameter.copy_(masks[name])
            elif not name.endswith("bias"):
                parameter.fill_(1.0)
    ones = torch.ones((1, *image_shape), dtype=torch.float64, device=next(linear.parameters()).device)
    flows = torch.autograd.grad(linear(ones).sum(), [parameters[name] for name in masks], allow_unused=True)
    return {
        name: mask & (flow > 0) if flow is not None else torch.zeros_like(mask)
        for (name, mask), flow in zip(masks.items(), flows, strict=True)
    }


def masks_sha256(masks: Masks) -> str:
    """64 hex digits over names, shapes and bits: two trials with the same digest kept the same weights."""
    return tensors_sha256({name: mask.cpu() for name, mask in masks.items()})

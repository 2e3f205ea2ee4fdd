"""Blocks: what takes the place of a plain 3x3 convolution while a network is trained densely.

A block is linear in the image, so it is squeezed into one plain convolution before pruning; networks are pruned and published
plain. The layers that networks have otherwise stay as they are.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from trainables.config.trial import Block

if TYPE_CHECKING:
    from torch import nn


def with_blocks(model: nn.Module, block: Block) -> nn.Module:
    """The network with blocks in the place of its 3x3 convolutions, changed in place; their weights are undefined."""
    if block == "plain":
        return model
    from torch import nn

    from trainables.models.orepa import OrepaConv

    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if type(child) is nn.Conv2d and _is_plain_3x3(child):
                new = OrepaConv(child.in_channels, child.out_channels, child.stride[0])
                setattr(module, name, new.to(child.weight.device))
    return model


def without_blocks(model: nn.Module, block: Block) -> nn.Module:
    """The network as it is pruned: itself where it has no blocks, otherwise a copy with plain convolutions."""
    if block == "plain":
        return model
    from trainables.models.orepa import squeezed

    return squeezed(copy.deepcopy(model))


def additional_numbers(block: Block, shapes: list[tuple[int, ...]]) -> int:
    """How many numbers more the blocks of a network hold than its weights of these shapes (O, I, ...)."""
    if block == "plain":
        return 0
    from trainables.models.orepa import block_numbers

    sizes = [(shape[1], shape[0]) for shape in shapes if shape[2:] == (3, 3)]
    return sum(block_numbers(channels_in, channels_out) - 9 * channels_in * channels_out for channels_in, channels_out in sizes)


def _is_plain_3x3(layer: nn.Conv2d) -> bool:
    return (
        layer.kernel_size == (3, 3)
        and layer.padding == (1, 1)
        and layer.stride[0] == layer.stride[1]
        and layer.dilation == (1, 1)
        and layer.groups == 1
        and layer.bias is None
    )

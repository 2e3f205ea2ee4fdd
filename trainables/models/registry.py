"""Builds networks by name, with seeded initialisation.

Input size and channels come from the data set. Initialisation draws from a seeded CPU generator, so weights depend neither on
the device nor on what the process did before.
"""

from __future__ import annotations

import torch
from torch import nn

from trainables.config.trial import Initialization, TrialConfig
from trainables.custom.imports import load_function
from trainables.custom.references import is_custom
from trainables.errors import ConfigError
from trainables.models.blocks import with_blocks
from trainables.models.custom_network import build_custom_network
from trainables.models.image_sizes import image_size_problem
from trainables.models.orepa import OrepaConv
from trainables.models.spiking import with_spikes
from trainables.models.table import NETWORKS
from trainables.runtime.seeding import derived_seed

MODELS = tuple(NETWORKS)


def build_model(
    name: str, image_shape: tuple[int, int, int], num_classes: int, width: int = 1, device: str = "meta"
) -> nn.Module:
    """The network on the CPU with undefined weights; `initialize` or a state dict fills them.

    Args:
        width: factor of the channels of a CIFAR ResNet; 1 for every other network.
        device: where it is built first: "meta" uses no memory but makes PyTorch import more modules.

    Raises:
        ConfigError: the network does not support images of this size.
    """
    return _shaped_model(name, image_shape, num_classes, width, device).to_empty(device="cpu")


def meta_model(name: str, image_shape: tuple[int, int, int], num_classes: int, width: int = 1) -> nn.Module:
    """The network without memory for its weights, which have only shapes. Raises as `build_model` does."""
    return _shaped_model(name, image_shape, num_classes, width, "meta")


def _shaped_model(name: str, image_shape: tuple[int, int, int], num_classes: int, width: int, device: str) -> nn.Module:
    if problem := image_size_problem(name, *image_shape[1:]):
        raise problem
    with torch.device(device):
        return NETWORKS[name].build(image_shape, num_classes, width)


def network_of(config: TrialConfig, image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    """The trial's network as it is pruned, with undefined weights.

    A custom network, whose module must be imported, has its initial weights.

    Raises:
        ConfigError: the network has no spiking form, or does not support images of this size.
    """
    _require_spiking_form(config)
    if is_custom(config.model):
        return build_custom_network(config.model, load_function(config.model), image_shape, num_classes, config.seed)
    return with_spikes(build_model(config.model, image_shape, num_classes, config.width), config.training.spiking)


def _require_spiking_form(config: TrialConfig) -> None:
    able = [name for name, network in NETWORKS.items() if network.has_spikes]
    if config.training.spiking.is_on and config.model not in able:
        raise ConfigError(
            f"training.spiking.rule: must be none for {config.model}, which has no spiking form, got "
            f"{config.training.spiking.rule}",
            f"remove it, or take one of {', '.join(able)}",
        )


def dense_network_of(config: TrialConfig, image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    """The same as it is trained densely, with the trial's blocks."""
    return with_blocks(network_of(config, image_shape, num_classes), config.block)


def initialized_network(config: TrialConfig, image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    """The network of dense training on the CPU with its initial weights, which depend only on the seed."""
    network = dense_network_of(config, image_shape, num_classes)
    if not is_custom(config.model):
        initialize(network, config.seed, config.initialization)
    return network


def initialize(model: nn.Module, seed: int, mode: Initialization = "fan_in") -> None:
    """Sets every parameter and buffer: conv and linear weights Kaiming-normal (ReLU), biases 0, BN the identity.

    Blocks have an initialisation of their own. Source: He et al., arXiv:1502.01852; fan-in as in Synaptic-Flow's VGG and
    open_lth, fan-out as in its ResNet-18 and GraSP.
    """
    generator = torch.Generator().manual_seed(derived_seed(seed, "init"))
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, mode=mode, nonlinearity="relu", generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, OrepaConv):
            module.initialize(generator)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
            module.reset_running_stats()

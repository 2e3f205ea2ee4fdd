"""Networks built by a function of the user's: with seeded weights, and validated before they cost anything."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from trainables.errors import ConfigError
from trainables.runtime.seeding import derived_seed
from trainables.wording import one_line


def build_custom_network(
    reference: str, function: Callable[..., Any], image_shape: tuple[int, int, int], num_classes: int, seed: int = 0
) -> nn.Module:
    """The network that `function(image_shape, num_classes)` returns, on the CPU, with its initial weights.

    They depend on the seed alone if the function draws from PyTorch's generator, whose state is restored.

    Raises:
        ConfigError: it is not a network that can be trained on these images and saved.
    """

    def error_of(rule: str, got: str) -> ConfigError:
        return ConfigError(f"model: {reference} must {rule}, got {got}", "correct it")

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(seed, "init"))
        try:
            network = function(image_shape, num_classes)
        except Exception as error:
            rule = f"make a network of image_shape {image_shape} and num_classes {num_classes}"
            raise error_of(rule, f"{type(error).__name__}: {error}") from error
        if not isinstance(network, nn.Module):
            raise error_of("return a torch.nn.Module", one_line(repr(network)))
        if isinstance(network, nn.Conv2d | nn.Linear):  # its weight would have no name of a layer
            rule = "hold its layers as modules of its own, such as in nn.Sequential"
            raise error_of(rule, f"a network that is itself a {type(network).__name__} layer")
        if wrapped := _wrapped(network):
            raise error_of("return the network itself", f"one wrapped in {wrapped}, which drive-sweep does where it is needed")
        if devices := sorted({str(one.device) for one in network.parameters() if one.device.type != "cpu"}):
            raise error_of("have its parameters on the CPU, from where they are moved", ", ".join(devices))
        try:
            with torch.no_grad():
                logits_BK = network.eval()(torch.zeros(2, *image_shape))
        except Exception as error:
            raise error_of(
                f"take images of shape {('B', *image_shape)}".replace("'", ""), f"{type(error).__name__}: {error}"
            ) from error
    shape = tuple(logits_BK.shape) if isinstance(logits_BK, Tensor) else type(logits_BK).__name__
    if shape != (2, num_classes):
        raise error_of(f"give class scores of shape (2, {num_classes}) for two images", str(shape))
    if others := sorted({str(one.dtype) for one in network.parameters() if one.dtype != torch.float32}):
        raise error_of("have float32 parameters (precision: bf16 casts while it computes)", ", ".join(others))
    if not any(isinstance(module, nn.Conv2d | nn.Linear) for module in network.modules()):
        raise error_of("have a layer to prune, torch.nn.Conv2d or Linear", "none")
    state = network.state_dict()
    addresses = [value.data_ptr() for value in state.values() if isinstance(value, Tensor) and value.numel()]
    if len(set(addresses)) < len(addresses) or not all(isinstance(value, Tensor) for value in state.values()):
        raise error_of("have a state dict of tensors that share no memory", "weights in common, or an extra state")
    return network.train()


def _wrapped(network: nn.Module) -> str:
    """Name of the class that wraps or compiles the network or a part of it; empty if there is none."""
    kinds = {"DataParallel", "DistributedDataParallel", "FullyShardedDataParallel", "ScriptModule", "OptimizedModule"}
    for module in network.modules():
        for kind in type(module).__mro__:
            if kind.__name__ in kinds and kind.__module__.startswith("torch."):
                return kind.__name__
    return ""

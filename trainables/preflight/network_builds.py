"""Checks that a custom network is built the same each time, from its seed alone.

`rewind: init`, resuming and equal seeds of methods depend on it.
"""

from __future__ import annotations

import os
import random

import numpy as np
import torch
from torch import Tensor, nn

from trainables.config.trial import TrialConfig
from trainables.models.registry import initialized_network


def build_problem(
    config: TrialConfig, image_shape: tuple[int, int, int], num_classes: int, first: nn.Module
) -> tuple[str, str] | None:
    """Message and hint where a second build differs from the first; None where they are equal.

    The states of numpy's and Python's generators are restored.
    """

    def build() -> nn.Module:
        return initialized_network(config, image_shape, num_classes)

    states = np.random.get_state(), random.getstate()
    try:
        weights = {name: value.clone() for name, value in first.state_dict().items()}
        other_seed = int.from_bytes(os.urandom(4))  # a fixed one may be that of the user's module
        np.random.seed(other_seed)
        random.seed(other_seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            second = build()
        if _share_memory(first, second):
            return (
                f"model: {config.model} must make a new network each time, got the same modules again",
                "build it in the function",
            )
        if _are_equal(weights, second.state_dict()):
            return None
        for name, seed in (("numpy", np.random.seed), ("random", random.seed)):
            seed(2)
            third = {key: value.clone() for key, value in build().state_dict().items()}
            seed(2)
            if _are_equal(third, build().state_dict()):
                return (
                    f"model: {config.model} must draw its weights from torch's generator, which is seeded, got other weights "
                    f"from that of {name}",
                    "use torch.rand, torch.randn or torch.nn.init",
                )
        return (
            f"model: {config.model} must make the same weights each time, got other ones",
            "let nothing but torch's generator decide",
        )
    finally:
        np.random.set_state(states[0])
        random.setstate(states[1])


def _share_memory(first: nn.Module, second: nn.Module) -> bool:
    addresses = {value.data_ptr() for value in first.state_dict().values() if value.numel()}
    return any(value.data_ptr() in addresses for value in second.state_dict().values() if value.numel())


def _are_equal(weights: dict[str, Tensor], others: dict[str, Tensor]) -> bool:
    return weights.keys() == others.keys() and all(torch.equal(value, others[name]) for name, value in weights.items())

"""The small networks of the zoo, each with one method: pruned correctly, or rejected before training."""

from __future__ import annotations

from zlib import crc32

import pytest

from tests.support.network_zoo import VISION, ZOO
from tests.support.zoo_trials import METHODS_OF_WEIGHTS, outcome

LARGE = {f"torchvision_{name}" for name in (*VISION, "alexnet_small", "vgg_small", "resnext_small")}
SMALL = [name for name in ZOO if name not in LARGE]
REFUSED = {  # by every method
    "tied": "share no memory",
    "frozen": "must be trained, got requires_grad=False in 0",
    "with_weight_norm": "must hold their weight as a parameter",
    "with_weight_norm_parametrization": "must hold their weight as a parameter",
    "with_spectral_norm": "must hold their weight as a parameter",
    "pruned_by_torch": "must hold their weight as a parameter",
    "auxiliary": "in training mode, got tuple",
    "standardized": "must multiply images with the weight itself",
    "checkpointed_reentrant": "use_reentrant",
    "batch_norm_without_statistics": "got other scores for an image alone",
    "unused_layer": "must get a gradient, got none in unused",
    "data_parallel": "must return the network itself",
    "drawn_by_numpy": "must draw its weights from torch's generator",
    "scripted": "",
}
NOT_LINEAR = ("torchvision_maxvit_small", "torchvision_swin_small")  # in the image; synflow needs that


def method_of(name: str) -> str:
    """The method with the highest hash beside the network's name: a new method or network leaves most pairs as they are."""
    return max(METHODS_OF_WEIGHTS, key=lambda method: crc32(f"{method} {name}".encode()))


def test_zoo_has_every_kind() -> None:
    assert len(ZOO) >= 60
    assert {method_of(name) for name in SMALL} == set(METHODS_OF_WEIGHTS)


@pytest.mark.parametrize("name", SMALL)
def test_zoo_network_is_pruned_correctly_or_rejected(name: str) -> None:
    method = method_of(name)
    reason = REFUSED.get(name)
    if method == "synflow" and name in NOT_LINEAR:
        reason = "must have a network that is linear in its image"
    result = outcome(name, method)
    assert result.kind == ("right" if reason is None else "refused"), f"{name} with {method}: {result.message}"
    assert (reason or "") in result.message

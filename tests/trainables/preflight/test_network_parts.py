"""Networks and losses of trials of several workers: what parts of a batch cannot compute is refused before the training."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm, cross_entropy

from tests.support.examined_networks import MODULE, Make, Small, errors, sound
from tests.support.trials import tiny_training
from trainables.runtime.device import Runtime

TWO = Runtime(workers=2)


class Centered(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(0) if self.training else x


class Own(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(4))
        self.register_buffer("var", torch.ones(4))

    def forward(self, x: Tensor) -> Tensor:
        return batch_norm(x, self.get_buffer("mean"), self.get_buffer("var"), training=self.training)


class Scaled(nn.Module):
    """Divides by the mean size of earlier images."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("size", torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.get_buffer("size").lerp_(x.detach().abs().mean(), 0.1)
        return x / self.get_buffer("size")


def with_norm(make_norm: Callable[[], nn.Module]) -> Make:
    def make(shape: Any, classes: int) -> nn.Module:
        model = Small()
        vars(model)["_modules"]["norm"] = make_norm()
        return model

    return make


MIX = "got a mix of the images of a batch in norm; use torch's batch norm there, or train with one worker"
REFUSED: list[tuple[Callable[[], nn.Module], str]] = [
    (Centered, MIX),
    (Own, MIX),
    (Scaled, "got others for other parts of a batch in norm.size; train with one worker"),
]


def test_network_of_one_worker_may_mix_images() -> None:
    assert errors(with_norm(Centered)) == {}


@pytest.mark.parametrize(("norm", "problem"), REFUSED)
def test_network_whose_images_are_not_apart_has_one_worker(norm: Callable[[], nn.Module], problem: str) -> None:
    assert problem in errors(with_norm(norm), runtime=TWO)["workers"]


@pytest.mark.parametrize(
    "norm", [nn.Identity, lambda: nn.InstanceNorm2d(4, track_running_stats=True), lambda: nn.GroupNorm(2, 4)]
)
def test_network_that_computes_each_image_by_itself_passes(norm: Callable[[], nn.Module]) -> None:
    assert errors(with_norm(norm), runtime=TWO) == errors(sound, runtime=TWO) == {}


def of_classes(logits: Tensor, labels: Tensor) -> Tensor:
    return cross_entropy(logits, labels, weight=torch.arange(1.0, logits.shape[1] + 1))


def summed(logits: Tensor, labels: Tensor) -> Tensor:
    return cross_entropy(logits, labels, reduction="sum")


def smoothed(logits: Tensor, labels: Tensor) -> Tensor:
    return cross_entropy(logits, labels, label_smoothing=0.1)


@pytest.mark.parametrize(("loss", "is_mean"), [(of_classes, False), (summed, False), (smoothed, True)])
def test_loss_of_several_workers_is_a_mean_over_images(
    loss: Callable[..., Tensor], is_mean: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the weights of their classes, images count differently in a part and in the whole batch."""
    monkeypatch.setattr(sys.modules[MODULE], "loss", loss, raising=False)
    training = tiny_training(loss=f"module:{MODULE}.loss")
    found = errors(sound, runtime=TWO, training=training)
    assert found.keys() == (set() if is_mean else {"workers"})
    if not is_mean:
        assert (
            f"training.loss: module:{MODULE}.loss must be a mean over images for a trial of several workers" in found["workers"]
        )

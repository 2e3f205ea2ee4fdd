"""The input of a loaded model: what it accepts, and what it rejects with a hint."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from trainables.data.normalization import Normalization
from trainables.export.model_card import ModelCard
from trainables.export.sparse_model import SparseModel, encode, load_sparse_model
from trainables.models.prunable import prunable_weights
from trainables.models.registry import build_model, initialize
from trainables.pruning.masks import full_masks

IMAGES = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def model() -> SparseModel:
    network = build_model("convnet", (3, 8, 8), 10)
    initialize(network, 0)
    normalization = Normalization(mean=(0.5,) * 3, std=(0.25,) * 3)
    card = ModelCard(model="convnet", image_shape=(3, 8, 8), num_classes=10, normalization=normalization, config={})
    return load_sparse_model(encode(network, full_masks(prunable_weights(network)), card)[0])


TAKEN: dict[str, Callable[[], Any]] = {
    "numpy": lambda: IMAGES.numpy(),
    "float64": lambda: IMAGES.double(),
    "numpy float64": lambda: IMAGES.double().numpy(),
    "lists": lambda: IMAGES.tolist(),
    "a list of tensors": lambda: list(IMAGES),
    "other memory order": lambda: np.asfortranarray(IMAGES.numpy()),
    "channels last in memory": lambda: IMAGES.contiguous(memory_format=torch.channels_last),
    "other byte order": lambda: IMAGES.numpy().astype(">f4"),
    "read only": lambda: np.broadcast_to(IMAGES.numpy(), (3, 3, 8, 8)),
    "reversed": lambda: IMAGES.flip(0).numpy()[::-1],
    "with a gradient": lambda: IMAGES.clone().requires_grad_(),
    "rounding": lambda: IMAGES.double() * (1 + 1e-9),
}


@pytest.mark.parametrize("images", TAKEN.values(), ids=TAKEN)
def test_other_input_types_give_the_same_scores(images: Callable[[], Any], model: SparseModel) -> None:
    torch.testing.assert_close(model.predict(images()), model.predict(IMAGES), rtol=1e-5, atol=1e-6)


def test_empty_input_gives_no_scores(model: SparseModel) -> None:
    assert model.predict(IMAGES[:0]).shape == (0, 10)


def test_rounding_outside_the_range_is_accepted(model: SparseModel) -> None:
    assert model.predict(torch.full((1, 3, 8, 8), 1.0000001)).shape == (1, 10)
    assert model.predict(torch.full((1, 3, 8, 8), -1e-7)).shape == (1, 10)


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "uint8": (lambda: (IMAGES * 255).byte(), "be floats in 0..1, got uint8; divide by 255"),
    "integers": (lambda: (IMAGES * 255).int().tolist(), "be floats in 0..1, got int64; give floats, 0..255 divided by 255"),
    "uint16": (lambda: (IMAGES * 255).numpy().astype("uint16"), "be floats in 0..1, got int64; give floats"),
    "booleans": (lambda: IMAGES > 0.5, "be floats in 0..1, got bool; give floats"),
    "0..255": (lambda: IMAGES * 255, r"be floats in 0..1, got values from .* to 2\d\d.*; divide by 255"),
    "normalised": (lambda: (IMAGES - 0.5) / 0.25, "got values from -.* to .*; give them as they were before normalisation"),
    "nan": (lambda: IMAGES * torch.nan, "be finite, got NaN or infinity"),
    "infinity": (lambda: IMAGES / 0, "be finite, got NaN or infinity"),
    "channels last": (lambda: IMAGES.permute(0, 2, 3, 1), r"have the shape \(N, 3, 8, 8\), got shape .*; put channels first"),
    "one image": (lambda: IMAGES[0], r"got shape \(3, 8, 8\); add the dimension of the batch"),
    "another size": (lambda: torch.zeros(1, 3, 9, 8), r"got shape \(1, 3, 9, 8\); scale and crop them"),
    "grey": (lambda: torch.zeros(1, 1, 8, 8), r"got shape \(1, 1, 8, 8\)"),
    "ragged": (lambda: [[[[0.0], [0.0, 1.0]]]], "be numbers of one shape"),
    "words": (lambda: "cat.png", "be numbers of one shape, got str"),
    "nothing": (lambda: None, "be numbers of one shape, got NoneType"),
    "complex": (lambda: IMAGES.to(torch.complex64), "be floats in 0..1, got complex64"),
}


@pytest.mark.parametrize(("images", "message"), REFUSED.values(), ids=REFUSED)
def test_invalid_images_are_rejected_with_a_hint(images: Callable[[], Any], message: str, model: SparseModel) -> None:
    with pytest.raises(ValueError, match=message):
        model.predict(images())

"""Small models to export, without training: masks are drawn at random and are 2:4."""

from __future__ import annotations

import torch
from torch import nn

from trainables.data.normalization import Normalization
from trainables.export.model_card import ModelCard
from trainables.export.sparse_model import SparseModel, encode, load_sparse_model
from trainables.models.prunable import prunable_weights
from trainables.models.registry import build_model, initialize
from trainables.pruning.masks import Masks, apply_masks, full_masks
from trainables.pruning.nm_masks import pattern_masks

IMAGE_SHAPE, CLASSES = (1, 8, 8), 10
CARD = ModelCard(
    model="convnet",
    image_shape=IMAGE_SHAPE,
    num_classes=CLASSES,
    normalization=Normalization(mean=(0.3,), std=(0.4,)),
    config={},
)


def two_of_four_model() -> SparseModel:
    """convnet with 2:4 masks, except in its first layer; a tenth of the groups keep one weight or none."""
    network = build_model(CARD.model, IMAGE_SHAPE, CLASSES)
    initialize(network, 0)
    generator = torch.Generator().manual_seed(0)
    for name, buffer in network.named_buffers():
        if name.endswith("running_var"):
            buffer.copy_(torch.rand(buffer.shape, generator=generator) + 0.5)
    weights = prunable_weights(network)
    masks = pattern_masks(weights, 2, 4)
    for name, mask in masks.items():
        if not bool(mask.all()):
            masks[name] = mask & (torch.rand(mask.shape, generator=generator) > 0.05)
    apply_masks(weights, masks)
    return load_sparse_model(encode(network, masks, CARD)[0])


def dense_model() -> SparseModel:
    network = build_model(CARD.model, IMAGE_SHAPE, CLASSES)
    initialize(network, 0)
    return load_sparse_model(encode(network, full_masks(prunable_weights(network)), CARD)[0])


def model_of(network: nn.Module, masks: Masks) -> SparseModel:
    """A model of a network that no table lists."""
    card = ModelCard(
        model="module:nets.net",
        image_shape=IMAGE_SHAPE,
        num_classes=CLASSES,
        normalization=CARD.normalization,
        config={},
    )
    return SparseModel(network=network.eval(), masks=masks, patterns={}, card=card, sha256="0" * 64)


def images(count: int) -> torch.Tensor:
    return torch.rand(count, *IMAGE_SHAPE, generator=torch.Generator().manual_seed(1))

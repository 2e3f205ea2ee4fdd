"""The ways in which a pruned network can be run: densely, with zeros, without its removed channels, with sparse matrices."""

from __future__ import annotations

import copy
import warnings

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from trainables.custom.references import is_custom
from trainables.export.latency import dense_twin
from trainables.export.model_card import ModelCard
from trainables.export.sparse_model import SparseModel
from trainables.models.registry import initialize
from trainables.pruning.masks import Masks

DENSE, MASKED, REMOVED, CSR = "dense", "masked", "removed", "csr"
DESCRIPTIONS = {
    DENSE: "the network before pruning",
    MASKED: "the same with zeros for pruned weights",
    REMOVED: "without the removed channels",
    CSR: "linear layers as compressed sparse rows",
}


def variants(model: SparseModel, masks: Masks) -> dict[str, nn.Module]:
    """The networks to compare, by name, in eval mode; the first one is dense.

    Of a network that lost channels the dense and the masked one have other numbers than the trial's, which the smaller one does
    not hold; time does not depend on them.

    Args:
        masks: of the weights before any removal.
    """
    is_smaller = any(mask.shape != masks[name].shape for name, mask in model.masks.items())
    if is_smaller:
        dense = _network_of_full_size(model.card).to(memory_format=model.memory_format)
        networks = {DENSE: dense, MASKED: _masked(dense, masks), REMOVED: model.network}
    else:
        networks = {DENSE: dense_twin(model).network, MASKED: model.network}
        if (sparse := _with_sparse_rows(model.network, masks)) is not None:
            networks[CSR] = sparse
    return {name: network.eval() for name, network in networks.items()}


class SparseRows(nn.Module):
    """A linear layer whose weight is a matrix of compressed sparse rows."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        with warnings.catch_warnings(action="ignore"):  # sparse rows are in beta
            self.weight = layer.weight.detach().to_sparse_csr()
        self.bias = layer.bias

    def forward(self, features: Tensor) -> Tensor:
        return linear(features, self.weight, self.bias)


def _with_sparse_rows(network: nn.Module, masks: Masks) -> nn.Module | None:
    """A copy with sparse matrices in the place of pruned linear layers; None if there are none."""
    changed = copy.deepcopy(network)
    replaced = 0
    for name, module in list(changed.named_modules()):
        mask = masks.get(f"{name}.weight")
        if type(module) is nn.Linear and mask is not None and not bool(mask.all()):
            parent, _, own = name.rpartition(".")
            setattr(changed.get_submodule(parent), own, SparseRows(module))
            replaced += 1
    return changed if replaced else None


def _masked(network: nn.Module, masks: Masks) -> nn.Module:
    masked = copy.deepcopy(network)
    with torch.no_grad():
        for name, mask in masks.items():
            masked.get_parameter(name).mul_(mask)
    return masked


def _network_of_full_size(card: ModelCard) -> nn.Module:
    network = card.network()
    if is_custom(card.model):
        return network
    network = network.to_empty(device="cpu")
    initialize(network, seed=0)
    return network

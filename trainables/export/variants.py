"""The ways in which a pruned network can be run: densely, with zeros, without its removed channels, with sparse matrices."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from torch.sparse import to_sparse_semi_structured

from trainables.custom.references import is_custom
from trainables.export.latency import dense_twin
from trainables.export.model_card import ModelCard
from trainables.export.sparse_model import SparseModel
from trainables.export.two_four_format import fits_kernels, is_two_of_four
from trainables.models.registry import initialize
from trainables.pruning.masks import Masks

DENSE, MASKED, REMOVED, CSR, TWO_FOUR = "dense", "masked", "removed", "csr", "2:4"
DESCRIPTIONS = {
    DENSE: "the network before pruning",
    MASKED: "the same with zeros for pruned weights",
    REMOVED: "without the removed channels",
    CSR: "linear layers as compressed sparse rows",
    TWO_FOUR: "linear layers in the layout of sparse tensor cores",
}


def variants(model: SparseModel, masks: Masks, *, device: str = "cpu", half: bool = False) -> dict[str, nn.Module]:
    """The networks to compare, by name, on the device and in eval mode; the first one is dense.

    Of a network that lost channels the dense and the masked one have other numbers than the trial's, which the smaller one does
    not hold; time does not depend on them.

    Args:
        masks: of the weights before any removal.
        half: in half precision, in which a GPU runs 2:4 layers; PyTorch has no compressed sparse rows in it.
    """
    is_smaller = any(mask.shape != masks[name].shape for name, mask in model.masks.items())
    if is_smaller:
        dense = _network_of_full_size(model.card).to(memory_format=model.memory_format)
        networks = {DENSE: dense, MASKED: _masked(dense, masks), REMOVED: model.network}
    else:
        networks = {DENSE: dense_twin(model).network, MASKED: model.network}
        if not half and (sparse := _replaced(model.network, masks, lambda mask: not bool(mask.all()), SparseRows)) is not None:
            networks[CSR] = sparse
    dtype = torch.float16 if half else torch.float32
    networks = {name: network.to(device, dtype).eval() for name, network in networks.items()}
    if (
        half
        and not is_smaller
        and (sparse := _replaced(networks[MASKED], masks, runs_as_two_of_four, SemiStructured)) is not None
    ):
        networks[TWO_FOUR] = sparse
    return networks


def runs_as_two_of_four(mask: Tensor) -> bool:
    """Whether a linear layer is pruned to at most two of every four inputs, and has a size that sparse tensor cores take."""
    return not bool(mask.all()) and fits_kernels(mask) and is_two_of_four(mask)


class SparseRows(nn.Module):
    """A linear layer whose weight is a matrix of compressed sparse rows."""

    weight: Tensor

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        with warnings.catch_warnings(action="ignore"):  # sparse rows are in beta
            self.register_buffer("weight", layer.weight.detach().to_sparse_csr())
        self.bias = layer.bias

    def forward(self, features: Tensor) -> Tensor:
        return linear(features, self.weight, self.bias)


class SemiStructured(nn.Module):
    """A linear layer whose 2:4 weight is in the layout of sparse tensor cores, on a GPU and in half precision."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        with warnings.catch_warnings(action="ignore"):  # 2:4 layouts are a prototype
            self.weight = to_sparse_semi_structured(layer.weight.detach().contiguous())
        self.bias = layer.bias

    def forward(self, features: Tensor) -> Tensor:
        return linear(features, self.weight, self.bias)


def _replaced(
    network: nn.Module, masks: Masks, fits: Callable[[Tensor], bool], make: Callable[[nn.Linear], nn.Module]
) -> nn.Module | None:
    """A copy with others in the place of the linear layers whose masks fit; None if there are none."""
    changed = copy.deepcopy(network)
    replaced = 0
    for name, module in list(changed.named_modules()):
        mask = masks.get(f"{name}.weight")
        if type(module) is nn.Linear and mask is not None and fits(mask):
            parent, _, own = name.rpartition(".")
            setattr(changed.get_submodule(parent), own, make(module))
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

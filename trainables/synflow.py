"""Synaptic flow: scores without data (Tanaka et al., arXiv:2006.05467, equation 2 and algorithm 1).

Read by: methods.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm)


def synaptic_flow(model: nn.Module, weights: Mapping[str, Tensor], image_shape: tuple[int, int, int]) -> dict[str, Tensor]:
    """|w| dR/d|w| of every prunable weight, float64, with R the sum of the outputs for one image of ones and all weights |w|.

    Computed on a copy in eval mode and float64 (products of many layer sums leave float32 both ways), with norm layers as the
    identity and without biases, so that R is the paper's product of weights and every layer's scores sum to R. At
    initialisation this is what the authors' code computes; after a warm-up BN's statistics would enter it.
    """
    linear = neutralized(model)
    parameters = dict(linear.named_parameters())
    sizes = [parameters[name] for name in weights]
    ones = torch.ones((1, *image_shape), dtype=torch.float64, device=sizes[0].device)
    grads = torch.autograd.grad(linear(ones).sum(), sizes)
    return {name: (size.detach() * grad) for name, size, grad in zip(weights, sizes, grads, strict=True)}


def neutralized(model: nn.Module) -> nn.Module:
    """A copy in eval mode and float64: weights |w|, biases zero, norm layers the identity."""
    copy = deepcopy(model).double().eval()
    for module in list(copy.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, NORMS):
                setattr(module, name, nn.Identity())
    with torch.no_grad():
        for name, parameter in copy.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
            else:
                parameter.abs_()
    return copy

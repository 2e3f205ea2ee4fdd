"""Synaptic flow: scores without data (Tanaka et al., arXiv:2006.05467, equation 2 and algorithm 1)."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from math import isfinite
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from trainables.errors import ConfigError
from trainables.pruning.score_gradients import gradients

ROUNDING = 1e-9  # relative, of sums and products of positive float64
IMAGE = "the image"
NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm)


def synaptic_flow(model: nn.Module, weights: Mapping[str, Tensor], image_shape: tuple[int, int, int]) -> dict[str, Tensor]:
    """|w| dR/d|w| of every prunable weight, float64, with R the sum of the outputs for one image of ones and all weights |w|.

    Computed on a copy in eval mode and float64 (float32 overflows in products of many layer sums), with norm layers as
    the identity and without biases, so that R is the paper's product of weights and every layer's scores sum to R. At
    initialisation the authors' code computes the same; after a warm-up, BN's statistics would enter it.

    Raises:
        ConfigError: R is not such a product, so that the scores would be meaningless.
    """
    shape = (1, *image_shape)
    return _flow(model, weights, torch.ones(shape, dtype=torch.float64))


def require_flow(model: nn.Module, weights: Mapping[str, Tensor], image_shape: tuple[int, int, int]) -> None:
    """Raises ConfigError unless the unpruned network follows the law of synaptic flow and every layer carries flow.

    Checked on an uneven image: with an even one, attention is a plain mean and its queries and keys seem to have no effect.
    """
    generator = torch.Generator().manual_seed(0)
    image = torch.randn((1, *image_shape), generator=generator, dtype=torch.float64).exp()
    scores = _flow(model, weights, image)
    without = [name for name, score in scores.items() if not score.any()]
    if without:
        raise _no_flow(f"no synaptic flow goes through {', '.join(without)}")


def _flow(model: nn.Module, weights: Mapping[str, Tensor], image: Tensor) -> dict[str, Tensor]:
    linear = neutralized(model)
    parameters = dict(linear.named_parameters())
    sizes = {name: parameters[name] for name in weights}
    image = image.to(next(iter(sizes.values())).device).requires_grad_()
    flow = _output(linear, image).sum()
    *grads, by_pixel = gradients(flow, sizes | {IMAGE: image})
    with torch.no_grad():
        scores = {name: size * grad for (name, size), grad in zip(sizes.items(), grads, strict=True)}
        _check_law(flow.item(), (by_pixel * image).sum().item(), scores)
    return scores


def _output(linear: nn.Module, image: Tensor) -> Tensor:
    try:
        output: Tensor = linear(image)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # whatever a custom network does
        raise ConfigError(
            "method synflow must run the network in float64, on one image and without norm layers, but it raised "
            f"{type(error).__name__}: {error}",
            "use another method",
        ) from error
    return output


def _check_law(flow: float, through_pixels: float, scores: Mapping[str, Tensor]) -> None:
    """Raises ConfigError unless R is linear in the image and no weight has a negative share of it.

    Both hold exactly if R is the sum, over all paths, of the products of their weights, including branches and pools. A
    softmax makes R constant; a layer that normalises its weights shifts R among them.
    """
    negative = [name for name, score in scores.items() if float(score.min()) < -ROUNDING * abs(flow)]
    if not isfinite(flow):
        problem = f"its synaptic flow is {flow}, outside the range of float64"
    elif abs(flow - through_pixels) > ROUNDING * abs(flow):
        problem = f"its synaptic flow of {flow:.6g} reaches the image as {through_pixels:.6g}"
    elif negative:
        problem = f"synaptic flow is negative in {', '.join(negative)}"
    else:
        return
    raise _no_flow(problem)


def _no_flow(problem: str) -> ConfigError:
    return ConfigError(
        f"method synflow must have a network that is linear in its image without norm layers and biases, but {problem}",
        "return logits without a softmax, exclude normalised layers by prunable.exclude, or use another method",
    )


def neutralized(model: nn.Module) -> nn.Module:
    """A copy in eval mode and float64: weights |w|, biases zero, norm layers the identity."""
    copy = deepcopy(model).double().eval()
    for module in list(copy.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, NORMS):
                setattr(module, name, _Bypassed(child))
    with torch.no_grad():
        for name, parameter in copy.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
            else:
                parameter.abs_()
    return copy


class _Bypassed(nn.Identity):
    """Replaces a norm layer, keeping its attributes, which modules such as a transformer's read."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self._norm = (norm,)  # not a submodule, whose parameters would be parameters of the network

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self._norm[0], name)

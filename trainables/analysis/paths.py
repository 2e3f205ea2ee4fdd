"""The kept weights on a path from input to output, by reachability (Vysogorets and Kempe, arXiv:2107.02306).

A path is a chain of kept weights; activations, norm layers and biases neither create nor break one, and max pooling passes all
of its inputs. With these as the identity a network is linear in its image, and a weight is on a path exactly where a positive
signal reaches it and it reaches an output. Linearity is tested first: networks that multiply signals (attention, gates) are not
linear, and their paths are unknown.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from trainables.pruning.masks import Masks

# Names of PyTorch's functions, without the underscores of their in-place and private forms.
IDENTITIES = {
    *("relu", "relu6", "leaky_relu", "rrelu", "prelu", "elu", "celu", "selu", "gelu", "silu", "mish", "softplus", "softsign"),
    *("sigmoid", "hardsigmoid", "logsigmoid", "tanh", "hardtanh", "hardswish", "threshold", "clamp", "clamp_min", "clip"),
    *("softmax", "log_softmax", "softmin", "dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout"),
    *("batch_norm", "layer_norm", "group_norm", "instance_norm", "rms_norm", "local_response_norm"),
}
PRODUCTS = {
    *("linear", "bilinear", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"),
    *("matmul", "mm", "bmm", "addmm", "baddbmm", "mv", "addmv", "einsum", "tensordot"),
}
MAX_POOLS = {f"{kind}max_pool{dims}d": f"{kind}avg_pool{dims}d" for kind in ("", "adaptive_") for dims in (1, 2, 3)}
ROUNDING = 1e-9  # relative, of sums of positive float64


class UnknownPathsError(Exception):
    """The network is not a sum of its inputs with positive factors."""


def connected_masks(model: nn.Module, masks: Masks, image_shape: tuple[int, int, int]) -> Masks | None:
    """The masks without the weights that are on no path; None where paths are unknown. The network is not changed."""
    try:
        network = deepcopy(model).double().eval().requires_grad_()
        parameters = dict(network.named_parameters())
        weights = {name: parameters[name] for name in masks}
        _check_linear(network, image_shape)
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.fill_(0.0 if _is_bias(name) else 1.0)
            for name, weight in weights.items():
                weight.copy_(masks[name])
        ones = torch.ones((1, *image_shape), dtype=torch.float64, device=next(iter(weights.values())).device)
        with _Paths(_reached):
            flows = torch.autograd.grad(network(ones).sum(), list(weights.values()), allow_unused=True)
    except Exception:  # a user's network may raise anything; only this figure is missing then
        return None
    return {
        name: mask & (flow > 0) if flow is not None else torch.zeros_like(mask)
        for (name, mask), flow in zip(masks.items(), flows, strict=True)
    }


def _check_linear(network: nn.Module, image_shape: tuple[int, int, int]) -> None:
    """Tests with random positive weights and two images whether the network is linear: a sum of outputs with positive factors
    must be its gradient at the first image times the image, for both of them, and no signal may be negative.

    Units are weighted means of their inputs with very unequal weights, so that signals differ at any depth: of equal signals
    attention is a mean too.

    Raises:
        UnknownPathsError: the network is not linear.
    """
    generator = torch.Generator().manual_seed(0)

    def positive(like: Tensor, spread: float = 0.5) -> Tensor:
        return torch.randn(like.shape, generator=generator, dtype=torch.float64).mul_(spread).exp_().to(like.device)

    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if _is_bias(name):
                parameter.zero_()
            elif parameter.dim() > 1:
                weights = positive(parameter, 4.0)
                parameter.copy_(weights / weights.flatten(1).sum(1).view(-1, *[1] * (weights.dim() - 1)))
            else:
                parameter.copy_(positive(parameter))
    images = torch.zeros((2, *image_shape), dtype=torch.float64, device=next(network.parameters()).device)
    images[0], images[1] = positive(images[0]), 100 * positive(images[1])
    images.requires_grad_()
    with _Paths(_not_negative):
        outputs_BK = network(images)
        sums = (outputs_BK * positive(outputs_BK[0])).flatten(1).sum(1)
        parameters = [parameter for name, parameter in network.named_parameters() if not _is_bias(name)]
        slopes, *flows = torch.autograd.grad(sums[0], [images, *parameters], allow_unused=True)
    expected = (slopes[0] * images.detach()).flatten(1).sum(1)
    if not bool(((sums > 0) & sums.isfinite()).all()) or not torch.allclose(sums, expected, rtol=ROUNDING, atol=0.0):
        raise UnknownPathsError(f"sums {sums.tolist()} instead of {expected.tolist()}")
    if any(bool((flow < 0).any()) for flow in flows if flow is not None):
        raise UnknownPathsError("outputs are subtracted")


def _is_bias(name: str) -> bool:
    return "bias" in name.rpartition(".")[2]


class _Paths(TorchFunctionMode):
    """Inside, activations and norms are the identity and pools average; `after` is applied to the result of every product."""

    def __init__(self, after: Callable[..., Any]) -> None:
        super().__init__()
        self.after = after

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "").strip("_")
        if name in IDENTITIES:
            return args[0] if args else kwargs["input"]
        if name in MAX_POOLS:
            return _average_pool(name, *args, **kwargs)
        result = func(*args, **kwargs)
        return self.after(result, *args) if name in PRODUCTS else result


def _average_pool(name: str, input: Tensor, kernel_size: Any, *args: Any, **kwargs: Any) -> Tensor:
    """The average pool over the same pixels as a max pool.

    Raises:
        UnknownPathsError: the max pool has options that average pools lack.
    """
    options = dict(zip(("stride", "padding", "dilation", "ceil_mode", "return_indices"), args, strict=False)) | kwargs
    dilation = options.pop("dilation", 1)
    if options.pop("return_indices", False) or dilation not in (1, (1,), (1, 1), (1, 1, 1)):
        raise UnknownPathsError(f"{name} with dilation or indices")
    options = {key: value for key, value in options.items() if value is not None}
    average: Callable[..., Tensor] = getattr(functional, MAX_POOLS[name])
    return average(input, kernel_size, **options)


def _not_negative(result: Tensor, *args: Any) -> Tensor:
    """The result of a product; raises UnknownPathsError if it or one of its arguments is negative."""
    for tensor in (*args, result):
        if isinstance(tensor, Tensor) and bool((tensor < 0).any()):
            raise UnknownPathsError("negative signals or weights")
    return result


def _reached(result: Tensor, *args: Any) -> Tensor:
    reached: Tensor = _Reached.apply(result)
    return reached


class _Reached(torch.autograd.Function):
    """1 where a signal is positive, else 0, forwards and backwards: the number of paths would overflow float64."""

    @staticmethod
    def forward(ctx: Any, signal: Tensor) -> Tensor:
        return (signal > 0).to(signal.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return (grads[0] > 0).to(grads[0].dtype)

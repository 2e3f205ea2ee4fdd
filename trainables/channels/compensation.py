"""Compensation in closed form (CaP, Xie et al., arXiv:2108.13728): what the kept input channels of a layer can make up for.

A layer computes W x + b from an input x of D = channels * kernel pixels entries (a linear layer: of D features). Without some
channels it computes W' x_K + b'; the mean squared difference is least for W' = W C_{:,K} C_KK^-1 and b' = b + W mu - W' mu_K,
with the mean mu and the covariance C of x. All in float64, as covariances lose definiteness in float32. Read in the authors'
code and checked against least squares; the paper's text beyond its abstract was not read.

Shapes: O outputs, D entries of an input, K kept ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import unfold

RIDGE = 1e-8  # of the mean variance, added to the diagonal: channels may be copies of each other


@dataclass(kw_only=True)
class Moments:
    """Sums over the inputs of a layer: their number, x (D,) and x x^T (D, D)."""

    count: int
    total: Tensor
    products: Tensor

    @property
    def mean(self) -> Tensor:
        return self.total / self.count

    @property
    def covariance(self) -> Tensor:
        return self.products / self.count - torch.outer(self.mean, self.mean)

    def add(self, rows_ND: Tensor) -> None:
        rows = rows_ND.double()
        self.count += len(rows)
        self.total += rows.sum(0)
        self.products += rows.T @ rows


@dataclass(frozen=True, kw_only=True)
class Compensation:
    """A layer on its kept inputs: weight (O, K), what is added to its bias (O,), and the mean squared error of all outputs."""

    weight: Tensor
    bias: Tensor
    error: float


def compensate(weight_OD: Tensor, moments: Moments, kept_D: Tensor) -> Compensation:
    """The best layer on the kept entries, bool (D,).

    The error is the sum over outputs of E |W x + b - W' x_K - b'|^2 = tr(W C W^T) - tr(W' C_KK W'^T).
    """
    weight, covariance, mean = weight_OD.double(), moments.covariance, moments.mean
    among = covariance[kept_D][:, kept_D]
    ridge = RIDGE * float(covariance.diagonal().mean()) or RIDGE
    solved = torch.linalg.solve(among + ridge * torch.eye(len(among), dtype=among.dtype), covariance[kept_D] @ weight.T).T
    dropped = (weight @ covariance * weight).sum()
    explained = 2 * (solved @ covariance[kept_D] * weight).sum() - (solved @ among * solved).sum()
    return Compensation(
        weight=solved,
        bias=weight @ mean - solved @ mean[kept_D],
        error=max(0.0, float(dropped - explained)),
    )


def rescaled(found: Compensation, weight_OD: Tensor, moments: Moments, kept_D: Tensor) -> Compensation:
    """The same with the variance of every output as before, for a layer before BN; the error grows by less than twice.

    Each row of W' is multiplied by the root of its output's variance before over that after.
    """
    weight, covariance, mean = weight_OD.double(), moments.covariance, moments.mean
    among = covariance[kept_D][:, kept_D]
    before = ((weight @ covariance) * weight).sum(1)
    after = ((found.weight @ among) * found.weight).sum(1)
    factor = torch.where(after > 0, (before / after.clamp(min=torch.finfo(after.dtype).tiny)).sqrt(), torch.ones_like(after))
    scaled = found.weight * factor[:, None]
    cross = (scaled @ covariance[kept_D] * weight).sum()
    error = float(before.sum() - 2 * cross + ((scaled @ among) * scaled).sum())
    return Compensation(weight=scaled, bias=weight @ mean - scaled @ mean[kept_D], error=max(0.0, error))


def greedy_order(weight_OD: Tensor, covariance_DD: Tensor, channels: int) -> tuple[list[int], list[float]]:
    """Input channels in the order in which they are worth most, and what each adds to the explained variance of the outputs.

    The next channel is the one whose entries, with those chosen so far, explain most of W x: its gain is
    ||R_t L^-T||_F^2 with R_t = W C_{:,t} - W C_{:,K} C_KK^-1 C_{K,t} and L L^T = C_tt - C_tK C_KK^-1 C_Kt. All gains together
    are tr(W C W^T). Those at the end are pruned first.
    """
    weight, covariance = weight_OD.double(), covariance_DD.double().clone()
    size = len(covariance) // channels
    ridge = RIDGE * float(covariance.diagonal().mean()) or RIDGE
    covariance += ridge * torch.eye(len(covariance), dtype=covariance.dtype)
    towards = weight @ covariance  # (O, D): covariance of the outputs with what is left of each entry
    left, order, gains = list(range(channels)), list[int](), list[float]()
    while left:
        blocks = torch.stack([covariance[size * t : size * (t + 1), size * t : size * (t + 1)] for t in left])
        sides = torch.stack([towards[:, size * t : size * (t + 1)].T for t in left])
        factors = torch.linalg.cholesky(blocks)
        explained = torch.linalg.solve_triangular(factors, sides, upper=False).square().sum((1, 2))
        best = int(explained.argmax())
        chosen = left.pop(best)
        order.append(chosen)
        gains.append(float(explained[best]))
        entries = slice(size * chosen, size * (chosen + 1))
        half = torch.linalg.solve_triangular(factors[best], covariance[entries], upper=False)  # (size, D)
        towards = towards - torch.linalg.solve_triangular(factors[best], sides[best], upper=False).T @ half
        covariance = covariance - half.T @ half  # of what the chosen channels do not explain (Schur complement)
        covariance[entries] = covariance[:, entries] = 0.0
        covariance[entries, entries] = torch.eye(size, dtype=covariance.dtype)
    return order, gains


def input_moments(model: nn.Module, layers: Iterable[str], batches_BCHW: Iterable[Tensor]) -> dict[str, Moments]:
    """The moments of the inputs of convolutions and linear layers, by name, in eval mode; padding zeros belong to an input.

    Args:
        layers: names; those of convolutions in groups are left out, whose outputs do not mix channels.
    """
    modules: Mapping[str, nn.Module] = dict(model.named_modules())
    moments: dict[str, Moments] = {}
    handles = []
    for name in layers:
        module = modules[name]
        if isinstance(module, nn.Conv2d | nn.Linear) and getattr(module, "groups", 1) == 1:
            size = module.weight[0].numel()
            zeros = torch.zeros(size, dtype=torch.float64), torch.zeros(size, size, dtype=torch.float64)
            moments[name] = Moments(count=0, total=zeros[0], products=zeros[1])
            handles.append(module.register_forward_pre_hook(_adding_to(moments[name])))
    modes = {module: module.training for module in model.modules()}
    try:
        model.eval()
        with torch.inference_mode():
            for batch in batches_BCHW:
                model(batch)
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in modes.items():
            module.training = mode
    return moments


def _adding_to(moments: Moments) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        (given,) = inputs
        if isinstance(module, nn.Conv2d):
            assert not isinstance(module.padding, str)
            patches = unfold(given, module.kernel_size, module.dilation, module.padding, module.stride)
            moments.add(patches.transpose(1, 2).reshape(-1, patches.shape[1]).cpu())
        else:
            moments.add(given.reshape(-1, given.shape[-1]).cpu())

    return hook

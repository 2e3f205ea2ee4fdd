"""Fits the layers of a network to the channels that remain (CaP, arXiv:2108.13728), and ranks channels by what they explain.

The statistics are those of the dense network, taken once, as in the authors' code: a layer after others that were fitted sees
slightly other inputs than it was fitted for.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from trainables.channels.compensation import Moments, compensate, greedy_order, input_moments, rescaled
from trainables.channels.units import STAYS, ChannelUnits
from trainables.errors import ConfigError

IMAGES = 1024  # for the statistics; the authors take a fifth of the training set


def require_images(model: nn.Module, units: ChannelUnits, image_shape: tuple[int, int, int], images: int) -> None:
    """Raises ConfigError if so many training images give some layer no more samples than it has inputs; before any training."""
    names, samples = readers(model, units), dict[str, int]()

    def counting(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            channels = output.shape[1] if isinstance(module, nn.Conv2d) else output.shape[-1]
            samples[name] = samples.get(name, 0) + images * output.numel() // channels

        return hook

    network = copy.deepcopy(model).eval()
    for name in names:
        network.get_submodule(name).register_forward_hook(counting(name))
    with torch.inference_mode():
        network(torch.zeros(1, *image_shape))
    for name, count in samples.items():
        layer = network.get_submodule(name)
        if getattr(layer, "groups", 1) == 1:
            _require_samples(name, count, layer.get_parameter("weight")[0].numel())


def batches_to_fit(images: int, batch_size: int) -> int:
    """How many batches of training images the statistics need."""
    return max(1, min(images, IMAGES) // min(images, batch_size))


def explained_shares(model: nn.Module, units: ChannelUnits, batches_BCHW: Iterable[Tensor]) -> Tensor:
    """For each unit the share of the variance of its readers' outputs that it explains beyond better units, float64 (U,).

    Of each layer that reads units they are chosen greedily; the share of one is its gain over that of all. Shares fall along
    the order of choice, so a threshold over all layers prunes the tail of each. A unit that several layers read has the sum,
    one that none reads 0. The authors prune a layer's tail to a rate that a search finds; here one threshold decides for all.
    """
    shares_U = torch.zeros(units.count, dtype=torch.float64)
    moments = input_moments(model, readers(model, units), batches_BCHW)
    for name, known in moments.items():
        _require_samples(name, known.count, len(known.total))
        weight = model.get_parameter(f"{name}.weight").detach().double().cpu().flatten(1)
        unit_of_entry = _unit_of_entries(model, units, name)
        for chosen, shares in _greedy_shares(weight, known.covariance, unit_of_entry):
            shares_U[chosen] += shares
    return shares_U


def fit_to_remaining(
    model: nn.Module, dense: nn.Module, units: ChannelUnits, kept_U: Tensor, batches: Sequence[Tensor]
) -> float:
    """Sets the weights of all layers that read removed channels; returns the mean squared error over the outputs' variance.

    The bias of the fit goes to the layer's own bias, or into the running mean of the norm layer that follows directly, where it
    has the same effect. A layer with neither is fitted without a bias. Outputs that a norm layer follows keep their variance.

    Args:
        model: of which channels are masked; its other weights do not matter.
        dense: the same network before any pruning, with the weights to compensate.
        batches: images (B, C, H, W); together more samples than a layer has inputs.

    Raises:
        ConfigError: there are fewer.
    """
    names = readers(dense, units)
    with _followers(dense, names) as norms:
        moments = input_moments(dense, names, batches)
    for name, known in moments.items():
        _require_samples(name, known.count, len(known.total))
    error = variance = 0.0
    with torch.no_grad():
        for name, known in moments.items():
            layer, source = model.get_submodule(name), dense.get_submodule(name)
            assert isinstance(layer, nn.Conv2d | nn.Linear)
            assert isinstance(source, nn.Conv2d | nn.Linear)
            norm = model.get_submodule(norms[name]) if name in norms else None
            weight = source.weight.detach().double().cpu().flatten(1)
            kept_D = _kept_entries(_unit_of_entries(dense, units, name), kept_U)
            if layer.bias is None and norm is None:
                known = without_mean(known)
            fitted = compensate(weight, known, kept_D)
            if norm is not None:
                fitted = rescaled(fitted, weight, known, kept_D)
            whole = torch.zeros_like(weight)
            whole[:, kept_D] = fitted.weight
            layer.weight.copy_(whole.view(layer.weight.shape))
            if layer.bias is not None and source.bias is not None:
                layer.bias.copy_(source.bias.double().cpu() + fitted.bias)
            elif norm is not None:
                _lower_mean(norm, dense.get_submodule(norms[name]), fitted.bias)
            error += fitted.error
            variance += float(((weight @ known.covariance) * weight).sum())
    return error / variance if variance else 0.0


def without_mean(moments: Moments) -> Moments:
    """The same products around zero, of which a fit needs no bias."""
    return Moments(count=moments.count, total=torch.zeros_like(moments.total), products=moments.products)


def readers(model: nn.Module, units: ChannelUnits) -> list[str]:
    """Convolutions and linear layers that read units, in the order of the network."""
    reading = {tensor.removesuffix(".weight") for tensor, dim in units.unit_of if dim == 1}
    return [name for name, module in model.named_modules() if name in reading and isinstance(module, nn.Conv2d | nn.Linear)]


def _require_samples(name: str, count: int, inputs: int) -> None:
    if count <= inputs:
        raise ConfigError(
            f"compensation must have more samples than inputs of a layer, got {count} for {inputs} of {name}",
            "use more training images, or another method without compensate",
        )


def _unit_of_entries(model: nn.Module, units: ChannelUnits, name: str) -> Tensor:
    """The unit of each entry of a layer's unfolded input, int64 (D,)."""
    unit_of = units.unit_of[f"{name}.weight", 1]
    entries = model.get_parameter(f"{name}.weight")[0].numel()
    return unit_of.repeat_interleave(entries // len(unit_of))


def _kept_entries(unit_of_entry_D: Tensor, kept_U: Tensor) -> Tensor:
    with_stays = torch.cat([kept_U.cpu(), torch.ones(1, dtype=torch.bool)])  # index STAYS is the last
    kept: Tensor = with_stays[unit_of_entry_D]
    return kept


def _greedy_shares(weight_OD: Tensor, covariance_DD: Tensor, unit_of_entry_D: Tensor) -> Iterator[tuple[int, float]]:
    """Units of a layer and their shares; entries that always stay are chosen before all others."""
    stays = (unit_of_entry_D == STAYS).nonzero().flatten()
    if len(stays):
        covariance_DD = _unexplained(covariance_DD, stays)
    present = [int(unit) for unit in unit_of_entry_D.unique() if unit != STAYS]
    blocks = [(unit_of_entry_D == unit).nonzero().flatten() for unit in present]
    if len({len(block) for block in blocks}) != 1:
        raise ConfigError("method: cap must have layers that read every channel equally often", "take another method")
    order_D = torch.cat(blocks)
    order, gains = greedy_order(weight_OD[:, order_D], covariance_DD[order_D][:, order_D], len(blocks))
    total = sum(gains) or 1.0
    lowest = float("inf")
    for position, gain in zip(order, gains, strict=True):
        lowest = min(lowest, max(0.0, gain) / total)
        yield present[position], lowest


def _unexplained(covariance: Tensor, known: Tensor) -> Tensor:
    """The covariance of what these entries do not explain."""
    across = covariance[:, known]
    explained: Tensor = across @ torch.linalg.pinv(covariance[known][:, known], hermitian=True) @ across.T
    return covariance - explained


@contextmanager
def _followers(model: nn.Module, names: Sequence[str]) -> Iterator[dict[str, str]]:
    """Collects, while the network runs, the norm layer that takes the output of each of these layers as it is."""
    found: dict[str, str] = {}
    made: dict[int, tuple[str, Tensor]] = {}  # by id; the tensors are kept, so no id is used twice

    def note_output(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            made[id(output)] = name, output

        return hook

    def note_input(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            if id(inputs[0]) in made:
                found[made.pop(id(inputs[0]))[0]] = name

        return hook

    def forget(module: nn.Module, inputs: tuple[Tensor, ...], output: object) -> None:
        made.clear()

    modules = dict(model.named_modules())
    handles = [modules[name].register_forward_hook(note_output(name)) for name in names]
    handles += [
        module.register_forward_pre_hook(note_input(name))
        for name, module in modules.items()
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) and module.running_mean is not None
    ]
    handles.append(model.register_forward_hook(forget))
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _lower_mean(norm: nn.Module, before: nn.Module, bias: Tensor) -> None:
    """Adds a bias before a norm layer, by what its running mean is lowered."""
    assert isinstance(norm.running_mean, Tensor)
    assert isinstance(before.running_mean, Tensor)
    norm.running_mean.copy_(before.running_mean.double().cpu() - bias)

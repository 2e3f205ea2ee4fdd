"""The proof of a removal: the smaller network computes what the whole one computes with the removed units masked."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from trainables.channels.removal import remove_units
from trainables.channels.units import ChannelUnits
from trainables.errors import ConfigError
from trainables.wording import first_line, one_line

TOLERANCE = 1e-10  # in float64, as a share of the largest score; sums of other lengths round differently
EXAMPLES = 2


def mask_units(model: nn.Module, units: ChannelUnits, kept_U: Tensor) -> None:
    """Sets all entries of the units that are not kept to zero, in norm layers too, in place."""
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name in units.tensors:
            if name in parameters:
                parameters[name].masked_fill_(~units.mask(name, parameters[name].shape, kept_U), 0.0)


def removal_error(model: nn.Module, units: ChannelUnits, kept_U: Tensor, images_BCHW: Tensor) -> float:
    """The largest difference of a score between the masked and the smaller network, as a share of the largest score.

    In eval mode and in the type of the images; the network is not changed.

    Raises:
        RuntimeError: the smaller network fails, or has other outputs.
    """
    masked = copy.deepcopy(model).to(images_BCHW.dtype).eval()
    smaller = copy.deepcopy(masked)
    mask_units(masked, units, kept_U)
    remove_units(smaller, units, kept_U)
    with torch.inference_mode():
        expected, got = masked(images_BCHW), smaller(images_BCHW)
    if expected.shape != got.shape:
        raise RuntimeError(f"it has outputs of shape {tuple(got.shape)} instead of {tuple(expected.shape)}")
    scale = float(expected.abs().max())
    return float((expected - got).abs().max()) / (scale or 1.0)


def require_equality(model: nn.Module, units: ChannelUnits, image_shape: tuple[int, int, int], kept_U: Tensor) -> None:
    """Raises ConfigError if the network without these units is another function than the masked one."""
    if problem := _problem(model, units, image_shape, kept_U):
        raise ConfigError(f"granularity: channel must be able to remove channels, {problem}", "write granularity: weight")


def check_removal(model: nn.Module, units: ChannelUnits, image_shape: tuple[int, int, int]) -> None:
    """Tries to remove half of every group's units from a copy with random weights, before any training.

    Raises:
        ConfigError: the smaller network is another function than the masked one; it names the layers.
    """
    trial = randomized(model)
    every_second = torch.ones(units.count, dtype=torch.bool)
    for group in units.groups:
        every_second[group.start + 1 : group.start + group.size : 2] = False
    if _problem(trial, units, image_shape, every_second) is None:
        return
    for group in units.groups:  # which one it is
        kept_U = torch.ones(units.count, dtype=torch.bool)
        kept_U[group.start : group.start + group.size] = every_second[group.start : group.start + group.size]
        if problem := _problem(trial, units, image_shape, kept_U):
            layers = ", ".join(group.layers)
            raise ConfigError(
                f"granularity: channel must be able to remove channels of {layers}, {problem}",
                f"exclude them with prunable.exclude: [{layers}], or write granularity: weight",
            )
    require_equality(trial, units, image_shape, every_second)


def _problem(model: nn.Module, units: ChannelUnits, image_shape: tuple[int, int, int], kept_U: Tensor) -> str | None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(EXAMPLES, *image_shape, generator=generator, dtype=torch.float64)
    try:
        error = removal_error(copy.deepcopy(model).cpu(), units, kept_U.cpu(), images)
    except Exception as failure:  # of many types, from the network's code too
        return f"but the smaller network fails: {one_line(first_line(failure))}"
    return None if error <= TOLERANCE else f"but the smaller network's scores are off by {error:.1g} of the largest"


def randomized(model: nn.Module) -> nn.Module:
    """A copy on the CPU in float64 whose weights and norm statistics are random, so that none hides a difference."""
    generator = torch.Generator().manual_seed(0)
    network = copy.deepcopy(model).to("cpu", torch.float64)
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if not value.is_floating_point():
                continue
            noise = torch.randn(value.shape, generator=generator, dtype=value.dtype)
            if name.endswith("running_var"):
                value.copy_(noise.abs() + 0.5)
            elif value.dim() > 1:
                value.copy_(noise / max(1, value[0].numel()) ** 0.5)
            else:
                value.copy_(noise + 0.5)
    return network

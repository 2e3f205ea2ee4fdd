"""Measures the layers of a network for a timing table (custom/timing_table.py): dense, at sparsities, with fewer channels.

A sparse linear layer is a matrix of compressed sparse rows; a sparse convolution is unfolded, and its weight such a matrix,
since PyTorch has no sparse convolution. That is what runs without other packages, often slower than the dense layer up to high
sparsities. Layers are measured alone, on inputs of the size that they have in the network.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import unfold

from trainables.channels.resizing import resize
from trainables.custom.imports import load_function
from trainables.custom.references import is_custom
from trainables.custom.timing_table import FORMAT
from trainables.errors import ConfigError
from trainables.export.fresh_process import seconds_in_turns
from trainables.export.variants import SparseRows
from trainables.models.custom_network import build_custom_network
from trainables.models.prunable import prunable_weights
from trainables.models.registry import build_model, initialize
from trainables.runtime.device import Runtime
from trainables.runtime.machine import processor_name

SPARSITIES = tuple(round(1 - 0.6 * (0.01 / 0.6) ** (step / 40), 6) for step in range(41))  # SPDY's, 0.4 to 0.99
GRID = 8  # numbers of channels on each axis, at most
SECONDS = 2.0  # for each layer
Call = Callable[[], Any]


def layer_records(
    model: nn.Module,
    images: Tensor,
    *,
    sparsities: bool,
    channels: bool,
    seconds: float,
    wait: Call = lambda: None,
    on_layer: Callable[[str], None] = lambda name: None,
) -> tuple[dict[str, dict[str, Any]], float, float]:
    """The layers of a table by name, and the whole network in eval mode and what it takes beyond its layers; in milliseconds.

    A layer's times are medians of calls in turns with all others of the layer; the rest is the median of the rounds in which
    the network and all dense layers are called in turns, at least 0.

    Args:
        images: one batch, on the device of the model.
        sparsities, channels: what to measure besides the dense layers.
        seconds: for each layer, after at least five rounds.
        wait: until the device has done what it was asked.
        on_layer: called with the name of each layer before it is measured.

    Raises:
        ConfigError: a layer is not called once, or has a padding that cannot be unfolded.
    """
    names = [name.removesuffix(".weight") for name in prunable_weights(model)]
    records = {}
    with torch.no_grad():
        inputs = _inputs(model.eval(), names, images)
        for name, features in inputs.items():
            on_layer(name)
            records[name] = _record(model.get_submodule(name), features, sparsities, channels, seconds, wait)
        dense = [partial(_run, model.get_submodule(name), features, wait) for name, features in inputs.items()]
        whole, *layers = (np.array(times) for times in seconds_in_turns([partial(_run, model, images, wait), *dense], seconds))
    rest = 1000 * float(np.median(whole - np.sum(layers, axis=0)))
    return records, 1000 * float(np.median(whole)), max(0.0, rest)


def _inputs(model: nn.Module, names: Sequence[str], images: Tensor) -> dict[str, Tensor]:
    """What each layer gets when the network sees these images."""
    seen: dict[str, list[Tensor]] = {name: [] for name in names}
    handles = [
        model.get_submodule(name).register_forward_pre_hook(lambda module, inputs, name=name: seen[name].append(inputs[0]))
        for name in names
    ]
    try:
        model(images)
    finally:
        for handle in handles:
            handle.remove()
    for name, inputs in seen.items():
        if len(inputs) != 1:
            raise ConfigError(f"layer {name} must be called once for a batch to be timed, got {len(inputs)} calls")
    return {name: inputs[0].clone() for name, inputs in seen.items()}


def _record(layer: nn.Module, features: Tensor, sparsities: bool, channels: bool, seconds: float, wait: Call) -> dict[str, Any]:
    weight = layer.get_parameter("weight")
    calls: list[tuple[nn.Module, Tensor]] = [(layer, features)]
    if sparsities:
        calls += [(_sparse(layer, sparsity), features) for sparsity in SPARSITIES]
    outputs, inputs = _counts(layer)
    if channels:
        calls += [_smaller(layer, features, made, read) for read in inputs for made in outputs][:-1]
    times = _medians([partial(_run, module, given, wait) for module, given in calls], seconds)
    record: dict[str, Any] = {"shape": list(weight.shape), "dense": times[0]}
    if sparsities:
        record |= {"sparsities": list(SPARSITIES), "times": times[1 : 1 + len(SPARSITIES)]}
    if channels:
        flat = times[-(len(outputs) * len(inputs) - 1) :] if len(outputs) * len(inputs) > 1 else []
        rows = np.array([*flat, times[0]]).reshape(len(inputs), len(outputs)).tolist()
        record["channels"] = {"outputs": outputs, "inputs": inputs, "times": rows}
    return record


def _medians(calls: Sequence[Call], seconds: float) -> list[float]:
    """Milliseconds of each call."""
    return [1000 * float(np.median(times)) for times in seconds_in_turns(list(calls), seconds)]


def _run(module: nn.Module, features: Tensor, wait: Call) -> None:
    module(features)
    wait()


def _sparse(layer: nn.Module, sparsity: float) -> nn.Module:
    """The layer with random weights pruned, as it runs on sparse rows."""
    pruned = copy.deepcopy(layer)
    weight = pruned.get_parameter("weight")
    drawn = torch.rand(weight.shape, generator=torch.Generator().manual_seed(0)).to(weight.device)
    weight.mul_(drawn >= sparsity)
    return SparseRows(pruned) if isinstance(pruned, nn.Linear) else UnfoldedRows(pruned)


class UnfoldedRows(nn.Module):
    """A convolution as a product of sparse rows and of the unfolded images.

    Raises:
        ConfigError: its padding is not one of zeros.
    """

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        assert isinstance(layer, nn.Conv2d)
        if layer.padding_mode != "zeros" or isinstance(layer.padding, str):
            raise ConfigError(f"a convolution must be padded with a number of zeros to be timed, got {layer}")
        self.kernel, self.dilation, self.stride = _pair(layer.kernel_size), _pair(layer.dilation), _pair(layer.stride)
        self.padding, self.bias = _pair(layer.padding), layer.bias
        with warnings.catch_warnings(action="ignore"):  # sparse rows are in beta
            self.rows = _all_inputs(layer).to_sparse_csr()

    def forward(self, images_BCHW: Tensor) -> Tensor:
        patches = unfold(images_BCHW, self.kernel, self.dilation, self.padding, self.stride)
        batch, columns, places = patches.shape
        made = self.rows @ patches.transpose(0, 1).reshape(columns, batch * places)
        if self.bias is not None:
            made = made + self.bias[:, None]
        spans = zip(images_BCHW.shape[2:], self.padding, self.dilation, self.kernel, self.stride, strict=True)
        size = [(extent + 2 * pad - dilation * (kernel - 1) - 1) // step + 1 for extent, pad, dilation, kernel, step in spans]
        return made.view(-1, batch, *size).transpose(0, 1)


def _pair(values: tuple[int, ...]) -> tuple[int, int]:
    rows, columns = values
    return rows, columns


def _all_inputs(layer: nn.Conv2d) -> Tensor:
    """The weight as a matrix (outputs, inputs * kernel), with zeros for the inputs of other groups."""
    outputs, read = layer.weight.shape[0], layer.weight[0].numel()
    matrix = layer.weight.new_zeros(outputs, layer.groups, read)
    group = torch.arange(outputs, device=matrix.device) // (outputs // layer.groups)
    matrix[torch.arange(outputs, device=matrix.device), group] = layer.weight.detach().flatten(1)
    return matrix.flatten(1)


def _counts(layer: nn.Module) -> tuple[list[int], list[int]]:
    """Numbers of outputs and inputs on the grid: dimensions 0 and 1 of the weight."""
    outputs, inputs = layer.get_parameter("weight").shape[:2]
    groups = layer.groups if isinstance(layer, nn.Conv2d) else 1
    if groups == outputs > 1:  # depthwise: every channel is a group
        return _grid(outputs), [inputs]
    return [groups * count for count in _grid(outputs // groups)], _grid(inputs)


def _grid(full: int) -> list[int]:
    return sorted({1, *(max(1, round(full * part / (GRID - 1))) for part in range(1, GRID))})


def _smaller(layer: nn.Module, features: Tensor, outputs: int, inputs: int) -> tuple[nn.Module, Tensor]:
    """The layer with so many channels, and what it gets."""
    smaller = copy.deepcopy(layer)
    state = {name: tensor[:outputs] for name, tensor in layer.state_dict().items()}
    resize(smaller, state | {"weight": state["weight"][:, :inputs]})
    if isinstance(smaller, nn.Linear):
        return smaller, features[..., :inputs].contiguous()
    assert isinstance(smaller, nn.Conv2d)
    is_last = features.is_contiguous(memory_format=torch.channels_last)
    memory_format = torch.channels_last if is_last else torch.contiguous_format
    return smaller.to(memory_format=memory_format), features[:, : smaller.in_channels].contiguous(memory_format=memory_format)


def measure_network(
    name: str,
    width: int,
    image_shape: tuple[int, int, int],
    num_classes: int,
    *,
    sparsities: bool,
    channels: bool,
    batch: int,
    threads: int,
    device: str = "cpu",
    seconds: float = SECONDS,
    on_layer: Callable[[str], None] = lambda name: None,
) -> dict[str, Any]:
    """The timing table of a network, as in its file, measured on this machine. Raises as `layer_records` does.

    Weights and images are random, as times do not depend on them.

    Args:
        name: of a custom network the reference; its module must be imported.
    """
    before, runtime = torch.get_num_threads(), Runtime(device=device)
    torch.set_num_threads(threads)
    try:
        network = runtime.to_device(_network(name, width, image_shape, num_classes))
        images = torch.rand(batch, *image_shape, generator=torch.Generator().manual_seed(0)).to(device)
        layers, whole, rest = layer_records(
            network,
            runtime.to_memory_format(images),
            sparsities=sparsities,
            channels=channels,
            seconds=seconds,
            wait=torch.cuda.synchronize if device == "cuda" else lambda: None,
            on_layer=on_layer,
        )
    finally:
        torch.set_num_threads(before)
    return {
        "format": FORMAT,
        "network": name,
        "width": width,
        "image_shape": list(image_shape),
        "unit": "ms",
        "measured": {
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "processor": torch.cuda.get_device_name() if device == "cuda" else processor_name(),
            "device": device,
            "threads": threads,
            "batch": batch,
            "torch": torch.__version__,
            "sparse": "linear layers as compressed sparse rows, convolutions unfolded and as compressed sparse rows",
            "whole": whole,
        },
        "rest": rest,
        "layers": layers,
    }


def _network(name: str, width: int, image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    if is_custom(name):
        return build_custom_network(name, load_function(name), image_shape, num_classes)
    network = build_model(name, image_shape, num_classes, width)
    initialize(network, seed=0)
    return network

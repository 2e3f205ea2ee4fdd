"""Connected weights, against walks through the graph of a network; and networks whose paths are unknown."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise, product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from trainables.analysis.model_stats import model_stats
from trainables.analysis.paths import connected_masks
from trainables.models.prunable import prunable_weights
from trainables.models.registry import build_model, initialize
from trainables.pruning.masks import Masks, full_masks, num_kept

Node = tuple[int, ...]
Edge = tuple[Node, Node, str, tuple[int, ...]]  # from, to, and the weight that it is


def network(name: str, side: int = 32, channels: int = 3) -> nn.Module:
    model = build_model(name, (channels, side, side), 10)
    initialize(model, 0)
    return model


def live(model: nn.Module, masks: Masks, image_shape: tuple[int, int, int]) -> Masks:
    connected = connected_masks(model, masks, image_shape)
    assert connected is not None
    return connected


def on_a_path(edges: list[list[Edge]], masks: Masks) -> Masks:
    """The kept weights of layers of edges that are reached from the first layer's nodes and reach the last one's."""
    kept = [[edge for edge in layer if bool(masks[edge[2]][edge[3]])] for layer in edges]
    forwards: list[list[Edge]] = []
    reached = {start for start, *_ in edges[0]}
    for layer in kept:
        forwards.append([edge for edge in layer if edge[0] in reached])
        reached = {end for _, end, *_ in forwards[-1]}
    result = {name: torch.zeros_like(mask) for name, mask in masks.items()}
    for layer in reversed(forwards):
        through = [edge for edge in layer if edge[1] in reached]
        for _, _, name, place in through:
            result[name][place] = True
        reached = {start for start, *_ in through}
    return result


def linear_edges(name: str, inputs: list[Node], outputs: int) -> list[Edge]:
    return [(start, (to,), name, (to, index)) for index, start in enumerate(inputs) for to in range(outputs)]


def conv_edges(name: str, conv: nn.Conv2d, side: int) -> tuple[list[Edge], list[Node]]:
    """The edges of a convolution over square maps, and the nodes that it makes, in the order in which they are flattened."""
    stride, padding, dilation, size = conv.stride[0], int(conv.padding[0]), conv.dilation[0], conv.kernel_size[0]
    per_group, out_side = conv.in_channels // conv.groups, (side + 2 * padding - dilation * (size - 1) - 1) // stride + 1
    edges: list[Edge] = []
    for out, y, x in product(range(conv.out_channels), range(out_side), range(out_side)):
        group = out // (conv.out_channels // conv.groups)
        for channel, i, j in product(range(per_group), range(size), range(size)):
            row, column = y * stride + i * dilation - padding, x * stride + j * dilation - padding
            if 0 <= row < side and 0 <= column < side:
                edges.append(((group * per_group + channel, row, column), (out, y, x), name, (out, channel, i, j)))
    return edges, list(product(range(conv.out_channels), range(out_side), range(out_side)))


def random_masks(model: nn.Module, seed: int, density: float) -> Masks:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.rand(weight.shape, generator=generator) < density for name, weight in prunable_weights(model).items()}


@given(
    seed=st.integers(0, 2**31),
    density=st.floats(0.05, 0.9),
    widths=st.lists(st.integers(1, 6), min_size=1, max_size=4),
    activation=st.sampled_from([nn.ReLU, nn.GELU, nn.Sigmoid, nn.Tanh, nn.Identity, nn.Dropout]),
    last=st.sampled_from([nn.Identity, nn.LogSoftmax, nn.Softmax]),
)
def test_connected_weights_of_linear_layers_are_on_a_path(
    seed: int, density: float, widths: list[int], activation: type[nn.Module], last: Callable[..., nn.Module]
) -> None:
    sizes = [4, *widths, 3]
    layers: list[nn.Module] = [nn.Flatten()]
    for size, following in pairwise(sizes):
        layers += [nn.Linear(size, following), activation()]
    model = nn.Sequential(*layers[:-1], last() if last is nn.Identity else last(1))
    masks = random_masks(model, seed, density)
    edges, nodes = [], [(index,) for index in range(4)]
    for (name, _), following in zip(masks.items(), sizes[1:], strict=True):
        edges.append(linear_edges(name, list(nodes), following))
        nodes = [(index,) for index in range(following)]
    connected, expected = live(model, masks, (1, 2, 2)), on_a_path(edges, masks)
    assert all(torch.equal(connected[name], expected[name]) for name in masks)


@given(
    seed=st.integers(0, 2**31),
    density=st.floats(0.05, 0.9),
    stride=st.integers(1, 2),
    padding=st.integers(0, 2),
    dilation=st.integers(1, 2),
    groups=st.sampled_from([1, 2]),
)
def test_connected_weights_of_convolutions_are_on_a_path(
    seed: int, density: float, stride: int, padding: int, dilation: int, groups: int
) -> None:
    first = nn.Conv2d(2, 4, 2, stride=stride, padding=padding, dilation=dilation, groups=groups)
    edges1, nodes1 = conv_edges("0.weight", first, 4)
    side = int((len(nodes1) // 4) ** 0.5)
    second = nn.Conv2d(4, 2, 1, groups=groups)
    edges2, nodes2 = conv_edges("3.weight", second, side)
    model = nn.Sequential(first, nn.BatchNorm2d(4), nn.ReLU(), second, nn.Flatten(), nn.Linear(len(nodes2), 2))
    masks = random_masks(model, seed, density)
    expected = on_a_path([edges1, edges2, linear_edges("5.weight", nodes2, 2)], masks)
    connected = live(model, masks, (2, 4, 4))
    assert all(torch.equal(connected[name], expected[name]) for name in masks)


@pytest.mark.parametrize(
    "norm", [nn.LayerNorm([4, 5, 5]), nn.GroupNorm(2, 4), nn.InstanceNorm2d(4, affine=True), nn.BatchNorm2d(4)]
)
def test_norm_layers_break_no_path(norm: nn.Module) -> None:
    model = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), norm, nn.ReLU(), nn.Flatten(), nn.Linear(100, 3))
    masks = full_masks(prunable_weights(model))
    masks["0.weight"][0] = False
    # The first map is constant zero, so what reads it is dead: 25 of the 100 inputs of the last layer.
    assert model_stats(model, masks, (2, 5, 5)).connected_weights == 3 * 18 + 3 * 75


@pytest.mark.slow
@pytest.mark.parametrize("name", ["convnet", "lenet300", "alexnet", "vgg11", "resnet20", "resnet18"])
def test_all_weights_of_a_dense_network_are_connected(name: str) -> None:
    model = network(name)
    masks = full_masks(prunable_weights(model))
    assert all(bool(mask.all()) for mask in live(model, masks, (3, 32, 32)).values())


def test_weights_on_padding_are_not_connected() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.Flatten(), nn.Linear(2, 3))
    connected = live(model, full_masks(prunable_weights(model)), (1, 1, 1))
    assert connected["0.weight"].nonzero().tolist() == [[0, 0, 1, 1], [1, 0, 1, 1]]


def test_every_path_through_max_pooling_counts() -> None:
    model = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1, bias=False), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(1, 2))
    masks = full_masks(prunable_weights(model))
    masks["0.weight"].fill_(False)
    masks["0.weight"][0, 0, 0, 0] = masks["0.weight"][0, 0, 2, 2] = True  # each reaches another pixel of the pool
    assert torch.equal(live(model, masks, (1, 2, 2))["0.weight"], masks["0.weight"])


def test_collapsed_layer_breaks_its_chain_alone() -> None:
    vgg, resnet = network("vgg11"), network("resnet20")
    of_vgg, of_resnet = full_masks(prunable_weights(vgg)), full_masks(prunable_weights(resnet))
    of_vgg["features.4.weight"].fill_(False)
    assert num_kept(live(vgg, of_vgg, (3, 32, 32))) == 0
    of_resnet["blocks.1.conv1.weight"].fill_(False)
    connected = live(resnet, of_resnet, (3, 32, 32))
    assert not connected["blocks.1.conv2.weight"].any()
    others = [name for name in connected if not name.startswith("blocks.1.")]
    assert all(bool(connected[name].all()) for name in others)


def test_path_counts_beyond_float64_do_not_overflow() -> None:
    layers = [layer for _ in range(150) for layer in (nn.Linear(200, 200), nn.ReLU())]  # 200 ** 150 paths, 1e345
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 200), *layers, nn.Linear(200, 2))
    masks = full_masks(prunable_weights(model))
    masks["1.weight"][0] = False
    assert num_kept(live(model, masks, (1, 2, 2))) == 4 * 200 - 4 + 150 * 200 * 200 - 200 + 400


class Through(nn.Module):
    """A layer, what a function makes of its result, and a head."""

    def __init__(self, function: Callable[[Tensor], Tensor], width: int = 8) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(16, 8), nn.Linear(width, 3)
        self.scale, self.token = nn.Parameter(torch.ones(8)), nn.Parameter(torch.ones(8))
        self.function = function

    def forward(self, images_BCHW: Tensor) -> Tensor:
        logits: Tensor = self.head(self.function(self.first(images_BCHW.flatten(1))))
        return logits


class StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, signal: Tensor) -> Tensor:
        return (signal > 0.1).to(signal.dtype)

    @staticmethod
    def backward(ctx: object, *grads: Tensor) -> Tensor:
        return grads[0]


def attended(tokens: Tensor) -> Tensor:
    return functional.scaled_dot_product_attention(tokens, tokens, tokens)


UNKNOWN: dict[str, Callable[[Tensor], Tensor]] = {
    "gate": lambda x: x * torch.sigmoid(x),
    "square": lambda x: x * x,
    "attention": lambda x: attended(x.view(-1, 4, 2)).flatten(1),
    "norm by hand": lambda x: (x - x.mean(1, keepdim=True)) / x.std(1, keepdim=True),
    "difference": lambda x: x - x.flip(1),
    "normalised": lambda x: functional.normalize(x),
    "weighted mean": lambda x: x * x / x.sum(1, keepdim=True),
    "maximum": lambda x: torch.maximum(x, x.flip(1)),
    "constant": lambda x: x + 1,
    "detached": lambda x: x.detach() + x,
    "custom gradient": lambda x: torch.as_tensor(StraightThrough.apply(x)),
    "not finite": lambda x: x / 0,
    "nothing": lambda x: x * 0,
}


@pytest.mark.parametrize("function", UNKNOWN.values(), ids=UNKNOWN)
def test_paths_through_nonlinear_operations_are_unknown(function: Callable[[Tensor], Tensor]) -> None:
    model = Through(function)
    assert connected_masks(model, full_masks(prunable_weights(model)), (1, 4, 4)) is None
    assert model_stats(model, full_masks(prunable_weights(model)), (1, 4, 4)).effective_sparsity is None


def test_paths_to_subtracted_outputs_are_unknown() -> None:
    class Difference(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.more, self.less = nn.Linear(16, 3), nn.Linear(16, 3)

        def forward(self, images_BCHW: Tensor) -> Tensor:
            inputs = images_BCHW.flatten(1)
            logits: Tensor = 2 * self.more(inputs) - self.less(inputs)
            return logits

    model = Difference()
    assert connected_masks(model, full_masks(prunable_weights(model)), (1, 4, 4)) is None


KNOWN: dict[str, Callable[[Tensor], Tensor]] = {
    "softmax": lambda x: x.softmax(1),
    "clamp": lambda x: x.clamp(0, 6),
    "layer norm": lambda x: functional.layer_norm(x, (8,)),
    "in place": lambda x: x.relu_(),
    "checkpoint": lambda x: checkpoint(torch.relu, x, use_reentrant=False),
    "pool": lambda x: functional.adaptive_max_pool1d(x, 8),
    "pool of pairs": lambda x: functional.max_pool1d(x.repeat(1, 2), 2),
}


@pytest.mark.parametrize("function", KNOWN.values(), ids=KNOWN)
def test_paths_through_activations_norms_and_pools_are_known(function: Callable[[Tensor], Tensor]) -> None:
    model = Through(function)
    masks = full_masks(prunable_weights(model))
    masks["first.weight"][3:] = False
    fed = 4 if function is KNOWN["pool of pairs"] else 3  # inputs of the head; the pairs are 01 23 45 67 01 23 45 67
    assert num_kept(live(model, masks, (1, 4, 4))) == 3 * 16 + 3 * fed


def test_deep_attention_is_not_mistaken_for_a_mean() -> None:
    layers = [layer for _ in range(30) for layer in (nn.Linear(64, 64), nn.ReLU())]

    class Late(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return attended(x.view(-1, 16, 4)).flatten(1)

    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 64), *layers, Late(), nn.Linear(64, 3))
    assert connected_masks(model, full_masks(prunable_weights(model)), (1, 4, 4)) is None


def test_paths_do_not_change_the_network() -> None:
    model = network("resnet20").train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    live(model, full_masks(prunable_weights(model)), (3, 32, 32))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(module.training for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())

"""Networks that a method cannot score are refused with the rule; those that need another kernel get it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad
from torch.nn import functional
from torch.nn.utils.parametrizations import weight_norm

from tests.support.trials import RUNTIME
from trainables.errors import ConfigError
from trainables.models.registry import build_model, initialize
from trainables.pruning.score_gradients import hessian_gradient_products, scoring_gradients
from trainables.pruning.synflow import require_flow, synaptic_flow

Weights = dict[str, Tensor]


class Attention(nn.Module):
    """Eight rows of pixels that attend to each other by the fused kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(8, 8) for _ in range(3))
        self.head = nn.Linear(8, 4)

    def forward(self, images: Tensor) -> Tensor:
        rows = images[:, 0]
        mixed = functional.scaled_dot_product_attention(self.query(rows), self.key(rows), self.value(rows))
        scores: Tensor = self.head(mixed.mean(1))
        return scores


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(8, 8, batch_first=True)
        self.head = nn.Linear(8, 4)

    def forward(self, images: Tensor) -> Tensor:
        scores: Tensor = self.head(self.lstm(images[:, 0])[0][:, -1])
        return scores


class FunctionalNorm(nn.Module):
    """Reads the weights of its norm layer, and does not call it."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.norm, self.head = nn.Linear(64, 8), nn.LayerNorm(8), nn.Linear(8, 4)

    def forward(self, images: Tensor) -> Tensor:
        hidden = functional.layer_norm(self.linear(images.flatten(1)), (8,), self.norm.weight, self.norm.bias)
        scores: Tensor = self.head(torch.relu(hidden))
        return scores


class Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.head = nn.Linear(8, 4)

    def forward(self, images: Tensor) -> Tensor:
        scores: Tensor = self.head(self.layer(images[:, 0]).mean(1))
        return scores


class Unused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear, self.spare = nn.Linear(64, 4), nn.Linear(64, 4)

    def forward(self, images: Tensor) -> Tensor:
        scores: Tensor = self.linear(images.flatten(1))
        return scores


def mlp(*last: nn.Module, activation: Callable[[], nn.Module] = nn.ReLU) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), activation(), nn.Linear(16, 4), *last)


def normalised() -> nn.Module:
    network = mlp()
    weight_norm(network.get_submodule("1"))
    return network


def frozen() -> nn.Module:
    network = mlp()
    network.get_submodule("1").requires_grad_(False)
    return network


def weights_of(network: nn.Module) -> Weights:
    return {name: weight for name, weight in network.named_parameters() if weight.dim() > 1}


def flow_of(network: nn.Module) -> Weights:
    require_flow(network, weights_of(network), (1, 8, 8))
    return synaptic_flow(network, weights_of(network), (1, 8, 8))


@pytest.mark.parametrize(
    "last",
    [nn.LogSoftmax(1), nn.Softmax(1), nn.Sigmoid(), nn.Tanh()],
    ids=lambda module: type(module).__name__,
)
def test_synflow_rejects_flow_that_misses_the_image(last: nn.Module) -> None:
    with pytest.raises(
        ConfigError, match=r"method synflow must have .* reaches the image as .*; return logits without a softmax"
    ):
        flow_of(mlp(last))


@pytest.mark.parametrize("network", [FunctionalNorm, Transformer, Attention, Recurrent, partial(mlp, activation=nn.Sigmoid)])
def test_synflow_rejects_nonlinear_functions_of_the_image(network: Callable[[], nn.Module]) -> None:
    with pytest.raises(ConfigError, match=r"method synflow must have .*reaches the image"):
        flow_of(network())


def test_synflow_rejects_normalised_weights() -> None:
    with pytest.raises(ConfigError, match=r"synaptic flow is negative in 1\.parametrizations\.weight\.original1"):
        flow_of(normalised())


def test_synflow_rejects_float64_overflow() -> None:
    layers = [nn.Linear(64, 64) for _ in range(200)]
    for layer in layers:
        nn.init.constant_(layer.weight, 1e3)
    with pytest.raises(ConfigError, match="its synaptic flow is inf, outside the range of float64"):
        flow_of(nn.Sequential(nn.Flatten(), *layers, nn.Linear(64, 4)))


def test_synflow_rejects_networks_that_fail_in_float64() -> None:
    class Float32(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(64, 4)

        def forward(self, images: Tensor) -> Tensor:
            scores: Tensor = self.linear(images.flatten(1).float())
            return scores

    with pytest.raises(ConfigError, match=r"must run the network in float64, .* but it raised RuntimeError: "):
        flow_of(Float32())


@pytest.mark.parametrize("name", ["resnet20", "vgg11", "resnet18"])
def test_synflow_accepts_branches_norms_and_pools(name: str) -> None:
    network = build_model(name, (3, 32, 32), 10)
    initialize(network, 0)
    require_flow(network, weights_of(network), (3, 32, 32))
    scores = synaptic_flow(network, weights_of(network), (3, 32, 32))
    assert all(bool((score >= 0).all()) and float(score.sum()) > 0 for score in scores.values())


def test_synflow_of_a_single_layer_is_the_whole_flow() -> None:
    network = mlp(activation=lambda: nn.LeakyReLU(0.1))
    head = network.get_submodule("3")
    ones = torch.ones(1, 64, dtype=torch.float64)
    first, last = (abs(weight.detach()).double() for weight in weights_of(network).values())
    assert torch.allclose(flow_of(network)["3.weight"], last * (ones @ first.T))
    assert isinstance(head, nn.Linear)


@pytest.mark.parametrize(
    ("network", "reason"), [(Unused, "spare.weight do not reach the output"), (frozen, "1.weight are frozen")]
)
@pytest.mark.parametrize("method", ["first", "second", "flow"])
def test_weight_without_gradient_is_rejected_by_name(network: Callable[[], nn.Module], reason: str, method: str) -> None:
    model = network()
    weights = weights_of(model)
    batches = [(torch.rand(4, 1, 8, 8), torch.arange(4))]
    masks = {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in weights.items()}
    calls: dict[str, Callable[[], Any]] = {
        "first": lambda: scoring_gradients(model, weights, batches, RUNTIME),
        "second": lambda: hessian_gradient_products(model, weights, masks, batches, RUNTIME, "batch", 1.0),
        "flow": lambda: synaptic_flow(model, weights, (1, 8, 8)),
    }
    layer = reason.split(".")[0]
    with pytest.raises(ConfigError, match=rf"must get a gradient, but {reason}.*prunable: {{exclude: \[{layer}\]}}"):
        calls[method]()


@pytest.mark.parametrize("network", [Attention, Recurrent])
def test_grasp_supports_attention_and_recurrence(network: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    model = network().double().eval()
    weights = weights_of(model)
    images, labels = torch.rand(4, 1, 8, 8, dtype=torch.float64), torch.arange(4)
    masks = {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in weights.items()}
    _, products = hessian_gradient_products(model, weights, masks, [(images, labels)], RUNTIME, "batch", 1.0)

    def slopes(values: Weights) -> Weights:
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH), torch.backends.mkldnn.flags(enabled=False):
            loss = lambda parts: functional.cross_entropy(functional_call(model, parts, (images,)), labels)  # noqa: E731
            return dict(grad(loss)(values))

    step, values = 1e-5, {name: weight.detach() for name, weight in weights.items()}
    direction = slopes(values)
    ahead, behind = (slopes({name: values[name] + sign * step * direction[name] for name in values}) for sign in (1, -1))
    for name, product in products.items():
        assert torch.allclose(product, (ahead[name] - behind[name]) / (2 * step), rtol=1e-4, atol=1e-9), name

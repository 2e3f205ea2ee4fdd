"""Networks of many kinds, small, for images of 1 x 8 x 8 and larger: what users bring. Each function makes one.

A module of a sweep as well (`model: {module: network_zoo.NAME}`); needs no product code. `ZOO` names them all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations, prune, weight_norm
from torch.utils.checkpoint import checkpoint

from tests.support.zoo_layers import (
    Buffered,
    Chain,
    Doubling,
    Resized,
    Shape,
    StandardizedConv,
    TimmLikeViT,
    conv_chain,
    pixels,
)

ZOO: dict[str, Callable[[Shape, int], nn.Module]] = {}


def zoo(make: Callable[[Shape, int], nn.Module]) -> Callable[[Shape, int], nn.Module]:
    ZOO[make.__name__] = make
    return make


def vision(name: str, side: int = 32, **options: Any) -> Callable[[Shape, int], nn.Module]:
    def make(image_shape: Shape, num_classes: int) -> nn.Module:
        from torchvision import models

        return Resized(models.get_model(name, weights=None, num_classes=num_classes, **options), side)

    return make


VISION: dict[str, tuple[int, dict[str, Any]]] = {
    "squeezenet1_1": (32, {}),
    "mnasnet0_5": (32, {}),
    "mobilenet_v2": (32, {"width_mult": 0.25}),
    "mobilenet_v3_small": (32, {}),
    "shufflenet_v2_x0_5": (32, {}),
    "efficientnet_b0": (32, {}),
    "regnet_y_400mf": (32, {}),
    "resnet18": (32, {}),
    "googlenet": (64, {"aux_logits": True, "init_weights": False}),
    "inception_v3": (75, {"aux_logits": False, "init_weights": False}),
}
for _name, (_side, _options) in VISION.items():
    ZOO[f"torchvision_{_name}"] = vision(_name, _side, **_options)


@zoo
def torchvision_alexnet_small(image_shape: Shape, num_classes: int) -> nn.Module:
    """The features of AlexNet with a small head; its own has 54 million weights."""
    from torchvision.models import AlexNet

    network = AlexNet(num_classes)
    network.classifier = nn.Sequential(nn.Dropout(), nn.Linear(256 * 36, 16), nn.ReLU(), nn.Linear(16, num_classes))
    return Resized(network, 64)


@zoo
def torchvision_vgg_small(image_shape: Shape, num_classes: int) -> nn.Module:
    from torchvision.models.vgg import VGG, make_layers

    network = VGG(make_layers([8, "M", 16, 16, "M"], batch_norm=True), num_classes, init_weights=False)
    network.classifier = nn.Sequential(nn.Linear(16 * 49, 16), nn.ReLU(True), nn.Dropout(), nn.Linear(16, num_classes))
    return Resized(network, 32)


@zoo
def torchvision_resnext_small(image_shape: Shape, num_classes: int) -> nn.Module:
    from torchvision.models.resnet import Bottleneck, ResNet

    return Resized(ResNet(Bottleneck, [1, 1, 1, 1], num_classes, groups=4, width_per_group=4), 32)


@zoo
def torchvision_densenet_small(image_shape: Shape, num_classes: int) -> nn.Module:
    from torchvision.models import DenseNet

    return Resized(DenseNet(4, (2, 2), 8, num_classes=num_classes), 32)


@zoo
def torchvision_vit_small(image_shape: Shape, num_classes: int) -> nn.Module:
    from torchvision.models import VisionTransformer

    return Resized(VisionTransformer(16, 4, 2, 2, 16, 32, num_classes=num_classes), 16)


@zoo
def torchvision_swin_small(image_shape: Shape, num_classes: int) -> nn.Module:
    from torchvision.models import SwinTransformer

    return Resized(SwinTransformer([2, 2], 8, [1, 1], [1, 1], [2, 2], num_classes=num_classes), 16)


@zoo
def torchvision_maxvit_small(image_shape: Shape, num_classes: int) -> nn.Module:
    from torchvision.models import MaxVit

    return Resized(MaxVit((16, 16), 8, 2, [8], [1], 4, 0.0, num_classes=num_classes), 16)


@zoo
def torchvision_convnext_small(image_shape: Shape, num_classes: int) -> nn.Module:
    from torchvision.models.convnext import CNBlockConfig, ConvNeXt

    return Resized(ConvNeXt([CNBlockConfig(8, 16, 1), CNBlockConfig(16, None, 1)], 0.5, num_classes=num_classes), 16)


@zoo
def timm_like_vit(image_shape: Shape, num_classes: int) -> nn.Module:
    return TimmLikeViT(image_shape, num_classes)


def _recurrent(kind: Callable[..., nn.Module], outputs: int) -> Callable[[Shape, int], nn.Module]:
    def make(image_shape: Shape, num_classes: int) -> nn.Module:
        return Chain(
            lambda self, x: self.head(self.rows(x.flatten(1, 2))[0].mean(1)),
            rows=kind(image_shape[2], 12, batch_first=True, bidirectional=outputs == 24),
            head=nn.Linear(outputs, num_classes),
        )

    return make


ZOO |= {"lstm": _recurrent(nn.LSTM, 12), "gru": _recurrent(nn.GRU, 24), "rnn": _recurrent(nn.RNN, 12)}


@zoo
def multihead_attention(image_shape: Shape, num_classes: int) -> nn.Module:
    width = image_shape[2]

    def forward(self: Any, x: Tensor) -> Any:
        rows = x.flatten(1, 2)
        return self.head(self.attention(rows, rows, rows, need_weights=False)[0].mean(1))

    return Chain(forward, attention=nn.MultiheadAttention(width, 2, batch_first=True), head=nn.Linear(width, num_classes))


@zoo
def transformer_encoder(image_shape: Shape, num_classes: int) -> nn.Module:
    width = image_shape[2]
    return Chain(
        lambda self, x: self.head(self.layer(x.flatten(1, 2)).mean(1)),
        layer=nn.TransformerEncoderLayer(width, 2, 16, dropout=0.1, batch_first=True),
        head=nn.Linear(width, num_classes),
    )


@zoo
def grouped(image_shape: Shape, num_classes: int) -> nn.Module:
    return conv_chain(image_shape, num_classes, nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=2), nn.ReLU())


@zoo
def depthwise(image_shape: Shape, num_classes: int) -> nn.Module:
    return conv_chain(image_shape, num_classes, nn.ReLU(), nn.Conv2d(8, 8, 3, groups=8), nn.ReLU(), nn.Conv2d(8, 8, 1))


@zoo
def transposed(image_shape: Shape, num_classes: int) -> nn.Module:
    return conv_chain(image_shape, num_classes, nn.ReLU(), nn.ConvTranspose2d(8, 8, 2, stride=2), nn.ReLU(), nn.Conv2d(8, 8, 3))


@zoo
def dilated(image_shape: Shape, num_classes: int) -> nn.Module:
    return conv_chain(image_shape, num_classes, nn.ReLU(), nn.Conv2d(8, 8, 3, dilation=2), nn.ReLU())


@zoo
def one_dimensional(image_shape: Shape, num_classes: int) -> nn.Module:
    rows = image_shape[0] * image_shape[1]
    return Chain(
        lambda self, x: self.head(self.conv(x.flatten(1, 2)).relu().mean(2)),
        conv=nn.Conv1d(rows, 8, 3),
        head=nn.Linear(8, num_classes),
    )


@zoo
def three_dimensional(image_shape: Shape, num_classes: int) -> nn.Module:
    return Chain(
        lambda self, x: self.head(self.conv(x[:, None]).relu().mean((2, 3, 4))),
        conv=nn.Conv3d(1, 8, (1, 3, 3)),
        head=nn.Linear(8, num_classes),
    )


@zoo
def tied(image_shape: Shape, num_classes: int) -> nn.Module:
    network = nn.Sequential(nn.Flatten(), nn.Linear(pixels(image_shape), 16), nn.Linear(16, 16), nn.Linear(16, 16))
    network[3].weight = network[2].weight
    return network.append(nn.ReLU()).append(nn.Linear(16, num_classes))


@zoo
def called_twice(image_shape: Shape, num_classes: int) -> nn.Module:
    return Chain(
        lambda self, x: self.head(self.same(self.same(self.first(x).relu()).relu()).relu().mean((2, 3))),
        first=nn.Conv2d(image_shape[0], 8, 3),
        same=nn.Conv2d(8, 8, 3, padding=1),
        head=nn.Linear(8, num_classes),
    )


@zoo
def frozen(image_shape: Shape, num_classes: int) -> nn.Module:
    network = conv_chain(image_shape, num_classes, nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU())
    network[0].requires_grad_(False)
    return network


@zoo
def with_weight_norm(image_shape: Shape, num_classes: int) -> nn.Module:
    return conv_chain(image_shape, num_classes, nn.ReLU(), weight_norm(nn.Conv2d(8, 8, 3)), nn.ReLU())


@zoo
def with_weight_norm_parametrization(image_shape: Shape, num_classes: int) -> nn.Module:
    return conv_chain(image_shape, num_classes, nn.ReLU(), parametrizations.weight_norm(nn.Conv2d(8, 8, 3)), nn.ReLU())


@zoo
def with_spectral_norm(image_shape: Shape, num_classes: int) -> nn.Module:
    return conv_chain(image_shape, num_classes, nn.ReLU(), parametrizations.spectral_norm(nn.Conv2d(8, 8, 3)), nn.ReLU())


@zoo
def pruned_by_torch(image_shape: Shape, num_classes: int) -> nn.Module:
    layer = nn.Conv2d(8, 8, 3)
    prune.random_unstructured(layer, "weight", amount=0.3)
    return conv_chain(image_shape, num_classes, nn.ReLU(), layer, nn.ReLU())


@zoo
def auxiliary(image_shape: Shape, num_classes: int) -> nn.Module:
    def forward(self: Any, x: Tensor) -> Any:
        hidden = self.first(x).relu().mean((2, 3))
        scores = self.head(hidden)
        return (scores, self.auxiliary(hidden)) if self.training else scores

    layers = {name: nn.Linear(8, num_classes) for name in ("head", "auxiliary")}
    return Chain(forward, first=nn.Conv2d(image_shape[0], 8, 3), **layers)


@zoo
def standardized(image_shape: Shape, num_classes: int) -> nn.Module:
    return conv_chain(image_shape, num_classes, nn.ReLU(), StandardizedConv(8, 8, 3), nn.GroupNorm(2, 8), nn.ReLU())


@zoo
def view_after_conv(image_shape: Shape, num_classes: int) -> nn.Module:
    side1, side2 = image_shape[1] - 2, image_shape[2] - 2
    return Chain(
        lambda self, x: self.head((y := self.conv(x).relu()).view(y.size(0), -1)),
        conv=nn.Conv2d(image_shape[0], 8, 3),
        head=nn.Linear(8 * side1 * side2, num_classes),
    )


def _checkpointed(reentrant: bool) -> Callable[[Shape, int], nn.Module]:
    def make(image_shape: Shape, num_classes: int) -> nn.Module:
        def forward(self: Any, x: Tensor) -> Any:
            hidden = self.first(x)
            return self.head(checkpoint(self.inner, hidden, use_reentrant=reentrant).mean((2, 3)))

        inner = nn.Sequential(nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU())
        return Chain(forward, first=nn.Conv2d(image_shape[0], 8, 3), inner=inner, head=nn.Linear(8, num_classes))

    return make


ZOO |= {"checkpointed": _checkpointed(False), "checkpointed_reentrant": _checkpointed(True)}


def _mlp(*last: nn.Module, activation: type[nn.Module] = nn.ReLU, bias: bool = True) -> Callable[[Shape, int], nn.Module]:
    def make(image_shape: Shape, num_classes: int) -> nn.Module:
        layers = [nn.Flatten(), nn.Linear(pixels(image_shape), 16, bias=bias), activation()]
        return nn.Sequential(*layers, nn.Linear(16, num_classes, bias=bias), *last)

    return make


ZOO |= {
    "log_softmax": _mlp(nn.LogSoftmax(1)),
    "softmax": _mlp(nn.Softmax(1)),
    "gelu": _mlp(activation=nn.GELU),
    "silu": _mlp(activation=nn.SiLU),
    "sigmoid": _mlp(activation=nn.Sigmoid),
    "dropout": _mlp(activation=nn.Dropout),
    "no_bias": _mlp(bias=False),
}


def _normed(make_norm: Callable[[], nn.Module]) -> Callable[[Shape, int], nn.Module]:
    def make(image_shape: Shape, num_classes: int) -> nn.Module:
        return conv_chain(image_shape, num_classes, make_norm(), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU())

    return make


ZOO |= {
    "group_norm": _normed(lambda: nn.GroupNorm(2, 8)),
    "instance_norm": _normed(lambda: nn.InstanceNorm2d(8, affine=True)),
    "batch_norm_without_statistics": _normed(lambda: nn.BatchNorm2d(8, track_running_stats=False)),
}


@zoo
def layer_norm(image_shape: Shape, num_classes: int) -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(pixels(image_shape), 16), nn.LayerNorm(16), nn.ReLU(), nn.Linear(16, num_classes)
    )


@zoo
def gated(image_shape: Shape, num_classes: int) -> nn.Module:
    """Squeeze and excitation."""
    return Chain(
        lambda self, x: self.head((y := self.conv(x).relu().mean((2, 3))) * torch.sigmoid(self.gate(y))),
        conv=nn.Conv2d(image_shape[0], 8, 3),
        gate=nn.Linear(8, 8),
        head=nn.Linear(8, num_classes),
    )


@zoo
def stochastic_depth(image_shape: Shape, num_classes: int) -> nn.Module:
    from torchvision.ops import StochasticDepth

    return Chain(
        lambda self, x: self.head((y := self.first(x).relu()).add(self.drop(self.inner(y))).mean((2, 3))),
        first=nn.Conv2d(image_shape[0], 8, 3),
        inner=nn.Conv2d(8, 8, 3, padding=1),
        drop=StochasticDepth(0.5, "row"),
        head=nn.Linear(8, num_classes),
    )


@zoo
def unused_layer(image_shape: Shape, num_classes: int) -> nn.Module:
    return Chain(
        lambda self, x: self.head(x.flatten(1)), head=nn.Linear(pixels(image_shape), num_classes), unused=nn.Linear(4, 4)
    )


@zoo
def buffers(image_shape: Shape, num_classes: int) -> nn.Module:
    return Buffered(image_shape, num_classes)


@zoo
def data_parallel(image_shape: Shape, num_classes: int) -> nn.Module:
    return nn.DataParallel(_mlp()(image_shape, num_classes))


@zoo
def scripted(image_shape: Shape, num_classes: int) -> nn.Module:
    script: nn.Module = torch.jit.script(_mlp()(image_shape, num_classes))
    return script


@zoo
def drawn_by_numpy(image_shape: Shape, num_classes: int) -> nn.Module:
    layer = nn.Linear(pixels(image_shape), num_classes)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(np.random.randn(*layer.weight.shape) * 0.05))
    return nn.Sequential(nn.Flatten(), layer)


@zoo
def pointwise_head(image_shape: Shape, num_classes: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(image_shape[0], 8, 3), nn.ReLU(), nn.Conv2d(8, num_classes, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )


@zoo
def functional_linear(image_shape: Shape, num_classes: int) -> nn.Module:
    return Chain(
        lambda self, x: self.head(functional.linear(x.flatten(1), self.first.weight, self.first.bias).relu()),
        first=nn.Linear(pixels(image_shape), 16),
        head=nn.Linear(16, num_classes),
    )


@zoo
def custom_function(image_shape: Shape, num_classes: int) -> nn.Module:
    return Chain(
        lambda self, x: self.head(Doubling.apply(self.first(x.flatten(1))).relu()),
        first=nn.Linear(pixels(image_shape), 16),
        head=nn.Linear(16, num_classes),
    )


@zoo
def mixture(image_shape: Shape, num_classes: int) -> nn.Module:
    """Experts whose outputs a softmax of another layer mixes."""

    def forward(self: Any, x: Tensor) -> Any:
        x = x.flatten(1)
        shares = self.router(x).softmax(1)
        return self.head(shares[:, :1] * self.one(x).relu() + shares[:, 1:] * self.two(x).relu())

    size = pixels(image_shape)
    layers = {"router": nn.Linear(size, 2), "one": nn.Linear(size, 8), "two": nn.Linear(size, 8)}
    return Chain(forward, **layers, head=nn.Linear(8, num_classes))


@zoo
def bilinear(image_shape: Shape, num_classes: int) -> nn.Module:
    return Chain(
        lambda self, x: self.head(self.pairs(y := self.first(x.flatten(1)).relu(), y)),
        first=nn.Linear(pixels(image_shape), 8),
        pairs=nn.Bilinear(8, 8, 8),
        head=nn.Linear(8, num_classes),
    )


def __getattr__(name: str) -> Callable[[Shape, int], nn.Module]:
    """Those that are made in a loop are functions of the module too."""
    if name in ZOO:
        return ZOO[name]
    raise AttributeError(name)

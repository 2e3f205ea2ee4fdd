"""Multiply-adds of layers of every kind, against closed forms and PyTorch's own counter."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from trainables.analysis.multiply_adds import MultiplyAdds, multiply_adds
from trainables.models.prunable import prunable_weights
from trainables.models.registry import build_model


def counted(model: nn.Module, image_shape: tuple[int, int, int] = (1, 8, 8)) -> MultiplyAdds:
    return multiply_adds(model, set(prunable_weights(model)), image_shape)


class Part(nn.Module):
    """Layers by name, used by a function of the module and the images."""

    def __init__(self, function: Callable[..., Tensor], **layers: nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        return self.function(self, images_BCHW)


@pytest.mark.parametrize(("kind", "gates"), [(nn.LSTM, 4), (nn.GRU, 3), (nn.RNN, 1)])
def test_recurrent_layers_count_the_products_of_their_gates(kind: Callable[..., nn.Module], gates: int) -> None:
    model = Part(
        lambda self, images: self.head(self.rows(images.flatten(1, 2))[0].mean(1)),
        rows=kind(8, 16, num_layers=2, bidirectional=True, batch_first=True),
        head=nn.Linear(32, 10),
    )
    layers = 2 * 8 * gates * (16 * 8 + 16 * 16) + 2 * 8 * gates * (16 * 32 + 16 * 16)  # both directions, 8 rows
    assert counted(model) == MultiplyAdds(total=layers + 320, uses={"head.weight": 1})


def test_transformer_layer_counts_projections_and_products() -> None:
    model = Part(
        lambda self, images: self.head(self.layer(images.flatten(1, 2)).mean(1)),
        layer=nn.TransformerEncoderLayer(8, 2, 16, batch_first=True),
        head=nn.Linear(8, 3),
    )
    count = counted(model)
    assert count.total == 8 * 8 * 24 + 2 * (8 * 8 * 8) + 8 * 64 + 2 * 8 * 8 * 16 + 24
    uses = {"layer.self_attn.out_proj.weight": 8, "layer.linear1.weight": 8, "layer.linear2.weight": 8, "head.weight": 1}
    assert count.uses == uses


def test_layer_counts_every_row_and_call() -> None:
    model = Part(lambda self, images: self.rows(self.rows(images.flatten(1, 2))).mean(1), rows=nn.Linear(6, 6))
    assert counted(model, (3, 5, 6)) == MultiplyAdds(total=2 * 15 * 36, uses={"rows.weight": 2 * 15})


WAYS: dict[str, Callable[..., Tensor]] = {
    "functional": lambda self, images: functional.linear(images.flatten(1), self.first.weight, self.first.bias),
    "product": lambda self, images: images.flatten(1) @ self.first.weight.t(),
    "einsum": lambda self, images: torch.einsum("bi,oi->bo", images.flatten(1), self.first.weight),
    "batched": lambda self, images: torch.bmm(self.first.weight.expand(1, -1, -1), images.flatten(1).unsqueeze(2)).squeeze(2),
    "vector": lambda self, images: (self.first.weight @ images.flatten()).unsqueeze(0),
    "copied": lambda self, images: functional.linear(images.flatten(1), self.first.weight.clone()),
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_weight_counts_for_any_reader(way: Callable[..., Tensor]) -> None:
    model = Part(way, first=nn.Linear(64, 5), unused=nn.Linear(3, 3))
    assert counted(model) == MultiplyAdds(total=320, uses={"first.weight": 1, "unused.weight": 0})


SQUARE = torch.ones(3, 5, 5)
UNKNOWN: dict[str, tuple[Callable[..., Tensor], dict[str, int | None]]] = {
    "elementwise": (lambda self, images: (images.flatten(1)[:, None] * self.first.weight).sum(2), {"first.weight": None}),
    "fourier": (lambda self, images: self.first(torch.fft.fft(images.flatten(1)).real), {"first.weight": 1}),
    "bilinear": (lambda self, images: functional.bilinear(x := self.first(images.flatten(1)), x, SQUARE), {"first.weight": 1}),
    "parts": (lambda self, images: images.flatten(1) @ self.first.weight[:3].t(), {"first.weight": None}),
    "fails": (lambda self, images: self.missing(images), {"first.weight": None}),
}


@pytest.mark.parametrize(("function", "uses"), UNKNOWN.values(), ids=UNKNOWN)
def test_uncountable_operations_are_unknown(function: Callable[..., Tensor], uses: dict[str, int | None]) -> None:
    assert counted(Part(function, first=nn.Linear(64, 5))) == MultiplyAdds(total=None, uses=uses)


def test_operations_from_outside_pytorch_are_unknown() -> None:
    @torch.library.custom_op("drive_sweep_tests::doubled", mutates_args=())
    def doubled(values: Tensor) -> Tensor:
        return values * 2

    model = Part(lambda self, images: self.first(doubled(images.flatten(1))), first=nn.Linear(64, 5))
    assert counted(model).total is None


CONVOLUTIONS: dict[str, tuple[nn.Module, int]] = {
    "grouped": (nn.Conv2d(4, 8, 3, groups=2), 36 * 8 * 2 * 9),
    "depthwise": (nn.Conv2d(4, 4, 3, padding=1, groups=4), 64 * 4 * 9),
    "dilated": (nn.Conv2d(4, 4, 3, dilation=2), 16 * 16 * 9),
    "strided": (nn.Conv2d(4, 4, 3, stride=2, padding=1), 16 * 16 * 9),
    "transposed": (nn.ConvTranspose2d(4, 2, 2, stride=2), 64 * 8 * 4),  # every input pixel meets every weight once
}


@pytest.mark.parametrize(("layer", "expected"), CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_convolutions_match_counts_by_hand(layer: nn.Module, expected: int) -> None:
    assert multiply_adds(layer, set(), (4, 8, 8)).total == expected


def test_convolutions_of_other_dimensions_count_as_dense() -> None:
    rows = Part(lambda self, images: self.one(images.flatten(1, 2)).mean(2), one=nn.Conv1d(8, 4, 3))
    assert multiply_adds(rows, set(), (1, 8, 8)).total == 6 * 4 * 8 * 3
    cubes = Part(lambda self, images: self.three(images[:, None]).flatten(1), three=nn.Conv3d(1, 2, 2))
    assert multiply_adds(cubes, set(), (4, 8, 8)).total == 3 * 7 * 7 * 2 * 8


@pytest.mark.parametrize("name", ["convnet", "lenet300", "alexnet", "vgg11", "resnet20", "resnet18"])
def test_totals_match_pytorchs_counter(name: str) -> None:
    model = build_model(name, (3, 32, 32), 10).eval()
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 3, 32, 32))
    assert counted(model, (3, 32, 32)).total == counter.get_total_flops() // 2


def test_counting_changes_nothing() -> None:
    model = Part(lambda self, images: self.rows(images.flatten(1, 2))[0].mean(1), rows=nn.LSTM(8, 4, batch_first=True)).train()
    fast, dnn = torch.backends.mha.get_fastpath_enabled(), torch.backends.mkldnn.enabled
    multiply_adds(model, set(), (1, 8, 8))
    assert all(module.training for module in model.modules())
    assert (torch.backends.mha.get_fastpath_enabled(), torch.backends.mkldnn.enabled) == (fast, dnn)

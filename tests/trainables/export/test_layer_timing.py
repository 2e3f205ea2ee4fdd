"""What is timed computes what it should, and a measured table is one that trials accept."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from tests.support.timings import SHAPES
from tests.support.trials import tiny_config
from trainables.config.trial import TargetConfig
from trainables.custom.timing_table import parse_timing_table
from trainables.errors import ConfigError
from trainables.export.layer_timing import SPARSITIES, UnfoldedRows, layer_records, measure_network


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 6, 3, padding=1),
        nn.Conv2d(4, 6, (3, 2), stride=2, bias=False),
        nn.Conv2d(4, 6, 3, padding=2, dilation=2, groups=2),
        nn.Conv2d(6, 6, 3, groups=6),
    ],
)
def test_unfolded_convolution_computes_what_the_dense_one_does(layer: nn.Conv2d) -> None:
    with torch.no_grad():
        layer.weight.mul_(torch.rand_like(layer.weight) > 0.5)
        images = torch.randn(3, layer.in_channels, 9, 8)
        torch.testing.assert_close(UnfoldedRows(layer)(images), layer(images), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_measured_table_fits_the_network() -> None:
    record = measure_network("convnet", 1, (1, 8, 8), 10, sparsities=True, channels=True, batch=2, threads=1, seconds=0.01)
    table = parse_timing_table(json.dumps(record).encode())
    target = TargetConfig(latency=0.5)
    for config in (tiny_config(layer_sparsity="spdy", target=target), tiny_config(granularity="channel", target=target)):
        table.require_fitting(config, (1, 8, 8), SHAPES, list(SHAPES))
    for name, layer in table.layers.items():
        assert layer.sparsities == SPARSITIES
        assert layer.channels is not None
        assert (layer.channels.inputs[-1], layer.channels.outputs[-1]) == (SHAPES[name][1], SHAPES[name][0])
        assert 7 <= len(layer.channels.outputs) <= 8
    measured = record["measured"]
    assert (measured["batch"], measured["threads"], measured["device"]) == (2, 1, "cpu")
    assert 0 <= record["rest"] < measured["whole"]


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = self.layer(self.layer(images))
        return made


def test_layer_that_is_called_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match="layer layer must be called once for a batch to be timed, got 2 calls"):
        layer_records(Twice(), torch.zeros(1, 4), sparsities=True, channels=False, seconds=0.01)


def test_depthwise_and_grouped_layers_lose_what_can_go() -> None:
    network = nn.Sequential(nn.Conv2d(1, 8, 1), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 4, 1, groups=2))
    records, whole, rest = layer_records(network, torch.zeros(1, 1, 8, 8), sparsities=False, channels=True, seconds=0.01)
    assert whole > rest >= 0
    grids = [(record["channels"]["outputs"], record["channels"]["inputs"]) for record in records.values()]
    assert grids == [([1, 2, 3, 5, 6, 7, 8], [1]), ([1, 2, 3, 5, 6, 7, 8], [1]), ([2, 4], [1, 2, 3, 4])]
    assert all("sparsities" not in record for record in records.values())

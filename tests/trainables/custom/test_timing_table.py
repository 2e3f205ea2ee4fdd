"""The timing table: what is read from it, and each mistake in it by its place."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.timings import SHAPES, convnet_record, convnet_table
from tests.support.trials import tiny_config
from trainables.config.trial import TargetConfig
from trainables.custom.timing_table import ChannelTimes, parse_timing_table
from trainables.errors import ConfigError

SPDY = tiny_config(layer_sparsity="spdy", target=TargetConfig(latency=0.5))
CHANNELS = tiny_config(granularity="channel", target=TargetConfig(latency=0.5))
IMAGE = (1, 8, 8)


def test_times_are_in_the_unit_of_the_file() -> None:
    milliseconds, seconds = convnet_table(), convnet_table(unit="s")
    assert milliseconds.layers["head"].times[0] == 1e-3 * seconds.layers["head"].times[0]
    assert milliseconds.dense == pytest.approx(5e-6 + sum(layer.dense for layer in milliseconds.layers.values()))


def test_times_between_grid_points_are_bilinear() -> None:
    def plane(inputs: int, outputs: int) -> float:
        return 2 + 3 * inputs + 5 * outputs + 7 * inputs * outputs

    inputs, outputs = (1, 4, 6), (2, 3, 9)
    rows = tuple(tuple(float(plane(read, made)) for made in outputs) for read in inputs)
    times = ChannelTimes(outputs=outputs, inputs=inputs, times=rows)
    for read in range(1, 7):
        for made in range(2, 10):
            assert times.at(read, made) == pytest.approx(plane(read, made), rel=1e-12)
    assert times.at(4, 3) == plane(4, 3)


def changed(path: str, value: Any) -> Callable[[], dict[str, Any]]:
    """A record with another value at a path; None removes it."""

    def make() -> dict[str, Any]:
        record: dict[str, Any] = json.loads(json.dumps(convnet_record()))
        *parents, last = path.split("/")
        place: Any = record
        for step in parents:
            place = place[int(step)] if isinstance(place, list) else place[step]
        if value is None:
            del place[last]
        else:
            place[int(last) if isinstance(place, list) else last] = value
        return record

    return make


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("format", "other", "timings: format must be 'timing-table 1', got other"),
        ("unit", "us", "timings: unit must be one of ms, s, got us"),
        ("rest", -1, "timings: rest must be a time of at least 0, got -1"),
        ("rest", None, "timings: the file must have rest, got only format"),
        ("layers", {}, "timings: layers must be a mapping of layers"),
        ("layers/conv2/dense", float("nan"), r"timings: layers\.conv2\.dense must be a time above 0, got NaN"),
        ("layers/conv2/dense", True, r"timings: layers\.conv2\.dense must be a time above 0, got true"),
        ("layers/conv2/times/3", -0.1, r"timings: layers\.conv2\.times\[3\] must be a time above 0, got -0\.1"),
        ("layers/head/times", [1.0], r"timings: layers\.head\.times must be a list with one time for each of the sparsities"),
        (
            "layers/head/sparsities/0",
            0.95,
            r"timings: layers\.head\.sparsities must ascend between 0 and 1, got \[0\.95, 0\.75",
        ),
        ("layers/head/sparsities/4", 1.0, r"timings: layers\.head\.sparsities must ascend between 0 and 1"),
        ("layers/head/shape", [10], r"timings: layers\.head\.shape must have outputs and inputs, got \[10\]"),
        ("layers/conv1/channels/outputs/1", 1, r"timings: layers\.conv1\.channels\.outputs must be whole numbers above 0, asc"),
        ("layers/conv1/channels/outputs/4", 17, r"timings: layers\.conv1\.channels\.outputs must end with all 16 channels"),
        ("layers/conv1/channels/times/0", [1.0], r"timings: layers\.conv1\.channels\.times\[0\] must be 5 times"),
        ("layers/conv1/channels/times/0/0", float("inf"), r"timings: layers\.conv1\.channels\.times\[0\]\[0\] must be a time"),
        ("layers/conv1/dense", 0.5, r"timings: layers\.conv1\.channels\.times must end with the time of the dense layer"),
    ],
)
def test_mistake_is_refused_with_its_place(path: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_timing_table(json.dumps(changed(path, value)()).encode())


@pytest.mark.parametrize("content", [b"", b"[" * 100_000, b"[1]", b"\xff"])
def test_other_files_are_refused(content: bytes) -> None:
    with pytest.raises(ConfigError, match="timings: the file must be"):
        parse_timing_table(content)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("network", "vgg11", "must be of the network convnet for images of 1 x 8 x 8, got vgg11 for images of 1 x 8 x 8"),
        ("width", 2, "must be of the network convnet for images of 1 x 8 x 8, got convnet of width 2"),
        ("image_shape", [3, 32, 32], "got convnet for images of 3 x 32 x 32"),
        ("layers/conv3", None, r"must have layers\.conv3, got conv1, conv2, head"),
        ("layers/head/shape", [10, 12], r"layers\.head\.shape must be \[10, 128\], got \[10, 12\]"),
        ("layers/conv1/sparsities", None, r"layers\.conv1 must have sparsities, got none"),
    ],
)
def test_table_of_another_network_is_refused(path: str, value: Any, message: str) -> None:
    record = changed(path, value)()
    if path == "layers/head/shape":
        record["layers"]["head"]["channels"] = None
    if path == "layers/conv1/sparsities":
        del record["layers"]["conv1"]["times"]
    table = parse_timing_table(json.dumps(record).encode())
    with pytest.raises(ConfigError, match=message):
        table.require_fitting(SPDY, IMAGE, SHAPES, list(SHAPES))


def test_layers_that_stay_dense_need_no_sparsities_but_all_need_channels() -> None:
    record = convnet_record()
    for key in ("sparsities", "times", "channels"):
        del record["layers"]["conv1"][key]
    table = parse_timing_table(json.dumps(record).encode())
    table.require_fitting(SPDY, IMAGE, SHAPES, ["conv2", "conv3", "head"])
    with pytest.raises(ConfigError, match=r"layers\.conv1 must have channels, got none"):
        table.require_fitting(CHANNELS, IMAGE, SHAPES, ["conv2", "conv3", "head"])

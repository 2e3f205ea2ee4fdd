"""The timing table of a sweep: how long each layer of a network takes, densely, at sparsities, and with fewer channels.

It is a JSON file, measured by `drive-sweep timings` or written by the user (`drive-sweep guide timings`):

    {"format": "timing-table 1", "network": "convnet", "width": 1, "image_shape": [1, 8, 8], "unit": "ms", "rest": 0.05,
     "layers": {"conv1": {"shape": [16, 1, 3, 3], "dense": 0.1,
                          "sparsities": [0.5, 0.9], "times": [0.12, 0.04],
                          "channels": {"outputs": [1, 8, 16], "inputs": [1], "times": [[0.02, 0.06, 0.1]]}}}}

`rest` is the time of all that is no layer. A row of the times of channels is for one number of inputs. Outputs and inputs are
dimensions 0 and 1 of the layer's weight.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any, NoReturn

from trainables.config.trial import TrialConfig
from trainables.errors import ConfigError

FORMAT = "timing-table 1"
UNITS = {"ms": 1e-3, "s": 1.0}  # in seconds
MEASURE = "the command timings measures one for a sweep file"


@dataclass(frozen=True, kw_only=True, slots=True)
class ChannelTimes:
    """Seconds of a layer on a grid of numbers of channels.

    Attributes:
        outputs, inputs: ascending.
        times: a row for each number of inputs, in it one for each number of outputs.
    """

    outputs: tuple[int, ...]
    inputs: tuple[int, ...]
    times: tuple[tuple[float, ...], ...]

    def at(self, inputs: int, outputs: int) -> float:
        """Seconds with so many channels, interpolated linearly along both axes; exact on the grid."""
        lower, share = _position(self.inputs, inputs)
        rows = [self.times[each] for each in (lower, lower + (share > 0))]
        return _between([_interpolated(row, self.outputs, outputs) for row in rows], share)


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerTimes:
    """Seconds of one layer.

    Attributes:
        shape: of its weight.
        sparsities, times: ascending sparsities, and the time at each; empty if not measured.
        channels: None if not measured.
    """

    shape: tuple[int, ...]
    dense: float
    sparsities: tuple[float, ...] = ()
    times: tuple[float, ...] = ()
    channels: ChannelTimes | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class TimingTable:
    """Seconds of a network: of its layers by name, and of the rest."""

    network: str
    width: int
    image_shape: tuple[int, ...]
    rest: float
    layers: Mapping[str, LayerTimes]

    @property
    def dense(self) -> float:
        """Of the whole dense network."""
        return self.rest + sum(layer.dense for layer in self.layers.values())

    def require_fitting(
        self, config: TrialConfig, image_shape: Sequence[int], shapes: Mapping[str, tuple[int, ...]], prunable: Sequence[str]
    ) -> None:
        """Raises ConfigError if the table is of another network, or misses what the trial needs.

        Args:
            shapes: of the weights of all convolutional and linear layers, by layer.
            prunable: layers that the trial may prune.
        """
        mine = (self.network, self.width, tuple(self.image_shape))
        wanted = (config.model, config.width, tuple(image_shape))
        if mine != wanted:
            raise ConfigError(f"timings: must be of the network {_network(*wanted)}, got {_network(*mine)}", MEASURE)
        for name, shape in shapes.items():
            if name not in self.layers:
                raise ConfigError(f"timings: must have layers.{name}, got {', '.join(self.layers)}", MEASURE)
            if self.layers[name].shape != tuple(shape):
                got = list(self.layers[name].shape)
                raise ConfigError(f"timings: layers.{name}.shape must be {list(shape)}, got {got}", MEASURE)
        if unknown := sorted(self.layers.keys() - shapes.keys()):
            raise ConfigError(f"timings: layers must be those of {config.model}, got {unknown[0]} too", MEASURE)
        for name in shapes if config.prunes_channels else prunable:
            layer, key = self.layers[name], "channels" if config.prunes_channels else "sparsities"
            if (layer.channels is None) if config.prunes_channels else not layer.sparsities:
                raise ConfigError(f"timings: layers.{name} must have {key}, got none", MEASURE)


def parse_timing_table(content: bytes) -> TimingTable:
    """The table in a file.

    Raises:
        ConfigError: it is no table; the message names the place, the rule and the value.
    """
    try:
        record = json.loads(content)
    except (ValueError, RecursionError) as error:
        _refuse("the file", "be JSON", str(error))
    _require_keys("the file", record, ("format", "network", "image_shape", "unit", "rest", "layers"))
    if record["format"] != FORMAT:
        _refuse("format", f"be {FORMAT!r}", record["format"])
    if record["unit"] not in UNITS:
        _refuse("unit", f"be one of {', '.join(UNITS)}", record["unit"])
    if not isinstance(record["layers"], dict) or not record["layers"]:
        _refuse("layers", "be a mapping of layers", record["layers"])
    unit = UNITS[record["unit"]]
    return TimingTable(
        network=str(record["network"]),
        width=_counts("width", [record.get("width", 1)])[0],
        image_shape=_counts("image_shape", record["image_shape"], ascending=False),
        rest=_time("rest", record["rest"], unit, least=0.0),
        layers={name: _layer(f"layers.{name}", layer, unit) for name, layer in record["layers"].items()},
    )


def _layer(place: str, record: Any, unit: float) -> LayerTimes:
    _require_keys(place, record, ("shape", "dense"))
    shape = _counts(f"{place}.shape", record["shape"], ascending=False)
    if len(shape) < 2:
        _refuse(f"{place}.shape", "have outputs and inputs", list(shape))
    dense = _time(f"{place}.dense", record["dense"], unit)
    sparsities, times = record.get("sparsities", []), record.get("times", [])
    if not isinstance(sparsities, list) or not isinstance(times, list) or len(sparsities) != len(times):
        _refuse(f"{place}.times", "be a list with one time for each of the sparsities", times)
    if any(not _is_number(one) or not 0 < one < 1 for one in sparsities) or sparsities != sorted(set(sparsities)):
        _refuse(f"{place}.sparsities", "ascend between 0 and 1", sparsities)
    channels = record.get("channels")
    return LayerTimes(
        shape=shape,
        dense=dense,
        sparsities=tuple(float(one) for one in sparsities),
        times=tuple(_time(f"{place}.times[{index}]", one, unit) for index, one in enumerate(times)),
        channels=None if channels is None else _channel_times(f"{place}.channels", channels, shape, dense, unit),
    )


def _channel_times(place: str, record: Any, shape: tuple[int, ...], dense: float, unit: float) -> ChannelTimes:
    _require_keys(place, record, ("outputs", "inputs", "times"))
    outputs, inputs = (_counts(f"{place}.{axis}", record[axis]) for axis in ("outputs", "inputs"))
    for axis, counts, full in (("outputs", outputs, shape[0]), ("inputs", inputs, shape[1])):
        if counts[-1] != full:
            _refuse(f"{place}.{axis}", f"end with all {full} channels", list(counts))
    rows = record["times"]
    if not isinstance(rows, list) or len(rows) != len(inputs):
        _refuse(f"{place}.times", f"be {len(inputs)} rows, one for each number of inputs", rows)
    for index, row in enumerate(rows):
        if not isinstance(row, list) or len(row) != len(outputs):
            _refuse(f"{place}.times[{index}]", f"be {len(outputs)} times, one for each number of outputs", row)
    times = tuple(
        tuple(_time(f"{place}.times[{index}][{column}]", one, unit) for column, one in enumerate(row))
        for index, row in enumerate(rows)
    )
    if times[-1][-1] != dense:
        _refuse(f"{place}.times", "end with the time of the dense layer", rows[-1][-1])
    return ChannelTimes(outputs=outputs, inputs=inputs, times=times)


def _counts(place: str, values: Any, ascending: bool = True) -> tuple[int, ...]:
    whole = isinstance(values, list) and values and all(type(one) is int and one > 0 for one in values)
    if not whole or (ascending and values != sorted(set(values))):
        _refuse(place, f"be whole numbers above 0{', ascending' if ascending else ''}", values)
    return tuple(values)


def _time(place: str, value: Any, unit: float, least: float | None = None) -> float:
    """Seconds; above 0, or at least `least`."""
    if not _is_number(value) or not isfinite(value) or value < (least or 0.0) or (least is None and value == 0):
        _refuse(place, "be a time above 0" if least is None else "be a time of at least 0", value)
    return float(value) * unit


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _require_keys(place: str, record: Any, keys: Sequence[str]) -> None:
    if not isinstance(record, dict):
        _refuse(place, "be a mapping", record)
    if missing := [key for key in keys if key not in record]:
        _refuse(place, f"have {missing[0]}", f"only {', '.join(record)}")


def _refuse(place: str, rule: str, value: Any) -> NoReturn:
    text = value if isinstance(value, str) else json.dumps(value)
    raise ConfigError(f"timings: {place} must {rule}, got {text[:100]}", f"correct it; {MEASURE}")


def _network(name: str, width: int, image_shape: tuple[int, ...]) -> str:
    wide = f" of width {width}" if width != 1 else ""
    return f"{name}{wide} for images of {' x '.join(str(one) for one in image_shape)}"


def _interpolated(values: Sequence[float], grid: Sequence[int], count: int) -> float:
    lower, share = _position(grid, count)
    return _between([values[each] for each in (lower, lower + (share > 0))], share)


def _position(grid: Sequence[int], count: int) -> tuple[int, float]:
    """Index of the grid point at or below a count, and the share of the way to the next one."""
    assert grid[0] <= count <= grid[-1], f"{count} is outside of {grid}"
    lower = bisect_right(grid, count) - 1
    return lower, 0.0 if grid[lower] == count else (count - grid[lower]) / (grid[lower + 1] - grid[lower])


def _between(ends: Sequence[float], share: float) -> float:
    return ends[0] if share == 0 else ends[0] + share * (ends[1] - ends[0])

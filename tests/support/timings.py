"""Timing tables of known numbers: times follow from multiply-adds or from sparsities by a formula, not from a clock."""

from __future__ import annotations

import json
from math import prod
from pathlib import Path
from typing import Any

from trainables.config.trial import TrialConfig
from trainables.custom.files import CustomFiles
from trainables.custom.timing_table import FORMAT, TimingTable, parse_timing_table

GRID = (0.5, 0.75, 0.9, 0.96, 0.99)
SHAPES = {"conv1": (16, 1, 3, 3), "conv2": (32, 16, 3, 3), "conv3": (32, 32, 3, 3), "head": (10, 128)}
PIXELS = {"conv1": 64, "conv2": 16, "conv3": 16, "head": 1}


def convnet_record(**changes: Any) -> dict[str, Any]:
    """A table of the network convnet on digits: 1 us for each 1,000 multiply-adds, and 2 us for each layer; the rest is 5 us.

    Sparse layers take 40 % more for each weight, so 50 % sparsity is little faster than none.
    """
    layers = {}
    for name, shape in SHAPES.items():
        outputs, inputs = _grid(shape[0]), _grid(shape[1])
        work = prod(shape[2:]) * PIXELS[name] / 1e6
        rows = [[0.002 + work * rest * made for made in outputs] for rest in inputs]
        layers[name] = {
            "shape": list(shape),
            "dense": rows[-1][-1],
            "sparsities": list(GRID),
            "times": [0.002 + 1.4 * work * shape[0] * shape[1] * (1 - sparsity) for sparsity in GRID],
            "channels": {"outputs": outputs, "inputs": inputs, "times": rows},
        }
    record = {"format": FORMAT, "network": "convnet", "width": 1, "image_shape": [1, 8, 8], "unit": "ms", "rest": 0.005}
    return record | {"layers": layers} | changes


def _grid(full: int) -> list[int]:
    return sorted({1, *(max(1, full * part // 4) for part in (1, 2, 3, 4))})


def convnet_table(**changes: Any) -> TimingTable:
    return parse_timing_table(json.dumps(convnet_record(**changes)).encode())


def planned_timings(folder: Path, config: TrialConfig, **changes: Any) -> CustomFiles:
    """The custom files of a trial with the table in this folder."""
    file = folder / "timings.json"
    file.write_text(json.dumps(convnet_record(**changes)))
    return CustomFiles(timings=str(file)).with_digests([config])

"""A timing table of a network on this device, whole: dense layers, sparsities, channels; and that its reader takes it."""

from __future__ import annotations

import json
from collections.abc import Iterator

from tests.gpu.rows import Bench, Row, checked, measured
from trainables.custom.timing_table import parse_timing_table
from trainables.export.layer_timing import SPARSITIES, measure_network
from trainables.runtime.device import Runtime

CLASSES = 10


def measure(bench: Bench) -> Iterator[Row]:
    model, shape, batch = ("convnet", (3, 8, 8), 8) if bench.brief else ("resnet20", (3, 32, 32), 16)
    Runtime(device=bench.device, deterministic=False).activate()
    table = measure_network(
        model, 1, shape, CLASSES, sparsities=True, channels=True, batch=batch, threads=1, device=bench.device, seconds=0.0
    )
    layers = parse_timing_table(json.dumps(table).encode()).layers
    dense_s = sum(layer.dense for layer in layers.values())
    note = f"its {len(layers)} layers alone {1000 * dense_s:.3f} ms"
    yield measured(f"{model}, {batch} images: the whole network", round(table["measured"]["whole"], 3), "ms", note=note)
    positive = all(min(layer.dense, *layer.times) > 0 for layer in layers.values())
    complete = all(layer.sparsities == SPARSITIES and layer.channels is not None for layer in layers.values())
    yield checked("its timing table", positive and complete, "has all sparsities and channels, and its reader takes it")
    for index in (len(SPARSITIES) // 2, -1):
        faster = [name for name, layer in layers.items() if layer.times[index] < layer.dense]
        label = f"{model}: layers that are faster as sparse rows at sparsity {SPARSITIES[index]:.2f}"
        yield measured(label, len(faster), f"of {len(layers)}", note=", ".join(faster))

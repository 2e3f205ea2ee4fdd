"""How long an exported model takes beside dense ones, measured in one process in turns (fresh_process.py)."""

from __future__ import annotations

import copy
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from trainables.export import network_graph, torch_format
from trainables.export.format import Exported
from trainables.export.sparse_model import SparseModel
from trainables.pruning.masks import full_masks

BATCHES = [1, 64]  # images
SECONDS = 1.0  # for each of them
SPREAD = (0.1, 0.9)  # quantiles
FILLING = 1e-3  # in place of a pruned weight: changes no speed by being too small for a normal number


@dataclass(frozen=True, kw_only=True, slots=True)
class Measurement:
    """Milliseconds of one model: median, and the range of the middle 80 %."""

    label: str
    median: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Latency:
    """The models for one size of batch; the exported one is the last, the one before it is dense in the same runtime.

    Attributes:
        speedup: of the exported model against that one: median, low and high over rounds.
    """

    batch: int
    rounds: int
    models: tuple[Measurement, ...]
    speedup: tuple[float, float, float]

    @property
    def verdict(self) -> str:
        """Faster or slower if nine of ten rounds say so."""
        _, low, high = self.speedup
        return "faster" if low > 1 else "slower" if high < 1 else "no faster"


def dense_models(exported: Exported, model: SparseModel, scratch: Path) -> dict[str, Exported]:
    """The same network with no weight zero, by label: in PyTorch, and last in the runtime of the exported model."""
    plain, twin = scratch / "dense", dense_twin(model)
    plain.mkdir()
    graph = exported.folder / network_graph.FILE
    if graph.exists():
        shutil.copy(graph, plain)
    code = torch_format.write_weights(twin, plain) if graph.exists() else torch_format.write(twin, plain)
    dense = {"dense, PyTorch": Exported(format=torch_format.FORMAT, folder=plain, code=code, packages=("torch",))}
    if exported.format.write_dense is not None:
        same = scratch / "dense-in-runtime"
        same.mkdir()
        exported.format.write_dense(exported.folder, same)
        dense[f"dense, {exported.format.runtime}"] = replace(exported, folder=same)
    return dense


def dense_twin(model: SparseModel) -> SparseModel:
    """The same network, in which small numbers take the place of pruned weights."""
    network = copy.deepcopy(model.network)
    weights = dict(network.named_parameters())
    with torch.no_grad():
        for name, mask in model.masks.items():
            weights[name].masked_fill_(~mask, FILLING)
    return replace(model, network=network, masks=full_masks({name: weights[name] for name in model.masks}))


def summarize(labels: list[str], batch: int, times: list[list[float]]) -> Latency:
    """The figures of seconds by model and round."""
    models = []
    for label, seconds in zip(labels, times, strict=True):
        low, median, high = (1000 * float(value) for value in np.quantile(seconds, [SPREAD[0], 0.5, SPREAD[1]]))
        models.append(Measurement(label=label, median=median, low=low, high=high))
    low, median, high = (float(one) for one in np.quantile(np.divide(times[-2], times[-1]), [SPREAD[0], 0.5, SPREAD[1]]))
    return Latency(batch=batch, rounds=len(times[-1]), models=tuple(models), speedup=(median, low, high))

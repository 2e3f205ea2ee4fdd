"""Export as a state dict of dense weights, for torch.load with weights_only=True, beside the network's graph."""

from __future__ import annotations

from pathlib import Path

import torch

from trainables.export.format import Format
from trainables.export.network_graph import graph_of, loading_code, state_of, write_network
from trainables.export.sparse_model import SparseModel

WEIGHTS = "weights.pt"


def write(model: SparseModel, folder: Path) -> str:
    write_network(graph_of(model), folder)
    return write_weights(model, folder)


def write_weights(model: SparseModel, folder: Path) -> str:
    """What `write` does where the network's graph is there already."""
    torch.save(state_of(model), folder / WEIGHTS)
    return loading_code(model, f'\nweights = torch.load("{WEIGHTS}", weights_only=True)\n')


FORMAT = Format(write=write, tolerance=0.0, runtime="PyTorch")

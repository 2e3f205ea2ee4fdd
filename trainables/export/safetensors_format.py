"""Export as safetensors: the dense weights in one file, the masks in another, beside the network's graph."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors.torch import save_file

from trainables.export.format import Format
from trainables.export.network_graph import graph_of, loading_code, state_of, write_network
from trainables.export.sparse_model import SparseModel

WEIGHTS, MASKS = "model.safetensors", "masks.safetensors"
# Tensors of a mapped file begin anywhere, and the last bits of some kernels depend on where they begin; so they are copied.
LOADING = """
weights = {{name: tensor.clone() for name, tensor in load_file("{weights}").items()}}
"""


def write(model: SparseModel, folder: Path) -> str:
    write_network(graph_of(model), folder)
    save_file({name: value.contiguous() for name, value in state_of(model).items()}, folder / WEIGHTS, metadata_of(model))
    save_file({name: mask.contiguous() for name, mask in model.masks.items()}, folder / MASKS, {"format": "pt"})
    return loading_code(model, LOADING.format(weights=WEIGHTS), "from safetensors.torch import load_file\n")


def metadata_of(model: SparseModel) -> dict[str, str]:
    """What the header of a safetensors file says about the model."""
    card = model.card
    values = {
        "network": card.model,
        "image_shape": card.image_shape,
        "num_classes": card.num_classes,
        "mean": card.normalization.mean,
        "std": card.normalization.std,
        "model_sha256": model.sha256,
        "kept": {name: int(mask.count_nonzero()) for name, mask in model.masks.items()},
        "prunable": {name: mask.numel() for name, mask in model.masks.items()},
    }
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in values.items()}
    return {"format": "pt", **texts}


FORMAT = Format(write=write, tolerance=0.0, runtime="PyTorch")

"""Export of every pruned weight as compressed sparse rows, beside the network's graph.

A weight of shape (outputs, ...) is a matrix with a row for each output. Its tensors in model.safetensors are
NAME.crow_indices (rows + 1), NAME.col_indices and NAME.values (kept weights), NAME.shape (of the weight). What is not pruned is
dense. Linear layers run on the sparse matrix; PyTorch has no sparse convolution, so other weights become dense when they are
loaded.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import Node

from trainables.export.format import ExportRefusedError, Format
from trainables.export.network_graph import graph_of, loading_code, state_of, write_network
from trainables.export.safetensors_format import WEIGHTS, metadata_of
from trainables.export.sparse_model import SparseModel

TOLERANCE = 1e-4  # the order of additions is another one
LOADING = """
SPARSE = {sparse}  # layers that run on compressed sparse rows

tensors = load_file("{weights}")
pruned = [name.removesuffix(".crow_indices") for name in tensors if name.endswith(".crow_indices")]
parts = tuple(f"{{name}}." for name in pruned)
weights = {{name: tensor.clone() for name, tensor in tensors.items() if not name.startswith(parts)}}
for name in pruned:
    shape = tensors[f"{{name}}.shape"].tolist()
    matrix = torch.sparse_csr_tensor(
        tensors[f"{{name}}.crow_indices"],
        tensors[f"{{name}}.col_indices"],
        tensors[f"{{name}}.values"],
        size=(shape[0], torch.Size(shape[1:]).numel()),
    )
    weights[name] = matrix if name in SPARSE else matrix.to_dense().view(shape)

"""


def write(model: SparseModel, folder: Path) -> str:
    masks = pruned_masks(model, "csr")
    program = graph_of(model)
    sparse = [name for name in linear_weights(program) if name in masks]
    write_network(program, folder)
    tensors: dict[str, Tensor] = {}
    for name, value in state_of(model).items():
        tensors |= _rows(name, value, masks[name]) if name in masks else {name: value.contiguous()}
    save_file(tensors, folder / WEIGHTS, metadata_of(model))
    weights = LOADING.format(sparse=json.dumps(sparse), weights=WEIGHTS)
    return loading_code(model, weights, "from safetensors.torch import load_file\n")


def pruned_masks(model: SparseModel, name: str) -> dict[str, Tensor]:
    """The masks of the weights that are not dense.

    Raises:
        ExportRefusedError: there are none.
    """
    masks = {weight: mask for weight, mask in model.masks.items() if not bool(mask.all())}
    if not masks:
        raise ExportRefusedError(
            f"--format {name} must have a pruned weight, got a dense model", "--format safetensors holds dense weights"
        )
    return masks


def linear_weights(program: ExportedProgram) -> list[str]:
    """Weights that are only those of linear layers on rows of features, so that a sparse matrix can take their place."""
    nodes = {node.name: node for node in program.graph.nodes}
    return [
        name
        for placeholder, name in program.graph_signature.inputs_to_parameters.items()
        if nodes[placeholder].users and all(_is_linear_on_rows(user, nodes[placeholder]) for user in nodes[placeholder].users)
    ]


def _is_linear_on_rows(user: Node, weight: Node) -> bool:
    if user.target != torch.ops.aten.linear.default or user.args[1] is not weight or user.args[0] is weight:
        return False
    assert isinstance(user.args[0], Node)
    return bool(user.args[0].meta["val"].dim() == 2)


def _rows(name: str, value: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """The tensors of a weight; those that are kept and zero stay kept."""
    matrix, kept = value.reshape(len(value), -1), mask.reshape(len(value), -1)
    counts = kept.sum(dim=1)
    return {
        f"{name}.crow_indices": torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)]).int(),
        f"{name}.col_indices": kept.nonzero()[:, 1].int().contiguous(),
        f"{name}.values": matrix[kept],
        f"{name}.shape": torch.tensor(value.shape),
    }


FORMAT = Format(write=write, tolerance=TOLERANCE, runtime="PyTorch")

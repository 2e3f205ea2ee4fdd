"""Export of 2:4 sparse weights in the layout of sparse tensor cores, beside the network's graph.

A weight of shape (outputs, inputs, ...) is a matrix with a row for each output and kernel position, and a column for each input
channel. Of every four consecutive columns a row keeps two: NAME.values (rows, inputs / 2), in the order of the columns, and
NAME.indices, the place of each value among its four, 2 bits each, the first one in the lowest bits of a byte; NAME.shape is
that of the weight. Where fewer than two are kept, zeros fill up. What is not pruned is dense.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from trainables.export.csr_format import linear_weights, pruned_masks
from trainables.export.format import ExportRefusedError, Format
from trainables.export.network_graph import graph_of, loading_code, state_of, write_network
from trainables.export.safetensors_format import WEIGHTS, metadata_of
from trainables.export.sparse_model import SparseModel

N, M = 2, 4
ROWS, COLUMNS = 32, 64  # what sparse kernels in half precision take multiples of
LOADING = """
tensors = load_file("{weights}")
packed = [name.removesuffix(".indices") for name in tensors if name.endswith(".indices")]
parts = tuple(f"{{name}}." for name in packed)
weights = {{name: tensor.clone() for name, tensor in tensors.items() if not name.startswith(parts)}}
for name in packed:
    values, shape = tensors[f"{{name}}.values"], tensors[f"{{name}}.shape"].tolist()
    rows, kept = values.shape
    places = tensors[f"{{name}}.indices"].long()[:, None] >> torch.tensor([0, 2, 4, 6]) & 3
    columns = places.flatten()[: rows * kept].view(rows, kept) + torch.arange(kept) // 2 * 4
    matrix = torch.zeros(rows, 2 * kept).scatter_(1, columns, values)
    weights[name] = matrix.view(shape[0], *shape[2:], shape[1]).movedim(-1, 1).contiguous()

"""
ON_A_GPU = """

# On a GPU: linear layers whose size its sparse tensor cores take, in half precision.
if torch.cuda.is_available():
    from torch.sparse import to_sparse_semi_structured

    SPARSE = {sparse}
    on_gpu = {{name: weight.cuda() for name, weight in network.state_dict().items()}}
    on_gpu |= {{name: to_sparse_semi_structured(on_gpu[name].half()) for name in SPARSE}}
    gpu_network = torch.export.load("network.pt2").module().cuda()
    gpu_network.load_state_dict(on_gpu, assign=True)
    with torch.no_grad(), torch.autocast("cuda", dtype=torch.float16):
        print(gpu_network(images.cuda()).argmax(1))
"""


def write(model: SparseModel, folder: Path) -> str:
    masks = pruned_masks(model, "2:4")
    for name, mask in masks.items():
        require_two_of_four(name, mask)
    program = graph_of(model)
    sparse = [name for name in linear_weights(program) if name in masks and fits_kernels(masks[name])]
    write_network(program, folder)
    tensors: dict[str, Tensor] = {}
    for name, value in state_of(model).items():
        tensors |= _packed(name, value, masks[name]) if name in masks else {name: value.contiguous()}
    save_file(tensors, folder / WEIGHTS, metadata_of(model))
    code = loading_code(model, LOADING.format(weights=WEIGHTS), "from safetensors.torch import load_file\n")
    return code + (ON_A_GPU.format(sparse=json.dumps(sparse)) if sparse else "")


def require_two_of_four(name: str, mask: Tensor) -> None:
    """Raises ExportRefusedError, naming the first group, if a row keeps more than 2 of 4 consecutive input channels."""
    hint = '`method: srste` with `pattern: "2:4"` trains such masks; --format csr holds any mask'
    inputs = mask.shape[1]
    if inputs % M:
        raise ExportRefusedError(f"{name} must have a multiple of {M} input channels to be 2:4, got {inputs}", hint)
    groups = mask.movedim(1, -1).reshape(len(mask), -1, inputs // M, M)
    counts = groups.sum(-1)
    if not bool((counts > N).any()):
        return
    output, position, group = (counts > N).nonzero()[0].tolist()
    kernel = mask.shape[2:]
    at = f", kernel position {_unravel(position, tuple(kernel))}" if len(kernel) else ""
    first = group * M
    raise ExportRefusedError(
        f"{name} must keep at most {N} of every {M} consecutive input channels, got {int(counts[output, position, group])} "
        f"in channels {first} to {first + M - 1} of output {output}{at}",
        hint,
    )


def is_two_of_four(mask: Tensor) -> bool:
    """Whether at most 2 of every 4 consecutive input channels are kept everywhere."""
    try:
        require_two_of_four("", mask)
    except ExportRefusedError:
        return False
    return True


def _unravel(index: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(int(one) for one in torch.unravel_index(torch.tensor(index), shape))


def fits_kernels(mask: Tensor) -> bool:
    """Whether sparse kernels in half precision take a weight of this shape."""
    return mask.dim() == 2 and mask.shape[0] % ROWS == 0 and mask.shape[1] % COLUMNS == 0


def _packed(name: str, value: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """The tensors of a weight whose mask is 2:4."""
    groups = mask.movedim(1, -1).reshape(-1, M)
    # Kept ones first, then the first of the others, so that there are always two.
    places = groups.sort(dim=1, descending=True, stable=True).indices[:, :N].sort(dim=1).values
    values = value.movedim(1, -1).reshape(-1, M).gather(1, places)
    rows = value.numel() // value.shape[1]
    return {
        f"{name}.values": values.reshape(rows, -1).contiguous(),
        f"{name}.indices": _bytes_of(places.flatten()),
        f"{name}.shape": torch.tensor(value.shape),
    }


def _bytes_of(places: Tensor) -> Tensor:
    """Four numbers of 0..3 in each byte."""
    filled = torch.nn.functional.pad(places, (0, -len(places) % 4)).view(-1, 4)
    return (filled << torch.tensor([0, 2, 4, 6])).sum(1).to(torch.uint8)


FORMAT = Format(write=write, tolerance=0.0, runtime="PyTorch")

"""The network of a model as a graph that plain PyTorch loads and runs, without this project and without pickle.

The graph takes images in 0..1 and normalises them itself. Its file network.pt2 (torch.export) holds no weights: each one is a
single zero of the right shape, so that loading it without weights of its own cannot go unnoticed.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from trainables.export.format import ExportRefusedError, example_code
from trainables.export.sparse_model import SparseModel

FILE = "network.pt2"
EXAMPLES = 3  # images that the network is traced with; torch.export takes 0 and 1 for fixed sizes
PLACES = ("stack_trace", "nn_module_stack", "source_fn_stack")  # of the source code, on the machine that exports


def graph_of(model: SparseModel) -> ExportedProgram:
    """The network with its weights: float32 images (batch, C, H, W) in 0..1 -> float32 class scores (batch, classes).

    Raises:
        ExportRefusedError: PyTorch cannot follow the network's code.
    """
    images = torch.zeros(EXAMPLES, *model.card.image_shape)
    try:
        with _taking_raw_images(model), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.export.export(model.network, (images,), dynamic_shapes=({0: Dim("batch")},))
    except Exception as error:  # of many types, from the network's code too
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ExportRefusedError(
            f"network {model.card.model} cannot be exported as a graph, since torch.export says: {reason}",
            "write its forward() without decisions on values and without a fixed batch size; load_sparse_model loads it here",
        ) from error
    for node in program.graph.nodes:
        for place in PLACES:
            node.meta.pop(place, None)
    return program


@contextmanager
def _taking_raw_images(model: SparseModel) -> Iterator[None]:
    """Lets the network do what `SparseModel.predict` does before and after it."""
    normalization = model.card.normalization
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (normalization.mean, normalization.std))

    def before(_: nn.Module, arguments: tuple[Tensor]) -> Tensor:
        return ((arguments[0] - mean) / std).contiguous(memory_format=model.memory_format)

    def after(_: nn.Module, arguments: tuple[Tensor], scores: Tensor) -> Tensor:
        return scores.float()

    handles = [model.network.register_forward_pre_hook(before), model.network.register_forward_hook(after)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def write_network(program: ExportedProgram, folder: Path) -> None:
    """Writes network.pt2; the program loses its weights."""
    for name, value in program.state_dict.items():
        zeros = torch.zeros((), dtype=value.dtype).expand(value.shape)
        is_parameter = isinstance(value, nn.Parameter)
        program.state_dict[name] = nn.Parameter(zeros, requires_grad=False) if is_parameter else zeros
    program.example_inputs = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of tensors that are smaller than their shape
        torch.export.save(program, folder / FILE)


def loading_code(model: SparseModel, weights: str, imports: str = "") -> str:
    """The code of a format whose weights go into network.pt2.

    Args:
        weights: lines that define `weights`, the state dict.
    """
    in_channels_last = model.memory_format == torch.channels_last
    return (
        f"import torch\n{imports}{weights}"
        f'network = torch.export.load("{FILE}").module()\n'
        "network.load_state_dict(weights, assign=True)\n"
        + ("network.to(memory_format=torch.channels_last)\n" if in_channels_last else "")
        + example_code(model, "with torch.no_grad():\n    return network(images)", "torch.rand({shape})")
    )


def state_of(model: SparseModel) -> dict[str, Tensor]:
    """The dense weights by name, pruned ones zero."""
    return {name: value.detach() for name, value in model.network.state_dict().items()}

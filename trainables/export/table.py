"""The table of formats, without PyTorch. To add one, write its `FORMAT` in a file of this folder, and its entry here."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trainables.export.format import Format


@dataclass(frozen=True, kw_only=True, slots=True)
class ListedFormat:
    """A format by its name, before its module is imported.

    Attributes:
        description: for the help and for the model card.
        packages: that the loading code imports.
        extra: of this project's packages, which installs `modules`; empty where nothing besides is needed.
        modules: that the export imports.
        note: on its speed; empty if there is nothing to say.
    """

    name: str
    module: str
    description: str
    packages: tuple[str, ...]
    extra: str = ""
    modules: tuple[str, ...] = ()
    note: str = ""

    def load(self) -> Format:
        format_: Format = import_module(f"{__package__}.{self.module}").FORMAT
        return format_


_ALL = (
    ListedFormat(
        name="torch",
        module="torch_format",
        description="a state dict for torch.load, and the network as a graph",
        packages=("torch",),
    ),
    ListedFormat(
        name="safetensors",
        module="safetensors_format",
        description="dense weights and their masks as safetensors, and the network as a graph",
        packages=("torch", "safetensors"),
    ),
    ListedFormat(
        name="onnx",
        module="onnx_format",
        description="one ONNX file with a free batch size",
        packages=("onnxruntime", "numpy"),
        extra="onnx",
        modules=("onnx", "onnxscript", "onnxruntime"),
    ),
    ListedFormat(
        name="csr",
        module="csr_format",
        description="every pruned weight as compressed sparse rows, and the network as a graph",
        packages=("torch", "safetensors"),
        note="Linear layers run on their sparse matrices. PyTorch has no sparse convolution, so those of convolutions are made "
        "dense when they are loaded.",
    ),
    ListedFormat(
        name="2:4",
        module="two_four_format",
        description="two of every four weights along the input channels, with 2-bit indices, and the network as a graph",
        packages=("torch", "safetensors"),
        note="A CPU runs the weights as dense ones. Only sparse tensor cores of a GPU skip zeros, which was not measured.",
    ),
)
FORMATS: dict[str, ListedFormat] = {each.name: each for each in _ALL}

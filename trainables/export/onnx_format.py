"""Export as one ONNX file. Its graph takes images in 0..1 and normalises them itself; BN is folded into the convolutions."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from trainables.export.format import ExportRefusedError, Format, example_code
from trainables.export.network_graph import graph_of
from trainables.export.sparse_model import SparseModel

if TYPE_CHECKING:
    from onnx import ModelProto

FILE, INPUT, OUTPUT, BATCH = "model.onnx", "images", "scores", "batch"
TOLERANCE = 1e-4  # ONNX Runtime has other kernels, and BN is folded
FILLING = 1e-3  # in place of a zero: changes no speed by being too small for a normal number
LOADING = f"""import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession("{FILE}", providers=["CPUExecutionProvider"])
"""


def write(model: SparseModel, folder: Path) -> str:
    import onnx

    if model.card.spiking.is_on:
        raise ExportRefusedError(
            "a spiking network is not exported as ONNX, whose runtime rounds otherwise: a neuron at its threshold would then "
            "spike in one of the two alone",
            "take torch or safetensors, which run in PyTorch",
        )
    program = graph_of(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exported = torch.onnx.export(program, input_names=[INPUT], output_names=[OUTPUT], dynamo=True, verbose=False)
    assert exported is not None
    exported.save(folder / FILE, external_data=False)
    proto = onnx.load(folder / FILE)
    _name_batch(proto)
    onnx.checker.check_model(proto, full_check=True)
    onnx.save(proto, folder / FILE)
    predict = f'return session.run(None, {{"{INPUT}": images}})[0]'
    return LOADING + example_code(model, predict, 'np.random.rand({shape}).astype("float32")')


def _name_batch(proto: ModelProto) -> None:
    """Gives the free batch size its name, instead of a symbol of torch.export."""
    graph = proto.graph
    symbol = graph.input[0].type.tensor_type.shape.dim[0].dim_param
    for value in (*graph.input, *graph.output, *graph.value_info):
        for dimension in value.type.tensor_type.shape.dim:
            if dimension.dim_param == symbol:
                dimension.dim_param = BATCH


def write_dense(source: Path, folder: Path) -> None:
    """The same graph with small numbers in place of zeros."""
    import onnx
    from onnx import numpy_helper

    proto = onnx.load(source / FILE)
    for tensor in proto.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.float32 and values.ndim > 1:
            tensor.CopyFrom(numpy_helper.from_array(np.where(values == 0, np.float32(FILLING), values), tensor.name))
    onnx.save(proto, folder / FILE)


FORMAT = Format(write=write, tolerance=TOLERANCE, runtime="ONNX Runtime", write_dense=write_dense)

"""Files of exported models, read by other means than the code that belongs to them; and what each format refuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import safetensors
import scipy.sparse
import torch
from safetensors.numpy import load_file
from torch import Tensor, nn

from orchestrator.export.card import model_card
from orchestrator.export.facts import facts_of
from orchestrator.export.images import compared_images
from tests import ROOT
from tests.support.export_sweep import export_sweep, recommended_model, spec_of
from tests.support.exported_models import dense_model, images, model_of, two_of_four_model
from trainables.export import csr_format, network_graph, onnx_format, safetensors_format, torch_format, two_four_format
from trainables.export.format import ExportRefusedError
from trainables.export.sparse_model import SparseModel
from trainables.export.table import FORMATS
from trainables.export.verification import Verification

# Runs the code blocks of model cards in a process that has no folder of this project on its path.
OUTSIDE = """
import os, pathlib, re, sys
import numpy as np
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("trainables", "orchestrator"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Blocker())
results = pathlib.Path(sys.argv[1])
images = np.load(results / "images.npy")
for number, folder in enumerate(sys.argv[2:]):
    os.chdir(folder)
    (code,) = re.findall(r"```python\\n(.*?)```", pathlib.Path("README.md").read_text(), re.DOTALL)
    names = {}
    exec(code, names)
    given = images if isinstance(names["images"], np.ndarray) else sys.modules["torch"].from_numpy(images)
    weights = names.get("weights", {}).values()
    assert all(one.data_ptr() % 64 == 0 for one in weights if one.layout == sys.modules["torch"].strided), "bits may differ"
    np.save(results / f"scores{number}.npy", np.asarray(names["predict"](given)))
    np.save(results / f"first{number}.npy", np.asarray(names["predict"](given[:1])))
"""
pytestmark = pytest.mark.slow
PRUNED = ["conv2.weight", "conv3.weight", "head.weight"]


@dataclass(frozen=True)
class Trained:
    """A small trained trial: its model, with 2:4 masks; format -> folder with its files and its model card."""

    model: SparseModel
    folders: dict[str, Path]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    sweep = export_sweep(tmp_path_factory.mktemp("sweep"))
    selection, model = recommended_model(sweep)
    given = compared_images(spec_of(sweep), sweep.storage, selection.result)
    same = Verification(
        images=40,
        max_difference=0.0,
        accepted=0.0,
        equal_decisions=40,
        decisions=torch.zeros(40, dtype=torch.int64),
        latency=(),
    )
    folders = {}
    for name, listed in FORMATS.items():
        folder = folders[name] = tmp_path_factory.mktemp(listed.module)
        facts = facts_of(
            sweep=sweep.name,
            selection=selection,
            listed=listed,
            model=model,
            images=given,
            verification=same,
            code=listed.load().write(model, folder),
            files=sorted(folder.iterdir()),
            license_="not stated",
        )
        (folder / "README.md").write_text(model_card(facts))
    return Trained(model, folders)


@pytest.fixture
def model(trained: Trained) -> SparseModel:
    return trained.model


@pytest.fixture
def folders(trained: Trained) -> dict[str, Path]:
    return trained.folders


@pytest.mark.process
def test_code_of_every_model_card_runs_without_this_project(
    model: SparseModel, folders: dict[str, Path], tmp_path: Path
) -> None:
    taken = images(23)
    np.save(tmp_path / "images.npy", taken.numpy())
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-I", "-c", OUTSIDE, str(tmp_path), *map(str, folders.values())]
    done = subprocess.run(command, env=environment, cwd="/", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    expected, first = model.predict(taken), model.predict(taken[:1])
    for number, (name, listed) in enumerate(FORMATS.items()):
        scores, alone = (torch.from_numpy(np.load(tmp_path / f"{part}{number}.npy")) for part in ("scores", "first"))
        if name in ("torch", "safetensors", "2:4"):
            assert torch.equal(scores, expected), name
            assert torch.equal(alone, first), name
        else:
            assert listed.load().tolerance == 1e-4
            torch.testing.assert_close(scores, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))
            torch.testing.assert_close(alone, first, rtol=0, atol=1e-5 * float(expected.abs().max()))


def weights_of(model: SparseModel) -> dict[str, np.ndarray]:
    return {name: value.numpy() for name, value in model.network.state_dict().items()}


def test_safetensors_hold_dense_weights_and_masks(model: SparseModel, folders: dict[str, Path]) -> None:
    weights, masks = (load_file(folders["safetensors"] / name) for name in ("model.safetensors", "masks.safetensors"))
    assert weights.keys() == weights_of(model).keys()
    assert all(np.array_equal(weights[name], value) for name, value in weights_of(model).items())
    assert masks.keys() == model.masks.keys()
    assert all(mask.dtype == bool and np.array_equal(mask, model.masks[name].numpy()) for name, mask in masks.items())
    with safetensors.safe_open(folders["safetensors"] / "model.safetensors", framework="numpy") as file:
        metadata = file.metadata()
    assert (metadata["network"], json.loads(metadata["image_shape"])) == ("convnet", [1, 8, 8])
    assert tuple(json.loads(metadata["mean"])) == model.card.normalization.mean
    assert json.loads(metadata["kept"]) == {name: int(mask.sum()) for name, mask in model.masks.items()}


def test_csr_rows_are_those_of_scipy(model: SparseModel, folders: dict[str, Path]) -> None:
    tensors, weights = load_file(folders["csr"] / "model.safetensors"), weights_of(model)
    assert sorted({name.removesuffix(".values") for name in tensors if name.endswith(".values")}) == PRUNED
    for name in PRUNED:
        matrix = scipy.sparse.csr_matrix(weights[name].reshape(len(weights[name]), -1))
        for part, expected in (("crow_indices", matrix.indptr), ("col_indices", matrix.indices), ("values", matrix.data)):
            assert np.array_equal(tensors[f"{name}.{part}"], expected), (name, part)
        assert tuple(tensors[f"{name}.shape"]) == weights[name].shape
    dense = weights.keys() - set(PRUNED)
    assert all(np.array_equal(tensors[name], weights[name]) for name in dense)


def test_csr_keeps_weights_that_are_kept_and_zero() -> None:
    mask = torch.tensor([[True, False, True], [False, False, False]])
    rows = csr_format._rows("w", torch.tensor([[0.0, 0.0, 2.0], [0.0, 0.0, 0.0]]), mask)
    assert {name: values.tolist() for name, values in rows.items()} == {
        "w.crow_indices": [0, 2, 2],
        "w.col_indices": [0, 2],
        "w.values": [0.0, 2.0],
        "w.shape": [2, 3],
    }


def test_only_linear_layers_run_on_sparse_rows(model: SparseModel) -> None:
    assert csr_format.linear_weights(network_graph.graph_of(model)) == ["head.weight"]


class Shared(nn.Module):
    """Uses the weight of one linear layer in other ways too."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 10)

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.first(images.flatten(1)) + self.first.weight.sum()
        rows = self.second(hidden.view(-1, 1, 64))  # in three dimensions
        scores: Tensor = self.head(rows.flatten(1))
        return scores


def test_a_weight_with_other_uses_is_no_sparse_layer() -> None:
    assert csr_format.linear_weights(network_graph.graph_of(model_of(Shared(), {}))) == ["head.weight"]


def unpacked(values: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """The dense rows of a packed weight, value by value."""
    rows, kept = values.shape
    dense = np.zeros((rows, 2 * kept), dtype=values.dtype)
    for row in range(rows):
        for number in range(kept):
            position = row * kept + number
            place = (int(indices[position // 4]) >> (2 * (position % 4))) & 0b11
            dense[row, number // 2 * 4 + place] = values[row, number]
    return dense


def test_two_four_values_are_at_the_places_of_their_indices(model: SparseModel, folders: dict[str, Path]) -> None:
    tensors, weights = load_file(folders["2:4"] / "model.safetensors"), weights_of(model)
    assert sorted({name.removesuffix(".values") for name in tensors if name.endswith(".values")}) == PRUNED
    for name in PRUNED:
        values, indices, shape = (tensors[f"{name}.{part}"] for part in ("values", "indices", "shape"))
        outputs, inputs, *kernel = weights[name].shape
        assert (*shape,) == (outputs, inputs, *kernel)
        assert values.shape == (outputs * int(np.prod(kernel)), inputs // 2)
        assert (str(indices.dtype), indices.size) == ("uint8", -(-values.size // 4))
        dense = unpacked(values, indices).reshape(outputs, *kernel, inputs)
        assert np.array_equal(np.moveaxis(dense, -1, 1), weights[name]), name


def test_groups_with_fewer_than_two_weights_are_filled_with_zeros() -> None:
    model = two_of_four_model()
    for name in PRUNED:
        groups = model.masks[name].movedim(1, -1).reshape(-1, 4).sum(1)
        assert {0, 1, 2} == set(groups.tolist())
        weight = model.network.get_parameter(name).detach()
        tensors = two_four_format._packed(name, weight, model.masks[name])
        dense = unpacked(tensors[f"{name}.values"].numpy(), tensors[f"{name}.indices"].numpy())
        assert np.array_equal(dense.reshape(-1, 4), weight.movedim(1, -1).reshape(-1, 4).numpy())


@pytest.mark.parametrize(
    ("shape", "kept", "message"),
    [
        ((2, 8), [(1, 4), (1, 5), (1, 7)], "got 3 in channels 4 to 7 of output 1;"),
        ((2, 8, 3, 3), [(0, n, 1, 2) for n in range(4)], r"got 4 in channels 0 to 3 of output 0, kernel position \(1, 2\);"),
        ((2, 6), [(0, 0)], "a multiple of 4 input channels to be 2:4, got 6;"),
    ],
)
def test_masks_that_are_not_two_of_four_are_refused(shape: tuple[int, ...], kept: list[tuple[int, ...]], message: str) -> None:
    mask = torch.zeros(shape, dtype=torch.bool)
    for place in kept:
        mask[place] = True
    with pytest.raises(ExportRefusedError, match=rf"^block.conv.weight must .*{message} `method: srste`"):
        two_four_format.require_two_of_four("block.conv.weight", mask)


@pytest.mark.parametrize("name", ["csr", "2:4"])
def test_dense_models_are_refused_where_a_format_is_sparse(name: str, tmp_path: Path) -> None:
    with pytest.raises(ExportRefusedError, match=f"--format {name} must have a pruned weight, got a dense model"):
        FORMATS[name].load().write(dense_model(), tmp_path)
    assert not list(tmp_path.iterdir())


class Deciding(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(64, 10)

    def forward(self, images: Tensor) -> Tensor:
        scores: Tensor = self.head(images.flatten(1))
        return scores if scores.sum() > 0 else -scores


def test_a_network_that_decides_on_values_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportRefusedError, match=r"module:nets\.net cannot be exported as a graph, since torch\.export says: "):
        torch_format.write(model_of(Deciding(), {}), tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["torch", "safetensors", "csr", "2:4"])
def test_the_graph_has_no_weights_and_no_place_on_this_machine(name: str, folders: dict[str, Path]) -> None:
    file = folders[name] / network_graph.FILE
    assert file.stat().st_size < 50_000  # the weights alone take 61,672 bytes
    with zipfile.ZipFile(file) as archive:
        contents = b"".join(archive.read(each) for each in archive.namelist())
    assert b"batch_norm" in contents
    assert str(ROOT).encode() not in contents


def test_a_graph_does_not_take_weights_by_copying(folders: dict[str, Path]) -> None:
    network = torch.export.load(folders["torch"] / network_graph.FILE).module()
    with pytest.raises(RuntimeError, match=r"copying the parameter named \"conv1.weight\""):
        network.load_state_dict(torch.load(folders["torch"] / torch_format.WEIGHTS, weights_only=True))


def test_export_leaves_no_hooks_in_the_model(model: SparseModel, folders: dict[str, Path]) -> None:
    assert folders
    assert not model.network._forward_hooks
    assert all(parameter.requires_grad for parameter in model.network.parameters())


def test_onnx_keeps_zeros_and_names_no_place_on_this_machine(model: SparseModel, folders: dict[str, Path]) -> None:
    import onnx
    from onnx import numpy_helper

    file = folders["onnx"] / onnx_format.FILE
    assert str(ROOT).encode() not in file.read_bytes()
    graph = onnx.load(file).graph
    assert [one.dim_param or one.dim_value for one in graph.input[0].type.tensor_type.shape.dim] == ["batch", 1, 8, 8]
    kept = {tensor.name: int(np.count_nonzero(numpy_helper.to_array(tensor))) for tensor in graph.initializer}
    assert {name: kept[name] for name in PRUNED} == {name: int(model.masks[name].sum()) for name in PRUNED}


def test_the_dense_twin_in_onnx_has_no_zero(folders: dict[str, Path], tmp_path: Path) -> None:
    import onnx
    from onnx import numpy_helper

    onnx_format.write_dense(folders["onnx"], tmp_path)
    tensors = {one.name: numpy_helper.to_array(one) for one in onnx.load(tmp_path / onnx_format.FILE).graph.initializer}
    assert all(bool((tensors[name] != 0).all()) for name in PRUNED)


def test_code_in_another_memory_format_does_not_change_it(model: SparseModel) -> None:
    assert ".to(memory_format=torch.channels_last)" in network_graph.loading_code(model, "")
    contiguous = replace(model, memory_format=torch.contiguous_format)
    assert "memory_format" not in network_graph.loading_code(contiguous, "")


def test_names_and_packages_of_formats() -> None:
    assert list(FORMATS) == ["torch", "safetensors", "onnx", "csr", "2:4"]
    assert all(name == listed.name for name, listed in FORMATS.items())
    assert safetensors_format.FORMAT.tolerance == torch_format.FORMAT.tolerance == two_four_format.FORMAT.tolerance == 0

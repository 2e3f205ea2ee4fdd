"""Exports of a real sweep: what is in the folder and on the model card, and what leaves nothing behind."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from orchestrator.cli import main
from orchestrator.errors import SetupError, UserError
from orchestrator.export.export import export_model
from orchestrator.export.images import compared_images
from orchestrator.export.selection import select_trial
from orchestrator.export.trial_model import trial_model
from orchestrator.spec.grid import expand
from orchestrator.state.driver_lease import LEASE_FILES, LeaseTimes
from orchestrator.state.driver_liveness import this_driver
from orchestrator.state.sweep_folder import SweepFolder
from orchestrator.storage.layout import trial_file
from tests.support.custom_modules import NETS, custom_config, run_custom, write_modules
from tests.support.export_sweep import spec_of
from tests.support.exported_models import images, model_of
from tests.support.trials import all_files, new_storage
from tests.support.whole_sweep import copied
from trainables.data.splits import load_data
from trainables.export import latency, two_four_format
from trainables.export.format import Format
from trainables.export.sparse_model import SparseModel
from trainables.export.table import FORMATS
from trainables.pruning.nm_masks import pattern_masks

TIMES = LeaseTimes(settle_s=0.2, renew_interval_s=0.2, release_timeout_s=1.0)
CODE = "import numpy as np\nimages = np.zeros(1)\ndef predict(images):\n    return {scores}\n"


def run_export(folder: SweepFolder, out: Path, *options: str) -> int:
    return main(["export", folder.name, "--storage", folder.storage.root, "--out", str(out), *options])


def toy_format(patch: pytest.MonkeyPatch, scores: str, tolerance: float) -> None:
    """Makes the format `torch` write one file, and code whose `predict` gives these scores."""

    def write(model: SparseModel, folder: Path) -> str:
        (folder / "half").write_text("written")
        return CODE.format(scores=scores)

    module = ModuleType("trainables.export.toy_format")
    module.FORMAT = Format(write=write, tolerance=tolerance, runtime="Toy")  # type: ignore[attr-defined]
    patch.setitem(sys.modules, module.__name__, module)
    patch.setitem(FORMATS, "torch", replace(FORMATS["torch"], module="toy_format"))


@pytest.fixture(scope="module")
def exported(finished: SweepFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the command has written, in a format that gives every image to class 0."""
    out = tmp_path_factory.mktemp("command") / "model"
    with pytest.MonkeyPatch.context() as patch:
        toy_format(patch, "np.zeros((len(images), 10), dtype='f')", tolerance=1.0)
        assert run_export(finished, out, "--format", "torch", "--license", "mit", "--no-latency") == 0
    return out


@pytest.mark.process
def test_command_writes_model_card_and_facts(exported: Path, finished: SweepFolder) -> None:
    assert {file.name for file in exported.iterdir()} == {"half", "README.md", "export.json"}
    assert [file.name for file in exported.parent.iterdir()] == ["model"]
    facts = json.loads((exported / "export.json").read_text())
    chosen = select_trial(finished, None, None, ())
    assert (facts["trial"], facts["seed"]) == (chosen.trial.key, chosen.trial.config["seed"])
    assert facts["accuracy"]["test/accuracy"]["trial"] == chosen.result["metrics"]["test/accuracy"]
    assert (facts["sparsity"]["kept"], facts["sparsity"]["prunable"]) == (chosen.result["kept_weights"], 15_248)
    test = load_data(expand(spec_of(finished))[0].dataset, spec_of(finished).source(), "cpu").test
    check = facts["check"]
    assert (check["images"], check["what"]) == (40, "all 40 test images")
    assert check["correct"] == int((test.labels == 0).sum())
    assert 0 < check["max_difference"] <= check["accepted"]
    assert facts["latency"] == []


@pytest.mark.long
@pytest.mark.process
def test_command_compares_and_measures_a_real_format(finished: SweepFolder, out: Path) -> None:
    assert run_export(finished, out, "--format", "csr") == 0
    assert {file.name for file in out.iterdir()} == {"model.safetensors", "network.pt2", "README.md", "export.json"}
    facts = json.loads((out / "export.json").read_text())
    check = facts["check"]
    assert check["images"] == check["equal_decisions"] == 40
    assert check["correct"] / 40 == facts["accuracy"]["test/accuracy"]["trial"]
    assert 0 <= check["max_difference"] <= check["accepted"] < 1e-2
    assert [(one["batch"], len(one["models"])) for one in facts["latency"]] == [(size, 2) for size in latency.BATCHES]
    assert "times as fast as dense" in (out / "README.md").read_text()


@pytest.mark.slow
@pytest.mark.process
def test_export_beside_a_driver_changes_nothing(
    finished: SweepFolder, tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy_format(monkeypatch, "np.zeros((len(images), 10), dtype='f')", tolerance=1.0)
    folder = copied(finished, tmp_path)
    state = folder.read_state()
    assert state is not None
    with folder.driver_lease(TIMES):
        state.driver = this_driver()
        folder.write_state(state)
        before = all_files(folder.storage)
        assert run_export(folder, out, "--format", "torch", "--no-latency") == 0
        after = all_files(folder.storage)
    assert {path: content for path, content in after.items() if not path.endswith(LEASE_FILES)} == {
        path: content for path, content in before.items() if not path.endswith(LEASE_FILES)
    }
    facts = json.loads((out / "export.json").read_text())
    assert facts["trial"] == select_trial(finished, None, None, ()).trial.key


@pytest.mark.process
def test_model_card_says_what_the_model_is(exported: Path, finished: SweepFolder) -> None:
    text = (exported / "README.md").read_text()
    chosen = select_trial(finished, None, None, ())
    assert chosen.recommendation is not None
    for expected in (
        f"`{chosen.trial.key}`",
        "the best one by validation accuracy of the 2 seeds",
        "Licence: mit",
        "convnet",
        "digest `0b7e9c3202d7bcd255d6a19a238d3743`",
        "`training.lr` | `0.05`",
        f"{chosen.result['kept_weights']:,} of 15,248 prunable",
        f"{100 * chosen.result['metrics']['test/accuracy']:.2f} % (over 2 seeds",
        "95 %:" if chosen.recommendation.interval else "its interval is not known",
        "not normalised",
        f"torch {version('torch')}",
        "drive-sweep abc1234",
        "Not measured",
    ):
        assert expected in text, expected


def test_a_folder_with_files_is_left_alone(finished: SweepFolder, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out.mkdir(parents=True)
    (out / "mine.txt").write_text("mine")
    assert run_export(finished, out, "--format", "torch") == 2
    assert f"--out must be a new or empty folder, got a folder with files in it: {out}" in capsys.readouterr().err
    assert [file.name for file in out.rglob("*")] == ["mine.txt"]
    assert run_export(finished, out / "mine.txt", "--format", "torch") == 2
    assert (out / "mine.txt").read_text() == "mine"


@pytest.mark.process
@pytest.mark.parametrize(
    ("scores", "problem"),
    [
        (
            "np.full((len(images), 10), 1e6, dtype=np.float32)",
            "its scores differ from those of the trial's model by up to 1e+06",
        ),
        ("np.full((len(images), 10), np.nan, dtype=np.float32)", "differ from those of the trial's model by up to nan"),
        ("np.zeros((len(images), 9), dtype=np.float32)", "it gives torch.float32 of shape (40, 9) and not (40, 10)"),
        ("1 / 0", "the code of its model card fails: ZeroDivisionError"),
        ("__import__('trainables')", "the code of its model card fails: ModuleNotFoundError: No module named 'trainables'"),
    ],
)
def test_a_model_that_fails_its_check_leaves_nothing(
    scores: str, problem: str, finished: SweepFolder, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy_format(monkeypatch, scores, tolerance=0.5)
    with pytest.raises(SetupError) as error:
        export_model(finished, out, "torch", measure_latency=False)
    assert problem in str(error.value)
    assert (error.value.code, list(out.parent.iterdir())) == ("export-check-failed", [])


def test_a_refused_format_leaves_nothing(finished: SweepFolder, out: Path) -> None:
    state = finished.read_state()
    assert state is not None
    dense = next(key for key, trial in state.trials.items() if trial.name.startswith("dense"))
    with pytest.raises(
        UserError, match="--format 2:4 must have a pruned weight, got a dense model; --format safetensors"
    ) as error:
        export_model(finished, out, "2:4", key=dense)
    assert (error.value.code, list(out.parent.iterdir())) == ("format-refused", [])


def test_a_missing_package_is_named_with_its_extra(
    finished: SweepFolder, out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(FORMATS, "onnx", replace(FORMATS["onnx"], modules=("json", "no_such_module")))
    assert run_export(finished, out, "--format", "onnx") == 2
    expected = "--format onnx needs the package no_such_module, which is not installed; `pip install 'drive-sweep[onnx]'`"
    assert expected in capsys.readouterr().err
    assert not out.parent.exists()


def test_export_works_at_no_dashboard(finished: SweepFolder, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_export(finished, out, "--format", "torch", "--address", "http://127.0.0.1:1") == 2
    assert "--address: must not go with export" in capsys.readouterr().err


def test_damaged_and_missing_models_are_refused(finished: SweepFolder, tmp_path: Path, out: Path) -> None:
    shutil.copytree(finished.storage.root, tmp_path / "runs")
    folder = SweepFolder(new_storage(tmp_path / "runs"), finished.name)
    key = select_trial(folder, None, None, ()).trial.key
    file = tmp_path / "runs" / trial_file(key, "model.safetensors.zst")
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(SetupError, match=r"does not match the SHA-256 in result.json; `drive-sweep doctor --fix") as error:
        export_model(folder, out, "torch")
    assert error.value.code == "trial-damaged"
    file.unlink()
    with pytest.raises(SetupError, match=r"model.safetensors.zst is gone; ") as error:
        export_model(folder, out, "torch")
    assert (error.value.code, out.parent.exists()) == ("model-gone", False)


def test_model_of_a_custom_network_needs_only_the_trials_own_copy_of_its_file(finished: SweepFolder, tmp_path: Path) -> None:
    storage, own = new_storage(tmp_path / "runs"), tmp_path / "own"
    own.mkdir()
    result = run_custom(custom_config(), storage, write_modules(own, mynets=NETS))
    shutil.rmtree(own)
    sys.modules.pop("mynets")
    spec = spec_of(finished).model_copy(update={"modules_path": str(own)})
    model = trial_model(storage, spec, result["trial_key"], result)
    digits = load_data(custom_config().dataset, spec.source(), "cpu").test
    right = int((model.predict(digits.images.float() / 255).argmax(1) == digits.labels).sum())
    assert right / len(digits) == result["metrics"]["test/accuracy"]


def test_images_are_random_where_the_trials_data_are_not_at_hand(finished: SweepFolder) -> None:
    spec, result = spec_of(finished), select_trial(finished, None, None, ()).result
    there = compared_images(spec, finished.storage, result)
    assert (there.what, there.whole, there.labels is not None) == ("all 40 test images", True, True)
    other = compared_images(spec, finished.storage, result | {"data_digest": "another"})
    assert other.what == "500 random images, since the data set digits here is not the trial's (another digest)"
    assert (other.labels, other.images.shape) == (None, (500, 1, 8, 8))
    assert 0 <= float(other.images.min()) < float(other.images.max()) <= 1
    gone = spec.model_copy(update={"dataset": spec.dataset.model_copy(update={"name": "cifar10", "root": "/nowhere"})})
    assert "the data set cifar10 is not on this machine" in compared_images(gone, finished.storage, result).what


def test_large_networks_are_compared_on_fewer_images(finished: SweepFolder) -> None:
    spec, result = spec_of(finished), select_trial(finished, None, None, ()).result
    few = compared_images(spec, finished.storage, result | {"flops": 4e9})
    assert (few.what, few.whole) == ("16 of the 40 test images", False)
    test = load_data(expand(spec)[0].dataset, spec.source(), "cpu").test
    assert torch.equal(few.images[-1], test.images[-1].float() / 255)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_two_four_weights_run_on_sparse_tensor_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The end of the model card's code, on a GPU."""
    from torch import nn
    from torch.sparse import SparseSemiStructuredTensor

    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    weights = {"1.weight": network.get_parameter("1.weight")}
    masks = pattern_masks(weights, 2, 4)
    with torch.no_grad():
        weights["1.weight"].mul_(masks["1.weight"])
    model = model_of(network, masks)
    code = two_four_format.write(model, tmp_path)
    assert 'SPARSE = ["1.weight"]' in code
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(code, names)
    on_gpu = names["gpu_network"]
    assert isinstance(on_gpu.get_parameter("1.weight").data, SparseSemiStructuredTensor)
    with torch.no_grad(), torch.autocast("cuda", dtype=torch.float16):
        scores = on_gpu(images(32).cuda()).float().cpu()
    torch.testing.assert_close(scores, model.predict(images(32)), rtol=1e-2, atol=1e-2)

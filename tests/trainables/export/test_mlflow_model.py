"""Logged models load anywhere: without pickle, without this package, several at once, with the accuracy of the trial."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import numpy as np
import pytest

from orchestrator.tracking import model_packaging
from orchestrator.tracking.client import TrackingTarget
from orchestrator.tracking.logged_models import upload_model
from orchestrator.tracking.model_packaging import SparseModelRecord, model_code, packaged
from orchestrator.tracking.records import RunSpec
from orchestrator.tracking.run_sync import RunSync
from tests import ROOT
from tests.support.cli import free_port
from tests.support.mlflow_stores import Content, new_target
from tests.support.trials import DIGITS, new_storage, run, tiny_config, tiny_training
from trainables.config.keys import trial_key
from trainables.config.methods import HapConfig
from trainables.config.spiking import SpikingConfig
from trainables.config.trial import DatasetConfig
from trainables.data.digits import DIGITS_DIGEST
from trainables.data.splits import load_data

BLOCKED = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("trainables", "orchestrator"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Blocker())
"""
ACCURACIES = """
import json, sys
import mlflow, numpy as np, torch
torch.set_num_threads(1)
folder, uri, models = sys.argv[1], sys.argv[2], sys.argv[3:]
mlflow.set_tracking_uri(uri)
images, labels = np.load(folder + "/images.npy"), np.load(folder + "/labels.npy")
loaded = {model: mlflow.pyfunc.load_model("models:/" + model) for model in models}
scores = {model: loaded[model].predict(images) for model in models}
assert all(score.dtype == np.float32 and score.shape == (len(labels), 10) for score in scores.values())
print(json.dumps({model: int((scores[model].argmax(1) == labels).sum()) / len(labels) for model in models}))
"""


@dataclass(frozen=True)
class Logged:
    """Finished trials in MLflow: the accuracy of each model, and the test images that it was measured on."""

    target: TrackingTarget
    accuracies: dict[str, float]
    folder: Path


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Logged:
    folder = tmp_path_factory.mktemp("logged")
    storage, target = new_storage(folder / "storage"), new_target(folder)
    sync = RunSync(target, storage, "served")
    sync.open_sweep("", {}, {})
    dataset, training = DatasetConfig(name="digits"), tiny_training(epochs=1)
    accuracies = {}
    spiking = replace(training, spiking=SpikingConfig(rule="sltt", steps=3))
    implants: dict[str, Any] = {"method": "hap", "options": HapConfig(implant=0.3, probes=5)}  # in a smaller network
    removed: tuple[tuple[float, dict[str, Any]], ...] = ((0.5, {}), (0.9, implants), (0.98, {"training": spiking}))
    for sparsity, changes in removed:
        config = tiny_config(**{"dataset": dataset, "sparsity": sparsity, "training": training} | changes)
        result = run(config, storage, provenance={"data_digest": DIGITS_DIGEST})
        key = trial_key(config, DIGITS_DIGEST)
        sync.finish(RunSpec(key=key, name=f"s{sparsity}", role="trial", params={}, tags={}))
        accuracies[sync.runs.by_key["trial", key].tags["drive.model_id"]] = result["metrics"]["test/accuracy"]
    test = load_data(dataset, DIGITS, "cpu").test
    np.save(folder / "images.npy", (test.images.float() / 255).numpy())
    np.save(folder / "labels.npy", test.labels.numpy())
    return Logged(target, accuracies, folder)


def accuracies_of(script: str, logged: Logged, *options: str, cwd: str) -> dict[str, float]:
    command = [sys.executable, *options, "-c", script, str(logged.folder), logged.target.uri, *logged.accuracies]
    environment = os.environ | {"MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false", "MLFLOW_LOGGING_LEVEL": "ERROR"}
    done = subprocess.run(command, env=environment, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    answer: dict[str, float] = json.loads(done.stdout)
    return answer


def test_models_load_without_the_package(logged: Logged) -> None:
    last = "\nassert not any(name.startswith('trainables') for name in sys.modules)"
    assert accuracies_of(BLOCKED + ACCURACIES + last, logged, "-I", cwd="/") == logged.accuracies


@pytest.mark.extended
def test_models_load_beside_the_package(logged: Logged) -> None:
    first = "import trainables\n"
    last = "\nimport trainables.data.batches; assert 'drive_sparse' not in trainables.data.batches.__file__"
    repository = str(ROOT)
    assert accuracies_of(first + ACCURACIES + last, logged, cwd=repository) == logged.accuracies


def test_models_of_two_versions_load_in_one_process(logged: Logged, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow import pyfunc

    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    content = Content(logged.target)
    first = content.models[0]
    now, later = model_code().package, "drive_sparse_later"
    changed = replace(
        model_code(),
        package=later,
        modules={name: text.replace(now, later) for name, text in model_code().modules.items()},
        served=model_code().served.replace(now, later),
    )
    file = Path(first.artifact_location.removeprefix("file://"), "artifacts/model.safetensors.zst")
    record = SparseModelRecord(name="later", file=file, image_shape=(1, 8, 8), num_classes=10, params={}, tags={})
    monkeypatch.setattr(model_packaging, "model_code", lambda: changed)
    second = upload_model(content.client, first.experiment_id, first.source_run_id, record)
    images = np.load(logged.folder / "images.npy")[:4]
    scores = [pyfunc.load_model(model.artifact_location).predict(images) for model in (first, second)]
    assert np.array_equal(scores[0], scores[1])
    assert {f"{now}.export.sparse_model", f"{later}.export.sparse_model"} <= sys.modules.keys()


def test_model_metadata_is_complete(logged: Logged) -> None:
    from mlflow.models import Model

    for model in Content(logged.target).models:
        folder = Path(model.artifact_location.removeprefix("file://"))
        metadata = Model.load(str(folder))
        assert (metadata.model_id, metadata.model_uuid, metadata.run_id) == (
            model.model_id,
            model.model_id,
            model.source_run_id,
        )
        assert metadata.artifact_path == model.artifact_location
        sizes = [(folder / file).stat().st_size for file in ("served_model.py", "artifacts/model.safetensors.zst")]
        assert metadata.model_size_bytes == sum(sizes)
        assert metadata.signature.inputs.input_types()[0] == np.dtype("float32")
        assert [list(side.inputs[0].shape) for side in (metadata.signature.inputs, metadata.signature.outputs)] == [
            [-1, 1, 8, 8],
            [-1, 10],
        ]
        made_ms = datetime.fromisoformat(metadata.utc_time_created).replace(tzinfo=UTC).timestamp() * 1000
        assert model.creation_timestamp - 1 <= made_ms <= model.last_updated_timestamp + 1


def test_only_required_modules_are_bundled() -> None:
    code = model_code()
    folders = ("channels", "config", "custom", "data", "export", "models", "pruning", "runtime")
    assert set(code.modules) == {f"{folder}/__init__.py" for folder in folders} | {
        "__init__.py",
        "channels/resizing.py",
        "errors.py",
        "wording.py",
        "config/counts.py",
        "config/lookup.py",
        "config/method.py",
        "config/methods.py",
        "config/options.py",
        "config/spiking.py",
        "config/trial.py",
        "custom/imports.py",
        "custom/references.py",
        "data/normalization.py",
        "export/model_card.py",
        "export/model_input.py",
        "export/sparse_model.py",
        "models/blocks.py",
        "models/custom_network.py",
        "models/image_sizes.py",
        "models/networks.py",
        "models/orepa.py",
        "models/registry.py",
        "models/spiking.py",
        "models/table.py",
        "models/torchvision_resnets.py",
        "pruning/masks.py",
        "runtime/files.py",
        "runtime/hashing.py",
        "runtime/json_text.py",
        "runtime/machine.py",
        "runtime/seeding.py",
        "runtime/sizes.py",
    }
    names = [requirement.partition("==")[0] for requirement in code.requirements]
    assert names == ["mlflow", "numpy", "safetensors", "torch", "torchvision", "zstandard"]
    assert all("==" in requirement and "+" not in requirement for requirement in code.requirements)


def test_packaged_modules_load_under_another_name(tmp_path: Path) -> None:
    tree = {
        "__init__.py": "raise RuntimeError('the public names of the whole package')\n",
        "light.py": "VALUE = 1\n",
        "unused.py": "import torch_of_nobody\n",
        "pruning/__init__.py": "",
        "pruning/masks.py": (
            "def of(x):\n    from toy import light\n    from toy.light import VALUE\n    return x + VALUE + light.VALUE\n"
        ),
        "pruning/deep/__init__.py": "",
        "pruning/deep/er.py": "from toy.pruning import masks\n\nRESULT = masks.of(40)\n",
        "export/__init__.py": "",
        "export/served.py": "from toy.pruning.deep.er import RESULT\n",
    }
    for name, text in tree.items():
        (tmp_path / "toy" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "toy" / name).write_text(text)
    code = packaged(tmp_path / "toy", "toy.export.served")
    assert set(code.modules) == set(tree) - {"unused.py", "export/__init__.py", "export/served.py"} | {"__init__.py"}
    for name, text in code.modules.items():
        file = tmp_path / "elsewhere" / code.package / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    (tmp_path / "elsewhere" / "served.py").write_text(code.served)
    asked = [sys.executable, "-c", "import served; print(served.RESULT)"]
    done = subprocess.run(asked, cwd=tmp_path / "elsewhere", capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("42\n", "")


NAME, ALIAS = "digits-convnet", "best-s90"  # in the guide


def documented_commands(target: TrackingTarget, port: int) -> str:
    """The commands of the guide that serve a model, for another environment, database and port."""
    text = (ROOT / "orchestrator/guide/export.md").read_text().partition("## Serve it over HTTP")[2]
    lines = [line.strip() for line in text.splitlines() if line.startswith("    ")]
    commands = "\n".join(lines)
    for documented, here in (
        (".venv/bin/activate", f"{sys.prefix}/bin/activate"),
        ("sqlite:///runs/mlflow.db", target.uri),
        ("5001", str(port)),
    ):
        assert commands.count(documented) == 1, documented
        commands = commands.replace(documented, here)
    return commands


def register(target: TrackingTarget, model: Any) -> None:
    """Gives a logged model the name and the alias that the guide serves, as a sweep does."""
    client = Content(target).client
    client.create_registered_model(NAME)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", target.uri)  # where MLflow looks for the model
        version = client.create_model_version(NAME, source=model.artifact_location, model_id=model.model_id)
    client.set_registered_model_alias(NAME, ALIAS, version.version)


@pytest.mark.extended
def test_the_documented_commands_serve_a_model_over_http(logged: Logged) -> None:
    from mlflow import pyfunc

    model = Content(logged.target).models[0]
    images = np.load(logged.folder / "images.npy")[:2]
    expected = pyfunc.load_model(model.artifact_location).predict(images)
    port = free_port()
    script = documented_commands(logged.target, port)
    assert f"-m models:/{NAME}@{ALIAS} " in script
    register(logged.target, model)
    environment = {"HOME": str(logged.folder), "PATH": os.defpath, "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"}
    with open(logged.folder / "serve.log", "wb") as log:
        server = subprocess.Popen(
            ["bash", "-ec", script], env=environment, cwd="/", stdout=log, stderr=log, start_new_session=True
        )
    try:
        wait_for(server, f"http://127.0.0.1:{port}/ping", logged.folder / "serve.log")
        request = Request(
            f"http://127.0.0.1:{port}/invocations",
            data=json.dumps({"inputs": images.tolist()}).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urlopen(request, timeout=60) as answer:
            served = np.array(json.loads(answer.read())["predictions"], dtype=np.float32)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()
    np.testing.assert_allclose(served, expected, rtol=1e-5)


def wait_for(server: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        assert server.poll() is None, log.read_text()
        try:
            urlopen(url, timeout=5).close()
            return
        except OSError:
            time.sleep(0.1)
    raise AssertionError(log.read_text())

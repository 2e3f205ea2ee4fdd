"""No pickle is read but where the table says so, and a malicious file runs no code wherever bytes enter."""

from __future__ import annotations

import ast
import io
import os
import pickle
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import zstandard

from orchestrator.storage.local import LocalStorage
from orchestrator.tracking.records import read_record
from tests import ROOT
from tests.support.trials import tiny_training
from trainables.data.datasets import cache_file, load
from trainables.data.source import DatasetSource
from trainables.errors import DataError
from trainables.export.sparse_model import load_sparse_model
from trainables.models.pretrained import read_state_dict
from trainables.models.registry import build_model
from trainables.trial.checkpoint import from_bytes
from trainables.trial.warmup_record import decode_rule

# Modules that unpickle, or unpack archives, with their aliases in the standard library and in what is installed.
MODULES = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "shelve", "marshal", "tarfile", "zipfile"}
CALLS = {  # name of a call -> argument that makes it safe, with its value
    "load": None,  # of torch, numpy, yaml, joblib
    "loads": None,
    "read_pickle": None,
    "unsafe_load": None,
    "unpack_archive": None,
    "load_model": None,
    "restore": None,
    "CIFAR10": None,
    "CIFAR100": None,
}
SAFE = {"torch.load": ("weights_only", True), "np.load": ("allow_pickle", False), "numpy.load": ("allow_pickle", False)}
OTHERS = {  # calls named `load` that read no pickle: of this project, of a YAML, a TOML and an ONNX file
    *("datasets.load", "self.runs.load", "sync.runs.load", "listed.load", "Model.load", "tomllib.loads", "onnx.load"),
}
OWN = {"load", "json.load", "json.loads"}  # safetensors, JSON
PERMITTED = {  # file, what -> why
    ("orchestrator/tracking/process.py", "import pickle"): "between the driver and its own child, through a pipe",
    ("orchestrator/tracking/process.py", "pickle.load"): "the same",
    ("trainables/data/cifar.py", "import CIFAR10"): "torchvision compares the MD5 of private copies before it unpickles them",
    ("trainables/data/cifar.py", "import CIFAR100"): "the same",
}


def findings(source: str) -> Iterator[str]:
    """What in a source reads pickles or unpacks archives."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (f"import {alias.name}" for alias in node.names if alias.name.partition(".")[0] in MODULES)
        elif isinstance(node, ast.ImportFrom):
            module = str(node.module).partition(".")[0]
            names = [alias.name for alias in node.names]
            yield from (f"import {name}" for name in names if module in MODULES or (name in CALLS and name not in OWN))
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            safe = SAFE.get(name)
            given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            if name.rpartition(".")[2] in CALLS and name not in OWN and not (safe and given.get(safe[0]) == str(safe[1])):
                yield name


def test_code_reads_no_pickle_and_unpacks_no_archive_but_where_permitted() -> None:
    seen = {
        (file.relative_to(ROOT).as_posix(), what)
        for package in ("orchestrator", "trainables", "cluster")
        for file in (ROOT / package).rglob("*.py")
        for what in findings(file.read_text())
    }
    assert {(file, what) for file, what in seen if what not in OTHERS} == set(PERMITTED)


@pytest.mark.parametrize(
    "line",
    [
        *(
            "import pickle",
            "from cloudpickle import loads",
            "import tarfile",
            "import joblib as j",
            "from torch import hub, load_model",
        ),
        *("torch.load(f)", "torch.load(f, weights_only=False)", "np.load(f)", "np.load(f, allow_pickle=True)"),
        *(
            "yaml.load(f)",
            "pandas.read_pickle(f)",
            "mlflow.pytorch.load_model(u)",
            "shutil.unpack_archive(f)",
            "Tuner.restore(f)",
        ),
    ],
)
def test_a_planted_reader_is_seen(line: str) -> None:
    assert list(findings(line))


class Malicious:
    """Unpickling it creates a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.marker),)


def forms(marker: Path) -> dict[str, bytes]:
    """Malicious contents by form."""
    plain = pickle.dumps(Malicious(marker))
    saved, older, archive = io.BytesIO(), io.BytesIO(), io.BytesIO()
    torch.save({"model": {"weight": Malicious(marker)}}, saved)
    torch.save({"weight": Malicious(marker)}, older, _use_new_zipfile_serialization=False)
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("archive/data.pkl", plain)
        file.writestr("archive/version", "3")
    return {
        "pickle": plain,
        "torch": saved.getvalue(),
        "older torch": older.getvalue(),
        "archive": archive.getvalue(),
        "compressed": zstandard.ZstdCompressor(write_checksum=True).compress(plain),
        "behind a length": len(plain).to_bytes(8, "little") + plain,
    }


def read_checkpoint(content: bytes) -> object:
    return from_bytes(content, build_model("convnet", (1, 8, 8), 10), tiny_training(), "0" * 16)


def read_rule(content: bytes) -> object:
    rule = decode_rule(content, "0" * 16, 2, {})
    if rule is None:
        raise ValueError("refused")
    return rule


READERS: dict[str, Callable[[bytes], object]] = {
    "checkpoint": read_checkpoint,
    "sparse model": load_sparse_model,
    "initial weights": lambda content: read_state_dict(content, "dense.pt"),
    "record of a warm-up": read_rule,
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("form", forms(Path()))
def test_malicious_file_is_refused_and_runs_nothing(reader: str, form: str, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    with pytest.raises(Exception):  # noqa: B017, PT011  # each reader has its own
        READERS[reader](forms(marker)[form])
    assert not marker.exists()


def test_malicious_snapshot_cache_and_batches_run_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    marker, content = tmp_path / "ran", pickle.dumps(Malicious(tmp_path / "ran"))
    storage = LocalStorage(str(tmp_path / "runs"))
    storage.write("warmups/aa/epoch-0001.f.safetensors", content)
    assert read_record(storage, "warmup", "aa").damage
    monkeypatch.setenv("DRIVE_SWEEP_CACHE", str(tmp_path / "cache"))
    digits = DatasetSource(name="digits")
    cache_file(digits).write_bytes(content)
    assert load(digits).num_classes == 10  # decoded again
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch", "batches.meta"):
        (folder / name).write_bytes(content)
    with pytest.raises(DataError, match="is damaged"):
        load(DatasetSource(name="cifar10", root=str(tmp_path)))
    assert not marker.exists()


def test_a_batch_that_is_replaced_after_its_check_is_not_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever can write the data folder could else swap a file between the check and the reading."""
    from torchvision.datasets import CIFAR10

    marker, names = tmp_path / "ran", [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch", "batches.meta"]
    for name in names:
        (tmp_path / name).write_bytes(b"harmless")

    def check_then_swap(self: Any) -> bool:
        for name in names:
            (tmp_path / name).write_bytes(pickle.dumps(Malicious(marker)))
        return True

    monkeypatch.setattr(CIFAR10, "_check_integrity", check_then_swap)
    with pytest.raises(pickle.UnpicklingError):
        load(DatasetSource(name="cifar10", root=str(tmp_path)))
    assert not marker.exists()

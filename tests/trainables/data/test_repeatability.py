"""Data functions that return other arrays on a later call are rejected, or the planned arrays are fetched."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from orchestrator.errors import UserError
from orchestrator.planning.plan import Plan, make_plan
from orchestrator.spec.loader import load_spec
from orchestrator.storage.factory import open_storage
from trainables.custom import imports
from trainables.data.datasets import decoded_file, load
from trainables.data.repeatability import arrays_digest
from trainables.data.staging import StagedDataset
from trainables.errors import WrongNodeError
from trainables.runtime.cache_folder import cache_folder

SWEEP = """\
name: own
dataset: {module: drawn.load}
model: convnet
warmup_epochs: 1
sparsity: 0.9
training: {batch_size: 10}
"""
FUNCTION = """\
import os, random, zlib
import numpy as np
{top}

def load(root):
    images = np.arange(40 * 64, dtype=np.uint32).astype(np.uint8).reshape(40, 1, 8, 8)
    labels = np.arange(40) % 2
    order = {order}
    train, test = order[:30], order[30:]
    return images[train], labels[train], images[test], labels[test], 2
"""
UNREPEATABLE = {
    "numpy": "np.random.permutation(40)",
    "process": "np.random.default_rng(os.getpid()).permutation(40)",
    "set": "np.array([int(name) for name in {str(i) for i in range(40)}])",
    "training images alone": "np.concatenate([np.random.permutation(30), np.arange(30, 40)])",
}
REPEATABLE = {
    "seeded": ("", "np.random.default_rng(0).permutation(40)"),
    "seeded at the top": ("np.random.seed(0)\nrandom.seed(0)", "np.random.permutation(40)"),
    "crc": ("", "np.array(sorted(range(40), key=lambda i: zlib.crc32(str(i).encode())))"),
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, with a node's cache of its own; nothing stays imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DRIVE_SWEEP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(imports, "_sources", {})
    yield tmp_path
    sys.modules.pop("drawn", None)


def planned(order: str, top: str = "", storage: str = "runs") -> Plan:
    module, text = Path("drawn.py"), FUNCTION.replace("{top}", top).replace("{order}", order)
    if not module.exists() or module.read_text() != text:  # whose time is part of what the cache goes by
        module.write_text(text)
    Path("s.yaml").write_text(SWEEP)
    return make_plan(load_spec("s.yaml", []), open_storage(storage, create=True), hash_data=True)


@pytest.mark.parametrize("order", UNREPEATABLE.values(), ids=UNREPEATABLE.keys())
@pytest.mark.process
def test_arrays_that_differ_between_calls_are_rejected(order: str) -> None:
    with pytest.raises(UserError, match=r"module:drawn\.load must return the same arrays .* seed what it draws at random"):
        planned(order)
    assert not list(cache_folder().glob("*.safetensors"))


@pytest.mark.parametrize(("top", "order"), REPEATABLE.values(), ids=REPEATABLE.keys())
@pytest.mark.process
def test_arrays_equal_on_every_call_are_accepted(top: str, order: str) -> None:
    facts = planned(order, top).data_facts
    assert facts is not None
    (file,) = cache_folder().glob("*.safetensors")
    assert facts.arrays_digest == arrays_digest(load_file(file))


@pytest.mark.process
def test_arrays_are_compared_with_those_of_the_storage(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    order = "np.random.default_rng(int(os.environ.get('HOST_NUMBER', 1))).permutation(40)"  # as an order of files does
    first = planned(order)
    monkeypatch.setenv("HOST_NUMBER", "2")
    assert planned(order).data_facts == first.data_facts  # from this host's cache
    monkeypatch.setenv("DRIVE_SWEEP_CACHE", str(tmp_path / "cache of another host"))
    (record,) = (path for path in Path("runs/data").glob("*.json"))  # holds the times of the files, as on another host
    record.unlink()
    with pytest.raises(UserError, match=r"got others \(digest \w{12}\) than before .* If other images are meant"):
        planned(order)
    assert planned(order, storage="elsewhere").trials[0].key == first.trials[0].key
    changed = planned(order, top="# other images")
    assert changed.trials[0].key != first.trials[0].key


def data_of(plan: Plan) -> StagedDataset:
    plan.custom_files.import_modules(plan.trials[0].config)
    return StagedDataset(source=plan.source, digest=plan.data_digest)


@pytest.mark.process
def test_node_with_other_arrays_fetches_the_planned_ones(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    plan = planned("np.random.default_rng(int(os.environ.get('HOST_NUMBER', 1))).permutation(40)")
    data = data_of(plan)
    expected = load(data.prepare())
    content = decoded_file(plan.source).read_bytes()
    shipped: list[int] = []

    def fetch() -> bytes:
        shipped.append(1)
        return content

    monkeypatch.setenv("DRIVE_SWEEP_CACHE", str(tmp_path / "other node"))
    monkeypatch.setenv("HOST_NUMBER", "2")
    other = replace(data, source=replace(data.source, modules_path=f"{tmp_path}/."), fetch=fetch)  # asked for the first time
    for _ in range(2):
        there = load(other.prepare())
    assert torch.equal(there.train_images, expected.train_images)
    assert torch.equal(there.test_labels, expected.test_labels)
    assert shipped == [1]
    with pytest.raises(WrongNodeError, match=r"must return the same arrays"):
        replace(other, source=replace(other.source, modules_path=f"{tmp_path}/./"), fetch=None).prepare()


def test_arrays_digest_covers_order_shape_and_labels() -> None:
    images = np.arange(64, dtype=np.uint8).reshape(4, 1, 4, 4)
    labels = np.array([0, 1, 0, 1])
    base = {"images": images, "labels": labels}
    others = [
        base,
        base | {"images": np.ascontiguousarray(images[::-1])},
        base | {"images": images.reshape(4, 4, 4)},
        base | {"labels": np.ascontiguousarray(labels[::-1])},
        base | {"labels": labels.astype(np.int32)},
        {"test": images, "labels": labels},
    ]
    digests = [arrays_digest(one) for one in others]
    assert len(set(digests)) == len(others)
    assert all(re.fullmatch("[0-9a-f]{32}", digest) for digest in digests)

"""Facts of a data set from its file names and labels equal those of the decoded images."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.execution.sweep_files import write_sweep_files
from orchestrator.planning.plan import make_plan, recorded_plan
from orchestrator.spec.loader import load_spec
from orchestrator.state.sweep_folder import SweepFolder
from orchestrator.storage.factory import open_storage
from tests.support.custom_modules import write_modules
from tests.support.dataset_folders import fashion_files, imagenet, png_tree, tiny_imagenet
from tests.support.trials import tiny_config
from trainables.config.trial import DatasetConfig
from trainables.custom import imports
from trainables.custom.files import CustomFiles
from trainables.data.datasets import cache_file, decoded_file, load, quick_facts
from trainables.data.facts import DataFacts, decoded_facts
from trainables.data.repeatability import cached_digest
from trainables.data.source import DatasetSource
from trainables.errors import DataError


def source_of(name: str, root: Path) -> DatasetSource:
    if name == "fashion_mnist":
        fashion_files(root / "raw", packed=True)
    elif name == "image_folder":
        png_tree(root)
    elif name == "tiny_imagenet":
        tiny_imagenet(root)
    return DatasetSource(name=name, root=str(root), image_size=8 if name == "image_folder" else None)


@pytest.mark.parametrize("name", ["digits", "fashion_mnist", "image_folder", "tiny_imagenet"])
def test_facts_match_the_decoded_images(tmp_path: Path, name: str) -> None:
    source = source_of(name, tmp_path)
    facts, images = quick_facts(source), load(source)
    assert facts is not None
    assert facts.image_shape == tuple(images.train_images.shape[1:])
    assert facts.num_classes == images.num_classes
    for counts, labels in ((facts.train_counts, images.train_labels), (facts.test_counts, images.test_labels)):
        assert dict(enumerate(counts)) == {label: Counter(labels.tolist())[label] for label in range(images.num_classes)}
    decoded = decoded_facts(decoded_file(source))
    assert (decoded.image_shape, decoded.train_counts, decoded.test_counts) == (
        facts.image_shape,
        facts.train_counts,
        facts.test_counts,
    )


def test_facts_name_the_classes(tmp_path: Path) -> None:
    facts = quick_facts(source_of("image_folder", tmp_path))
    assert facts == DataFacts(image_shape=(3, 8, 8), classes=("ant", "zebra"), train_counts=(1, 2), test_counts=(1, 0))


def test_facts_of_imagenet_match_its_files(tmp_path: Path) -> None:
    facts = quick_facts(DatasetSource(name="imagenet", root=str(imagenet(tmp_path, train=8, val=4)), image_size=32))
    assert facts is not None
    assert (facts.image_shape, facts.train_counts, facts.test_counts) == ((3, 32, 32), (8,) * 3, (4,) * 3)


def test_facts_of_a_custom_data_set_need_its_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imports, "_sources", {})
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    source = DatasetSource(name="module:mydata.load", modules_path=str(write_modules(tmp_path)))
    assert quick_facts(source) is None
    config = tiny_config(dataset=DatasetConfig(name=source.name))
    CustomFiles(modules_path=str(tmp_path)).with_digests([config]).import_modules(config)
    load(source)
    digits = quick_facts(DatasetSource(name="digits"))
    assert digits is not None
    assert quick_facts(source) == replace(digits, arrays_digest=cached_digest(cache_file(source)))
    cache_file(source).write_bytes(b"cut")
    assert quick_facts(source) is None


@pytest.mark.parametrize(
    "damage", [b"", b"\0\0\x08\x03\0\0\0\x07", b"\0\0\x08\x01\0\0\0\x07\x01", b"\0\0\x08\x01\0\0\0\x01\x0a"]
)
def test_damaged_label_file_is_named(tmp_path: Path, damage: bytes) -> None:
    fashion_files(tmp_path / "plain", packed=False)
    source = DatasetSource(name="fashion_mnist", root=str(tmp_path / "plain"))
    (tmp_path / "plain" / "train-labels-idx1-ubyte").write_bytes(damage)
    with pytest.raises(DataError, match="train-labels"):
        quick_facts(source)


SWEEP = """\
name: folder
dataset: {{name: image_folder, root: {root}, image_size: 8, validation: 0}}
model: convnet
sparsity: 0.9
training: {{epochs: 1, batch_size: 2}}
"""


def test_facts_are_kept_with_digest_and_sweep(tmp_path: Path) -> None:
    root = png_tree(tmp_path / "images")
    (tmp_path / "s.yaml").write_text(SWEEP.format(root=root))
    spec, storage = load_spec(str(tmp_path / "s.yaml")), open_storage(str(tmp_path / "runs"), create=True)
    quick = make_plan(spec, storage)
    assert quick.data_digest is None
    assert quick.data_facts is not None
    plan = make_plan(spec, storage, hash_data=True)
    (record,) = storage.names("data")
    stored: dict[str, Any] = storage.read_json(f"data/{record}") or {}
    assert DataFacts.from_json(stored.pop("facts")) == plan.data_facts == quick.data_facts
    storage.write_json(f"data/{record}", stored)  # as versions before this one wrote it
    assert make_plan(spec, storage).data_facts == plan.data_facts
    assert make_plan(spec, storage, hash_data=True).data_digest == plan.data_digest
    assert "facts" in (storage.read_json(f"data/{record}") or {})

    folder = SweepFolder(storage, spec.name)
    write_sweep_files(folder, plan, "")
    kept = storage.read_json(folder.file("trials.json"))
    assert kept is not None
    again = recorded_plan(spec, storage, kept)
    assert again.data_facts == plan.data_facts
    assert [trial.key for trial in again.trials] == [trial.key for trial in plan.trials]
    del kept["data_facts"]
    assert recorded_plan(spec, storage, kept).data_facts is None

"""What the data preflight sees in sets that were made odd on purpose, its picture, and where a sweep shows both."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from orchestrator.planning.plan import make_plan
from orchestrator.preflight.data import (
    PreflightError,
    data_preflight,
    dataset_settings,
    describe_split,
    findings_of,
    preflight_artifacts,
    stored_file,
)
from orchestrator.spec.loader import load_spec
from orchestrator.storage.factory import open_storage
from orchestrator.storage.local import LocalStorage
from tests.support.cli import ask
from tests.support.dataset_folders import imagenet
from trainables.config.trial import DatasetConfig
from trainables.data.datasets import quick_facts
from trainables.data.source import DatasetSource
from trainables.data.splits import Data, load_data
from trainables.data.streaming import decoding_workers
from trainables.preflight.contact_sheet import CELL, DRAWS, contact_sheet, sheet_rows
from trainables.preflight.data_report import data_report

SWEEP = """\
name: odd
dataset: {{name: image_folder, root: {root}, image_size: 8}}
model: convnet
search: {{seed: [0]}}
sparsity: 0.5
training: {{epochs: 1, batch_size: 4}}
resources: {{device: cpu}}
"""


def noise_tree(root: Path, train: dict[str, int], test: dict[str, int], blue: bool = True) -> Path:
    draw = np.random.default_rng(0)
    for split, classes in (("train", train), ("test", test)):
        for name, count in classes.items():
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = draw.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                pixels[..., 2] *= blue
                Image.fromarray(pixels).save(root / split / name / f"{number:02}.png")
    return root


def report_of(root: Path, **options: Any) -> tuple[dict[str, Any], Data]:
    source = DatasetSource(name="image_folder", root=str(root), image_size=8)
    config = DatasetConfig(name="image_folder", image_size=8, **options)
    data, facts = load_data(config, source, "cpu"), quick_facts(source)
    assert facts is not None
    return data_report(config, source, facts, data), data


def messages(report: dict[str, Any]) -> dict[str, str]:
    return {finding.check: str(finding) for finding in findings_of(report)}


def test_a_clean_set_has_no_findings_and_its_counts(tmp_path: Path) -> None:
    report, _ = report_of(noise_tree(tmp_path, {"a": 20, "b": 20}, {"a": 5, "b": 5}))
    assert report["findings"] == []
    assert {name: split["by_class"] for name, split in report["splits"].items()} == {
        "training": [18, 18],
        "validation": [2, 2],
        "test": [5, 5],
    }
    assert report["files"]["sizes"] == {"8 x 8": 50}
    assert report["files"]["kinds"] == {"PNG RGB": 50}


def test_equal_images_are_detected_between_splits_and_labels(tmp_path: Path) -> None:
    root = noise_tree(tmp_path, {"a": 20, "b": 20}, {"a": 5, "b": 5})
    shutil.copy(root / "train" / "a" / "03.png", root / "test" / "a" / "00.png")
    Image.open(root / "train" / "a" / "04.png").save(root / "test" / "b" / "01.bmp")  # other bytes, the same pixels
    (root / "test" / "b" / "01.png").unlink()
    report, _ = report_of(root, validation=0.0)
    assert {kind: report["duplicates"][kind] for kind in ("train_test", "within_training", "other_label")} == {
        "train_test": 2,
        "within_training": 0,
        "other_label": 2,
    }
    message_of = messages(report)
    assert "training train/a/03.png = test test/a/00.png" in message_of["duplicates_train_test"]
    assert "training train/a/04.png = test test/b/01.bmp" in message_of["duplicates_other_label"]
    assert "sizes" in report["files"]


def test_equal_images_of_training_and_validation_are_detected(tmp_path: Path) -> None:
    root = noise_tree(tmp_path, {"a": 20, "b": 20}, {"a": 5, "b": 5})
    for number in range(10):  # halves of the class are copies of each other
        shutil.copy(root / "train" / "a" / f"{number:02}.png", root / "train" / "a" / f"{number + 10:02}.png")
    report, data = report_of(root, validation=0.5)
    train, held_out = ({image.numpy().tobytes() for image in split.images} for split in (data.train, data.validation))
    assert report["duplicates"]["train_validation"] == sum(image.numpy().tobytes() in train for image in data.validation.images)
    assert len(train & held_out) > 0
    assert "validation accuracy is too high" in messages(report)["duplicates_train_validation"]


def test_test_images_on_another_scale_are_reported(tmp_path: Path) -> None:
    root = noise_tree(tmp_path, {"a": 10, "b": 10}, {"a": 5, "b": 5})
    for file in (root / "test").rglob("*.png"):
        Image.fromarray(np.asarray(Image.open(file)) // 255).save(file)
    message_of = messages(report_of(root)[0])
    assert message_of["scales"].startswith("training images have values up to 255, test images up to ")


def test_missing_classes_and_constant_values_are_reported(tmp_path: Path) -> None:
    root = noise_tree(tmp_path, {"a": 10, "b": 10}, {"a": 5}, blue=False)
    Image.new("RGB", (8, 8), (9, 9, 0)).save(root / "train" / "b" / "00.png")
    (root / "train" / "b" / "notes.txt").write_text("")
    message_of = messages(report_of(root, validation=0.0)[0])
    assert message_of["missing_classes"].startswith("1 of 2 classes have no test images: b")
    assert message_of["constant_channels"].startswith("channels that have one value in all training images: 2")
    assert message_of["constant_images"].startswith("1 training images are of one colour, such as train/b/00.png")
    assert "train/b/notes.txt" in message_of["left_out"]


def test_cropping_of_images_that_are_not_square_is_reported(tmp_path: Path) -> None:
    root = noise_tree(tmp_path, {"a": 20, "b": 20}, {"a": 5, "b": 5})
    for number, size in enumerate([(16, 8), (8, 32), (10, 8)]):  # a half, three quarters and a fifth are outside the square
        Image.new("RGB", size, (number, 200, 3)).save(root / "train" / "a" / f"{number:02}.png")
    (finding,) = (one for one in findings_of(report_of(root)[0]) if one.check == "cropping")
    assert finding.severity == "info"
    assert "3 of 50 images are not square" in finding.message
    assert "48% of their pixels are cut off on average" in finding.message
    assert "most of train/a/01.png (75%)" in finding.message
    for name in ("train/a", "train/b", "test/a"):
        for file in (root / name).iterdir():
            Image.open(file).resize((16, 8)).save(file)
    (finding,) = (one for one in findings_of(report_of(root)[0]) if one.check == "cropping")
    assert finding.severity == "warning"


def test_a_streamed_set_is_looked_at_in_part_and_says_so(tmp_path: Path) -> None:
    source = DatasetSource(name="imagenet", root=str(imagenet(tmp_path)), image_size=32)
    config = DatasetConfig(name="imagenet", image_size=32)
    facts = quick_facts(source)
    assert facts is not None
    data = load_data(config, source, "cpu", decoding_workers("cpu", 0))
    report = data_report(config, source, facts, data)
    assert report["splits"]["test"]["images"] == 12
    assert report["files"]["kinds"] == {"JPEG RGB": 36}
    sheet = Image.open(io.BytesIO(contact_sheet(data, facts.classes)))
    assert sheet.width > (4 + DRAWS) * CELL[0]


# The picture


def test_sheet_shows_images_of_the_class_and_crops(tmp_path: Path) -> None:
    _, data = report_of(noise_tree(tmp_path, {"a": 10, "b": 3}, {"a": 5, "b": 5}))
    for label, row in enumerate(sheet_rows(data, ("a", "b"))):
        of_class = data.train.images[data.train.labels == label]
        assert row.title == f"{'ab'[label]} ({len(of_class)})"
        assert all(any(torch.equal(image, one) for one in of_class) for image in row.plain)
        padded = torch.nn.functional.pad(row.plain[0], (4, 4, 4, 4))
        cuts = [padded[:, top : top + 8, left : left + 8] for top in range(9) for left in range(9)]
        cuts += [cut.flip(2) for cut in cuts]
        assert len(row.augmented) == DRAWS
        assert all(any(torch.equal(image, cut) for cut in cuts) for image in row.augmented)
        assert len({image.numpy().tobytes() for image in row.augmented}) > 1


def test_sheet_enlarges_by_whole_factors_without_augmentation() -> None:
    data = load_data(DatasetConfig(name="digits", limit=100), DatasetSource(name="digits"), "cpu")
    assert all(len(row.augmented) == 0 for row in sheet_rows(data, tuple("0123456789")))
    sheet = np.asarray(Image.open(io.BytesIO(contact_sheet(data, tuple("0123456789")))).convert("L"))
    first = sheet_rows(data, tuple("0123456789"))[0].plain[0, 0].numpy()
    wanted = np.kron(first, np.ones((9, 9), dtype=np.uint8))
    places = [
        (top, left)
        for top in range(0, 120)
        for left in range(0, 120)
        if np.array_equal(sheet[top : top + 72, left : left + 72], wanted)
    ]
    assert len(places) == 1


# In a sweep


@pytest.mark.process
def test_report_is_computed_once_and_kept_in_storage_and_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRIVE_SWEEP_CACHE", str(tmp_path / "cache"))
    root = noise_tree(tmp_path / "images", {"a": 20, "b": 30}, {"a": 5, "b": 5})
    (tmp_path / "s.yaml").write_text(SWEEP.format(root=root))
    spec, storage = load_spec(str(tmp_path / "s.yaml")), open_storage(str(tmp_path / "runs"), create=True)
    plan = make_plan(spec, storage, hash_data=True)
    (dataset,) = dataset_settings(plan)
    assert preflight_artifacts(plan, storage) == {}
    report, sheet = data_preflight(plan, storage, dataset)
    assert report["seconds"] > 0
    artifacts = preflight_artifacts(plan, storage)
    assert json.loads(artifacts["data.json"]) == report
    assert artifacts["data.png"] == sheet

    def refused(*arguments: Any, **options: Any) -> None:
        raise AssertionError("made again")

    monkeypatch.setattr("orchestrator.preflight.data.ask", refused)
    assert data_preflight(plan, storage, dataset) == (report, sheet)
    other = open_storage(str(tmp_path / "others"), create=True)
    assert data_preflight(plan, other, dataset) == (report, sheet)
    assert other.exists(stored_file(plan, dataset, "json"))
    cache, name = LocalStorage(str(tmp_path / "cache")), stored_file(plan, dataset, "json")
    for content in (b"", b"null", b"[]", b'{"another": "program"}', b'{"seconds": 1}'):
        storage.write(name, content)
        assert data_preflight(plan, storage, dataset) == (report, sheet)  # from the cache
        assert storage.read_json(name) == report
    cache.write(name, b'{"another": "program"}')
    storage.write(name, b'{"another": "program"}')
    with pytest.raises(AssertionError, match="made again"):
        data_preflight(plan, storage, dataset)
    cache.remove(name)
    other.remove(stored_file(plan, dataset, "png"))
    with pytest.raises(AssertionError, match="made again"):
        data_preflight(plan, other, dataset)


@pytest.mark.process
def test_images_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    root = noise_tree(tmp_path / "images", {"a": 20, "b": 30}, {"a": 5, "b": 5})
    (root / "train" / "a" / "00.png").write_bytes(b"no image")
    (tmp_path / "s.yaml").write_text(SWEEP.format(root=root))
    storage = open_storage(str(tmp_path / "runs"), create=True)
    plan = make_plan(load_spec(str(tmp_path / "s.yaml")), storage, hash_data=True)
    with pytest.raises(PreflightError, match=r"00\.png"):
        data_preflight(plan, storage, plan.trials[0].config.dataset)


def test_preflight_error_keeps_the_hint_of_the_child_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = noise_tree(tmp_path / "images", {"a": 20, "b": 30}, {"a": 5, "b": 5})
    (tmp_path / "s.yaml").write_text(SWEEP.format(root=root))
    storage = open_storage(str(tmp_path / "runs"), create=True)
    plan = make_plan(load_spec(str(tmp_path / "s.yaml")), storage, hash_data=True)
    monkeypatch.setattr("orchestrator.preflight.data.ask", lambda *_, **__: {"error": "it is damaged", "hint": "restore it"})
    with pytest.raises(PreflightError, match=r"^it is damaged; restore it$") as raised:
        data_preflight(plan, storage, plan.trials[0].config.dataset)
    assert (raised.value.message, raised.value.hint) == ("it is damaged", "restore it")


@pytest.mark.extended
def test_each_way_to_split_the_data_is_looked_at_and_named(tmp_path: Path) -> None:
    root = noise_tree(tmp_path / "images", {"a": 40, "b": 2}, {"a": 5, "b": 5})
    searched = SWEEP.format(root=root).replace("seed: [0]", "dataset.validation: [0.5, 0.0], dataset.limit: [42, 20]")
    (tmp_path / "s.yaml").write_text(searched)
    storage = open_storage(str(tmp_path / "runs"), create=True)
    plan = make_plan(load_spec(str(tmp_path / "s.yaml")), storage, hash_data=True)
    settings = dataset_settings(plan)
    words = ["limit 42, validation 0.5", "limit 20, validation 0.5", "limit 42, validation 0.0", "limit 20, validation 0.0"]
    assert sorted(describe_split(dataset, settings) for dataset in settings) == sorted(words)
    answer = ask("data", tmp_path / "s.yaml", "--storage", tmp_path / "runs", "--out", tmp_path / "x.png", "--json")
    first = json.loads(answer.stdout)
    images = {
        (report["setting"]["limit"], report["setting"]["validation"]): report["splits"]["validation"]["images"]
        for report in [first, *first["others"]]
    }
    assert images == {(42, 0.5): 21, (20, 0.5): 10, (42, 0.0): 0, (20, 0.0): 0}
    assert {path.name for path in tmp_path.glob("*.png")} == {"x.png", "x-2.png", "x-3.png", "x-4.png"}
    assert {"data.json", "data-4.png"} <= set(preflight_artifacts(plan, storage))
    shown = ask("data", tmp_path / "s.yaml", "--storage", tmp_path / "runs", "--out", tmp_path / "x.png")
    assert all(word in shown.stdout for word in words)
    assert "not shown" not in shown.stderr


def test_the_command_prints_the_report_and_writes_the_picture(tmp_path: Path) -> None:
    answer = ask(
        *("data", "digits", "--set", "dataset.limit=300", "--storage", tmp_path / "runs", "--out", tmp_path / "x.png", "--json")
    )
    report = json.loads(answer.stdout)
    assert report["splits"]["validation"]["images"] == 30
    assert Image.open(report["picture"]).format == "PNG"
    shown = ask("data", "digits", "--set", "dataset.limit=300", "--storage", tmp_path / "runs", "--out", tmp_path / "x.png")
    assert "digits: 1 x 8 x 8, 10 classes" in shown.stdout

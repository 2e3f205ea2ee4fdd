"""Sweep files and options become a SweepSpec; its resolved form and JSON Schema."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import UserError
from orchestrator.spec.axes import SEARCHABLE, TRIAL_KEYS, schema_keys
from orchestrator.spec.field_types import SpecModel
from orchestrator.spec.grid import expand
from orchestrator.spec.json_schema import json_schema
from orchestrator.spec.loader import load_spec, resolved, spec_from_resolved
from orchestrator.spec.presets import preset_names
from orchestrator.spec.schema import SweepSpec
from orchestrator.spec.trial_names import trial_names
from tests import ROOT
from tests.support.sweep_files import BASE, error_lines, load_text
from trainables.config.keys import canonical
from trainables.config.trial import DatasetConfig, TrialConfig
from trainables.data.source import DatasetSource
from trainables.data.table import image_side
from trainables.models.table import NETWORKS

MODELS = ", ".join(NETWORKS) + ", or {module: FILE.FUNCTION}"


def test_options_override_the_file() -> None:
    text = BASE + "sparsity: 0.5\nsearch: {seed: [0, 1, 2], training.lr: [0.1, 0.2]}\ntraining: {epochs: 9}\n"
    spec = load_text(text, "training.epochs=4", "seed=7", "search.sparsity=[0.9]", "name=y", "resources={device: cpu}")
    assert (spec.name, spec.training.epochs, spec.seed, spec.resources.device) == ("y", 4, 7, "cpu")
    assert spec.search == {"training.lr": (0.1, 0.2), "sparsity": (0.9,)}
    assert load_text(text, "search={seed: [5]}").search == {"seed": (5,)}


def test_model_can_be_searched_instead_of_fixed() -> None:
    text = "name: x\ndataset: {name: digits}\nsearch: {model: [resnet20, convnet]}\nbaseline: none\n"
    assert [config.model for config in expand(load_text(text))] == ["resnet20", "convnet"]
    assert trial_names(expand(load_text(text))) == ["w00-i001-s0.0-r0-modelresnet20", "w00-i001-s0.0-r0-modelconvnet"]
    assert spec_from_resolved(resolved(load_text(text))) == load_text(text)
    expected = f"s.yaml:3: search.model[0] must be one of {MODELS}, got 'resnet200'; did you mean 'resnet20'?"
    assert error_lines(text.replace("resnet20", "resnet200")) == [expected]


def test_defaults_are_those_of_the_trial_config() -> None:
    trial = TrialConfig(dataset=DatasetConfig(name="digits"), model="convnet")
    assert expand(load_text(BASE + "baseline: none\n")) == [trial]
    assert canonical(expand(load_text(BASE))[0]) == {"dataset": {"name": "digits"}, "model": "convnet"}


def test_every_key_of_a_trial_is_in_the_schema() -> None:
    written = {key for key, _ in schema_keys(SweepSpec)}
    word_auto = {"warmup.auto", "iterations.auto"}  # in the file it stands in the place of the number
    of_workers = {"norm_parts"}  # it follows from resources
    assert set(TRIAL_KEYS) - word_auto - of_workers <= written
    per_sweep = {"dataset.name", "dataset.image_size", "method", "initial_weights"}
    assert set(TRIAL_KEYS) - set(SEARCHABLE) == per_sweep | word_auto | of_workers


def test_integers_and_floats_are_interchangeable() -> None:
    spec = load_text(BASE + "seed: 1.0\nsparsity: 0\ntraining: {epochs: 1e1, lr: 1, milestones: [2.0, 4]}\n")
    config = expand(spec)[0]
    assert (config.seed, config.sparsity, config.training.epochs, config.training.lr) == (1, 0.0, 10, 1.0)
    assert [type(value) for value in (config.seed, config.sparsity, config.training.epochs, config.training.lr)] == [
        int,
        float,
        int,
        float,
    ]
    assert config.training.milestones == (2, 4)


def test_source_has_the_values_of_the_file() -> None:
    spec = load_text("name: x\nmodel: convnet\ndataset: {name: image_folder, root: ~/images, image_size: 16}\n")
    assert spec.source() == DatasetSource(name="image_folder", root="~/images", image_size=16)
    assert expand(spec)[0].dataset == DatasetConfig(name="image_folder", image_size=16)


@pytest.mark.parametrize(("written", "side"), [("", 224), (", image_size: 64", 64)])
def test_imagenet_has_a_default_image_size(written: str, side: int) -> None:
    spec = load_text(f"name: x\nmodel: alexnet\ndataset: {{name: imagenet, root: a{written}}}\n")
    assert image_side(expand(spec)[0].dataset) == side


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "fashion_mnist"])
def test_download_is_allowed_for_downloadable_data_sets(name: str) -> None:
    spec = load_text(f"name: x\nmodel: convnet\ndataset: {{name: {name}, root: a, download: true}}\n")
    assert spec.source() == DatasetSource(name=name, root="a", download=True)


@pytest.mark.parametrize("name", ["digits", "fashion-mnist", "cifar10-resnet20"])
def test_resolved_form_restores_the_sweep(name: str) -> None:
    spec = load_spec(name, ["search.training.milestones=[[4, 6], null]"] if name == "digits" else [])
    plain = json.loads(json.dumps(resolved(spec)))
    again = spec_from_resolved(plain)
    assert again == spec
    assert expand(again) == expand(spec)
    assert expand(load_text(json.dumps(plain))) == expand(spec)  # it is a sweep file by itself


def test_damaged_resolved_form_is_an_error() -> None:
    plain = resolved(load_spec("digits"))
    with pytest.raises(
        UserError, match="resolved sweep: sparsiti must be a known key, got 'sparsiti'; did you mean 'sparsity'"
    ):
        spec_from_resolved(plain | {"sparsiti": 3})
    with pytest.raises(UserError, match="resolved sweep: must be a mapping, got nothing"):
        spec_from_resolved(None)  # type: ignore[arg-type]


@pytest.mark.skipif(importlib.util.find_spec("jsonschema") is None, reason="jsonschema is not installed")
def test_default_of_every_section_is_a_valid_one() -> None:
    sections = {name: field.default for name, field in SweepSpec.model_fields.items() if isinstance(field.default, SpecModel)}
    assert {"training", "drive", "strategy", "tracking"} <= set(sections)
    for name, default in sections.items():
        assert default == type(default)(), name


def test_json_schema_agrees_with_the_loader() -> None:
    import jsonschema

    from orchestrator.spec.yaml_document import parse

    jsonschema.Draft202012Validator.check_schema(json_schema())
    validator = jsonschema.Draft202012Validator(json_schema())
    valid = [ROOT / "orchestrator" / "sweeps" / f"{name}.yaml" for name in (*preset_names(), "template")]
    for file in valid:
        assert [error.message for error in validator.iter_errors(parse(file.read_text(), file.name).data)] == []
    for invalid in (
        "sparsity: 95",
        "nmae: y",
        "seed: 1.5",
        "training: {lr: 0}",
        "dataset.limit: 3",
        "search: {seed: []}",
        "search: {seed: [1, 1]}",
        "search: {sparsity: [0.9, 95]}",
        "search: {dataset.limit: [3]}",
        "search: {storage: [a]}",
        "rewind: later",
        "method: prune",
    ):
        assert not validator.is_valid(parse(BASE + invalid, "f").data), invalid
    for addition in (
        "method: [drive, dense]",
        "training: {milestones: [1, 2.0]}",
        "search: {training.milestones: [null, [1]]}",
    ):
        assert validator.is_valid(parse(BASE + addition, "f").data), addition


def test_json_schema_describes_every_key() -> None:
    schema = json_schema()

    def undescribed(properties: dict[str, Any]) -> list[str]:
        return [key for key, value in properties.items() if not value.get("description")]

    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert undescribed(schema["properties"]) == []
    assert undescribed(schema["properties"]["search"]["properties"]) == []
    assert list(schema["properties"]["search"]["properties"]) == list(SEARCHABLE)
    for name, part in schema["$defs"].items():
        assert undescribed(part["properties"]) == [], name


def test_loading_is_fast_and_imports_nothing_heavy(tmp_path: Path) -> None:
    code = """
import sys, time
started = time.process_time()
import orchestrator.spec.loader
print(time.process_time() - started)
orchestrator.spec.loader.load_spec("digits")
print(*sorted({"torch", "ray", "mlflow", "numpy", "pyarrow"} & set(sys.modules)))
"""
    environment = os.environ | {"PYTHONPYCACHEPREFIX": str(tmp_path), "PYTHONDONTWRITEBYTECODE": ""}
    answers = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment).stdout.split(
            "\n"
        )
        for _ in range(3)  # the first one compiles
    ]
    assert min(float(seconds) for seconds, *_ in answers) < 0.5
    assert {heavy for _, heavy, *_ in answers} == {""}


def test_every_model_of_the_schema_can_be_built() -> None:
    from trainables.models.registry import build_model

    for name in NETWORKS:
        assert build_model(name, (1, 32, 32), 10)

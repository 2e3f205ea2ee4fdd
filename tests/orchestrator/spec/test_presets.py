"""Presets, the template, and the text of sweep files."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from orchestrator.errors import UserError
from orchestrator.search.cost import search_cost
from orchestrator.search.groups import groups_of
from orchestrator.spec.axes import schema_keys
from orchestrator.spec.grid import expand
from orchestrator.spec.loader import load_spec
from orchestrator.spec.presets import preset_names, preset_text, template
from orchestrator.spec.schema import SweepSpec
from tests.support.sweep_files import BASE, load_text
from trainables.config.keys import warmup_key
from trainables.data.source import DatasetSource

OWN = "neighbours/"  # presets that compare methods, not recipes of papers


def test_unreadable_file_is_reported(tmp_path: Path) -> None:
    rule = f"must be a file or one of the presets {', '.join(preset_names())}"
    (tmp_path / "folder").mkdir()
    (tmp_path / "latin.yaml").write_bytes(BASE.encode() + "# caf\xe9\n".encode("latin-1"))
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for file, expected in {
        "digit": f"digit: {rule}, got no such file; did you mean 'digits'?",
        "nothing.yaml": f"nothing.yaml: {rule}, got no such file; `drive-sweep init` writes a file to start from",
        "template": f"template: {rule}, got no such file; `drive-sweep init` writes a file to start from",
        "folder": "folder: must be a sweep file, got a folder; give a file in it",
        "latin.yaml": "latin.yaml:4: must be UTF-8 text, got byte 0xe9; save it as UTF-8",
        "loop": f"loop: must be readable, got {os.strerror(40)!r}; check the file and its permissions",
    }.items():
        with pytest.raises(UserError) as error:
            load_spec(file)
        assert str(error.value) == expected


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_file_without_permission_is_reported(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").touch(mode=0o000)
    with pytest.raises(UserError, match=r"s\.yaml: must be readable, got 'Permission denied'"):
        load_spec("s.yaml")


@pytest.mark.parametrize(
    ("name", "pruned", "baselines"), [("digits", 48, 2), ("fashion-mnist", 60, 2), ("cifar10-resnet20", 180, 3)]
)
def test_presets_have_the_documented_trials(name: str, pruned: int, baselines: int) -> None:
    methods = [config.method for config in expand(load_spec(name))]
    assert methods == ["drive"] * pruned + ["dense"] * baselines
    assert name in preset_names()


@pytest.mark.parametrize(("name", "groups", "configurations"), [("digits-search", 2, 16), ("cifar10-search", 3, 25)])
def test_presets_of_searches_have_the_documented_spaces(name: str, groups: int, configurations: int) -> None:
    spec = load_spec(name)
    assert (spec.name, spec.is_search) == (name, True)
    assert [group.space.size for group in groups_of(spec)] == [configurations] * groups
    cost = search_cost(spec)
    assert cost.grid is not None
    assert spec.budget is not None
    assert spec.budget.epochs is not None
    assert cost.grid.epochs / 4.2 < spec.budget.epochs <= cost.grid.epochs / 4
    assert cost.typical.epochs <= spec.budget.epochs + cost.dense.epochs


@pytest.mark.parametrize("name", [name for name in preset_names() if OWN in name])
def test_neighbours_are_pruned_as_weights_and_as_channels(name: str) -> None:
    spec = load_spec(name)
    assert spec.name == name.replace("/", "-")
    trials = [trial for trial in expand(spec) if not trial.is_dense]
    of_both = {trial.method for trial in trials if trial.prunes_channels} & {
        trial.method for trial in trials if not trial.prunes_channels
    }
    assert of_both == {"drive", "snip", "magnitude"}
    assert {trial.method for trial in trials} - of_both == {"granet", "taylor", "hap", "cap", "polarization", "consensus"}
    assert len({warmup_key(trial, "0" * 32) for trial in trials}) == 3  # one for each seed


@pytest.mark.parametrize("name", [name for name in preset_names() if "/" in name and OWN not in name])
def test_published_presets_name_their_source(name: str) -> None:
    text = preset_text(name)
    folder, dataset = name.split("/")
    spec = load_spec(name)
    assert spec.name == name.replace("/", "-")
    assert dataset.startswith(spec.dataset.name.replace("_", "-"))
    assert expand(spec)
    assert spec.training.milestones == {"synflow-parity": (60, 120)}.get(
        folder, (30, 60, 80) if "/imagenet" in name else (80, 120)
    )
    assert "arXiv:" in text
    assert ("Assum" in text or "assum" in text) or folder != "reference"


def test_unknown_preset_is_reported() -> None:
    with pytest.raises(UserError, match=r"--from: must be a preset, got 'reference/cifar10-vgg17'; did you mean"):
        preset_text("reference/cifar10-vgg17")


def test_file_takes_precedence_over_preset() -> None:
    assert load_spec("digits").name == "digits"
    Path("digits").write_text(BASE)
    assert load_spec("digits").name == "x"


def test_digits_preset_needs_no_download_or_server() -> None:
    spec = load_spec("digits")
    assert spec.source() == DatasetSource(name="digits")
    assert (spec.storage, spec.tracking.uri) == ("./runs", None)
    assert (spec.resources.device, spec.resources.cpus_per_trial, spec.resources.deterministic) == ("cpu", 1.0, True)
    assert {(c.training.epochs, c.training.batch_size, c.training.lr, c.precision) for c in expand(spec)} == {
        (8, 64, 0.1, "fp32")
    }


def test_template_is_a_sweep_with_every_key() -> None:
    assert expand(load_text(template()))
    for key, _ in schema_keys(SweepSpec):
        assert f"{key.rpartition('.')[2]}:" in template(), key


def test_search_of_the_template_is_valid_when_uncommented() -> None:
    text = template().replace("  seed: [0, 1]\n", "")  # which stands in place of `seeds`
    before, start, rest = text.partition("# strategy:\n")
    block, end, after = rest.partition("\n\n")
    spec = load_text(before + re.sub("^# ", "", start + block, flags=re.MULTILINE) + end + after)
    assert spec.strategy.name == "tpe"
    assert spec.strategy.start_with == ({"warmup_epochs": 4},)
    assert None not in (spec.early_stopping, spec.seeds, spec.budget)

"""How many weights each setting keeps, before anything is trained: against trials that ran, and refused where it is none."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.cli import main
from orchestrator.errors import UserError
from orchestrator.planning.kept_weights import counts_of_plan, require_kept_weights
from orchestrator.planning.plan import Plan, make_plan
from orchestrator.spec.loader import load_spec
from orchestrator.terminal.plan import plan_facts
from tests.support.custom_modules import write_modules
from tests.support.trials import new_storage, run, tiny_config
from trainables.config.counts import kept_count
from trainables.config.methods import ImpConfig, SrsteConfig
from trainables.custom.files import NO_CUSTOM_FILES
from trainables.data.datasets import cache_folder
from trainables.data.digits import DIGITS_FACTS
from trainables.errors import ConfigError
from trainables.pruning import kept_weights as module
from trainables.pruning.kept_weights import highest_sparsity, kept_weights, network_shape, prunable_shapes

HEAD = """\
from torch import nn


def head(image_shape, num_classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 37, bias=False), nn.Linear(37, num_classes, bias=False))
"""  # 64 * 37 + 37 * 10 = 2,738 weights and no other parameter


def planned(folder: Path, *settings: str, **search: list[Any]) -> Plan:
    model = "" if "model" in search else "model: convnet\n"
    lines = "".join(f"  {key.replace('__', '.')}: {value}\n" for key, value in search.items())
    (folder / "s.yaml").write_text(f"name: s\ndataset: {{name: digits}}\n{model}training: {{epochs: 1}}\nsearch:\n{lines}")
    return make_plan(load_spec(str(folder / "s.yaml"), list(settings)), new_storage(folder / "runs"))


@pytest.mark.parametrize(
    "changes",
    [
        {"sparsity": 0.95},
        {"method": "srste", "sparsity": 0.0, "options": SrsteConfig(pattern="1:4")},
        {"method": "imp", "sparsity": 0.5, "options": ImpConfig(fraction=0.3, exact=False)},
        {"method": "gmp", "sparsity": 0.777},
    ],
    ids=["drive", "srste", "imp", "gmp"],
)
def test_the_count_of_a_plan_is_that_of_the_trial(changes: dict[str, Any], tmp_path: Path) -> None:
    config = tiny_config(warmup_epochs=0, **changes)
    result = run(config, new_storage(tmp_path))
    shapes = prunable_shapes(config, network_shape(config, DIGITS_FACTS, NO_CUSTOM_FILES))
    assert shapes == {layer["name"]: tuple(layer["shape"]) for layer in result["layers"]}
    assert kept_weights(config, shapes) == result["kept_weights"]


def test_plan_shows_the_kept_weights_by_network_and_sparsity(tmp_path: Path) -> None:
    plan = planned(tmp_path, sparsity=[0.9, 0.98], model=["convnet", "resnet20"], seed=[0, 1])
    facts = plan_facts(plan, new_storage(tmp_path / "runs"))["kept_weights"]
    assert {(one["model"], one["sparsity"], one["kept"], one["prunable"]) for one in facts} == {
        ("convnet", 0.9, 1525, 15_248),
        ("resnet20", 0.9, 27_061, 270_608),
        ("convnet", 0.98, 305, 15_248),
        ("resnet20", 0.98, 5412, 270_608),
    }
    assert len(facts) == 4


def test_settings_that_keep_nothing_are_refused_with_the_fix(tmp_path: Path) -> None:
    plan = planned(tmp_path, sparsity=[0.9, 0.99999, 0.99998])
    expected = [
        "sparsity: convnet must keep at least one of its 15,248 prunable weights, got sparsity 0.99999 and 0 weights; "
        "choose a sparsity of at most 0.9999",
        "sparsity: convnet must keep at least one of its 15,248 prunable weights, got sparsity 0.99998 and 0 weights; "
        "choose a sparsity of at most 0.9999",
    ]
    for check in (counts_of_plan, require_kept_weights):
        with pytest.raises(UserError) as caught:
            check(plan)
        assert str(caught.value).splitlines() == expected


def test_run_rejects_them_before_anything_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    planned(tmp_path, sparsity=[0.99999])
    assert main(["run", str(tmp_path / "s.yaml"), "--storage", str(tmp_path / "made")]) == 2
    assert "0 weights; choose a sparsity of at most 0.9999" in capsys.readouterr().err
    assert not (tmp_path / "made").exists()


def test_trial_that_keeps_nothing_is_refused_before_warmup(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="must keep at least one of its 15,248"):
        run(tiny_config(sparsity=0.99999), new_storage(tmp_path))
    assert not list(tmp_path.glob("warmups/*/epoch-*"))


def test_fewer_weights_than_layers_are_a_warning(tmp_path: Path) -> None:
    (one,) = counts_of_plan(planned(tmp_path, sparsity=[0.9999]))
    assert (one.kept, one.layers) == (2, 4)
    assert one.warning == "2 kept weights are fewer than the 4 layers of convnet: some are left empty"


@pytest.mark.process
def test_custom_networks_are_counted_where_they_can_be_imported(tmp_path: Path) -> None:
    folder = write_modules(tmp_path, plan_heads=HEAD)
    settings = [f"modules_path={folder}", "model={module: plan_heads.head}"]
    (one,) = counts_of_plan(planned(tmp_path, *settings, sparsity=[0.9]))
    assert (one.prunable, one.kept, one.layers) == (2738, 274, 2)
    with pytest.raises(UserError, match=r"plan_heads\.head must keep at least one of its 2,738 prunable weights"):
        counts_of_plan(planned(tmp_path, *settings, sparsity=[0.9999]))
    write_modules(tmp_path, plan_heads="import a_package_that_is_not_here\n" + HEAD)
    (one,) = counts_of_plan(planned(tmp_path, *settings, sparsity=[0.9]))
    assert one.kept is None
    assert "a_package_that_is_not_here" in str(one.problem)


def test_shapes_are_looked_up_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = planned(tmp_path, sparsity=[0.9])
    first = counts_of_plan(plan)
    monkeypatch.setattr(module, "_built_shape", lambda *args: pytest.fail("made again"))
    assert counts_of_plan(plan) == first
    for file in cache_folder().glob("network-*.json"):
        file.write_text("{")
    monkeypatch.undo()
    assert counts_of_plan(plan) == first
    assert "torch" in sys.modules


@given(prunable=st.integers(1, 10**9))
def test_the_sparsity_of_the_fix_keeps_a_weight(prunable: int) -> None:
    highest = highest_sparsity(prunable)
    assert kept_count(highest, prunable) >= 1
    assert (highest == 0) == (prunable < 5), "a tenth of five is rounded up"

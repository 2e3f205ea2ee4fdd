"""The timing table of a sweep, from the plan without one to trials that have it: keys, shipping, a changed file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orchestrator.errors import UserError
from orchestrator.jobs.package import collect_custom_files, shipped_settings
from orchestrator.planning.plan import Plan, make_plan
from orchestrator.spec.loader import load_spec
from orchestrator.storage.local import LocalStorage
from tests.support.timings import convnet_record

TEXT = """\
name: fast
dataset: {name: digits}
model: convnet
method: [snip, taylor]
layer_sparsity: spdy
target: {latency: 0.5}
warmup_epochs: 1
"""


def plan_in(folder: Path, *settings: str) -> Plan:
    (folder / "s.yaml").write_text(TEXT)
    return make_plan(load_spec(str(folder / "s.yaml"), settings), LocalStorage(str(folder / "runs")))


def test_sweep_without_a_table_is_refused_with_the_command(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"timings: must be given with target\.latency, got none") as error:
        plan_in(tmp_path)
    assert "drive-sweep timings" in error.value.hint
    assert "--out timings.json" in error.value.hint


def test_invalid_table_is_refused_before_anything_runs(tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text(json.dumps(convnet_record(rest=-1)))
    plan = plan_in(tmp_path, f"timings={tmp_path}/t.json")
    assert "timings: rest must be a time of at least 0, got -1" in plan.data_problem


def test_keys_follow_the_content_of_the_table_and_not_its_place(tmp_path: Path) -> None:
    first, moved, changed = (tmp_path / f"{name}.json" for name in ("first", "moved", "changed"))
    for file, rest in ((first, 0.005), (moved, 0.005), (changed, 0.004)):
        file.write_text(json.dumps(convnet_record(rest=rest)))
    plans = [plan_in(tmp_path, f"timings={file}") for file in (first, moved, changed)]
    keys = [[trial.key for trial in plan.trials] for plan in plans]
    assert keys[0] == keys[1]
    assert [one == other for one, other in zip(keys[0], keys[2], strict=True)] == [False, False, True]  # the last is dense
    assert (
        len({trial.warmup_key for plan in plans for trial in plan.trials if trial.warmup_key and not trial.config.is_dense})
        == 1
    )
    assert [sorted(plan.custom_files.digests_of(trial.config)) for plan in plans[:1] for trial in plan.trials] == [
        ["timings"],
        ["timings"],
        [],
    ]


def test_table_is_sent_along(tmp_path: Path) -> None:
    file = tmp_path / "my table.json"
    file.write_text(json.dumps(convnet_record()))
    (tmp_path / "s.yaml").write_text(TEXT)
    custom = collect_custom_files(load_spec(str(tmp_path / "s.yaml"), [f'timings="{file}"']))
    assert custom == {"timings/my table.json": str(file)}
    assert shipped_settings(custom) == ['timings="shipped:timings/my table.json"']
    assert (
        load_spec(str(tmp_path / "s.yaml"), shipped_settings(custom)).custom_files().timings == "shipped:timings/my table.json"
    )

"""The network checks of whole sweeps: refused with exit 2 before anything runs, kept for later runs, and part of `doctor`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from orchestrator.errors import UserError
from orchestrator.planning.plan import Plan, make_plan
from orchestrator.preflight.networks import RECORD, NetworkChecks, step_seconds
from orchestrator.spec.loader import load_spec
from orchestrator.state.sweep_folder import SweepFolder
from orchestrator.storage.base import Storage
from orchestrator.storage.factory import open_storage
from orchestrator.storage.local import LocalStorage
from tests.support.cli import ask, drive_sweep
from trainables.findings import Finding
from trainables.preflight.network_case import CHECKS_VERSION, NetworkReport

NETS = """\
from torch import nn


class Aux(nn.Sequential):
    def forward(self, x):
        scores = super().forward(x)
        return (scores, scores) if self.training else scores


def aux(image_shape, num_classes):
    return Aux(nn.Flatten(), nn.Linear(64, num_classes))


def frozen(image_shape, num_classes):
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, num_classes))
    net[1].requires_grad_(False)
    return net


def viewed(image_shape, num_classes):
    return nn.Sequential(nn.Conv2d(1, 4, 3), View(), nn.Linear(144, num_classes))


class View(nn.Module):
    def forward(self, x):
        return x.view(x.size(0), -1)
"""
SWEEP = """\
name: checked
dataset: {name: digits, limit: 100}
search: {model: [MODELS]}
sparsity: 0.9
warmup_epochs: 1
training: {epochs: 1, batch_size: 20, lr: 0.05}
resources: {device: cpu, cpus_per_trial: 1, max_concurrent: 1}
modules_path: FOLDER
"""


def sweep_file(folder: Path, *models: str) -> Path:
    (folder / "checked_nets.py").write_text(NETS)
    names = ", ".join(name if name == "convnet" else f"{{module: checked_nets.{name}}}" for name in models)
    file = folder / "sweep.yaml"
    file.write_text(SWEEP.replace("MODELS", names).replace("FOLDER", str(folder)))
    return file


def planned(folder: Path, *models: str, options: Sequence[str] = ()) -> tuple[Plan, SweepFolder]:
    storage = open_storage(str(folder / "runs"), create=True)
    plan = make_plan(load_spec(str(sweep_file(folder, *models)), options), storage, hash_data=True)
    return plan, SweepFolder(storage, plan.spec.name)


def test_run_names_all_faults_before_any_trial(tmp_path: Path) -> None:
    storage = tmp_path / "runs"
    file = sweep_file(tmp_path, "convnet", "aux", "frozen")
    refused = drive_sweep("run", file, "--storage", storage, "--set", "precision=fp32", expect=2)  # checked beside Ray's start
    for part in ("checked_nets.aux", "tuple", "checked_nets.frozen", "prunable.exclude: [1]"):
        assert part in refused.stderr
    assert "Traceback" not in refused.stderr
    assert not list(storage.glob("trials/*/result.json"))
    assert not list(storage.glob("warmups/*"))


@pytest.mark.long
def test_run_adjusts_networks_and_checks_sound_ones_once(tmp_path: Path) -> None:
    file, storage = sweep_file(tmp_path, "convnet", "viewed"), tmp_path / "runs"
    done = drive_sweep("run", file, "--storage", storage)
    assert "contiguous order" in done.stderr
    opened = open_storage(str(storage))
    folder = SweepFolder(opened, "checked")
    assert set(opened.read_json(folder.file("resolved.json"))) == {"device", "precision"}
    results = [opened.read_json(f"trials/{path.parent.name}/result.json") for path in storage.glob("trials/*/result.json")]
    order = {result["config"]["model"]: result["fingerprints"][-1]["channels_last"] for result in results}
    assert order == {"convnet": True, "module:checked_nets.viewed": False}
    plan = make_plan(load_spec(str(file)), opened, hash_data=True)
    wider = plan.without_results([trial.key for trial in plan.trials])
    precision = opened.read_json(folder.file("resolved.json"))["precision"]
    assert NetworkChecks(folder, wider, "cpu").unanswered(precision) == []


def test_another_sweep_on_this_machine_takes_over_the_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan, folder = planned(tmp_path, "viewed")
    cache = LocalStorage(str(tmp_path / "cache"))
    lines: list[str] = []

    def another(cache: Storage | None) -> NetworkChecks:
        folder.storage.remove(folder.file(RECORD))
        lines.clear()
        checks = NetworkChecks(folder, plan, "cpu", cache)
        checks.load_cached("fp32", lines.append)
        return checks

    first = another(cache)
    in_part = Finding(check="memory", severity="warning", message="not all could be checked", hint="")
    first.add([report_of(first, findings=(in_part,))], "fp32", lines.append)
    assert lines == ["convnet: not all could be checked", "convnet: checked in 0.1 s"]
    assert len(another(cache).unanswered("fp32")) == 1, "with more memory more is seen"
    slow = Finding(check="memory_order", severity="warning", message="slow", hint="mend it")
    first.add([report_of(first, findings=(slow,), adjusted={"channels_last": False})], "fp32", lines.append)
    second = another(cache)
    assert lines == ["convnet: slow; mend it"]
    assert second.unanswered("fp32") == []
    assert second.adjustments("fp32", lines.append) == {first.cases[0].id: {"channels_last": False}}
    assert len(another(None).unanswered("fp32")) == 1, "other machines may compute otherwise"
    monkeypatch.setattr("orchestrator.preflight.networks.code_digest", lambda: "of another version")
    assert len(another(cache).unanswered("fp32")) == 1


def report_of(checks: NetworkChecks, **changes: Any) -> NetworkReport:
    fields: dict[str, Any] = {"findings": (), "adjusted": {}, "seconds": 0.1} | changes
    return NetworkReport(case=checks.cases[0].id, model="convnet", **fields)


def test_answers_are_kept_as_long_as_what_they_depend_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan, folder = planned(tmp_path, "viewed")
    checks = NetworkChecks(folder, plan, "cpu")
    lines: list[str] = []
    assert len(checks.unanswered(None)) == 1
    warning = Finding(check="memory_order", severity="warning", message="slow", hint="mend it")
    checks.add([report_of(checks, findings=(warning,), adjusted={"channels_last": False})], "fp32", lines.append)
    assert lines == ["convnet: slow; mend it", "convnet: checked in 0.1 s"]
    again = NetworkChecks(folder, plan, "cpu")
    assert again.unanswered("fp32") == []
    assert again.adjustments("fp32", lines.append) == {checks.cases[0].id: {"channels_last": False}}
    assert len(again.unanswered("bf16")) == 1
    assert len(NetworkChecks(folder, plan, "cuda").unanswered("fp32")) == 1
    workers = ("resources.cpus_per_trial=2", "resources.workers_per_trial=2")
    assert len(NetworkChecks(folder, planned(tmp_path, "viewed", options=workers)[0], "cpu").unanswered("fp32")) == 1
    (tmp_path / "checked_nets.py").write_text(NETS + "# changed\n")
    changed, _ = planned(tmp_path, "viewed")
    (tmp_path / "checked_nets.py").write_text(NETS + "# changed\n")
    changed = make_plan(changed.spec, folder.storage, hash_data=True)
    assert len(NetworkChecks(folder, changed, "cpu").unanswered("fp32")) == 1
    monkeypatch.setattr("orchestrator.preflight.networks.CHECKS_VERSION", CHECKS_VERSION + 1)
    assert len(NetworkChecks(folder, plan, "cpu").unanswered("fp32")) == 1


FOREIGN = (
    b"",
    b"null",
    b"[]",
    b'{"another": "program"}',
    b'{"another": {"program": 1}}',
    b'{"CASE": {"depends": {}, "report": {}}}',
)


@pytest.mark.parametrize("content", FOREIGN, ids=["empty", "null", "list", "text", "mapping", "without fields"])
def test_foreign_answers_are_named_and_asked_for_again(
    content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan, folder = planned(tmp_path, "viewed")
    checks = NetworkChecks(folder, plan, "cpu")
    checks.add([report_of(checks, step_seconds=0.5)], "fp32", print)
    (case,) = checks.cases
    assert step_seconds(folder) == {case.id: 0.5}
    folder.storage.write(folder.file(RECORD), content.replace(b"CASE", case.id.encode()))
    again = NetworkChecks(folder, plan, "cpu")
    assert again.unanswered("fp32") == [case]
    assert step_seconds(folder) == {}
    assert f"{RECORD} is damaged" in capsys.readouterr().err
    again.add([report_of(again)], "fp32", print)
    assert NetworkChecks(folder, plan, "cpu").unanswered("fp32") == []


def test_errors_are_reported_and_not_kept(tmp_path: Path) -> None:
    plan, folder = planned(tmp_path, "convnet")
    checks = NetworkChecks(folder, plan, "cpu")
    error = Finding(check="outputs", severity="error", message="it must be right", hint="mend it")
    with pytest.raises(UserError, match="it must be right; mend it"):
        checks.add([report_of(checks, findings=(error,))], "fp32", print)
    assert not folder.storage.exists(folder.file(RECORD))


def test_finished_results_in_a_rejected_precision_are_reported(tmp_path: Path) -> None:
    plan, folder = planned(tmp_path, "convnet")
    first, *others = plan.trials
    finished = replace_result(plan, first.key, {"fingerprints": [{"precision": "bf16"}]})
    checks = NetworkChecks(folder, finished, "cpu")
    checks.add([report_of(checks, adjusted={"precision": "fp32"})], "bf16", print)
    lines: list[str] = []
    checks.adjustments("bf16", lines.append)
    assert others
    assert len(lines) == 1
    assert first.key in lines[0]
    assert "--recompute" in lines[0]


def replace_result(plan: Plan, key: str, result: dict[str, Any]) -> Plan:
    trials = tuple(replace(trial, result=result) if trial.key == key else trial for trial in plan.trials)
    return replace(plan, trials=trials)


@pytest.mark.long
def test_trial_and_doctor_check_networks_too(tmp_path: Path) -> None:
    file, storage = sweep_file(tmp_path, "aux"), tmp_path / "runs"
    refused = drive_sweep("trial", file, "--index", "0", "--storage", storage, expect=2)
    assert "tuple" in refused.stderr
    answer = drive_sweep("doctor", file, "--storage", storage, expect=None)
    assert answer.code != 0
    assert "tuple" in answer.stdout + answer.stderr


@pytest.mark.extended
def test_unfit_initial_weights_are_rejected_before_training(tmp_path: Path) -> None:
    file, storage = sweep_file(tmp_path, "convnet"), tmp_path / "runs"
    torch.save({"head.weight": torch.zeros(10, 3)}, tmp_path / "other.pt")
    weights = ("--set", f"initial_weights={tmp_path}/other.pt", "--storage", storage)
    refused = ask("trial", file, "--index", "0", *weights, expect=2)
    assert "initial_weights must hold the 20 tensors of the network, got" in refused.stderr
    assert not list(storage.glob("warmups/*"))
    assert "initial_weights must hold" in ask("doctor", file, *weights, expect=None).stdout

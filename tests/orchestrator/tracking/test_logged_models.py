"""Sparse models in MLflow: uploaded once, linked where they are reused, uploaded again where they are gone."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from orchestrator.errors import SetupError
from orchestrator.execution.sync import sync_with_lease
from orchestrator.planning.plan import make_plan
from orchestrator.spec.loader import load_spec
from orchestrator.state.sweep_folder import SweepFolder
from orchestrator.storage.local import LocalStorage
from orchestrator.tracking.run_sync import RunSync
from tests.support.mlflow_stores import Content, new_target, recorded
from tests.support.tracked_sweep import (
    DESCRIPTION,
    PARAMS,
    STATES,
    SWEEP,
    TrackedSweep,
    item,
    open_sync,
    published,
    record,
    synced,
)
from trainables.data.digits import DIGITS_DIGEST


def test_model_shows_the_headline_metrics_with_their_data(tracked: TrackedSweep) -> None:
    (model,) = [model for model in Content(tracked.target).plain(ids=False)["models"] if model["name"] == "sparse-w02-r0"]
    result = record(tracked.storage, item("w02-r0"), "result.json")
    assert {metric[0]: metric[2] for metric in model["metrics"]} == {
        key: result["metrics"][key] for key in ("test/accuracy", "val/accuracy", "prune/sparsity")
    }
    assert {metric[4:] for metric in model["metrics"]} == {("digits", DIGITS_DIGEST)}
    assert model["params"]["sparsity"] == "0.9"
    assert model["params"]["warmup_epochs"] == "2"
    assert model["tags"]["drive.model_sha256"] == result["model_sha256"]


def test_models_can_be_left_out_and_logged_later(tracked: TrackedSweep, tmp_path: Path) -> None:
    target, other = new_target(tmp_path), new_target(tmp_path / "other")
    synced(target, tracked.storage, log_models=False)
    content = Content(target)
    assert content.models == []
    run, result = content.named("w02-r0"), record(tracked.storage, item("w02-r0"), "result.json")
    assert (run["status"], run["outputs"]) == ("FINISHED", [])
    assert run["tags"]["drive.model_sha256"] == result["model_sha256"]
    assert "drive.model_id" not in run["tags"]
    assert run["points"] == published(tracked.storage, item("w02-r0"))
    sync = open_sync(target, tracked.storage, log_models=False, reopen=False)
    calls = recorded(sync).calls
    sync.reconcile(STATES)
    assert calls == ["search_runs"]

    synced(target, tracked.storage)
    synced(other, tracked.storage)
    assert Content(target).plain(ids=False) == Content(other).plain(ids=False)
    everything = Content(target).plain(ids=True)
    for log_models in (False, True):
        synced(target, tracked.storage, log_models=log_models)
        assert Content(target).plain(ids=True) == everything, "what is there stays, and is not logged twice"


def test_sweep_file_decides_whether_models_are_logged(tracked: TrackedSweep, tmp_path: Path) -> None:
    storage = LocalStorage(str(tmp_path / "storage"))
    shutil.copytree(tracked.storage.root, storage.root)
    target = new_target(Path(storage.root), "drive-sweep")
    file = tmp_path / "sweep.yaml"
    file.write_text(
        "name: tiny\ndataset: {name: digits, limit: 50, validation: 0.2}\nmodel: convnet\nprecision: fp32\n"
        "warmup_epochs: 2\nprune_iterations: 2\nsparsity: 0.9\nbaseline: none\n"
        "training: {epochs: 2, batch_size: 20, lr: 0.05}\n"
    )
    for models, number in (("none", 0), ("all", 1)):
        plan = make_plan(load_spec(str(file), [f"tracking.models={models}"]), storage, digest=DIGITS_DIGEST)
        assert [trial.key for trial in plan.trials] == [item("w02-r0").key]
        assert sync_with_lease(SweepFolder(storage, SWEEP), plan)["runs"] == 1
        content = Content(target)
        assert len(content.models) == number
        assert {run.info.status for run in content.runs if run.data.tags["drive.role"] == "trial"} == {"FINISHED"}


def test_reused_result_has_a_separate_run_and_one_model(tracked: TrackedSweep, tmp_path: Path) -> None:
    target = new_target(tmp_path)
    synced(target, tracked.storage)
    for _ in range(2):
        synced(target, tracked.storage, [(item("w02-r0"), "finished")], sweep="second")
        content = Content(target)
        assert len(content.models) == 3
        plain = content.plain(ids=False)["runs"]
        first, second = [run for run in plain if run["name"] == "w02-r0"]
        assert (first["tags"]["drive.sweep"], second["tags"]["drive.sweep"]) == ("second", SWEEP)
        assert first["tags"]["drive.reused_from"] == SWEEP
        assert first["tags"]["mlflow.parentRunId"] == "second"
        assert first["outputs"] == second["outputs"] == [("sparse-w02-r0", 4)]
        assert first["points"] == second["points"]
        assert "drive.reused_from" not in second["tags"]
    sync = RunSync(target, tracked.storage, "second")
    calls = recorded(sync).calls
    sync.open_sweep(DESCRIPTION, PARAMS, {"drive.version": "1"}, reopen=False)
    sync.reconcile([(item("w02-r0"), "finished")])
    assert set(calls) == {"search_runs", "search_logged_models"}


def test_model_that_another_sweep_uploads_meanwhile_is_linked(tracked: TrackedSweep, tmp_path: Path) -> None:
    target = new_target(tmp_path)
    second = open_sync(target, tracked.storage, sweep="second")
    second.reconcile([(item("w02-r0"), "waiting"), (item("w02-i001-r0"), "finished")])
    assert [model.name for model in Content(target).models] == ["sparse-w02-i001-r0"]
    synced(target, tracked.storage)
    second.finish(item("w02-r0"), started_ms=5)
    content = Content(target)
    assert len(content.models) == 3
    reused = [run["tags"].get("drive.reused_from") for run in content.plain(ids=False)["runs"] if run["name"] == "w02-r0"]
    assert reused == [SWEEP, None]


def test_deleted_model_is_uploaded_again(tracked: TrackedSweep, tmp_path: Path) -> None:
    target = new_target(tmp_path)
    synced(target, tracked.storage)
    content = Content(target)
    content.client.delete_logged_model(content.models[0].model_id)
    synced(target, tracked.storage)
    assert len(Content(target).models) == 3


def test_missing_model_file_is_reported_after_the_others(tracked: TrackedSweep, tmp_path: Path) -> None:
    storage = LocalStorage(str(tmp_path / "storage"))
    shutil.copytree(tracked.storage.root, storage.root)
    storage.remove(f"trials/{item('w02-r0').key}/model.safetensors.zst")
    target = new_target(tmp_path)
    with pytest.raises(SetupError, match=r"1 runs are not up to date.*w02-r0.*model file is missing.*--recompute"):
        synced(target, storage)
    statuses = {run.info.run_name: run.info.status for run in Content(target).runs}
    assert statuses["w00-s0.9-r1"] == "FINISHED"
    assert statuses["w02-r0"] == "RUNNING", "a model that did not arrive is not reported as logged"
    run = Content(target).named("w02-r0")
    assert run["points"] == published(storage, item("w02-r0")), "they do not wait for it"
    assert run["params"] == item("w02-r0").params


def test_model_whose_files_are_missing_is_uploaded_again(tracked: TrackedSweep, tmp_path: Path) -> None:
    target = new_target(tmp_path)
    synced(target, tracked.storage)
    gone = next(model for model in Content(target).models if model.tags["drive.trial_key"] == item("w02-r0").key)
    shutil.rmtree(Path(gone.artifact_location))
    synced(target, tracked.storage)
    models = Content(target).models
    assert len(models) == 3
    assert all(Path(model.artifact_location, "MLmodel").is_file() for model in models)

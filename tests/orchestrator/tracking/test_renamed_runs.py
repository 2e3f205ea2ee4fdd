"""The runs of a renamed sweep follow it: the same runs and models under the new name, also after an interruption."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import SetupError
from orchestrator.state.sweep_folder import RENAMED, SweepFolder
from orchestrator.storage.local import LocalStorage
from orchestrator.tracking import renamed_runs
from orchestrator.tracking.client import TrackingTarget, connect
from orchestrator.tracking.model_registry import MODEL_ID, SHOWN_AS_VERSIONS
from orchestrator.tracking.renamed_runs import follow_renaming, require_free_in_mlflow
from orchestrator.tracking.shared_views import TAG, trials_view_key
from orchestrator.tracking.sweep_run import SweepRunSpec
from orchestrator.tracking.sweep_summary import RecommendedTrial, SweepSummary
from tests.support.mlflow_stores import Content, new_target
from tests.support.tracked_sweep import ARTIFACTS, DESCRIPTION, PARAMS, STATES, SWEEP, TrackedSweep, item, open_sync, synced

NEW = "renamed"
RECOMMENDED = RecommendedTrial(
    group="s0.9", alias="best-s90", trial_key=item("w02-r0").key, network="convnet", sentence="s0.9: take w02-r0"
)
SUMMARY = SweepSummary(artifacts=ARTIFACTS, recommended=(RECOMMENDED,), metrics={})


class Store:
    """A store of its own with the runs of a sweep that was renamed since, and of another one that reuses its models."""

    def __init__(self, tracked: TrackedSweep, root: Path) -> None:
        self.target = new_target(root)
        self.storage = LocalStorage(str(shutil.copytree(tracked.storage.root, root / "storage")))
        sync = open_sync(self.target, self.storage, reopen=False)
        sync.reconcile(STATES)
        sync.close_sweep("FINISHED", SUMMARY)
        self.parent = sync.parent_run_id
        synced(self.target, self.storage, sweep="other")
        self.folder = SweepFolder(self.storage, NEW)
        self.note(self.parent)

    def note(self, parent: str | None) -> None:
        self.storage.write_json(self.folder.file(RENAMED), {"from": SWEEP, "parent_run_id": parent, "trials": {}})

    def sync(self, name: str = NEW) -> None:
        """What `sync` does for the sweep under its new name, or for a new one under its former name."""
        spec = SweepRunSpec(
            target=self.target,
            storage=self.storage,
            sweep=name,
            log_models=True,
            trial_keys=(),
            description=DESCRIPTION,
            params=PARAMS,
            tags={"drive.version": "1"},
        )
        sync = spec.open(reopen=False)
        sync.reconcile(STATES)
        sync.close_sweep("FINISHED", SUMMARY)


@pytest.fixture
def store(tracked: TrackedSweep, tmp_path: Path) -> Store:
    return Store(tracked, tmp_path / "store")


def expected(before: dict[str, Any]) -> dict[str, Any]:
    """Runs and models as they were, with the new name wherever the former one stood."""

    def renamed(values: dict[str, Any]) -> dict[str, Any]:
        tags = {tag: NEW if value == SWEEP else value for tag, value in values["tags"].items()}
        if SHOWN_AS_VERSIONS in tags:
            tags[SHOWN_AS_VERSIONS] = tags[SHOWN_AS_VERSIONS].replace(f"{SWEEP}-convnet", f"{NEW}-convnet")
        return values | {"tags": tags, "name": NEW if values["name"] == SWEEP else values["name"]}

    return {kind: sorted(map(renamed, values), key=by_id) for kind, values in before.items()}


def by_id(values: dict[str, Any]) -> str:
    return str(values["id"])


def content(target: TrackingTarget) -> dict[str, Any]:
    return {kind: sorted(values, key=by_id) for kind, values in Content(target).plain(ids=True).items()}


def test_a_sync_finds_all_runs_and_models_again_and_doubles_none(store: Store) -> None:
    before = content(store.target)
    store.sync()
    assert content(store.target) == expected(before)
    assert Counter(run["tags"]["drive.sweep"] for run in before["runs"])[SWEEP] == len(STATES) + 1
    assert any(run["tags"].get("drive.reused_from") == SWEEP for run in before["runs"])
    assert not store.storage.exists(store.folder.file(RENAMED))


def test_a_new_sweep_of_the_former_name_gets_runs_of_its_own(store: Store) -> None:
    before = content(store.target)
    store.storage.write_json(store.folder.file("trials.json"), {})
    store.sync(SWEEP)  # begun before the renamed sweep was synced
    after = content(store.target)
    new = [run for run in after["runs"] if run["tags"]["drive.sweep"] == SWEEP]
    assert len(new) == len(STATES) + 1
    assert not {run["id"] for run in new} & {run["id"] for run in before["runs"]}
    assert [run for run in after["runs"] if run not in new] == expected(before)["runs"]


def test_the_registered_model_keeps_its_version_and_alias_and_no_view_is_left_behind(store: Store) -> None:
    store.sync()
    client, experiment = connect(store.target)
    (model,) = client.search_registered_models()
    assert (model.name, model.tags["drive.sweep"]) == (f"{NEW}-convnet", NEW)
    assert {alias: int(number) for alias, number in model.aliases.items()} == {"best-s90": 1}
    (version,) = client.search_model_versions(f"name = '{NEW}-convnet'")
    links = json.loads(client.get_logged_model(version.tags[MODEL_ID]).tags[SHOWN_AS_VERSIONS])
    assert [(link["name"], str(link["version"])) for link in links] == [(f"{NEW}-convnet", "1")]
    views = {tag.removeprefix(TAG) for tag in client.get_experiment(experiment).tags if tag.startswith(TAG)}
    assert {trials_view_key(NEW), trials_view_key("other")} <= views
    assert not [key for key in views if SWEEP in key]


def test_a_renaming_that_was_cut_off_after_any_call_is_completed(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    before = content(store.target)
    client, experiment = connect(store.target)

    class CutOffError(Exception):
        """Stands for the end of the process."""

    def cut_off(*arguments: Any, **named: Any) -> None:
        raise CutOffError

    for last in ("_tag_model", "move_registered_models"):
        with monkeypatch.context() as patch:
            patch.setattr(renamed_runs, last, cut_off)
            with pytest.raises(CutOffError):
                follow_renaming(client, experiment, store.folder, store.target.uri)
    with monkeypatch.context() as patch:
        patch.setattr(client, "update_run", cut_off)  # all but the sweep's own run
        with pytest.raises(CutOffError):
            follow_renaming(client, experiment, store.folder, store.target.uri)
    assert store.storage.exists(store.folder.file(RENAMED))
    store.sync()
    assert content(store.target) == expected(before)


def test_a_sweep_whose_state_was_lost_is_found_by_its_former_name(store: Store) -> None:
    before = content(store.target)
    store.storage.remove_folder(f"sweeps/{SWEEP}")
    store.note(None)
    store.sync()
    assert content(store.target) == expected(before)


def test_a_store_without_the_runs_waits_for_the_one_that_has_them(store: Store, tmp_path: Path) -> None:
    elsewhere = new_target(tmp_path / "elsewhere")
    client, experiment = connect(elsewhere)
    follow_renaming(client, experiment, store.folder, elsewhere.uri)
    assert store.storage.exists(store.folder.file(RENAMED))


def test_a_name_of_another_sweep_in_mlflow_is_refused(store: Store) -> None:
    before = content(store.target)
    require_free_in_mlflow(store.target, store.parent, NEW)
    with pytest.raises(SetupError, match="MLflow has runs of another sweep 'other'"):
        require_free_in_mlflow(store.target, store.parent, "other")
    store.folder = SweepFolder(store.storage, "other")
    store.note(store.parent)
    client, experiment = connect(store.target)
    with pytest.raises(SetupError, match=r"`drive-sweep rename tiny NEW"):
        follow_renaming(client, experiment, store.folder, store.target.uri)
    assert content(store.target) == before

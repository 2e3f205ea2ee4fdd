"""The model registry: the recommended model of each group under its alias, and nothing twice."""

from __future__ import annotations

import sqlite3
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.tracking.client import TrackingTarget
from orchestrator.tracking.model_registry import FORMER, registered_name
from orchestrator.tracking.run_sync import RunSync
from orchestrator.tracking.sweep_summary import RecommendedTrial, SweepSummary
from tests.support.mlflow_stores import Content, ProcessEndedError, new_target, recorded
from tests.support.tracked_sweep import SWEEP, TrackedSweep, item, open_sync

NAME = f"{SWEEP}-convnet"
FIRST, SECOND = "w02-r0", "w00-s0.9-r1"


def recommended(trial: str, group: str = "s0.9", alias: str = "best-s90") -> RecommendedTrial:
    return RecommendedTrial(
        group=group, alias=alias, trial_key=item(trial).key, network="convnet", sentence=f"{group}: take {trial}"
    )


@pytest.fixture
def target(tmp_path: Path, tracked: TrackedSweep) -> TrackingTarget:
    """A store that has the models of both trials."""
    target = new_target(tmp_path / "mlflow")
    open_sync(target, tracked.storage).reconcile([(item(FIRST), "finished"), (item(SECOND), "finished")])
    return target


def registered(target: TrackingTarget, tracked: TrackedSweep, *trials: RecommendedTrial, said: list[str] | None = None) -> Any:
    """What the registry shows after the recommendation was sent twice, each time by a new process."""
    shown = []
    for _ in range(2):
        sync = RunSync(target, tracked.storage, SWEEP, notify=(said if said is not None else []).append)
        sync.open_sweep("", {}, {}, reopen=False)
        sync.summarize(SweepSummary(recommended=trials))
        shown.append(registry(target))
    assert shown[0] == shown[1]
    return shown[0]


def registry(target: TrackingTarget) -> dict[str, Any]:
    """Each registered model: its description, its aliases, and the trial and description of each version."""
    content = Content(target)
    models = {}
    for model in content.client.search_registered_models():
        versions = content.client.search_model_versions(f"name='{model.name}'")
        models[model.name] = {
            "description": model.description,
            "aliases": {alias: int(version) for alias, version in model.aliases.items()},
            "versions": {
                int(one.version): (content.names.get(one.run_id, ""), one.description)
                for one in sorted(versions, key=lambda one: int(one.version))
            },
        }
    return models


def test_recommended_model_is_a_version_that_loads(target: TrackingTarget, tracked: TrackedSweep) -> None:
    shown = registered(target, tracked, recommended(FIRST))
    model = shown[NAME]
    assert model["aliases"] == {"best-s90": 1}
    assert model["versions"] == {1: (FIRST, f"s0.9: take {FIRST}")}
    assert f'mlflow.pyfunc.load_model("models:/{NAME}@best-s90")' in model["description"]
    assert f"- `best-s90`: s0.9: take {FIRST}" in model["description"]
    client = Content(target).client
    folder = Path(client.get_model_version_download_uri(NAME, "1"))
    assert (folder / "MLmodel").is_file()
    (logged,) = [one for one in Content(target).models if one.name == f"sparse-{FIRST}"]
    assert logged.tags["mlflow.modelVersions"] == f'[{{"name": "{NAME}", "version": 1}}]'


def test_alias_moves_to_a_better_model_and_back(target: TrackingTarget, tracked: TrackedSweep) -> None:
    registered(target, tracked, recommended(FIRST))
    model = registered(target, tracked, recommended(SECOND))[NAME]
    assert model["aliases"] == {"best-s90": 2}
    assert model["versions"] == {1: (FIRST, FORMER), 2: (SECOND, f"s0.9: take {SECOND}")}
    model = registered(target, tracked, recommended(FIRST))[NAME]
    assert (model["aliases"], len(model["versions"])) == ({"best-s90": 1}, 2)


def test_groups_share_a_version_and_their_aliases_end_with_them(target: TrackingTarget, tracked: TrackedSweep) -> None:
    both = (recommended(FIRST), recommended(FIRST, "s0.9-b", "best-s90-b"))
    model = registered(target, tracked, *both)[NAME]
    assert model["aliases"] == {"best-s90": 1, "best-s90-b": 1}
    assert model["versions"] == {1: (FIRST, f"s0.9: take {FIRST}\ns0.9-b: take {FIRST}")}
    Content(target).client.set_registered_model_alias(NAME, "production", "1")
    model = registered(target, tracked, both[0])[NAME]
    assert model["aliases"] == {"best-s90": 1, "production": 1}, "an alias of somebody else stays"


def test_model_of_somebody_else_is_left_alone(target: TrackingTarget, tracked: TrackedSweep) -> None:
    Content(target).client.create_registered_model(NAME, description="mine")
    before = registry(target)
    said: list[str] = []
    assert registered(target, tracked, recommended(FIRST), said=said) == before
    assert "registered model 'tiny-convnet' must be that of sweep 'tiny' in experiment 'pruning', got one" in said[0]
    assert "rename that model in MLflow, or give the sweep another name" in said[0]


def test_what_was_deleted_comes_back(target: TrackingTarget, tracked: TrackedSweep) -> None:
    client = Content(target).client
    registered(target, tracked, recommended(FIRST))
    client.delete_model_version(NAME, "1")
    model = registered(target, tracked, recommended(FIRST))[NAME]
    assert list(model["versions"]) == list(model["aliases"].values())
    client.delete_registered_model(NAME)
    assert registered(target, tracked, recommended(FIRST))[NAME]["aliases"] == {"best-s90": 1}


def test_model_that_mlflow_lacks_is_not_registered(target: TrackingTarget, tracked: TrackedSweep) -> None:
    assert registered(target, tracked, recommended("w02-i001-r0")) == {}
    sync = open_sync(target, tracked.storage, log_models=False)
    sync.summarize(SweepSummary(recommended=(recommended(FIRST),)))
    assert registry(target) == {}
    registered(target, tracked, recommended(FIRST))
    model = registered(target, tracked, recommended("w02-i001-r0"))[NAME]
    assert model["aliases"] == {"best-s90": 1}, "it stays where it is until the better model is there"


def test_registry_that_refuses_stops_nothing(target: TrackingTarget, tracked: TrackedSweep) -> None:
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import PERMISSION_DENIED

    said: list[str] = []
    sync = RunSync(target, tracked.storage, SWEEP, notify=said.append)
    sync.open_sweep("", {}, {}, reopen=False)

    class Refusing:
        def __getattr__(self, name: str) -> Any:
            raise MlflowException("no rights", error_code=PERMISSION_DENIED)

    sync.registry.client = Refusing()
    sync.close_sweep("FINISHED", SweepSummary(description="what was found", recommended=(recommended(FIRST),)))
    (line,) = said
    assert "the model registry lacks the recommended models" in line
    assert "no rights" in line
    run = Content(target).named(SWEEP)
    assert (run["status"], run["tags"]["mlflow.note.content"]) == ("FINISHED", "what was found")


def test_sync_completes_a_registration_that_was_cut_off(target: TrackingTarget, tracked: TrackedSweep, tmp_path: Path) -> None:
    summary = SweepSummary(recommended=(recommended(FIRST), recommended(SECOND, "s0.9-b", "best-s90-b")))

    def die_after(number: int) -> tuple[list[str], TrackingTarget]:
        """The calls until a process dies after so many, in a copy of the store."""
        with (
            closing(sqlite3.connect(tmp_path / "mlflow/mlflow.db")) as store,
            closing(sqlite3.connect(f"{tmp_path}/{number}.db")) as to,
        ):
            store.backup(to)
        copy = replace(target, uri=f"sqlite:///{tmp_path}/{number}.db")
        sync = open_sync(copy, tracked.storage)
        recorder = sync.registry.client = recorded(sync, die_after=number)
        with suppress(ProcessEndedError):
            sync.summarize(summary)
        return recorder.calls, copy

    calls, copy = die_after(0)
    whole = registry(copy)
    assert whole[NAME]["aliases"] == {"best-s90": 1, "best-s90-b": 2}
    writes = {number: call for number, call in enumerate(calls, start=1) if not call.startswith(("get_", "search_"))}
    assert {"create_registered_model", "create_model_version", "set_registered_model_alias"} <= set(writes.values())
    for number, call in writes.items():
        died, copy = die_after(number)
        assert died[-1] == call
        open_sync(copy, tracked.storage).summarize(summary)
        assert registry(copy) == whole, call


@pytest.mark.parametrize("network", ["convnet", "nets/mine.py:Net", "resnet:18"])
def test_mlflow_takes_every_name_of_a_network(network: str) -> None:
    from mlflow.utils.validation import _validate_model_name

    _validate_model_name(registered_name("digits", network))

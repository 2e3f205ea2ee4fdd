"""What MLflow's model registry shows of a sweep otherwise than its recommendations say, and what makes it right again."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from orchestrator.errors import SetupError
from orchestrator.tracking.model_registry import MODEL_ID, OF_GROUPS, is_of, registered_name
from orchestrator.tracking.read_only import WriteRefusedError
from orchestrator.tracking.run_differences import Difference
from orchestrator.tracking.run_sync import RunSync
from orchestrator.tracking.runs import SUPERSEDED, every_hit
from orchestrator.tracking.sweep_summary import RecommendedTrial

FORMER_ALIAS = "drive.former_alias."  # tag of a registered model: an alias that pointed nowhere, and where to
UNREGISTERED = ("create_registered_model", "create_model_version")  # calls of a registration


def registry_differences(sync: RunSync, recommended: Sequence[RecommendedTrial]) -> Iterator[Difference]:
    """The differences in the registered models of a sweep that has no driver.

    Args:
        sync: with a ReadOnlyClient, its runs loaded.
    """
    owned = " AND ".join(f"tags.`{tag}` = '{value}'" for tag, value in sync.registry.owner.items())
    models = [one for one in every_hit(sync.client.search_registered_models, owned) if is_of(one, sync.registry.owner)]
    found = [difference for model in models for difference in _of_model(sync, model, recommended)]
    yield from found
    if not found and all(_model_of(sync, one) for one in recommended):  # else a run comes first
        yield from _unregistered(sync, recommended)


def _unregistered(sync: RunSync, recommended: Sequence[RecommendedTrial]) -> Iterator[Difference]:
    """What a registration would write."""
    try:
        sync.registry.register(recommended, sync.runs)
    except WriteRefusedError as error:
        kind = "recommended model that is not registered" if str(error) in UNREGISTERED else "registry that is not up to date"
        yield Difference(kind=kind, place=f"sweep {sync.sweep!r}", prepare=_nothing)
    except SetupError as error:
        yield Difference(kind="registry that cannot be synced", place=error.message, prepare=None, hint=error.hint)


def _of_model(sync: RunSync, model: Any, recommended: Sequence[RecommendedTrial]) -> Iterator[Difference]:
    """Doubled versions, versions without a model, and aliases that point nowhere or to another model."""
    hits = sorted(every_hit(sync.client.search_model_versions, f"name = '{model.name}'"), key=lambda one: int(one.version))
    versions: dict[str, list[Any]] = defaultdict(list)
    for version in hits:
        if MODEL_ID in version.tags and SUPERSEDED not in version.tags:
            versions[version.tags[MODEL_ID]].append(version)
    for model_id, (first, *others) in versions.items():
        for version in others:
            yield _superseded(
                version, "doubled version", f"{_named(version)} is that of version {first.version} again", "doubled"
            )
        if not _is_there(sync, model_id):
            yield _superseded(first, "version without its model", f"{_named(first)} is of {model_id}", "model gone")
    models = {str(version.version): version.tags.get(MODEL_ID, "") for version in hits}
    expected = {
        one.alias: _model_of(sync, one) for one in recommended if registered_name(sync.sweep, one.network) == model.name
    }
    for alias, number in dict(model.aliases).items():
        place = f"{model.name}@{alias} (version {number})"
        if str(number) not in models:
            prepare = partial(_drop_alias, model.name, alias, str(number))
            yield Difference(kind="alias that points nowhere", place=place, prepare=prepare)
        elif expected.get(alias) and models[str(number)] != expected[alias]:
            yield Difference(kind="alias that is not at the recommended model", place=place, prepare=_nothing)


def _model_of(sync: RunSync, one: RecommendedTrial) -> str:
    """Id of the logged model that a run shows; empty if MLflow does not have it."""
    run = sync.runs.by_key.get(("trial", one.trial_key))
    model_id = run.tags.get(MODEL_ID, "") if run else ""
    return model_id if sync.models.is_ready(one.trial_key, model_id) else ""


def _is_there(sync: RunSync, model_id: str) -> bool:
    from mlflow.exceptions import MlflowException

    try:
        tags = sync.client.get_logged_model(model_id).tags
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return False
    return SUPERSEDED not in tags and sync.models.is_ready(tags.get("drive.trial_key", ""), model_id)


def _superseded(version: Any, kind: str, place: str, reason: str) -> Difference:
    return Difference(kind=kind, place=place, prepare=partial(_supersede, version.name, str(version.version), reason))


def _named(version: Any) -> str:
    return f"version {version.version} of {version.name}"


def _supersede(name: str, number: str, reason: str, client: Any) -> None:
    client.set_model_version_tag(name, number, SUPERSEDED, reason)


def _drop_alias(name: str, alias: str, number: str, client: Any) -> None:
    """Notes where an alias of somebody pointed; those of groups are set again by the sync."""
    if not alias.startswith(OF_GROUPS):
        client.set_registered_model_tag(name, f"{FORMER_ALIAS}{alias}", number)
    client.delete_registered_model_alias(name, alias)


def _nothing(client: Any) -> None:
    """The sync alone puts it right."""

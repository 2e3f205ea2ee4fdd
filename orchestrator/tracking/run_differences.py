"""What the runs of a sweep in MLflow show otherwise than the records do, and what makes the next sync put it right.

A sync completes runs that it knows to be incomplete. What it takes for complete is looked at here too: doubled runs, points,
and models. Nothing is deleted: a run or a model that cannot stay is tagged drive.superseded, and another takes its place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from orchestrator.errors import SetupError
from orchestrator.tracking.database_locations import local_folder
from orchestrator.tracking.model_packaging import ARTIFACTS
from orchestrator.tracking.read_only import WriteRefusedError
from orchestrator.tracking.records import RunRecord, RunSpec, read_record
from orchestrator.tracking.run_sync import RunSync
from orchestrator.tracking.runs import SUPERSEDED, SWEEP, Run
from orchestrator.tracking.sent_points import point_differences, sent_points
from trainables.custom.references import sha256
from trainables.records.file_names import MODEL
from trainables.records.result_record import MODEL_FILE

ENDED = ("finished", "failed", "stopped")
PROJECTION, MODEL_ID, MODEL_DIGEST = "drive.projection", "drive.model_id", "drive.model_sha256"
Prepare = Callable[[Any], None]  # with a client that may write


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One difference.

    Attributes:
        kind: such as "run without its points".
        place: the run, and what is wrong with it.
        prepare: what is done before the sync that follows; None where only a person can help, as `hint` says.
    """

    kind: str
    place: str
    prepare: Prepare | None
    hint: str = ""


def run_differences(
    sync: RunSync, items: Sequence[tuple[RunSpec, str]], state_ids: Mapping[str, str | None]
) -> Iterator[Difference]:
    """The differences of a sweep that has no driver.

    Args:
        sync: with a ReadOnlyClient.
        items: all trials and warm-ups with their states.
        state_ids: key -> id of the run in state.json; "" is the key of the sweep's own run.
    """
    sync.runs.load()
    sync.models.invalidate(item.key for item, _ in items if item.role == "trial")
    for key, others in sync.runs.doubles.items():
        runs = [sync.runs.by_key[key], *others]
        kept = sync.runs.by_key[key] = _kept(runs, state_ids.get(key[1]))
        for run in runs:
            if run is not kept:
                yield Difference(kind="doubled run", place=_named(run), prepare=partial(_supersede, run, "doubled"))
    own = sync.runs.by_key.get(SWEEP)
    if own is None:
        yield Difference(kind="run that MLflow lacks", place=f"that of sweep {sync.sweep!r} itself", prepare=_nothing)
    else:
        sync.parent_run_id = own.run_id
        if own.status == "RUNNING":
            yield _left_running(own)
    for item, state in items:
        yield from _of_item(sync, item, state)
    expected = {(item.role, item.key) for item, _ in items} | {SWEEP}
    for key, run in sync.runs.by_key.items():
        if key not in expected and (SUPERSEDED not in run.tags or run.status == "RUNNING"):
            yield Difference(kind="run of no trial of its sweep", place=_named(run), prepare=_nothing)


def _kept(runs: Sequence[Run], state_id: str | None) -> Run:
    """Of runs with one key: that of state.json if it is complete, else the first complete one, else the first."""
    complete = [run for run in runs if run.status == "FINISHED" and PROJECTION in run.tags]
    return min(complete or runs, key=lambda run: (run.run_id != state_id, run.start_ms))


def _of_item(sync: RunSync, item: RunSpec, state: str) -> Iterator[Difference]:
    run = sync.runs.by_key.get((item.role, item.key))
    if run is None:
        if state in ENDED:
            yield Difference(kind="run that MLflow lacks", place=f"{item.role} {item.name}", prepare=_nothing)
        return
    if run.status == "RUNNING":
        yield _left_running(run)
        return
    if state not in ENDED:
        if run.status == "FINISHED" and SUPERSEDED not in run.tags:
            yield Difference(
                kind="run of a result that is not here", place=_named(run), prepare=partial(_supersede, run, "true")
            )
        return
    record = read_record(sync.storage, item.role, item.key)
    if record.damage or (item.role == "warmup" and not record.points and run.status == "FINISHED"):
        return  # there is nothing to compare with
    differences = [*_points(sync, item, run, record), *_models(sync, item, run, record)]
    yield from differences
    if not differences:
        yield from _not_up_to_date(sync, item, state, run)


def _not_up_to_date(sync: RunSync, item: RunSpec, state: str, run: Run) -> Iterator[Difference]:
    """What a sync would write."""
    try:
        sync.reconcile_one(item, state)
    except WriteRefusedError:
        yield Difference(kind="run that is not up to date", place=_named(run), prepare=partial(_forget_projection, run))
    except SetupError as error:
        yield Difference(kind="run that cannot be synced", place=error.message, prepare=None, hint=error.hint)


def _points(sync: RunSync, item: RunSpec, run: Run, record: RunRecord) -> Iterator[Difference]:
    sent = list(sent_points(sync.uri, sync.client, run))
    missing, foreign = point_differences(record.points, sent, exact=item.role == "trial")
    if foreign:
        place = f"{_named(run)} ({foreign} of {len(sent)})"
        yield Difference(
            kind="run with points that its record lacks", place=place, prepare=partial(_supersede, run, "recomputed")
        )
    elif missing:
        place = f"{_named(run)} ({missing} of {len(record.points)})"
        yield Difference(kind="run without its points", place=place, prepare=partial(_forget_projection, run))


def _models(sync: RunSync, item: RunSpec, run: Run, record: RunRecord) -> Iterator[Difference]:
    """Differences of a finished trial's models."""
    if not record.result or not sync.log_models:
        return
    digest, shown = record.result["model_sha256"], run.tags.get(MODEL_ID, "")
    models = {one: sync.models.get(item.key, one) for one in run.model_ids | {shown} - {""}}
    foreign = [one for one in run.model_ids if not _is_of(sync, models[one], one, digest)]
    model = models.get(shown)
    if foreign:
        yield Difference(kind="run with a foreign model", place=_named(run), prepare=partial(_supersede, run, "foreign"))
    elif model is None or not model.ready or shown not in run.model_ids:
        yield Difference(kind="run without its model", place=_named(run), prepare=partial(_forget_projection, run))
    elif _is_damaged(model.location, record):
        prepare = partial(_supersede_model, run, model.model_id)
        yield Difference(kind="damaged model in MLflow", place=f"that of {_named(run)}", prepare=prepare)
    elif run.tags.get(MODEL_DIGEST) != digest:
        yield Difference(kind="run with a wrong digest", place=_named(run), prepare=partial(_forget_projection, run))


def _is_of(sync: RunSync, model: Any, model_id: str, digest: str) -> bool:
    """Whether a model that a run shows is the trial's, or was set aside or deleted since."""
    if model is not None:
        return model.sha256 in (digest, "")
    from mlflow.exceptions import MlflowException

    try:
        tags = sync.client.get_logged_model(model_id).tags
    except MlflowException:
        return True
    return tags.get(MODEL_DIGEST) == digest or SUPERSEDED in tags


def _is_damaged(location: str, record: RunRecord) -> bool:
    """Whether a model's file in a local folder is not the one that was uploaded; other stores are trusted."""
    folder = local_folder(location)
    if folder is None or MODEL_FILE not in record.result:
        return False
    file = folder / ARTIFACTS / MODEL
    return not file.is_file() or sha256(file.read_bytes()) != record.result[MODEL_FILE]


def _left_running(run: Run) -> Difference:
    return Difference(kind="run left RUNNING without a driver", place=_named(run), prepare=_nothing)


def _named(run: Run) -> str:
    return f"{run.name} [{run.run_id[:8]}]"


def _nothing(client: Any) -> None:
    """The sync alone puts it right."""


def _forget_projection(run: Run, client: Any) -> None:
    """Makes the sync send everything again; MLflow ignores points that it has."""
    if PROJECTION in run.tags:
        client.delete_tag(run.run_id, PROJECTION)


def _supersede(run: Run, reason: str, client: Any) -> None:
    if run.status == "RUNNING":
        client.set_terminated(run.run_id, "KILLED")
    client.set_tag(run.run_id, SUPERSEDED, reason)


def _supersede_model(run: Run, model_id: str, client: Any) -> None:
    client.set_logged_model_tags(model_id, {SUPERSEDED: "damaged"})
    _forget_projection(run, client)

"""JSON files beside the records of trials, warm-ups and data sets that are not what was written."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from typing import Any

from orchestrator.repair.mismatch import Mismatch, Scope
from orchestrator.search.stop_record import decided_stop
from orchestrator.state.trial_results import read_results
from orchestrator.storage.base import Storage
from orchestrator.storage.layout import newest_attempt, set_aside, trial_file
from trainables.records.failure_record import FIELDS
from trainables.records.file_names import CONFIG, ERROR, LATENCY, METRICS, RESULT, STOPPED
from trainables.records.metrics import DamagedRecordError, points_from_lines
from trainables.records.self_digest import is_whole, with_digest
from trainables.runtime.json_text import parse_json

ATTEMPT = "attempt.json"
OF_TRIALS: dict[str, tuple[str, ...]] = {  # file -> fields that each has
    ATTEMPT: ("attempt",),
    CONFIG: ("config",),
    ERROR: tuple(FIELDS),
    STOPPED: (),
    LATENCY: ("measurements",),
}
IN_CONFIG = ("config", "numerics", "data_digest", "revision", "sweep", "key", "warmup_key")


def damaged_small_files(scope: Scope) -> Iterator[Mismatch]:
    """Damaged attempt counts, configurations, errors, rules of warm-ups, and digests of data sets."""
    storage = scope.storage
    for file, fields in OF_TRIALS.items():
        keys = scope.trials()
        for key in _damaged(storage, {key: trial_file(key, file) for key in keys}, fields):
            path = trial_file(key, file)
            if file == ATTEMPT:
                yield _mismatch(scope, key, path, "counts on from a number above", partial(_count_on, storage, key))
            elif file == CONFIG:
                yield _mismatch(
                    scope, key, path, "writes that of a finished trial again", partial(_restore_config, storage, key)
                )
            elif file == STOPPED:
                again = "writes it again from the decisions of its sweep"
                yield _mismatch(scope, key, path, again, partial(_restore_stop, scope, key))
            else:
                yield _mismatch(scope, key, path, "", partial(set_aside, storage, path))
    for key in scope.warmups():
        rules = {name: f"warmups/{key}/{name}" for name in storage.names(f"warmups/{key}") if name.startswith("rule-")}
        for name in _damaged(storage, rules, ("rule",)):
            again = "the warm-up reads it out again"
            yield _mismatch(scope, key, rules[name], again, partial(set_aside, storage, rules[name]))
        try:
            points_from_lines(storage.read(f"warmups/{key}/{METRICS}") or b"")
        except DamagedRecordError:
            path = f"warmups/{key}/{METRICS}"
            yield _mismatch(scope, key, path, "", partial(set_aside, storage, path))
    data = [path for path in storage.files("data") if path.endswith(".json") and "/." not in path]
    for path in _damaged(storage, {path: path for path in data}, ()):
        yield _mismatch(scope, "", path, "the next `run` makes it again", partial(set_aside, storage, path))


def _damaged(storage: Storage, paths: dict[str, str], fields: tuple[str, ...]) -> list[str]:
    """The names in `paths` whose file is there, and is no JSON record with these fields."""
    contents = zip(paths, storage.read_all(list(paths.values())), strict=True)
    return [name for name, content in contents if content is not None and not is_record(content, *fields)]


def is_record(content: bytes, *fields: str) -> bool:
    """Whether the content is a whole JSON record with these fields."""
    try:
        record = parse_json(content)
    except ValueError:
        return False
    return isinstance(record, dict) and is_whole(record) and record.keys() >= set(fields)


def _mismatch(scope: Scope, key: str, path: str, then: str, mend: Any) -> Mismatch:
    return Mismatch(
        kind="damaged file",
        place=path,
        remedy=f"moves it to {path.partition('/')[0]}/.aside" + (f"; {then}" if then else ""),
        mend=mend,
        sweeps=scope.users_of(key),
    )


def _count_on(storage: Storage, key: str) -> None:
    """A late worker of any attempt that the file may have counted stays behind."""
    attempt = newest_attempt(storage, key)
    set_aside(storage, trial_file(key, ATTEMPT))
    storage.write_json(trial_file(key, ATTEMPT), {"attempt": attempt})


def _restore_stop(scope: Scope, key: str) -> None:
    """Why an unfinished trial was stopped early is in the decisions too; a finished one was continued since."""
    storage, path = scope.storage, trial_file(key, STOPPED)
    set_aside(storage, path)
    contents = (decided_stop(storage, sweep, key) for sweep in sorted(scope.users_of(key)))
    content = next((one for one in contents if one is not None), None)
    if content is not None and not storage.exists(trial_file(key, RESULT)):
        storage.write(path, content)


def _restore_config(storage: Storage, key: str) -> None:
    """The configuration of a finished trial is in its result too; an unfinished one writes it when it goes on."""
    set_aside(storage, trial_file(key, CONFIG))
    results, _ = read_results(storage, [key])
    if key in results:
        record = {name: results[key][name] for name in IN_CONFIG if name in results[key]}
        storage.write(trial_file(key, CONFIG), json.dumps(with_digest(record), indent=1, sort_keys=True).encode())

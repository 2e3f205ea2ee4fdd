"""Each kind of mismatch in the files of a storage is named, mended without deleting anything, and gone afterwards."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.housekeeping import renaming
from orchestrator.housekeeping.renaming import rename_sweep
from orchestrator.repair import repair as engine
from orchestrator.repair.repair import findings, repair
from orchestrator.repair.table import FAMILIES
from orchestrator.state.driver_lease import LeaseTimes
from orchestrator.state.driver_liveness import this_driver
from orchestrator.state.sweep_folder import DELETING, SweepFolder
from orchestrator.storage.layout import newest_attempt, trial_file
from trainables.records.file_names import CHECKPOINT, CONFIG, ERROR, METRICS, MODEL, RESULT, STOPPED

TIMES = LeaseTimes(settle_s=0.2, renew_interval_s=0.2, release_timeout_s=1.0)
REWRITTEN = ("state.json", "driver.lock", "mlflow.db")  # made from the records, or of no content
Plant = Callable[[SweepFolder], str]  # returns a part of what must be said


def flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def trials(folder: SweepFolder) -> list[str]:
    return folder.storage.names("trials")


def damage(folder: SweepFolder, path: str, content: bytes | None = None) -> str:
    folder.storage.write(path, flipped(folder.storage.read(path) or b"") if content is None else content)
    return path


def of_trial(name: str, content: bytes | None = None) -> Plant:
    return lambda folder: damage(folder, trial_file(trials(folder)[0], name), content)


def of_sweep(name: str, content: bytes | None = None) -> Plant:
    return lambda folder: damage(folder, folder.file(name), content)


def snapshot(folder: SweepFolder) -> str:
    (name,) = folder.storage.names(f"warmups/{folder.storage.names('warmups')[0]}")
    return f"warmups/{folder.storage.names('warmups')[0]}/{name}"


def foreign_snapshot(folder: SweepFolder) -> str:
    first, second = folder.storage.names("warmups")
    path = snapshot(folder)
    folder.storage.write(path, folder.storage.read(path.replace(first, second)) or b"")
    return f"it is of {second}"


def foreign_checkpoint(folder: SweepFolder) -> str:
    path = trial_file(trials(folder)[0], CHECKPOINT)
    folder.storage.write(path, folder.storage.read(snapshot(folder)) or b"")
    return path


def half_written(folder: SweepFolder) -> str:
    path = trial_file(trials(folder)[0], f".{MODEL}.1-2.partial")
    folder.storage.write(path, b"half")
    os.utime(Path(folder.storage.root, path), (time.time() - 7200,) * 2)
    return path


def gone_driver(folder: SweepFolder) -> str:
    state = folder.read_state()
    assert state is not None
    state.driver = this_driver() | {"host": "elsewhere", "process_table": "another", "heartbeat": time.time() - 60}
    state.trials[trials(folder)[0]].state = "running"
    folder.write_state(state)
    return "on elsewhere runs the sweep, which is gone"


def lost_result(folder: SweepFolder) -> str:
    folder.storage.move_folder(f"trials/{trials(folder)[0]}", "trials/.aside/taken-away-by-somebody")
    return "differs from the records in 1 stage"


def unnoticed_result(folder: SweepFolder) -> str:
    state = folder.read_state()
    assert state is not None
    one = state.trials[trials(folder)[0]]
    one.state, one.metrics, one.model_sha256 = "waiting", {}, None
    folder.write_state(state)
    return f"such as {one.name}"


def gone_lease(folder: SweepFolder) -> str:
    record = this_driver() | {"host": "elsewhere", "process_table": "another", "owner": "x", "heartbeat": time.time() - 60}
    folder.storage.write_json(folder.file("driver.json"), record)
    return "on elsewhere, which is gone"


def stop_request(folder: SweepFolder) -> str:
    folder.request_stop(trials(folder)[0])
    return f"stop-{trials(folder)[0]}"


def half_made(folder: SweepFolder) -> str:
    other = SweepFolder(folder.storage, "other")
    folder.storage.write(other.file("sweep.yaml"), b"name: other\n")
    return "sweeps/other has sweep.yaml and no trials.json"


def half_deleted(folder: SweepFolder) -> str:
    other = SweepFolder(folder.storage, "other")
    folder.storage.write_json(other.file(DELETING), {"trials": [], "warmups": []})
    return "sweeps/other has deleting.json"


def half_renamed(folder: SweepFolder) -> str:
    class CutOffError(Exception):
        """Stands for the end of the process."""

    def cut_off(*arguments: object) -> str:
        raise CutOffError

    with pytest.MonkeyPatch.context() as patch:  # after the old folder has lost its trials.json
        patch.setattr(SweepFolder, "log", cut_off)
        with pytest.raises(CutOffError):
            rename_sweep(folder.storage, folder.name, "renamed", TIMES)
    folder.storage.remove("sweeps/renamed/trials.json")
    assert not folder.exists()
    return "sweeps/renamed, which was 'whole'"


def missing_spec(folder: SweepFolder) -> str:
    folder.storage.remove(folder.file("spec.json"))
    return "spec.json is missing"


KINDS: dict[str, tuple[str, Plant]] = {
    "result": ("damaged record", of_trial(RESULT)),
    "metrics": ("damaged record", of_trial(METRICS)),
    "model": ("damaged record", of_trial(MODEL)),
    "attempt": ("damaged file", of_trial("attempt.json")),
    "configuration": ("damaged file", of_trial(CONFIG)),
    "error": ("damaged file", of_trial(ERROR, b'{"kind": "co')),
    "early stop": ("damaged file", of_trial(STOPPED, b"[]")),
    "checkpoint": ("damaged checkpoint", of_trial(CHECKPOINT, b"foreign")),
    "checkpoint of another": ("damaged checkpoint", foreign_checkpoint),
    "snapshot": ("damaged snapshot", lambda folder: damage(folder, snapshot(folder))),
    "snapshot of another": ("damaged snapshot", foreign_snapshot),
    "rule": ("damaged file", lambda folder: damage(folder, f"{snapshot(folder).rpartition('/')[0]}/rule-x.f.json", b"{")),
    "points of a warm-up": (
        "damaged file",
        lambda folder: damage(folder, f"{snapshot(folder).rpartition('/')[0]}/{METRICS}", b"[1, 2"),
    ),
    "data digest": ("damaged file", lambda folder: damage(folder, "data/abc.json", b"{")),
    "half-written file": ("half-written file", half_written),
    "state of a dead driver": ("stale state", gone_driver),
    "damaged state": ("stale state", of_sweep("state.json")),
    "result that is gone": ("stale state", lost_result),
    "result that nobody noticed": ("stale state", unnoticed_result),
    "lease of a dead driver": ("stale lease", gone_lease),
    "damaged lease": ("stale lease", of_sweep("driver.json", b"{")),
    "stop request": ("stale stop request", stop_request),
    "half-made sweep": ("half-made sweep", half_made),
    "half-deleted sweep": ("half-deleted sweep", half_deleted),
    "half-renamed sweep": ("half-renamed sweep", half_renamed),
    "specification": ("damaged sweep", of_sweep("spec.json")),
    "missing specification": ("damaged sweep", missing_spec),
    "list of trials": ("damaged sweep", of_sweep("trials.json")),
    "resolved settings": ("damaged file", of_sweep("resolved.json", b"{")),
    "former name": ("damaged file", of_sweep("renamed.json", b'{"from": "who')),
}


@pytest.fixture(autouse=True)
def without_mlflow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "FAMILIES", [one for one in FAMILIES if one.check not in ("orphans", "registry")])
    monkeypatch.setattr(renaming, "LEASE_TIMES", TIMES)


def contents(folder: SweepFolder) -> dict[str, bytes]:
    files = sorted(path for path in Path(folder.storage.root).rglob("*") if path.is_file() and "artifacts" not in path.parts)
    return {str(path): path.read_bytes() for path in files if not path.name.startswith(REWRITTEN)}


@pytest.mark.parametrize("planted", KINDS)
def test_mismatch_is_named_mended_and_gone(planted: str, folder: SweepFolder) -> None:
    assert not list(findings(folder.storage))
    kind, plant = KINDS[planted]
    said = plant(folder)
    before = contents(folder)
    (found,) = findings(folder.storage)
    assert found.mismatch.kind == kind
    assert said in found.mismatch.place
    assert contents(folder) == before, "nothing is changed without --fix"
    first, *others = repair(folder.storage, TIMES)
    assert (first.mismatch.kind, first.mended, first.problem) == (kind, True, "")
    assert all(one.mended for one in others)
    assert not list(findings(folder.storage))
    assert not list(repair(folder.storage, TIMES))
    after = contents(folder)
    lost = {path for path, content in before.items() if content not in after.values() and path not in after}
    if planted == "half-renamed sweep":  # they carry the new name
        lost -= {path for path in lost if path.replace("/whole/", "/renamed/") in after}
    assert not lost


def test_the_number_of_attempts_never_falls(folder: SweepFolder) -> None:
    key = trials(folder)[0]
    folder.storage.write(trial_file(key, "attempt.json"), b'{"attempt": 7, "own')
    assert all(one.mended for one in repair(folder.storage, TIMES))
    assert newest_attempt(folder.storage, key) > 7


def test_the_configuration_of_a_finished_trial_comes_back(folder: SweepFolder) -> None:
    path = trial_file(trials(folder)[0], CONFIG)
    written = folder.storage.read(path) or b""
    damage(folder, path)
    assert all(one.mended for one in repair(folder.storage, TIMES))
    assert json.loads(folder.storage.read(path) or b"") == json.loads(written)


def test_the_specification_comes_back_as_it_was(folder: SweepFolder) -> None:
    written = {name: folder.storage.read_json(folder.file(name)) for name in ("spec.json", "trials.json")}
    for name in written:
        damage(folder, folder.file(name))
        assert all(one.mended for one in repair(folder.storage, TIMES))
        assert folder.storage.read_json(folder.file(name)) == written[name] | (
            {"storage": folder.storage.root} if name == "spec.json" else {}
        )


def test_a_specification_that_the_sweep_file_does_not_give_is_left_to_its_user(folder: SweepFolder) -> None:
    text = (folder.storage.read(folder.file("sweep.yaml")) or b"").replace(b"seed: [0, 1]", b"seed: [0, 2]")
    folder.storage.write(folder.file("sweep.yaml"), text)
    folder.storage.remove(folder.file("spec.json"))
    (found,) = repair(folder.storage, TIMES)
    assert (found.mended, found.mismatch.mend) == (False, None)
    assert "run the sweep with its file again" in found.mismatch.remedy


def test_a_fresh_half_written_file_is_that_of_a_live_writer(folder: SweepFolder) -> None:
    folder.storage.write(f"sweeps/{folder.name}/.state.json.1-2.partial", b"half")
    assert not list(findings(folder.storage))

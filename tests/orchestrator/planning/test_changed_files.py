"""Finished trials stay after a change of a user's file that was accepted, and nothing else does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.cli import main
from orchestrator.errors import UserError
from orchestrator.execution.driver import initial_state, make_queue
from orchestrator.execution.sweep_files import write_sweep_files
from orchestrator.planning.changed_files import Changes, accept_changes, changes_since_last_run, chosen_files
from orchestrator.planning.plan import Plan
from orchestrator.reporting.report import make_report
from orchestrator.search.plans import plan_from_record, plan_sweep
from orchestrator.state.sweep_folder import SweepFolder
from orchestrator.storage.factory import open_storage
from orchestrator.storage.layout import trial_file
from orchestrator.tracking.plan_runs import planned_runs
from tests.support.stored_sweeps import FAILED, WAITING, spec_of, stored_sweep
from tests.support.trials import write_result
from trainables.custom.references import sha256

TEXT = """
name: mixed
dataset: {name: digits}
model: convnet
method: [drive, {module: scores.f}]
search: {warmup_epochs: [0, 2], seed: [0, 1, 2]}
sparsity: 0.9
training: {epochs: 2, loss: {module: losses.f}}  # a file that stays as it is
"""
FIRST, SECOND, THIRD = (f"def f(context):\n    return {number}\n" for number in (1, 2, 3))
OF_FILE = 6  # trials that use it; 6 of drive and 3 dense ones do not


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SweepFolder:
    """A sweep of 15 trials, in which one with the file has failed and one has not begun; all others are finished."""
    monkeypatch.chdir(tmp_path)
    write(FIRST)
    Path("losses.py").write_text("def f(logits, labels): ...\n")
    storage = open_storage(str(tmp_path / "runs"), create=True)
    folder, state = stored_sweep(TEXT, storage, {6: FAILED, 7: WAITING}, digest=None)
    methods = [trial.config["method"] for trial in state.trials.values()]
    assert methods[6:12] == ["module:scores.f"] * OF_FILE
    return folder


def write(text: str) -> None:
    Path("scores.py").write_text(text)


def planned(folder: SweepFolder) -> tuple[Plan, Changes]:
    plan = plan_sweep(spec_of(folder), folder.storage, hash_data=True)
    return plan, changes_since_last_run(plan, folder.storage)


def accepted(folder: SweepFolder, text: str) -> Plan:
    """The plan after a change that was accepted, as the next run begins with it."""
    write(text)
    plan, changes = planned(folder)
    plan = accept_changes(plan, changes, folder.storage, 5)
    write_sweep_files(folder, plan, TEXT)
    folder.write_state(initial_state(plan, folder.read_state(), make_queue(plan, folder.storage, lambda key: True)))
    return plan


def keys(plan: Plan) -> list[str]:
    return [trial.key for trial in plan.trials]


def test_a_change_is_named_with_the_finished_trials(folder: SweepFolder) -> None:
    assert planned(folder)[1] == Changes(earlier={})
    write(SECOND)
    plan, changes = planned(folder)
    (file,) = changes.files
    assert (file.name, file.trials, len(changes.finished)) == ("scores.py", 4, 4)
    assert (file.earlier, file.present) == (sha256(FIRST.encode()), sha256(SECOND.encode()))
    assert len(changes.earlier) == OF_FILE
    digests = f"SHA-256 {file.earlier[:12]} -> {file.present[:12]}"
    sentence = f"scores.py ({digests}) has changed since the last run of sweep 'mixed', and 4 of 15 trials were finished before"
    assert changes.sentence(plan) == sentence
    assert sum(trial.result is None for trial in plan.trials) == OF_FILE  # as if there were no earlier ones


def test_finished_trials_stay_and_the_others_get_new_keys(folder: SweepFolder) -> None:
    before = planned(folder)[0]
    write(SECOND)
    anew = planned(folder)[0]
    plan = accepted(folder, SECOND)
    finished = [trial.result is not None for trial in before.trials]
    assert [trial.result is not None for trial in plan.trials] == finished
    assert keys(plan) == [old if done else new for old, new, done in zip(keys(before), keys(anew), finished, strict=True)]
    assert set(keys(before)) & {trial.key for trial in plan.unfinished} == set()


def test_every_reader_sees_the_same_trials(folder: SweepFolder) -> None:
    plan = accepted(folder, SECOND)
    again, changes = planned(folder)
    record = folder.storage.read_json(folder.file("trials.json"))
    recorded = plan_from_record(spec_of(folder), folder.storage, record)
    assert keys(plan) == keys(again) == keys(recorded) == [one["key"] for one in record["trials"]]
    assert changes == Changes(earlier={})
    state = folder.read_state()
    assert state is not None
    assert list(state.trials) == keys(plan)
    (change,) = record["accepted_changes"]["changes"]
    assert (change["file"], change["time_ms"]) == ("scores.py", 5)
    runs = planned_runs(recorded)
    text = f"scores.py (SHA-256 {sha256(FIRST.encode())[:12]})"
    assert [runs[key].tags.get("drive.earlier_files") for key in keys(plan)] == [None] * 8 + [text] * 4 + [None] * 3


def test_the_report_marks_the_mix(folder: SweepFolder) -> None:
    accepted(folder, SECOND)
    state = folder.read_state()
    assert state is not None
    report = make_report(folder, state)
    text = f"4 of 13 trials were made with an earlier scores.py (SHA-256 {sha256(FIRST.encode())[:12]})"
    assert text in report.notes()
    assert report.to_json()["earlier_files"] == [{"file": "scores.py", "sha256": sha256(FIRST.encode()), "trials": 4, "of": 13}]
    mixed = {one["group"]: len(one["earlier_files"]) for one in report.to_json()["recommendation"]}
    assert sorted(mixed.values()) == [0, 1]


def test_a_second_change_is_asked_about_for_all_trials_before(folder: SweepFolder) -> None:
    first = accepted(folder, SECOND)
    write(THIRD)
    plan, changes = planned(folder)
    assert len(changes.finished) == 4
    assert not plan.accepted.changes
    again = accepted(folder, THIRD)
    kept = {trial.key for trial in first.trials if trial.result is not None}
    assert {trial.key for trial in again.trials if trial.result is not None} == kept
    assert {trial.key for trial in again.unfinished}.isdisjoint(keys(first))
    assert [change.present for change in again.accepted.changes] == [sha256(text.encode()) for text in (SECOND, THIRD)]


def test_a_file_that_is_as_before_again_is_no_change(folder: SweepFolder) -> None:
    before = keys(planned(folder)[0])
    accepted(folder, SECOND)
    write(FIRST)
    plan, changes = planned(folder)
    assert keys(plan) == before
    assert changes.finished == []


def test_trials_that_are_finished_with_the_present_file_raise_no_question(folder: SweepFolder) -> None:
    write(SECOND)
    plan, _ = planned(folder)
    write_sweep_files(folder, plan, TEXT)  # all were to run with the second file
    for trial in plan.trials[6:12]:
        write_result(folder.storage, trial.key, {"config": {}, "metrics": {}, "own_digests": {}})
    write(FIRST)
    plan, changes = planned(folder)
    assert [trial.result is not None for trial in plan.trials[6:12]] == [False, False, True, True, True, True]
    assert len(changes.finished) == 2


def test_a_kept_trial_whose_record_is_damaged_runs_with_the_present_file(folder: SweepFolder) -> None:
    plan = accepted(folder, SECOND)
    damaged = plan.trials[8]
    folder.storage.write(trial_file(damaged.key, "result.json"), b"{")
    again, _ = planned(folder)
    assert again.trials[8].key == again.keys_of(damaged.config)[0] != damaged.key
    assert damaged.key in again.damage
    removed = plan.without_results([plan.trials[9].key])
    assert removed.trials[9].key == plan.keys_of(plan.trials[9].config)[0]


def test_names_of_files_are_checked(folder: SweepFolder) -> None:
    write(SECOND)
    plan, changes = planned(folder)
    for name in ("scores.py", "scores", "module:scores.f", str(Path.cwd() / "scores.py"), "./scores.py"):
        assert chosen_files(plan, changes, [name]) == {"scores.py"}
    with pytest.raises(UserError, match=r"--accept-changed other.py: .* changed: scores.py"):
        chosen_files(plan, changes, ["other.py"])
    plan = accepted(folder, SECOND)
    assert chosen_files(plan, Changes(earlier={}), ["scores.py"]) == set()  # the same command once more


def test_other_data_or_weights_are_not_accepted(folder: SweepFolder) -> None:
    write(SECOND)
    plan, changes = planned(folder)
    assert plan.last_run is not None
    record = folder.storage.read_json(folder.file("trials.json")) | {"data_digest": "1" * 32}
    folder.storage.write_json(folder.file("trials.json"), record)
    plan = plan_sweep(plan.spec, folder.storage, hash_data=True)
    with pytest.raises(UserError, match="the data are not those of the last run"):
        accept_changes(plan, changes, folder.storage, 5)


def test_other_initial_weights_can_only_be_recomputed(folder: SweepFolder, capsys: pytest.CaptureFixture[str]) -> None:
    Path("dense.safetensors").write_bytes(b"one")
    text = TEXT.replace("mixed", "weighted") + "initial_weights: ./dense.safetensors\n"
    stored_sweep(text, folder.storage, {}, digest=None)
    Path("dense.safetensors").write_bytes(b"two")
    assert main(["resume", "weighted", "--dry-run"]) == 2
    error = capsys.readouterr().err
    assert "`drive-sweep resume weighted --recompute` computes all of them anew" in error
    assert "--accept-changed" not in error


def test_without_the_digest_of_the_data_nothing_is_said(folder: SweepFolder) -> None:
    write(SECOND)
    plan, _ = planned(folder)
    assert changes_since_last_run(replace(plan, data_digest=None), folder.storage) == Changes(earlier={})


def test_no_trial_runs_under_a_key_of_earlier_files(folder: SweepFolder) -> None:
    plan = accepted(folder, SECOND)
    unfinished = replace(plan, trials=tuple(replace(trial, result=None) for trial in plan.trials))
    with pytest.raises(RuntimeError, match="was made with earlier files"):
        make_queue(unfinished, folder.storage, lambda key: True)

"""`resume` before it runs anything: what it refuses, selects and keeps, and its answer in JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cli import main
from orchestrator.state.sweep_folder import SweepFolder
from orchestrator.storage.factory import open_storage
from tests.support.stored_sweeps import FAILED, WAITING, stored_sweep

TEXT = """
name: mixed
dataset: {name: digits}
model: convnet
method: {module: scores.f}
search: {warmup_epochs: [0, 2], seed: [0, 1, 2]}
sparsity: 0.9
baseline: none
training: {epochs: 2}
"""
FIRST, SECOND = ("def f(context):\n    return 1\n", "def f(context):\n    return 2\n")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SweepFolder:
    """Of six trials two are finished, three have failed in two ways, and one has not begun."""
    monkeypatch.chdir(tmp_path)
    Path("scores.py").write_text(FIRST)
    not_finished = {0: FAILED, 1: FAILED, 2: FAILED, 3: WAITING}
    folder, state = stored_sweep(TEXT, open_storage("runs", create=True), not_finished, digest=None)
    for kind, trial in zip(("oom", "code", "code"), list(state.trials.values()), strict=False):
        trial.failure = kind
    folder.write_state(state)
    return folder


def keys(folder: SweepFolder) -> list[str]:
    state = folder.read_state()
    assert state is not None
    return list(state.trials)


def facts(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    """The answer of a dry run."""
    code = main(["resume", "mixed", "--dry-run", "--json", *words])
    out, err = capsys.readouterr()
    assert code == 0, err
    answer: dict[str, Any] = json.loads(out)
    return answer


def refusal(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main([*words]) == 2
    return capsys.readouterr().err


def test_failed_trials_are_selected_by_their_kind(folder: SweepFolder, capsys: pytest.CaptureFixture[str]) -> None:
    known = keys(folder)
    assert facts(capsys, "--only", "failed", "--kind", "oom")["trials"] == [known[0]]
    assert facts(capsys, "--kind", "code")["trials"] == sorted(known[1:3])
    assert facts(capsys, "--kind", "code", "--kind", "oom")["trials"] == sorted(known[:3])
    assert facts(capsys, "--kind", "hang")["trials"] == []
    assert facts(capsys, "--only", "unfinished")["trials"] == [known[3]]
    assert "--kind: must not go with --only unfinished" in refusal(
        capsys, "resume", "mixed", "--kind", "oom", "--only", "unfinished"
    )


def test_the_answer_keeps_its_fields(folder: SweepFolder, capsys: pytest.CaptureFixture[str]) -> None:
    answer = facts(capsys)
    counts = {"finished": 2, "stopped_early": 0, "failed": 3, "unfinished": 1, "from_checkpoint": 0, "left_alone": 0}
    assert counts.items() <= answer.items()
    assert answer["trials"] == sorted(keys(folder)[:4])
    assert [one["key"] for one in answer["beginnings"]] == keys(folder)


def test_after_a_change_resume_and_run_refuse_with_both_ways_on(
    folder: SweepFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_bytes() for path in Path("runs").rglob("*") if path.is_file()}
    Path("scores.py").write_text(SECOND)
    error = refusal(capsys, "resume", "mixed", "--set", "retries.lost=3")
    assert "2 of 6 trials were finished before" in error
    assert "`drive-sweep resume mixed --accept-changed scores.py --set retries.lost=3` keeps them" in error
    assert "`drive-sweep resume mixed --recompute --set retries.lost=3` computes all of them anew" in error
    error = refusal(capsys, "run", "s.yaml")
    assert "`drive-sweep run s.yaml --accept-changed scores.py` keeps them" in error
    assert "[file-changed]" in error
    assert main(["plan", "s.yaml", "--hash"]) == 0
    assert "2 of 6 trials were finished before; `run` takes --accept-changed FILE" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in Path("runs").rglob("*") if path.is_file()} == before


def test_accepted_and_recomputed_trials(folder: SweepFolder, capsys: pytest.CaptureFixture[str]) -> None:
    known = keys(folder)
    Path("scores.py").write_text(SECOND)
    kept = facts(capsys, "--accept-changed", "scores.py")
    assert [one["key"] for one in kept["beginnings"] if one["start"] == "kept"] == known[4:]
    assert set(kept["trials"]).isdisjoint(known)
    assert [one["kind"] for one in kept["beginnings"][:4]] == ["oom", "code", "code", ""]
    by_old_key = facts(capsys, "--accept-changed", "scores.py", "--trial", known[0])
    assert by_old_key["trials"] == [kept["beginnings"][0]["key"]]
    only = facts(capsys, "--accept-changed", "scores.py", "--kind", "oom")
    assert only["trials"] == by_old_key["trials"]
    anew = facts(capsys, "--recompute")
    assert len(anew["trials"]) == 6
    assert set(anew["trials"]).isdisjoint(known)
    assert "must not go with --recompute" in refusal(capsys, "resume", "mixed", "--recompute", "--accept-changed", "scores.py")


def test_without_a_change_recompute_means_every_trial(folder: SweepFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert facts(capsys, "--recompute")["trials"] == sorted(keys(folder))
    assert facts(capsys, "--recompute", "--trial", keys(folder)[5])["trials"] == [keys(folder)[5]]


def test_names_of_files_that_have_not_changed_are_refused(folder: SweepFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--accept-changed scores.py: must be a file that has changed" in refusal(
        capsys, "resume", "mixed", "--accept-changed", "scores.py"
    )
    Path("scores.py").write_text(SECOND)
    assert "changed: scores.py" in refusal(capsys, "resume", "mixed", "--accept-changed", "other.py")


def test_a_change_before_any_trial_is_finished_is_only_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("scores.py").write_text(FIRST)
    stored_sweep(TEXT, open_storage("runs", create=True), dict.fromkeys(range(6), FAILED), digest=None)
    Path("scores.py").write_text(SECOND)
    assert main(["resume", "mixed", "--dry-run"]) == 0
    error = capsys.readouterr().err
    assert "no trial was finished before" in error
    assert "0 finished and kept, 6 failed and 0 unfinished to run" in error

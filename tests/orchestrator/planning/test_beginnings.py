"""Where trials begin when a sweep goes on, why, and the table that says so."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from orchestrator.planning.beginnings import Beginning, LastStates, Start, beginnings
from orchestrator.planning.plan import make_plan
from orchestrator.state.sweep_state import SweepState
from orchestrator.storage.base import Storage
from orchestrator.storage.layout import trial_file
from orchestrator.terminal.resume_table import MOST_LINES, print_beginnings
from tests.support.stored_sweeps import FAILED, TWO_METHODS, WAITING, spec_of, stored_sweep
from tests.support.trials import new_storage
from trainables.errors import FINAL_KINDS, FailureKind
from trainables.records.file_names import CHECKPOINT


@pytest.fixture
def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Storage:
    monkeypatch.chdir(tmp_path)
    return new_storage(tmp_path)


def checkpoint(phase: str, position: int) -> bytes:
    """The beginning of a checkpoint, which is all that is read of it."""
    from safetensors.numpy import save

    return save({}, {"state": f'{{"phase": "{phase}", "position": {position}}}', "sha256": "0"})


def rows_of(storage: Storage, *, from_scratch: bool = False, selected: slice = slice(None)) -> list[Beginning]:
    folder, state = stored_sweep(TWO_METHODS, storage, {0: FAILED, 1: FAILED, 2: WAITING, 3: WAITING, 4: FAILED})
    keys = list(state.trials)
    state.trials[keys[1]].failure, state.trials[keys[1]].place = "oom", "nets.py:3"
    state.trials[keys[3]].phase = "train"
    storage.write(trial_file(keys[1], CHECKPOINT), checkpoint("train", 3))
    storage.write(trial_file(keys[4], CHECKPOINT), b"damaged")
    plan = make_plan(spec_of(folder), storage, digest="0" * 32)
    last = LastStates(storage=storage, state=state, earlier={})
    unfinished = [trial.key for trial in plan.unfinished]
    return beginnings(plan, last, unfinished[selected], from_scratch=from_scratch, storage=storage)


def test_trials_begin_at_their_checkpoints_with_reasons(storage: Storage) -> None:
    rows = rows_of(storage)
    assert [(one.start, one.phase, one.position, one.kind) for one in rows[:6]] == [
        (Start.ZERO, None, None, "error"),  # the kind in error.json, since the state of an older version has none
        (Start.CHECKPOINT, "train", 3, "oom"),
        (Start.ZERO, None, None, ""),
        (Start.ZERO, None, None, ""),
        (Start.ZERO, None, None, "error"),  # its checkpoint is damaged
        (Start.KEPT, None, None, ""),
    ]
    assert [one.reason for one in rows[:4]] == [
        "failed (error): ValueError: the loss is not finite",
        "failed (oom) at nets.py:3: ValueError: the loss is not finite",
        "has not begun",
        "was interrupted",
    ]


def test_from_scratch_no_checkpoint_is_used(storage: Storage) -> None:
    assert {one.start for one in rows_of(storage, from_scratch=True)} == {Start.ZERO, Start.KEPT}


def test_trials_that_are_not_selected_say_why_they_are_open(storage: Storage) -> None:
    rows = rows_of(storage, selected=slice(1))
    assert [one.start for one in rows[:5]] == [Start.ZERO, *[Start.NOT_SELECTED] * 4]
    assert rows[1].kind == "oom"


def test_a_trial_that_the_last_run_did_not_have_has_not_begun(storage: Storage) -> None:
    last = LastStates(storage=storage, state=SweepState(sweep="x"), earlier={})
    assert (last.has_failed("k"), last.kind("k"), last.reason("k")) == (False, "", "has not begun")


def table(rows: list[Beginning], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    console = Console(width=120, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    monkeypatch.setattr("orchestrator.terminal.resume_table.Console", lambda **_: console)
    print_beginnings(rows)
    return [line.rstrip() for line in console.export_text().splitlines()]


def row(number: int, start: Start = Start.ZERO, reason: str = "", position: int | None = None) -> Beginning:
    phase = None if position is None else "train"
    return Beginning(key=f"{number}", name=f"w{number}", start=start, phase=phase, position=position, reason=reason)


def test_few_trials_have_a_line_each(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        row(0, Start.CHECKPOINT, "was interrupted", 3),
        row(1, reason="failed (code): x"),
        row(2, Start.KEPT),
        row(3, Start.KEPT),
    ]
    assert table(rows, monkeypatch) == [
        "trials     begins               because",
        "w0         from sparse epoch 3  was interrupted",
        "w1         from zero            failed (code): x",
        "2: w2, w3  kept",
    ]


def test_many_trials_are_grouped_by_their_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    failed = [row(number, reason="failed (code): x") for number in range(30)]
    others = [row(number, Start.CHECKPOINT, "was interrupted", number) for number in range(30, 35)]
    assert table(failed + others, monkeypatch) == [
        "trials            begins            because",
        "30: w0, w1, ...   from zero         failed (code): x",
        "5: w30, w31, ...  from checkpoints  was interrupted",
    ]


def test_the_table_has_at_most_twenty_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = table([row(number, reason=f"reason {number}") for number in range(100)], monkeypatch)
    assert len(lines) == MOST_LINES + 2 <= 20
    assert lines[-1] == "and 82 trials for 82 other reasons"


def test_kinds_to_select_by_are_those_that_fail_a_trial_for_good() -> None:
    from orchestrator.scheduling.retry_policy import POLICIES, Action, RetryContext, decide

    exhausted = RetryContext(worker_failures=10**6, hangs=10**6)
    final = {decide(kind, exhausted).kind for kind in POLICIES if decide(kind, exhausted).action is Action.FAIL}
    assert set(FINAL_KINDS) == final
    assert FailureKind.NODE_LOST not in final

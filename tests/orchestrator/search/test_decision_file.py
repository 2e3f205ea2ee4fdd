"""decisions.jsonl in storages: it is read as it was written, also after a crash in the middle of a line."""

from __future__ import annotations

import pytest

from orchestrator.errors import UserError
from orchestrator.search.decision_file import DecisionFile
from orchestrator.search.decisions import Decision, Kind, to_text
from orchestrator.storage.base import Storage

LINES = [Decision(kind=Kind.START, values={"course": "a"}), Decision(kind=Kind.END, group="s0.9", state="better")]


def test_decisions_are_read_as_written(any_storage: Storage) -> None:
    file = DecisionFile(any_storage, "sweep")
    assert file.read() == []
    for line in LINES:
        file.write([line])
    file.write(LINES)
    assert DecisionFile(any_storage, "sweep").read() == file.read() == LINES + LINES
    assert DecisionFile(any_storage, "other").read() == []


def test_what_a_crash_left_of_a_line_is_replaced(any_storage: Storage) -> None:
    file = DecisionFile(any_storage, "sweep")
    any_storage.write(file.path, to_text(LINES)[:-5].encode())
    assert file.read() == LINES[:1]
    file.write(LINES[1:])
    assert any_storage.read(file.path) == to_text(LINES).encode()
    assert file.read() == LINES


@pytest.mark.parametrize("damage", [b"{broken\n", b"\xff\xfe\n", b'{"kind":"dance"}\n'])
def test_damaged_file_is_an_error_with_a_hint(any_storage: Storage, damage: bytes) -> None:
    file = DecisionFile(any_storage, "sweep")
    any_storage.write(file.path, damage + (LINES[1].to_line() + "\n").encode())
    with pytest.raises(UserError, match=r"decisions\.jsonl") as error:
        file.read()
    assert error.value.code == "decisions-damaged"
    assert "resume sweep" in (error.value.hint or "")

"""The file of events: what a line has, files that cannot be written, and a disk that becomes full."""

from __future__ import annotations

import json
import math
import os
import re
from pathlib import Path

import pytest

from orchestrator.errors import UserError
from orchestrator.execution.events import EVENTS, EventFile
from tests import ROOT


def test_each_event_is_a_line_with_time_and_sweep_behind_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text('{"event": "earlier"}\n')
    events = EventFile(str(path), "digits")
    events.write("trial_finished", key="k", name="n", val_accuracy=0.5, seconds=2.0)
    first, second = (json.loads(line) for line in path.read_text().splitlines())  # at once, before the file is closed
    assert first == {"event": "earlier"}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", second.pop("time"))
    assert second == {
        "event": "trial_finished",
        "sweep": "digits",
        "key": "k",
        "name": "n",
        "val_accuracy": 0.5,
        "seconds": 2.0,
    }


def test_numbers_that_json_has_not_are_null(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    EventFile(str(path)).write("decision", values={"1": math.inf, "2": [math.nan, 1.0]})
    (line,) = path.read_text().splitlines()
    assert json.loads(line, parse_constant=lambda text: pytest.fail(text))["values"] == {"1": None, "2": [None, 1.0]}


@pytest.mark.parametrize("place", ["missing/events.jsonl", "."])
def test_a_file_that_cannot_be_written_is_an_error_at_once(tmp_path: Path, place: str) -> None:
    with pytest.raises(UserError, match="--events: must be a file that can be written") as raised:
        EventFile(str(tmp_path / place))
    assert raised.value.code == "events-not-writable"


def test_a_full_disk_is_named_once_and_stops_nothing() -> None:
    events, lines = EventFile("/dev/full"), list[str]()
    events.notify = lines.append
    for _ in range(3):
        events.write("sweep_started", finished=0)
    assert lines == ["--events: /dev/full cannot be written any more: No space left on device; the sweep goes on without"]


def test_a_line_that_was_cut_off_does_not_spoil_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "events.jsonl"
    events = EventFile(str(path))
    write, room = os.write, [20, 10**6, 10**6]
    monkeypatch.setattr("orchestrator.execution.events.os.write", lambda fd, content: write(fd, content[: room.pop(0)]))
    for count in range(3):
        events.write("sweep_started", finished=count)
    assert [json.loads(line)["finished"] for line in path.read_text().splitlines()[1:]] == [1, 2]


def test_without_a_path_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    EventFile().write("sweep_started")
    assert list(tmp_path.iterdir()) == []


def test_the_guide_has_every_event() -> None:
    page = (ROOT / "orchestrator/guide/progress.md").read_text()
    table = re.findall(r"^\| `([a-z_]+)` \| (.+) \|$", page.partition("| event |")[2].partition("\n\n")[0], re.MULTILINE)
    assert dict(table) == EVENTS


def test_an_event_without_an_entry_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        EventFile(str(tmp_path / "events.jsonl")).write("unheard_of")

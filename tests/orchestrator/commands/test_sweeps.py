"""list, rename, delete and gc on the command line: what they print, ask and refuse."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.cli import main
from orchestrator.state.sweep_folder import sweep_names
from orchestrator.storage.local import LocalStorage
from tests.support.recorded_sweeps import recorded_sweep

Run = Callable[..., str]


@pytest.fixture
def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalStorage:
    """Two sweeps that share trials, in the default storage of the current folder."""
    monkeypatch.chdir(tmp_path)
    for name in ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    storage = LocalStorage(str(tmp_path / "runs"))
    recorded_sweep(storage, tmp_path, "tiny")
    recorded_sweep(storage, tmp_path, "wide", "search.seed=[0, 1]", unfinished=2)
    return storage


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*words: str, expect: int = 0) -> str:
        """What a command prints: its answer, and what it says beside it."""
        assert main(words) == expect
        output = capsys.readouterr()
        return output.out + output.err

    return run


def test_list_shows_the_sweeps_of_the_storage(storage: LocalStorage, run: Run) -> None:
    lines = run("list").splitlines()
    assert {line.split()[0]: line.split()[1:5] for line in lines[1:]} == {
        "wide": ["unfinished", "13", "of", "14"],
        "tiny": ["finished", "7", "of", "7"],
    }
    assert {one["name"]: one["finished"] for one in json.loads(run("list", "--json"))} == {"tiny": 7, "wide": 13}
    assert "no sweeps in storage" in run("list", "--storage", "elsewhere")


def test_list_asks_the_cluster_that_is_named_unless_a_storage_is(
    storage: LocalStorage, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "must not go with --storage" in run("list", "--storage", "runs", "--address", "http://127.0.0.1:9", expect=2)
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://127.0.0.1:9")
    assert "tiny" in run("list", "--storage", "runs")
    assert "http://127.0.0.1:9" in run("list", expect=3)


def test_delete_shows_what_goes_and_stays_and_needs_consent(
    storage: LocalStorage, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = run("delete", "wide", "--dry-run")
    assert "the sweep's records" in shown
    assert "in 18 files" in shown
    assert "kept, since other sweeps use them: 7 trials and 1 shared warm-up" in shown
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    assert "give --yes" in run("delete", "wide", expect=2)

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdin", Terminal("n\n"))
    assert "nothing was deleted" in run("delete", "wide", expect=2)
    assert sweep_names(storage) == ["tiny", "wide"]
    monkeypatch.setattr(sys, "stdin", Terminal("y\n"))
    assert "deleted sweep 'wide'" in run("delete", "wide")
    assert sweep_names(storage) == ["tiny"]


def test_delete_answers_in_json(storage: LocalStorage, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["delete", "tiny", "--yes", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["deleted"]
    assert facts["trials"] == facts["warmups"] == []
    assert (len(facts["kept_trials"]), len(facts["kept_warmups"])) == (7, 1)
    assert facts["kinds"].keys() == {"the sweep's records"}


def test_rename_says_what_a_sweep_file_needs_now(storage: LocalStorage, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    said = run("rename", "tiny", "small")
    assert "sweep 'tiny' is 'small' now" in said
    assert "write `name: small` there" in said
    assert sweep_names(storage) == ["small", "wide"]
    assert main(["rename", "small", "tiny", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"sweep": "tiny", "former": "small", "mlflow_pending": False}


def test_gc_shows_what_it_frees_and_needs_consent(
    storage: LocalStorage, run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "every file is needed" in run("gc")
    key = next(one["key"] for one in storage.read_json("sweeps/tiny/trials.json")["trials"])
    storage.write(f"trials/{key}/checkpoint", bytes(1000))
    shown = run("gc", "--dry-run").splitlines()
    assert shown[0].split() == ["checkpoints", "of", "finished", "trials", "1", "kB", "in", "1", "file"]
    assert shown[2].startswith("kept 1 warm-up: warmups/")  # these snapshots are made up
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    assert "give --yes" in run("gc", expect=2)
    assert storage.exists(f"trials/{key}/checkpoint")
    assert main(["gc", "--yes", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["freed"], facts["kinds"]) == (True, {"checkpoints of finished trials": {"files": 1, "bytes": 1000}})
    assert not storage.exists(f"trials/{key}/checkpoint")

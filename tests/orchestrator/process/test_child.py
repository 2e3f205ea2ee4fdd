"""Child processes: their answer, their errors, and the login that they do not have."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.process.child import ChildError, HungChildError, ask
from orchestrator.process.credentials import CREDENTIALS

HANGS = """
import time
from orchestrator.process.child import serve
from trainables.runtime.heartbeat import beat

def respond(request):
    for _ in range(request["beats"]):
        time.sleep(0.3)
        beat()
    if request["hangs"]:
        while True: pass
    return "done"

def main():
    serve(respond)
"""
HOLDS = """
import multiprocessing, time
from orchestrator.process.child import serve

def respond(request):
    multiprocessing.get_context("fork").Process(target=time.sleep, args=(1,), daemon=False).start()
    return "done"

def main():
    serve(respond)
"""
ANSWER = """
import os
from orchestrator.process.child import serve

def main():
    serve(lambda request: {"request": request, "variables": sorted(os.environ)})
"""


@pytest.fixture
def child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module that says which variables it has."""
    (tmp_path / "telling.py").write_text(ANSWER)
    (tmp_path / "hanging.py").write_text(HANGS)
    (tmp_path / "holding.py").write_text(HOLDS)
    (tmp_path / "failing.py").write_text("def main():\n    raise SystemExit('no room')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return "telling"


def test_child_has_the_environment_but_no_login(child: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in CREDENTIALS:
        monkeypatch.setenv(name, "secret")
    answer = ask(child, {"a": 1})
    assert answer["request"] == {"a": 1}
    assert "PYTHONPATH" in answer["variables"]
    assert not set(CREDENTIALS) & set(answer["variables"])


def test_failed_child_says_why(child: str) -> None:
    with pytest.raises(ChildError, match=r"^no room$"):
        ask("failing", {}, keep_errors=True)


def test_child_that_hangs_is_ended_and_says_where(child: str) -> None:
    with pytest.raises(
        HungChildError, match=r"^a hang: nothing happened for 1 s, it was computing in hanging.py line 11 \(resp"
    ):
        ask("hanging", {"beats": 0, "hangs": True}, limit_s=1)


def test_child_that_gives_signs_of_life_may_take_longer_than_the_limit(child: str) -> None:
    assert ask("hanging", {"beats": 5, "hangs": False}, limit_s=1) == "done"


def test_response_is_taken_before_what_the_child_has_started_ends(child: str) -> None:
    assert ask("holding", {}) == "done"

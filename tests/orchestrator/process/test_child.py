"""Child processes: their answer, their errors, and the login that they do not have."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.process.child import ChildError, ask
from orchestrator.process.credentials import CREDENTIALS

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

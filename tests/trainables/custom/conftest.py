"""Fixtures of the tests of custom code: a folder with the user's files, and no module that stays imported."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.storage.base import Storage
from orchestrator.storage.factory import open_storage
from tests.support.custom_modules import write_modules
from trainables.custom import imports


@pytest.fixture(autouse=True)
def nothing_stays_imported(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(imports, "_sources", {})
    yield
    for name in ("mynets", "mydata", "mylosses", "myscores", "deep", "deep.mynets"):
        sys.modules.pop(name, None)


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return open_storage(str(tmp_path / "runs"), create=True)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with all the user's files."""
    path = tmp_path / "mine"
    path.mkdir()
    monkeypatch.chdir(path)
    return write_modules(path)

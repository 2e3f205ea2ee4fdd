"""Every test here runs in an empty folder."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def grid_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """The grid in the order of the file, for tests that say which configuration comes first."""
    monkeypatch.setattr("orchestrator.search.proposals.shuffled_grid", lambda space, seed, purpose: list(space.grid()))

"""A finished sweep and a folder to export to."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.state.sweep_folder import SweepFolder
from tests.support.export_sweep import export_sweep


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> SweepFolder:
    """The folder of the sweep; tests only read it."""
    return export_sweep(tmp_path_factory.mktemp("finished"))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "exported" / "model"

"""A finished sweep that is tracked, once for all tests; each test damages a copy."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.state.sweep_folder import SweepFolder
from orchestrator.tracking.client import connect
from tests.support.whole_sweep import copied, target_of, whole_sweep


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> SweepFolder:
    return whole_sweep(tmp_path_factory.mktemp("whole"))


@pytest.fixture
def folder(whole: SweepFolder, tmp_path: Path) -> SweepFolder:
    """The sweep in a storage of its own, whose MLflow database knows where it is."""
    folder = copied(whole, tmp_path)
    connect(target_of(folder), lambda line: None)
    return folder

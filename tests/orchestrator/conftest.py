"""Storages of every kind, for tests of what holds for all of them, and the results of a stored sweep."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path

import pytest

from orchestrator.reporting.sweep_results import SweepResults, sweep_results
from orchestrator.storage.base import Storage
from orchestrator.storage.factory import open_storage
from orchestrator.storage.s3 import S3Storage
from orchestrator.uris import STORAGE_SCHEMES
from tests.support import toy_storage
from tests.support.s3_server import BUCKET, ObjectStore, s3_server
from tests.support.stored_sweeps import FAILED, TWO_METHODS, WAITING, stored_sweep


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    with s3_server(tmp_path_factory.mktemp("objects")) as running:
        yield running


@pytest.fixture
def s3(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> S3Storage:
    for name, value in store.environment.items():
        monkeypatch.setenv(name, value)
    storage = open_storage(f"s3://{BUCKET}/{secrets.token_hex(4)}/runs", create=True)
    assert isinstance(storage, S3Storage)
    return storage


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Storage:
    monkeypatch.setenv(toy_storage.ROOT, str(tmp_path))
    monkeypatch.setitem(STORAGE_SCHEMES, "toy", toy_storage.SCHEME)
    return open_storage("toy://runs", create=True)


@pytest.fixture(params=["folder", pytest.param("s3", marks=pytest.mark.server), "toy"])
def any_storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "folder":
        return open_storage(str(tmp_path / "runs"), create=True)
    storage: Storage = request.getfixturevalue(request.param)
    return storage


@pytest.fixture(scope="session")
def two_methods(tmp_path_factory: pytest.TempPathFactory) -> SweepResults:
    """Trial 0 has failed and trial 1 waits, so that one configuration has one seed."""
    folder = tmp_path_factory.mktemp("two")
    with chdir(folder):
        return sweep_results(
            *stored_sweep(TWO_METHODS, open_storage(str(folder / "runs"), create=True), {0: FAILED, 1: WAITING})
        )

"""A kind of storage is added by one class and one entry in the table of schemes, and is then known everywhere."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path

import pytest

from orchestrator import uris
from orchestrator.errors import UserError
from orchestrator.spec.loader import load_spec
from orchestrator.storage.base import Storage
from orchestrator.storage.factory import open_storage
from tests import ROOT
from tests.support import toy_storage
from tests.support.cli import drive_sweep, status, tiny_sweep
from tests.support.toy_storage import ToyStorage


def test_registered_scheme_is_opened_unlike_an_unknown_one(toy: Storage, tmp_path: Path) -> None:
    assert isinstance(toy, ToyStorage)
    assert json.loads((tmp_path / "runs" / "storage.json").read_text())["layout"] == 1
    assert load_spec("digits", ["storage=toy://runs"]).storage == "toy://runs"
    with pytest.raises(UserError, match=r"storage: must be .*, got 'ftp://runs'; correct it"):
        open_storage("ftp://runs")


@pytest.mark.parametrize("uri", ["toy://me:PW@runs", "toy://runs?access_key=PW"])
def test_the_rules_of_uris_hold_for_a_new_scheme(uri: str, toy: Storage) -> None:
    with pytest.raises(UserError) as error:
        open_storage(uri)
    assert "PW" not in str(error.value)


def test_every_scheme_has_a_storage_and_a_form_in_the_rule() -> None:
    assert list(uris.STORAGE_SCHEMES) == ["file", "s3", "gs"]
    for scheme in uris.STORAGE_SCHEMES.values():
        assert scheme.form in uris.STORAGE_RULE
        module, _, name = scheme.storage.partition(":")
        assert issubclass(getattr(import_module(module), name), Storage)


@pytest.fixture
def toy_processes(tmp_path: Path) -> dict[str, str]:
    """Environment in which every Python process knows the toy storage: the driver, its children, and Ray's workers."""
    (tmp_path / "sitecustomize.py").write_text("from tests.support import toy_storage\ntoy_storage.register()\n")
    return {"PYTHONPATH": f"{tmp_path}:{ROOT}", toy_storage.ROOT: str(tmp_path)}


@pytest.mark.long
def test_a_sweep_runs_on_a_registered_scheme(tmp_path: Path, toy_processes: dict[str, str]) -> None:
    where = ("--storage", "toy://runs", "--tracking-uri", f"sqlite:///{tmp_path}/mlflow.db")
    few = ("--set", "search.warmup_epochs=[1]", "--set", "search.prune_iterations=[1]")
    file = tiny_sweep(tmp_path)
    drive_sweep("run", file, *where, *few, "--quiet", environment=toy_processes)
    assert status("tiny", "toy://runs", toy_processes)["finished"] == 2
    plan = json.loads(drive_sweep("plan", file, *where, *few, "--hash", "--json", environment=toy_processes).stdout)
    assert plan["reused"] == 2
    report = json.loads(drive_sweep("report", "tiny", "--storage", "toy://runs", "--json", environment=toy_processes).stdout)
    assert sum(len(row["trials"]) for row in report["settings"]) == 2

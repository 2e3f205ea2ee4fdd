"""The script of a page is bundled once for a cache folder, and taken from there only if it is what was written."""

from __future__ import annotations

from pathlib import Path

import pytest
import vl_convert

from orchestrator.page.library import library

SCRIPT = "window.vega = 'Vega — 6'"


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """The versions of Vega-Lite that were bundled."""
    bundled: list[str] = []

    def bundle(vl_version: str) -> str:
        bundled.append(vl_version)
        return SCRIPT

    monkeypatch.setattr(vl_convert, "javascript_bundle", bundle)
    monkeypatch.setenv("DRIVE_SWEEP_CACHE", str(tmp_path))
    return bundled


def test_script_is_bundled_once(calls: list[str], tmp_path: Path) -> None:
    assert [library(), library()] == [SCRIPT, SCRIPT]
    assert len(calls) == 1
    assert len(list(tmp_path.iterdir())) == 1


def test_damaged_script_is_bundled_again(calls: list[str], tmp_path: Path) -> None:
    library()
    (file,) = tmp_path.iterdir()
    file.write_text(SCRIPT[:-3])
    assert library() == SCRIPT
    assert len(calls) == 2
    assert file.read_text() == SCRIPT


def test_script_of_another_version_is_not_taken(calls: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library()
    monkeypatch.setattr("orchestrator.page.library.version", lambda name: "0.0.1")
    library()
    assert len(calls) == 2


def test_script_is_bundled_without_a_cache_that_can_be_written(calls: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRIVE_SWEEP_CACHE", "/proc/none")
    assert library() == SCRIPT

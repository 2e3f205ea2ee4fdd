"""Fingerprints in the report: trials of other numbers of workers are listed apart."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.reporting.aggregate import fingerprint_counts, numbers_of_workers, workers_notes

ONE: dict[str, Any] = {"processor": "EPYC", "torch": "2.15", "precision": "fp32", "threads": 2}


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ({}, ""),
        ({"workers": 4, "sync_batch_norm": True}, " of each of 4 workers"),
        ({"workers": 4, "sync_batch_norm": False}, " of each of 4 workers that normalise apart"),
        ({"workers": 4, "sync_batch_norm": True, "layout": "2+2"}, " of each of 4 workers (by machine: 2+2)"),
    ],
)
def test_text_of_a_fingerprint_names_its_workers(more: dict[str, Any], text: str) -> None:
    counts = fingerprint_counts([{"fingerprints": [ONE | more]}])
    assert counts == {f"EPYC, torch 2.15, fp32, 2 threads{text}": 1}


def test_numbers_of_workers_are_each_given_once() -> None:
    four = ONE | {"workers": 4}
    results: list[dict[str, Any]] = [{"fingerprints": one} for one in ([four], [ONE, four], [four], [])]
    assert numbers_of_workers(results) == [1, 4]
    assert "by 1 or 4 workers each" in workers_notes([1, 4])[0]
    assert "cannot be compared" in workers_notes([1, 4])[0]
    assert "cannot be compared" not in workers_notes([4])[0]
    assert workers_notes([1]) == workers_notes([]) == []

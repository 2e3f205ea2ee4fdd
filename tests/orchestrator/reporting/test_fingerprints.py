"""Fingerprints in the report: trials of other numbers of workers are listed apart."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.reporting.aggregate import fingerprint_counts

ONE: dict[str, Any] = {"processor": "EPYC", "torch": "2.15", "precision": "fp32", "threads": 2}


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ({}, ""),
        ({"workers": 4, "sync_batch_norm": True}, " of each of 4 workers"),
        ({"workers": 4, "sync_batch_norm": False}, " of each of 4 workers that normalise apart"),
    ],
)
def test_text_of_a_fingerprint_names_its_workers(more: dict[str, Any], text: str) -> None:
    counts = fingerprint_counts([{"fingerprints": [ONE | more]}])
    assert counts == {f"EPYC, torch 2.15, fp32, 2 threads{text}": 1}

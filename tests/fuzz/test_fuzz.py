"""A short form of each fuzz run, and what the search must notice."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests.fuzz import search as searching
from tests.fuzz.__main__ import TARGETS, samples_of
from tests.fuzz.choices import ByteChoices, RandomChoices
from tests.fuzz.sample import Sample
from tests.fuzz.search import Findings, search, try_one
from trainables.runtime.sizes import require_room


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_readers_refuse_mutants_as_documented(target: str, tmp_path: Path) -> None:
    findings = search(samples_of(target, tmp_path), seconds=4.0, seed=1)
    assert not findings.crashes, "\n".join(f"{place}\n{report}" for place, (_, report) in findings.crashes.items())
    assert findings.executions > 20
    assert findings.refused > findings.executions / 4


def reads_anything(content: bytes) -> Any:
    return content


def loses_errors(content: bytes) -> Any:
    return json.loads(content)["a"]


def hangs(content: bytes) -> Any:
    while content != b'{"a": 1}':
        time.sleep(0.01)
    return content


def trusts_a_size(content: bytes) -> Any:
    return len(bytes(10**10) if content != b'{"a": 1}' else b"")


@pytest.mark.parametrize(
    ("read", "place"),
    [
        (reads_anything, "x: silent"),
        (loses_errors, "x: JSONDecodeError at decoder.py"),
        (hangs, "x: HangError at search.py"),
        (trusts_a_size, "x: MemoryError at test_fuzz.py"),
    ],
)
def test_search_notices(read: Any, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searching, "MOST_SECONDS", 0.05)
    findings = search([Sample(name="x", content=b'{"a": 1}', read=read)], seconds=0.2, seed=0)
    assert any(one.startswith(place) for one in findings.crashes), findings.crashes


def test_readers_see_a_small_machine() -> None:
    def claims_two_gib(content: bytes) -> Any:
        if content != b"abc":
            require_room(2 << 30, "it")
        return content

    findings = search([Sample(name="x", content=b"abc", read=claims_two_gib, errors=(ValueError,))], seconds=0.05, seed=0)
    assert findings.refused > 0
    assert not findings.crashes


def test_a_seed_and_a_script_decide_everything() -> None:
    def mutants(choices: Any) -> list[bytes]:
        seen: list[bytes] = []

        def read(content: bytes) -> bool:
            seen.append(content)
            return True

        for _ in range(20):
            try_one([Sample(name="x", content=b"abcdef", read=read, is_checked=False)], choices, Findings())
        return seen

    assert mutants(RandomChoices(3)) == mutants(RandomChoices(3)) != mutants(RandomChoices(4))
    assert mutants(ByteChoices(bytes(range(200)))) == mutants(ByteChoices(bytes(range(200))))

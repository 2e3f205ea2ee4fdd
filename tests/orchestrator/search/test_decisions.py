"""Lines of decisions.jsonl: written, read, cut off and damaged."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.search.decisions import Decision, Kind, from_text
from trainables.records.checked_lines import read_checked_line

FULL = Decision(
    kind=Kind.RESULT,
    group="s0.9",
    configuration=3,
    seed=1,
    key="abc",
    values={"val/accuracy": 0.1 + 0.2},
    attributes={"question": 2, "NSGAIISampler:generation": 1},
    epoch=7,
    value=1 / 3,
    seconds=12.5,
    state="finished",
    reason='it says "so";\nä',
    elapsed_s=1.25,
)
plain = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text())
mappings: Any = st.dictionaries(st.text(), plain, max_size=3)


@pytest.mark.parametrize("kind", Kind)
def test_line_of_every_kind_is_read_back(kind: Kind) -> None:
    for decision in (Decision(kind=kind), replace(FULL, kind=kind)):
        line = decision.to_line()
        assert "\n" not in line
        read = Decision.from_values(read_checked_line(line))
        assert read == decision
        assert isinstance(read.kind, Kind)


@given(mappings, mappings, st.text(), st.one_of(st.none(), st.floats(allow_nan=False)))
def test_any_values_are_read_back(values: dict[str, Any], attributes: dict[str, Any], reason: str, value: float | None) -> None:
    decision = Decision(kind=Kind.CONFIGURATION, values=values, attributes=attributes, reason=reason, value=value)
    assert from_text(decision.to_line() + "\n") == [decision]


def test_line_leaves_out_what_is_not_said() -> None:
    assert json.loads(Decision(kind=Kind.START).to_line()) == {"kind": "start", "elapsed_s": 0.0}
    assert json.loads(Decision(kind=Kind.TRIAL, seed=0, configuration=0, epoch=0).to_line()) == {
        "kind": "trial",
        "seed": 0,
        "configuration": 0,
        "epoch": 0,
        "elapsed_s": 0.0,
    }


@given(st.integers(0, 200))
def test_line_that_was_cut_off_is_left_out(position: int) -> None:
    lines = [Decision(kind=Kind.START).to_line(), FULL.to_line(), FULL.to_line()]
    text = "".join(line + "\n" for line in lines)[: len("".join(lines)) + 2 - position]
    decisions = from_text(text)
    assert len(decisions) == text.count("\n")
    assert decisions == [Decision(kind=Kind.START), FULL, FULL][: len(decisions)]


@pytest.mark.parametrize(
    "line", ["", "{", "[]", "3", '{"seed":1}', '{"kind":"nothing"}', '{"kind":"end","colour":1}', FULL.to_line()[:-1]]
)
def test_damaged_line_before_others_is_refused_by_its_number(line: str) -> None:
    with pytest.raises(ValueError, match="line 2 is damaged"):
        from_text(f"{FULL.to_line()}\n{line}\n{FULL.to_line()}\n")


def test_empty_text_has_no_decisions() -> None:
    assert from_text("") == []

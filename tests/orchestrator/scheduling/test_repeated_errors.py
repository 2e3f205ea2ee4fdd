"""The same error in two trials that have nothing in common is found, and no other."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.scheduling.queued_stage import QueuedStage, StageState
from orchestrator.scheduling.repeated_errors import RepeatedError, RepeatedErrors
from orchestrator.scheduling.retry_policy import POLICIES
from trainables.errors import FailureKind

AXES = {"a": {"x": 1, "seed": 0}, "b": {"x": 2, "seed": 0}, "c": {"x": 2, "seed": 1}, "d": {"x": 1, "seed": 1}}


def failed(
    key: str, message: str = "ValueError: boom", place: str = "net.py:3", kind: FailureKind = FailureKind.CODE
) -> QueuedStage:
    stage = QueuedStage(kind="trial", key=key, name=key.upper(), config={}, work=1, message=message, place=place)
    stage.state, stage.failure = StageState.FAILED, kind
    return stage


def first_of(*stages: QueuedStage, axes: dict[str, dict[str, Any]] = AXES) -> RepeatedError | None:
    errors = RepeatedErrors(values_of=axes.__getitem__)
    return next((found for stage in stages if (found := errors.add(stage)) is not None), None)


def test_two_trials_that_differ_on_every_axis() -> None:
    found = RepeatedError(kind="code", message="ValueError: boom", place="net.py:3", trials=("A", "C"))
    assert first_of(failed("a"), failed("c")) == found
    assert first_of(failed("a"), failed("b"), failed("c")) == found


@pytest.mark.parametrize("other", ["b", "d"])
def test_two_trials_with_a_common_value(other: str) -> None:
    assert first_of(failed("a"), failed(other)) is None


def test_numbers_in_the_text_do_not_matter() -> None:
    assert first_of(failed("a", "shape (3, 8) at 0x7fab12"), failed("c", "shape (12, 1) at 0x33"))
    assert not first_of(failed("a", "no shape"), failed("c", "no size"))


def test_another_place_or_kind_is_another_error() -> None:
    assert not first_of(failed("a"), failed("c", place="net.py:4"))
    assert not first_of(failed("a"), failed("c", kind=FailureKind.DATA))


def test_the_error_of_a_warmup_is_that_of_its_trials() -> None:
    found = first_of(failed("a", "its warm-up w-1f failed: boom"), failed("c", "its warm-up w-2e failed: boom"))
    assert found is not None
    assert found.message == "boom"


def test_with_a_single_axis_any_two_differ() -> None:
    assert first_of(failed("a"), failed("b"), axes={"a": {"x": 1}, "b": {"x": 2}})


@pytest.mark.parametrize("kind", FailureKind)
def test_only_errors_in_code_settings_and_data_pause(kind: FailureKind) -> None:
    pauses = kind in (FailureKind.CODE, FailureKind.DATA, FailureKind.CONFIG)
    assert POLICIES[kind].pauses == pauses
    assert bool(first_of(failed("a", kind=kind), failed("c", kind=kind))) == pauses

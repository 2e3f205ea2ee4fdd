"""The table of retry policies: one case for each row, and each kind in a row."""

from __future__ import annotations

import pytest

from orchestrator.scheduling.retry_policy import POLICIES, Action, Counter, RetryContext, decide
from trainables.errors import FailureKind

FRESH = RetryContext(max_worker_failures=2, can_use_whole_gpu=True, has_other_node=True)
AT_LIMIT = RetryContext(worker_failures=2, node_failures=99, hangs=1, max_worker_failures=2)

# Kind: what follows at first, after how long; what follows at the limit, recorded as which kind.
ROWS: dict[FailureKind, tuple[Action, float, Action, str]] = {
    FailureKind.CODE: (Action.FAIL, 0, Action.FAIL, "code"),
    FailureKind.NON_FINITE: (Action.FAIL, 0, Action.FAIL, "nonfinite"),
    FailureKind.DATA: (Action.FAIL, 0, Action.FAIL, "data"),
    FailureKind.CONFIG: (Action.FAIL, 0, Action.FAIL, "setting"),
    FailureKind.STOPPED: (Action.STOP, 0, Action.STOP, "stopped"),
    FailureKind.STALE_ATTEMPT: (Action.RETRY, 15, Action.RETRY, "superseded"),
    FailureKind.WORKER_LOST: (Action.RETRY, 1, Action.FAIL, "lost"),
    FailureKind.STORAGE: (Action.RETRY, 1, Action.FAIL, "storage"),
    FailureKind.NODE_LOST: (Action.RETRY, 1, Action.RETRY, "lost_node"),
    FailureKind.HANG: (Action.RETRY, 1, Action.FAIL, "hang"),
    FailureKind.OUT_OF_MEMORY: (Action.RETRY_ON_WHOLE_GPU, 1, Action.FAIL, "oom"),
    FailureKind.STORAGE_FULL: (Action.STOP_SWEEP, 0, Action.STOP_SWEEP, "full"),
    FailureKind.WRONG_NODE: (Action.RETRY_ON_OTHER_NODE, 1, Action.FAIL, "data"),
    FailureKind.MISSING_FILE: (Action.RETRY_ON_OTHER_NODE, 1, Action.FAIL, "setting"),
}


def test_every_kind_has_a_policy_and_a_row_here() -> None:
    assert set(POLICIES) == set(FailureKind) == set(ROWS)


@pytest.mark.parametrize("kind", FailureKind)
def test_decide_follows_the_table(kind: FailureKind) -> None:
    action, delay_s, action_at_limit, recorded = ROWS[kind]
    first, last = decide(kind, FRESH), decide(kind, AT_LIMIT)
    assert (first.action, first.delay_s, first.kind) == (action, delay_s, kind)
    assert (last.action, last.kind) == (action_at_limit, recorded)


@pytest.mark.parametrize("kind", [FailureKind.WORKER_LOST, FailureKind.STORAGE])
def test_worker_failures_are_counted_and_delay_longer_each_time(kind: FailureKind) -> None:
    decisions = [decide(kind, RetryContext(worker_failures=count, max_worker_failures=9)) for count in range(8)]
    assert [one.delay_s for one in decisions] == [1, 2, 5, 10, 30, 60, 60, 60]
    assert {one.counter for one in decisions} == {Counter.WORKER_FAILURES}


def test_node_failures_delay_by_a_separate_count() -> None:
    decision = decide(FailureKind.NODE_LOST, RetryContext(worker_failures=5, node_failures=2))
    assert (decision.delay_s, decision.counter) == (5, Counter.NODE_FAILURES)


def test_stored_texts_of_kinds_are_unchanged() -> None:
    texts = "code oom nonfinite data setting superseded misplaced unprovided stopped storage lost lost_node hang full"
    assert [kind.value for kind in FailureKind] == texts.split()

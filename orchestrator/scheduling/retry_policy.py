"""What follows when an attempt at a stage fails: a table from the kind of failure to a policy. Knows no Ray.

    kind                           what follows                  how often                               after
    code, nonfinite, data, setting failed                        -                                       -
    stopped                        stopped; `resume` continues   -                                       -
    superseded                     another try                   once no other sweep computes it         15 s
    full (storage)                 stopped, and so is the sweep  -                                       -
    lost (worker), storage         another try                   `retries.lost` times together           1, 2, 5, 10, 30, 60 s
    lost_node                      another try                   no limit                                1, 2, 5, 10, 30, 60 s
    oom                            another try on a whole GPU    once, if trials share GPUs              1 s
    misplaced                      another try on another node   no limit on a cluster; else "data"      1 s
    unprovided                     another try on another node   while one may have it; then "setting"   1 s
    hang                           another try, elsewhere if any once                                    1 s

Kinds are named as they are stored (FailureKind). The longer delays follow earlier failures of the same trial that the same
counter counts. tune_adapter.py says whether there is another node; a local Ray has none.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from orchestrator.back_off import BackOff
from trainables.errors import FailureKind

BACK_OFF = BackOff((1, 2, 5, 10, 30, 60))
SUPERSEDED_DELAY_S = 15.0  # until then the other sweep's state shows what it computes
MAX_HANGS = 1  # of a stage, after which it is tried again


class Action(Enum):
    """What follows a failure."""

    FAIL = "fail"
    STOP = "stop"
    STOP_SWEEP = "stop the sweep"
    RETRY = "retry"
    RETRY_ON_WHOLE_GPU = "retry on a whole GPU"
    RETRY_ON_OTHER_NODE = "retry on another node"


class Counter(Enum):
    """What a stage counts; a lost node is counted for the delay alone."""

    WORKER_FAILURES = "worker failures"
    NODE_FAILURES = "node failures"
    HANGS = "hangs"


@dataclass(frozen=True, kw_only=True, slots=True)
class RetryPolicy:
    """What follows one kind of failure.

    Attributes:
        counter: counts the failures and sets the delay; without one every retry waits the first delay.
        at_limit: the kind that is recorded when there is no other try; None keeps the kind itself.
        pauses: the same error in two trials with nothing in common pauses the sweep (repeated_errors.py). So it is with errors
            of the user's code, settings or data; not with what a value of an axis leads to, such as a loss that is no number,
            nor with lost processes.
    """

    action: Action
    counter: Counter | None = None
    back_off: BackOff = BACK_OFF
    at_limit: FailureKind | None = None
    pauses: bool = False


FAILED = RetryPolicy(action=Action.FAIL)
FAILED_FOR_ALL = RetryPolicy(action=Action.FAIL, pauses=True)
STOPPED = RetryPolicy(action=Action.STOP)
STOPS_SWEEP = RetryPolicy(action=Action.STOP_SWEEP)
WORKER_FAILURE = RetryPolicy(action=Action.RETRY, counter=Counter.WORKER_FAILURES)

POLICIES: dict[FailureKind, RetryPolicy] = {
    FailureKind.CODE: FAILED_FOR_ALL,
    FailureKind.NON_FINITE: FAILED,
    FailureKind.DATA: FAILED_FOR_ALL,
    FailureKind.CONFIG: FAILED_FOR_ALL,
    FailureKind.STOPPED: STOPPED,
    FailureKind.STALE_ATTEMPT: RetryPolicy(action=Action.RETRY, back_off=BackOff((SUPERSEDED_DELAY_S,))),
    FailureKind.WORKER_LOST: WORKER_FAILURE,
    FailureKind.STORAGE: WORKER_FAILURE,
    FailureKind.STORAGE_FULL: STOPS_SWEEP,
    FailureKind.HANG: RetryPolicy(action=Action.RETRY, counter=Counter.HANGS),
    FailureKind.NODE_LOST: RetryPolicy(action=Action.RETRY, counter=Counter.NODE_FAILURES),
    FailureKind.OUT_OF_MEMORY: RetryPolicy(action=Action.RETRY_ON_WHOLE_GPU),
    FailureKind.WRONG_NODE: RetryPolicy(action=Action.RETRY_ON_OTHER_NODE, at_limit=FailureKind.DATA),
    FailureKind.MISSING_FILE: RetryPolicy(action=Action.RETRY_ON_OTHER_NODE, at_limit=FailureKind.CONFIG),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class RetryContext:
    """What decides whether a stage may be tried again.

    Attributes:
        worker_failures, node_failures, hangs: earlier attempts that ended so.
        max_worker_failures: `retries.lost` of the sweep file.
        can_use_whole_gpu: trials share GPUs, and this one has not had a whole one yet.
        has_other_node: another node may have what this one lacks.
    """

    worker_failures: int = 0
    node_failures: int = 0
    hangs: int = 0
    max_worker_failures: int = 10
    can_use_whole_gpu: bool = False
    has_other_node: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """What to do with a stage; `kind` is recorded where the action is FAIL."""

    action: Action
    kind: FailureKind
    delay_s: float = 0.0
    counter: Counter | None = None


def decide(kind: FailureKind, context: RetryContext) -> Decision:
    """What follows a failure of this kind."""
    policy = POLICIES[kind]
    if policy.action in (Action.FAIL, Action.STOP, Action.STOP_SWEEP):
        return Decision(action=policy.action, kind=kind)
    if _is_at_limit(policy, context):
        return Decision(action=Action.FAIL, kind=policy.at_limit or kind)
    earlier = _count(policy.counter, context)
    return Decision(action=policy.action, kind=kind, delay_s=policy.back_off.delay_s(earlier + 1), counter=policy.counter)


def _is_at_limit(policy: RetryPolicy, context: RetryContext) -> bool:
    if policy.counter is Counter.WORKER_FAILURES:
        return context.worker_failures >= context.max_worker_failures
    if policy.counter is Counter.HANGS:
        return context.hangs >= MAX_HANGS
    if policy.action is Action.RETRY_ON_WHOLE_GPU:
        return not context.can_use_whole_gpu
    return policy.action is Action.RETRY_ON_OTHER_NODE and not context.has_other_node


def _count(counter: Counter | None, context: RetryContext) -> int:
    if counter is None:
        return 0
    counts = {
        Counter.WORKER_FAILURES: context.worker_failures,
        Counter.NODE_FAILURES: context.node_failures,
        Counter.HANGS: context.hangs,
    }
    return counts[counter]

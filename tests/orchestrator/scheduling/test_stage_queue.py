"""The queue of stages: order, blocked trials, retries. No Ray."""

from __future__ import annotations

import itertools
from typing import Any, ClassVar

import pytest

from orchestrator.scheduling.queued_stage import QueuedStage, StageState
from orchestrator.scheduling.stage_queue import StageQueue
from trainables.errors import FailureKind, StorageError


class Clock:
    """A clock that stands still until a test moves it."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def warmup(key: str, *lengths: int) -> QueuedStage:
    return QueuedStage(kind="warmup", key=key, name=f"warmup-{key}", config={}, work=10 * max(lengths), lengths=lengths)


def trial(key: str, warmup_key: str | None = None, length: int = 0, work: int = 1) -> QueuedStage:
    lengths = (length,) if length else ()
    return QueuedStage(kind="trial", key=key, name=key, config={}, work=work, warmup_key=warmup_key, lengths=lengths)


def queue_of(*stages: QueuedStage, **options: Any) -> StageQueue:
    """A queue whose clock jumps over every delay, unless another clock is given."""
    return StageQueue(
        warmups={stage.key: stage for stage in stages if stage.is_warmup},
        trials={stage.key: stage for stage in stages if not stage.is_warmup},
        **{"clock": itertools.count(step=1000).__next__} | options,
    )


def taken(queue: StageQueue) -> QueuedStage:
    """The next stage, which must be there."""
    stage = queue.next_stage()
    assert stage is not None
    return stage


def keys_ready(queue: StageQueue) -> list[str]:
    """Starts everything that may run now."""
    started = []
    while (stage := queue.next_stage()) is not None:
        started.append(stage.key)
    return started


def test_queue_starts_the_longest_warmup_then_the_longest_trial() -> None:
    queue = queue_of(warmup("a", 2), warmup("b", 8), trial("x", work=5), trial("y", work=9), trial("z", "a", 2, work=99))
    assert keys_ready(queue) == ["b", "a", "y", "x"]


def test_equal_stages_keep_the_order_of_the_plan_after_a_retry() -> None:
    names = [f"{index * 7919 % 100:02d}" for index in range(100)]  # in no order of their own
    queue = queue_of(*[trial(name) for name in names])
    queue.on_end(taken(queue), FailureKind.WORKER_LOST)
    assert keys_ready(queue) == names
    assert keys_ready(queue_of(warmup("b", 4), warmup("c", 4), warmup("a", 4))) == ["b", "c", "a"]


def test_trial_starts_when_its_snapshot_is_published() -> None:
    queue = queue_of(warmup("a", 1, 4), trial("short", "a", 1), trial("long", "a", 4))
    assert keys_ready(queue) == ["a"]
    queue.on_snapshot("a", 1)
    assert keys_ready(queue) == ["short"]
    queue.on_snapshot("a", 4)
    assert keys_ready(queue) == ["long"]


def test_nothing_begins_after_a_storage_was_full() -> None:
    queue = queue_of(warmup("a", 2), trial("x", "a", 2), trial("y"), trial("z"))
    running = [taken(queue), taken(queue)]
    queue.on_end(running[0], FailureKind.STORAGE_FULL, "no room")
    assert (running[0].state, running[0].message) == (StageState.STOPPED, "no room")
    assert (keys_ready(queue), queue.done) == ([], False)
    queue.on_end(running[1])
    assert (running[1].state, queue.done) == (StageState.FINISHED, True)
    assert {stage.state for stage in queue.trials.values()} == {StageState.WAITING, StageState.FINISHED}


def test_finished_warmup_releases_all_its_trials() -> None:
    queue = queue_of(warmup("a", 1, 4), trial("long", "a", 4))
    keys_ready(queue)
    queue.on_end(queue.warmups["a"])
    assert keys_ready(queue) == ["long"]


def automatic(key: str, most: int, *rules: str) -> QueuedStage:
    stage = warmup(key, 2, most)
    stage.rules = tuple({"rule": rule} for rule in rules)
    return stage


def test_trials_of_an_automatic_warmup_wait_until_it_has_chosen() -> None:
    stage = automatic("w", 8, "one")
    queue = queue_of(stage, trial("rewinds", "w", 2), trial("auto", "w", 8))
    taken(queue)
    assert [stage.published_after(epoch) for epoch in (1, 2, 8)] == [0, 2, 2]
    queue.on_snapshot("w", stage.published_after(8))
    assert keys_ready(queue) == ["rewinds"]
    queue.on_end(stage)
    assert keys_ready(queue) == ["auto"]


def test_warmup_runs_again_for_rules_that_joined_it_meanwhile() -> None:
    stage = automatic("w", 8, "one")
    queue = queue_of(stage, trial("first", "w", 8))
    taken(queue)
    queue.add(trial("second", "w", 8), automatic("w", 8, "one", "two"))
    queue.on_end(stage)
    assert (stage.state, stage.rules) == (StageState.WAITING, ({"rule": "one"}, {"rule": "two"}))
    assert keys_ready(queue)[0] == "w"
    queue.on_end(stage)
    assert stage.state is StageState.FINISHED
    queue.add(trial("third", "w", 8), automatic("w", 8, "two"))
    assert stage.state is StageState.FINISHED
    queue.add(trial("fourth", "w", 8), automatic("w", 8, "three"))
    assert stage.state.value == "waiting"


def test_failed_warmup_fails_the_trials_beyond_its_snapshot() -> None:
    queue = queue_of(warmup("a", 1, 4), trial("short", "a", 1), trial("long", "a", 4), trial("free"))
    keys_ready(queue)
    queue.on_snapshot("a", 1)
    queue.on_end(queue.warmups["a"], FailureKind.NON_FINITE, "the training loss became nan")
    assert (queue.trials["long"].state, queue.trials["long"].failure) == (StageState.FAILED, FailureKind.NON_FINITE)
    assert queue.trials["long"].message == "its warm-up warmup-a failed: the training loss became nan"
    assert keys_ready(queue) == ["short"]


def test_stopped_warmup_releases_its_trials() -> None:
    queue = queue_of(warmup("a", 4), trial("long", "a", 4))
    keys_ready(queue)
    queue.on_end(queue.warmups["a"], FailureKind.STOPPED)
    assert queue.warmups["a"].state is StageState.STOPPED
    assert keys_ready(queue) == ["long"]


def test_blocked_trials_are_released_when_nothing_runs() -> None:
    unpublished = warmup("a", 4)
    unpublished.state = StageState.FINISHED
    assert keys_ready(queue_of(unpublished, trial("long", "a", 4))) == ["long"]


def test_failed_trial_is_not_tried_again() -> None:
    queue = queue_of(trial("x"))
    queue.on_end(taken(queue), FailureKind.CODE, "why")
    stage = queue.trials["x"]
    assert (stage.state, stage.failure, stage.message) == (StageState.FAILED, FailureKind.CODE, "why")
    assert queue.done


@pytest.mark.parametrize("kind", [FailureKind.WORKER_LOST, FailureKind.STORAGE])
def test_lost_worker_is_retried_anew_up_to_the_limit(kind: FailureKind) -> None:
    queue = queue_of(trial("x"), max_worker_failures=2)
    attempts = []
    while (stage := queue.next_stage()) is not None:
        attempts.append(stage.attempt)
        queue.on_end(stage, kind, "why")
    assert attempts == [1, 2, 3]
    assert (queue.trials["x"].failure, queue.trials["x"].message) == (kind, "why")


def test_lost_nodes_are_counted_and_not_limited() -> None:
    queue = queue_of(trial("x"), max_worker_failures=0)
    for _ in range(25):
        queue.on_end(taken(queue), FailureKind.NODE_LOST)
    stage = queue.trials["x"]
    assert (stage.state, stage.node_failures, stage.worker_failures) == (StageState.WAITING, 25, 0)


def test_stage_on_a_wrong_node_is_retried_without_counting() -> None:
    queue = queue_of(trial("x"), max_worker_failures=0)
    for attempt in range(1, 20):
        stage = taken(queue)
        assert stage.attempt == attempt
        queue.on_end(stage, FailureKind.WRONG_NODE, "no folder '/data' on this machine", has_other_node=True)
        assert (stage.state, stage.worker_failures, stage.node_failures) == (StageState.WAITING, 0, 0)


def test_out_of_memory_is_retried_once_with_a_whole_gpu() -> None:
    queue = queue_of(trial("x"))
    stage = taken(queue)
    queue.on_end(stage, FailureKind.OUT_OF_MEMORY)
    assert queue.next_stage() is stage
    assert stage.whole_gpu
    queue.on_end(stage, FailureKind.OUT_OF_MEMORY, "still too large")
    assert (stage.state, stage.failure) == (StageState.FAILED, FailureKind.OUT_OF_MEMORY)


def test_out_of_memory_fails_at_once_without_shared_gpus() -> None:
    queue = queue_of(trial("x"), can_retry_on_whole_gpu=False)
    stage = taken(queue)
    queue.on_end(stage, FailureKind.OUT_OF_MEMORY, "too large")
    assert (stage.state, stage.failure, stage.message) == (StageState.FAILED, FailureKind.OUT_OF_MEMORY, "too large")
    assert not stage.whole_gpu
    assert queue.done


def test_back_off_delays_the_lost_stage_alone() -> None:
    clock = Clock()
    queue = queue_of(trial("x", work=2), trial("y", work=1), clock=clock)
    queue.on_end(taken(queue), FailureKind.WORKER_LOST)
    assert keys_ready(queue) == ["y"]
    assert not queue.done
    clock.now = 0.9
    assert keys_ready(queue) == []
    clock.now = 1.0
    assert keys_ready(queue) == ["x"]


def test_stopping_queue_is_done_when_its_last_stage_has_ended() -> None:
    """It dispatches nothing meanwhile."""
    queue = queue_of(trial("x"), trial("y"))
    stage = taken(queue)
    queue.stopping = True
    assert queue.next_stage() is None
    assert not queue.done
    queue.on_end(stage, FailureKind.STOPPED)
    assert queue.done


def test_on_change_gets_every_change_of_state() -> None:
    seen: list[tuple[str, str]] = []
    queue = queue_of(warmup("a", 2), trial("x", "a", 2))
    queue.on_change = lambda stage: seen.append((stage.key, stage.state))
    keys_ready(queue)
    assert seen == []
    queue.on_start(queue.warmups["a"])
    queue.on_end(queue.warmups["a"], FailureKind.CODE, "bug")
    assert seen == [("a", "running"), ("x", "failed"), ("a", "failed")]


def test_queue_pauses_after_the_storage_did_not_answer() -> None:
    answers: list[int | Exception] = [StorageError("storage s3://b: no answer"), StorageError("still none"), 2]

    def newest(key: str) -> int:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    clock = Clock()
    seen: list[tuple[str, str]] = []
    queue = queue_of(trial("x"), max_worker_failures=0, newest_attempt=newest, clock=clock)
    queue.on_change = lambda stage: seen.append((stage.state, stage.message))
    assert queue.next_stage() is None
    assert not queue.done
    assert seen == [("waiting", "storage s3://b: no answer")]
    clock.now = 0.9
    assert queue.next_stage() is None  # the storage is not asked again so soon
    assert len(answers) == 2
    clock.now = 1.0
    assert queue.next_stage() is None  # the second pause is longer
    clock.now = 2.9
    assert queue.next_stage() is None
    assert answers == [2]
    clock.now = 3.0
    stage = taken(queue)
    assert (stage.attempt, stage.message, stage.worker_failures) == (3, "", 0)


def test_requeued_stage_is_dispatched_as_if_for_the_first_time() -> None:
    queue = queue_of(trial("x", work=2), trial("y"), max_worker_failures=0)
    stage = taken(queue)
    queue.requeue(stage)
    assert not queue.done
    assert queue.next_stage() is stage
    assert (stage.attempt, stage.worker_failures, stage.not_before) == (1, 0, 0.0)
    queue.on_end(stage)
    assert keys_ready(queue) == ["y"]


class CountedStage(QueuedStage):
    """Counts every read of any stage, so that a look at all stages of a queue cannot hide."""

    reads: ClassVar[int] = 0

    def __getattribute__(self, name: str) -> Any:
        CountedStage.reads += 1
        return super().__getattribute__(name)


def reads_to_drain(trials: int) -> int:
    """Reads until a queue is empty of which half waits for warm-ups and every tenth trial is lost once."""
    stages = [CountedStage(**vars(warmup(f"t{index}", 2))) for index in range(trials // 50)]
    for index in range(trials):
        warmup_key = f"t{index // 2 % (trials // 50)}" if index % 2 else None
        stages.append(CountedStage(**vars(trial(f"{index}", warmup_key, 2 if warmup_key else 0, work=index % 7))))
    CountedStage.reads = 0
    queue = queue_of(*stages)
    finished = 0
    while not queue.done:
        stage = taken(queue)
        queue.on_start(stage)
        lost = stage.key.endswith("3") and stage.attempt == 1
        queue.on_end(stage, FailureKind.WORKER_LOST if lost else None)
        finished += not lost
    assert finished == len(stages)
    return CountedStage.reads


def test_step_costs_the_same_however_many_trials_there_are() -> None:
    """The heap compares ranks, O(log n) of them and none of them read here."""
    per_trial = reads_to_drain(100) / 100
    assert reads_to_drain(5_000) / 5_000 == pytest.approx(per_trial, rel=0.02)


def test_stage_of_another_sweep_waits_and_others_go_on() -> None:
    clock, elsewhere, changes = Clock(), {"w": "b", "x": "b"}, []
    queue = queue_of(
        warmup("w", 2),
        trial("needs-w", "w", 2),
        trial("x", work=9),
        trial("y"),
        clock=clock,
        computing_elsewhere=lambda key: elsewhere.get(key, ""),
        on_change=lambda stage: changes.append((stage.key, stage.state, stage.message)),
    )
    assert keys_ready(queue) == ["y"]
    assert changes == [(key, StageState.WAITING, "sweep 'b' computes it; waits for that") for key in ("w", "x")]
    queue.on_end(queue.trials["y"])
    elsewhere.clear()
    clock.now = 14
    assert keys_ready(queue) == []
    assert not queue.done
    clock.now = 15
    assert keys_ready(queue) == ["w", "x"]
    assert len(changes) == 3


def test_superseded_attempt_takes_up_what_the_other_sweep_left() -> None:
    clock, elsewhere = Clock(), {"x": "b"}
    queue = queue_of(trial("x"), clock=clock, newest_attempt=lambda key: 7)
    stage = taken(queue)
    queue.computing_elsewhere = lambda key: elsewhere.get(key, "")
    queue.on_end(stage, FailureKind.STALE_ATTEMPT, "attempt 9 has started")
    clock.now = 15
    assert (keys_ready(queue), stage.state) == ([], StageState.WAITING)
    elsewhere.clear()
    clock.now = 30
    assert (taken(queue), stage.attempt) == (stage, 9)

"""The queue of stages: order, gates, failures by kind. No Ray."""

from __future__ import annotations

import time
from typing import Any, ClassVar

import pytest

from orchestrator.scheduling import stage_queue as stages
from orchestrator.scheduling.stage_queue import QueuedStage, StageQueue
from trainables.errors import StorageError


def trunk(key: str, *lengths: int) -> QueuedStage:
    return QueuedStage(kind="trunk", key=key, name=f"trunk-{key}", config={}, work=10 * max(lengths), lengths=lengths)


def trial(key: str, warmup: str | None = None, length: int = 0, work: int = 1) -> QueuedStage:
    lengths = (length,) if length else ()
    return QueuedStage(kind="trial", key=key, name=key, config={}, work=work, warmup_key=warmup, lengths=lengths)


def queue_of(*entries: QueuedStage, **options: Any) -> StageQueue:
    return StageQueue(
        trunks={entry.key: entry for entry in entries if entry.kind == "trunk"},
        trials={entry.key: entry for entry in entries if entry.kind == "trial"},
        **options,
    )


def keys_ready(queue: StageQueue) -> list[str]:
    """Starts everything that may run now."""
    started = []
    while (entry := queue.next_entry()) is not None:
        started.append(entry.key)
    return started


@pytest.fixture(autouse=True)
def no_back_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "BACK_OFF_S", (0,))


def test_longest_trunk_first_then_the_longest_trial_that_needs_no_snapshot() -> None:
    queue = queue_of(trunk("a", 2), trunk("b", 8), trial("x", work=5), trial("y", work=9), trial("z", "a", 2, work=99))
    assert keys_ready(queue) == ["b", "a", "y", "x"]


def test_equal_ones_start_in_the_order_of_the_plan_and_keep_their_place_when_they_are_tried_again() -> None:
    names = [f"{index * 7919 % 100:02d}" for index in range(100)]  # in no order of their own
    queue = queue_of(*[trial(name) for name in names])
    first = queue.next_entry()
    assert first is not None
    queue.ended(first, "lost")
    assert keys_ready(queue) == names
    assert keys_ready(queue_of(trunk("b", 4), trunk("c", 4), trunk("a", 4))) == ["b", "c", "a"]


def test_a_stage_on_a_node_that_lacks_something_is_tried_again_and_nothing_is_counted() -> None:
    queue = queue_of(trial("x"), most_losses=0)
    for attempt in range(1, 20):
        entry = queue.next_entry()
        assert entry is not None
        assert entry.attempt == attempt
        queue.ended(entry, "misplaced", "no folder '/data' on this machine")
        assert (entry.state, entry.losses, entry.node_losses) == ("waiting", 0, 0)


def test_a_trial_starts_when_its_own_snapshot_has_landed() -> None:
    queue = queue_of(trunk("a", 1, 4), trial("short", "a", 1), trial("long", "a", 4))
    assert keys_ready(queue) == ["a"]
    queue.snapshot_landed("a", 1)
    assert keys_ready(queue) == ["short"]
    queue.snapshot_landed("a", 4)
    assert keys_ready(queue) == ["long"]


def test_a_finished_trunk_releases_all_its_trials() -> None:
    queue = queue_of(trunk("a", 1, 4), trial("long", "a", 4))
    keys_ready(queue)
    queue.ended(queue.trunks["a"], "finished")
    assert keys_ready(queue) == ["long"]


def test_a_failed_trunk_fails_only_the_trials_beyond_its_last_snapshot_at_once_and_with_its_message() -> None:
    queue = queue_of(trunk("a", 1, 4), trial("short", "a", 1), trial("long", "a", 4), trial("free"))
    keys_ready(queue)
    queue.snapshot_landed("a", 1)
    queue.ended(queue.trunks["a"], "nonfinite", "the training loss became nan")
    assert queue.trials["long"].state == "failed"
    assert "the training loss became nan" in queue.trials["long"].message
    assert keys_ready(queue) == ["short"]


def test_trials_are_let_go_when_nothing_runs_that_could_release_them() -> None:
    waiting_trunk = trunk("a", 4)
    waiting_trunk.state = "stopped"
    queue = queue_of(waiting_trunk, trial("long", "a", 4))
    assert keys_ready(queue) == ["long"]


@pytest.mark.parametrize("status", ["nonfinite", "data", "setting", "code"])
def test_failures_that_would_repeat_themselves_are_not_tried_again(status: str) -> None:
    queue = queue_of(trial("x"))
    keys_ready(queue)
    queue.ended(queue.trials["x"], status, "why")
    assert (queue.trials["x"].state, queue.trials["x"].failure) == ("failed", status)
    assert queue.done


@pytest.mark.parametrize("kind", ["lost", "storage"])
def test_a_lost_process_or_storage_is_tried_again_up_to_the_limit_with_a_new_attempt_each_time(kind: str) -> None:
    queue = queue_of(trial("x"), most_losses=2)
    attempts = []
    while (entry := queue.next_entry()) is not None:
        attempts.append(entry.attempt)
        queue.ended(entry, kind, "why")
    assert attempts == [1, 2, 3]
    assert (queue.trials["x"].failure, queue.trials["x"].message) == (kind, "why")


def test_a_lost_node_counts_against_nothing() -> None:
    queue = queue_of(trial("x"), most_losses=0)
    for _ in range(25):
        entry = queue.next_entry()
        assert entry is not None
        queue.ended(entry, "lost_node")
    assert queue.trials["x"].state == "waiting"


def test_out_of_memory_is_tried_once_more_with_a_whole_gpu() -> None:
    queue = queue_of(trial("x"))
    entry = queue.next_entry()
    assert entry is not None
    queue.ended(entry, "oom")
    assert queue.next_entry() is entry
    assert entry.whole_gpu
    queue.ended(entry, "oom", "still too large")
    assert (entry.state, entry.failure) == ("failed", "oom")


def test_out_of_memory_fails_at_once_where_a_whole_gpu_would_be_no_more() -> None:
    queue = queue_of(trial("x"), whole_gpu_helps=False)
    entry = queue.next_entry()
    assert entry is not None
    queue.ended(entry, "oom", "too large")
    assert (entry.state, entry.failure, entry.message) == ("failed", "oom", "too large")
    assert not entry.whole_gpu
    assert queue.done


def test_back_off_holds_a_lost_stage_but_not_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "BACK_OFF_S", (60,))
    queue = queue_of(trial("x", work=2), trial("y", work=1))
    entry = queue.next_entry()
    assert entry is not None
    queue.ended(entry, "lost")
    assert keys_ready(queue) == ["y"]
    assert not queue.done


def test_stopping_hands_out_nothing_and_is_done_when_the_last_stage_has_ended() -> None:
    queue = queue_of(trial("x"), trial("y"))
    entry = queue.next_entry()
    assert entry is not None
    queue.stopping = True
    assert queue.next_entry() is None
    assert not queue.done
    queue.ended(entry, "stopped")
    assert queue.done


def test_every_change_of_state_is_told() -> None:
    seen: list[tuple[str, str]] = []
    queue = queue_of(trunk("a", 2), trial("x", "a", 2))
    queue.on_change = lambda entry: seen.append((entry.key, entry.state))
    keys_ready(queue)
    assert seen == []
    queue.begun(queue.trunks["a"])
    queue.ended(queue.trunks["a"], "code", "bug")
    assert seen == [("a", "running"), ("x", "failed"), ("a", "failed")]


def test_nothing_is_handed_out_while_the_storage_does_not_tell_the_newest_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[int | Exception] = [StorageError("storage s3://b: no answer"), 2]

    def newest(key: str) -> int:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    seen: list[tuple[str, str]] = []
    queue = queue_of(trial("x"), most_losses=0, newest_attempt=newest)
    queue.on_change = lambda entry: seen.append((entry.state, entry.message))
    monkeypatch.setattr(stages, "BACK_OFF_S", (0.2,))
    assert queue.next_entry() is None
    assert not queue.done
    assert seen == [("waiting", "storage s3://b: no answer")]
    assert queue.next_entry() is None  # the storage is left in peace
    assert answers == [2]
    time.sleep(0.25)
    entry = queue.next_entry()
    assert entry is not None
    assert (entry.attempt, entry.message, entry.losses) == (3, "", 0)


def test_an_entry_that_no_worker_took_up_is_handed_out_as_if_for_the_first_time() -> None:
    queue = queue_of(trial("x", work=2), trial("y"), most_losses=0)
    entry = queue.next_entry()
    assert entry is not None
    queue.returned(entry)
    assert not queue.done
    assert queue.next_entry() is entry
    assert (entry.attempt, entry.losses, entry.not_before) == (1, 0, 0.0)
    queue.ended(entry, "finished")
    assert keys_ready(queue) == ["y"]


class CountedEntry(QueuedStage):
    """Counts how often anything is read of any entry, so that a look at every entry of a queue cannot hide."""

    reads: ClassVar[int] = 0

    def __getattribute__(self, name: str) -> Any:
        CountedEntry.reads += 1
        return super().__getattribute__(name)


def reads_to_drain(trials: int) -> int:
    """What is read until a queue is empty of which a half waits for trunks and every tenth trial is lost once."""
    entries = [CountedEntry(**vars(trunk(f"t{index}", 2))) for index in range(trials // 50)]
    for index in range(trials):
        warmup = f"t{index // 2 % (trials // 50)}" if index % 2 else None
        made = trial(f"{index}", warmup, 2 if warmup else 0, work=index % 7)
        entries.append(CountedEntry(**vars(made)))
    CountedEntry.reads = 0
    queue = queue_of(*entries)
    finished = 0
    while not queue.done:
        entry = queue.next_entry()
        assert entry is not None
        queue.begun(entry)
        lost = entry.key.endswith("3") and entry.attempt == 1
        queue.ended(entry, "lost" if lost else "finished")
        finished += not lost
    assert finished == len(entries)
    return CountedEntry.reads


def test_a_step_costs_the_same_however_many_trials_there_are() -> None:
    """The heap compares ranks, O(log n) of them and none of them read here."""
    per_trial = reads_to_drain(100) / 100
    assert reads_to_drain(5_000) / 5_000 == pytest.approx(per_trial, rel=0.02)

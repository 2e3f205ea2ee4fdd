"""Which failure of the other workers is that of the trial, and what it says of where it was."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from trainables.errors import FailureKind, OtherWorkerError
from trainables.records.failure_place import place_of, traceback_of
from trainables.runtime.device import Runtime
from trainables.worker.peers import LOST, Outcome, Part, _failure, _Watch

FINISHED: Outcome = {"status": "finished", "message": ""}
STOPPED: Outcome = {"status": "stopped", "message": "stopped in phase train after 3"}
CRASHED: Outcome = {
    "status": "code",
    "message": "KeyError: 3",
    "place": "net.py:7",
    "traceback": "Traceback ...\n",
    "node": "b",
}


@dataclass
class EndedPeers:
    """Workers that have ended so (Peers)."""

    outcomes: dict[int, Outcome]
    address: str = "10.0.0.1"
    ends: bool = False

    def begin(self, part: Part, *arguments: Any) -> None:
        raise AssertionError

    def poll(self, seconds: float) -> dict[int, Outcome]:
        return self.outcomes

    def working(self) -> bool:
        return False

    def end(self) -> None:
        assert self.ends


def test_a_worker_with_a_reason_is_named_rather_than_a_lost_one() -> None:
    failure = _failure(EndedPeers({1: LOST, 2: CRASHED | {"address": "10.0.0.2"}, 3: FINISHED}), 4)
    assert isinstance(failure, OtherWorkerError)
    assert (failure.kind, failure.node) == (FailureKind.CODE, "b")
    assert str(failure) == "worker 3 of 4 on 10.0.0.2: KeyError: 3"
    assert (place_of(failure), traceback_of(failure)) == ("net.py:7", "Traceback ...\n")


def test_the_message_leaves_out_the_address_of_the_first_workers_node() -> None:
    assert str(_failure(EndedPeers({1: CRASHED | {"address": "10.0.0.1"}}), 2)) == "worker 2 of 2: KeyError: 3"
    assert str(_failure(EndedPeers({1: LOST}), 2)) == "worker 2 of 2 was lost"
    assert _failure(EndedPeers({1: FINISHED}), 2) is None


def test_a_worker_that_has_stopped_has_not_failed() -> None:
    """The first one stops with it, when it has written the checkpoint."""
    assert _failure(EndedPeers({1: STOPPED}), 2) is None


def test_workers_that_cannot_be_watched_are_lost() -> None:
    """An outcome that nobody understands must not end the watch without a word."""
    watch = _Watch(EndedPeers({1: {"status": "no such kind", "message": ""}}, ends=True), Runtime(workers=2))
    assert "other workers cannot be watched: ValueError" in str(watch.explain())
    watch.finish()

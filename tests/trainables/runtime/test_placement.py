"""What follows from where the workers of a trial are."""

from __future__ import annotations

import pytest
from torch.distributed import HashStore  # type: ignore[attr-defined]

from trainables.runtime.placement import Place, backend_of, exchange_places, layout_of, place_of_process

A = Place(processor="a GPU", machine="a", gpu="0:1:0")
A2 = Place(processor="a GPU", machine="a", gpu="0:2:0")
B = Place(processor="a GPU", machine="b", gpu="0:1:0")
CPU = Place(processor="a CPU", machine="a")


@pytest.mark.parametrize(
    ("places", "backend", "layout"),
    [
        ([A, A2], "cpu:gloo,cuda:nccl", "2"),
        ([A, B], "cpu:gloo,cuda:nccl", "1+1"),  # the same address in two machines
        ([B, A, A2], "cpu:gloo,cuda:nccl", "1+2"),
        ([A, A], "gloo", "2 sharing GPUs"),
        ([A, A2, A], "gloo", "3 sharing GPUs"),
        ([CPU, CPU], "gloo", "2"),
    ],
)
def test_workers_connect_as_their_places_allow(places: list[Place], backend: str, layout: str) -> None:
    assert backend_of(places) == backend
    assert layout_of(places) == layout


def test_places_are_exchanged_by_rank() -> None:
    store = HashStore()
    store.set("place 1", '{"processor": "a GPU", "machine": "a", "gpu": "0:2:0"}')
    assert exchange_places(store, 0, 2, A, has_failed=lambda: False, seconds=5.0) == [A, A2]


@pytest.mark.parametrize(("has_failed", "seconds"), [(True, 60.0), (False, 0.0)])
def test_nobody_waits_for_a_worker_that_does_not_come(has_failed: bool, seconds: float) -> None:
    with pytest.raises(RuntimeError, match="not all workers of the trial have come"):
        exchange_places(HashStore(), 0, 2, A, has_failed=lambda: has_failed, seconds=seconds)


def test_processes_of_a_machine_say_the_same() -> None:
    assert place_of_process("a CPU") == place_of_process("a CPU")
    assert place_of_process("a CPU").machine
    assert place_of_process("a CPU").gpu == ""

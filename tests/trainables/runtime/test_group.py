"""What each worker computes of a batch, without other processes."""

from __future__ import annotations

import pytest
import torch

from trainables.errors import FailureKind, OtherWorkerError, WorkerLostError, kind_of
from trainables.runtime import group
from trainables.runtime.device import Runtime
from trainables.runtime.group import ALONE, Group, group_of


@pytest.mark.parametrize("workers", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 64])
def test_means_of_parts_add_up_to_the_mean_of_the_batch(workers: int, size: int) -> None:
    batch = torch.arange(size).double().square()
    groups = [Group(rank=rank, workers=workers) for rank in range(workers)]
    parts = [group.part(batch) for group in groups]
    if size >= workers:
        assert torch.equal(torch.cat(parts), batch)
    shares = [group.share(size) for group in groups]
    assert sum(shares) == pytest.approx(1)
    mean = sum(share * float(part.mean()) for share, part in zip(shares, parts, strict=True))
    assert mean == pytest.approx(float(batch.mean()))


def test_one_worker_needs_nobody() -> None:
    tensor = torch.ones(3)
    ALONE.sum_([tensor])
    ALONE.take_first_([tensor])
    assert tensor.tolist() == [1, 1, 1]
    assert (ALONE.of_first(lambda: 7), ALONE.of_all(7)) == (7, [7])
    ALONE.require_same("the masks", "digest")
    assert group_of(Runtime()) is ALONE
    with pytest.raises(AssertionError, match="no group of 2 workers"):
        group_of(Runtime(workers=2))


def test_failure_of_another_worker_keeps_its_kind() -> None:
    assert kind_of(OtherWorkerError(FailureKind.OUT_OF_MEMORY, "worker 2 of 2: no memory")) is FailureKind.OUT_OF_MEMORY
    assert kind_of(WorkerLostError("worker 2 of 2 was lost")) is FailureKind.WORKER_LOST


def test_what_is_summed_while_the_connection_ends_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch raises nothing then, and has summed nothing."""
    monkeypatch.setattr(group._Joined, "has_ended", True)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda tensor: None)
    with pytest.raises(WorkerLostError, match="another worker of the trial was lost"):
        Group(workers=2).total(torch.ones(()))

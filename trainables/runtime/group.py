"""The workers that train one trial together: what each computes of a batch, and how they combine it.

All workers run the same code in step. Each has the whole network and a part of every batch; gradients, losses and counts are
summed over them, and whatever one of them reads or decides comes from the first, which alone writes files. With one worker
everything here does nothing. PyTorch is imported late, as in device.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from threading import Lock
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from trainables.errors import FailureKind, TrialError, WorkerLostError, kind_of
from trainables.runtime.network_interface import use_interface_of
from trainables.runtime.placement import Place, backend_of, exchange_places, layout_of

if TYPE_CHECKING:
    from torch import Tensor

Value = TypeVar("Value")
WAIT = timedelta(hours=2)  # for another worker: the first may wait for a storage; hangs are found by whoever watches the trial
JOIN = timedelta(minutes=5)


def lost() -> TrialError:
    """What a worker raises that does not know why another one does not answer."""
    return WorkerLostError("another worker of the trial was lost")


@dataclass(frozen=True)
class Group:
    """The workers as one of them sees them.

    Attributes:
        rank: of this worker; 0 is the first.
        processors: their processors, each once.
        layout: how many of them each machine has; see `layout_of`.
        explain: what to raise when another worker does not answer any more.
    """

    rank: int = 0
    workers: int = 1
    processors: tuple[str, ...] = ()
    layout: str = "1"
    explain: Callable[[], TrialError] = lost

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def part(self, batch: Tensor) -> Tensor:
        """This worker's part of a batch, along its first dimension; all of it where there is less than one for each."""
        return batch if len(batch) < self.workers else batch.tensor_split(self.workers)[self.rank]

    def share(self, size: int) -> float:
        """What this worker's mean counts in the mean over a batch of that size; the shares of all workers add up to 1."""
        if size < self.workers:
            return 1 / self.workers
        return (size // self.workers + (self.rank < size % self.workers)) / size

    def sum_(self, tensors: Sequence[Tensor]) -> None:
        """Replaces tensors of one type and device by their sums over the workers, the same bits on each."""
        import torch

        if self.workers == 1 or not tensors:
            return
        flat = torch.cat([tensor.detach().flatten() for tensor in tensors])
        with self._explained():
            torch.distributed.all_reduce(flat)
        for tensor, summed in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.detach().copy_(summed.view(tensor.shape))

    def total(self, tensor: Tensor) -> Tensor:
        """The sum over the workers, on the CPU: of figures that somebody will read.

        On a GPU a sum that breaks off, since a worker was lost, leaves any numbers behind and raises nothing; on the CPU it
        raises, and only there has everything before it been computed, by all workers.
        """
        own = tensor.detach().cpu()
        self.sum_([own])
        return own

    def take_first_(self, tensors: Sequence[Tensor]) -> None:
        """Replaces tensors of one device by those of the first worker."""
        import torch

        for tensor in tensors if self.workers > 1 else ():
            content = tensor.detach().contiguous()
            bits = content.view(torch.uint8) if content.dtype is torch.bool else content
            with self._explained():
                torch.distributed.broadcast(bits, src=0)
            tensor.detach().copy_(content)

    def of_first(self, call: Callable[[], Value]) -> Value:
        """What the call returns on the first worker; the others do not call it."""
        if self.workers == 1:
            return call()
        import torch

        values: list[Any] = [call() if self.is_first else None]
        with self._explained():
            torch.distributed.broadcast_object_list(values, src=0, device=torch.device("cpu"))
        value: Value = values[0]
        return value

    def of_all(self, value: Value) -> list[Value]:
        """The values of all workers, by rank."""
        if self.workers == 1:
            return [value]
        import torch

        values: list[Any] = [None] * self.workers
        with self._explained():
            torch.distributed.all_gather_object(values, value)
        return values

    def require_same(self, what: str, digest: str) -> None:
        """Raises RuntimeError if a worker has another digest: from here on the trial would not be one trial."""
        digests = self.of_all(digest)
        if len(set(digests)) > 1:
            table = ", ".join(f"worker {rank + 1} {value[:12]}" for rank, value in enumerate(digests))
            raise RuntimeError(f"{what} must be the same on every worker, got {table}")

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turns the errors of a broken connection, or of one that was ended, into that of the worker that broke it."""
        import torch

        try:
            yield
        except (RuntimeError, ValueError) as error:  # ValueError: `leave` has ended it
            if isinstance(error, torch.AcceleratorError) or kind_of(error) is FailureKind.OUT_OF_MEMORY:
                raise  # of this worker's own device
            raise self.explain() from error
        if _Joined.has_ended:  # what is called meanwhile PyTorch keeps for later, and does nothing
            raise self.explain()


ALONE = Group()


class HasWorkers(Protocol):
    """A runtime."""

    @property
    def workers(self) -> int: ...


class _Joined:
    """The group that this process belongs to; its connection is ended by one thread at a time."""

    group: Group | None = None
    has_ended = False
    lock = Lock()


def group_of(runtime: HasWorkers) -> Group:
    """The group of a runtime: of one worker, or the one that this process has joined."""
    if runtime.workers == 1:
        return ALONE
    assert _Joined.group is not None, f"no group of {runtime.workers} workers was joined"
    return _Joined.group


def open_store(address: str, workers: int) -> Any:
    """The store at which the workers meet, in the process of the first."""
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    return TCPStore(address, 0, workers, is_master=True, timeout=JOIN, wait_for_workers=False)


@contextmanager
def joined(
    rank: int,
    workers: int,
    place: Place,
    address: str,
    store: Any,
    *,
    explain: Callable[[], TrialError] = lost,
    has_failed: Callable[[], bool] = lambda: False,
) -> Iterator[Group]:
    """Makes this process a worker of a group while the block runs.

    Args:
        place: of this worker.
        address: of the first worker's host.
        store: of `open_store`, or its port for the others.
        has_failed: whether another worker is known to have failed, and so will not come.

    Raises:
        ConfigError: the network interface that the user has chosen is not there.
        WorkerLostError: the others did not come.
    """
    import torch
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    use_interface_of(address)
    _Joined.has_ended = False
    try:
        if isinstance(store, int):
            store = TCPStore(address, store, workers, is_master=False, timeout=JOIN)
        places = exchange_places(store, rank, workers, place, has_failed=has_failed, seconds=JOIN.total_seconds())
        torch.distributed.init_process_group(backend_of(places), store=store, rank=rank, world_size=workers, timeout=WAIT)
    except RuntimeError as error:
        raise explain() from error
    try:
        processors = tuple(sorted({one.processor for one in places}))
        _Joined.group = Group(rank=rank, workers=workers, processors=processors, layout=layout_of(places), explain=explain)
        yield _Joined.group
    finally:
        _Joined.group = None
        leave()


def leave() -> None:
    """Ends this process's connection to the other workers, from any thread: what it or another one waits for breaks off.

    A shutdown in order would wait for all others, on a GPU for those too that wait for this worker because it has failed.
    """
    import torch
    from torch.distributed.distributed_c10d import _abort_process_group

    with _Joined.lock:
        if torch.distributed.is_initialized():
            _Joined.has_ended = True
            _abort_process_group()

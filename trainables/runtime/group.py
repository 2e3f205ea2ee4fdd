"""The workers that train one trial together: what each computes of a batch, and how they combine it.

All workers run the same code in step. Each has the whole network and a part of every batch; gradients, losses and counts are
summed over them, and whatever one of them reads or decides comes from the first, which alone writes files. With one worker
everything here does nothing. PyTorch is imported late, as in device.py.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from trainables.errors import ConfigError, TrialError, WorkerLostError

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
        explain: what to raise when another worker does not answer any more.
    """

    rank: int = 0
    workers: int = 1
    processors: tuple[str, ...] = ()
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
        """Turns the errors of a broken connection into that of the worker that broke it."""
        import torch

        try:
            yield
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise self.explain() from error


ALONE = Group()


class HasWorkers(Protocol):
    """A runtime."""

    @property
    def workers(self) -> int: ...


class _Joined:
    """The group that this process belongs to."""

    group: Group | None = None


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
    processor: str,
    address: str,
    store: Any,
    *,
    on_gpu: bool = False,
    explain: Callable[[], TrialError] = lost,
) -> Iterator[Group]:
    """Makes this process a worker of a group while the block runs.

    Args:
        processor: the name of this worker's.
        address: of the first worker's host.
        store: of `open_store`, or its port for the others.

    Raises:
        ConfigError: the network interface that the user has chosen is not there.
        WorkerLostError: the others did not come.
    """
    import torch
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    use_interface_of(address)
    backend = "cpu:gloo,cuda:nccl" if on_gpu else "gloo"  # objects travel by gloo, tensors of a GPU by NCCL
    try:
        if isinstance(store, int):
            store = TCPStore(address, store, workers, is_master=False, timeout=JOIN)
        torch.distributed.init_process_group(backend, store=store, rank=rank, world_size=workers, timeout=WAIT)
    except RuntimeError as error:
        raise explain() from error
    try:
        group = Group(rank=rank, workers=workers, explain=explain)
        processors = tuple(sorted(set(group.of_all(processor))))
        _Joined.group = replace(group, processors=processors)
        yield _Joined.group
    finally:
        _Joined.group = None
        torch.distributed.destroy_process_group()


def use_interface_of(address: str) -> None:
    """Has gloo and NCCL connect through the network interface with that address, or the one that routes to it.

    What the user has chosen stays.

    Raises:
        ConfigError: the user has chosen one that this host does not have, of which gloo would not tell the first worker.
    """
    own = _own_address_towards(address)
    interfaces = socket.if_nameindex()
    chosen, present = os.environ.get("GLOO_SOCKET_IFNAME", ""), [name for _, name in interfaces]
    if not set(filter(None, chosen.split(","))) <= set(present):
        raise ConfigError(
            f"GLOO_SOCKET_IFNAME must name network interfaces of this host, {', '.join(present)}, got {chosen}",
            "unset it: workers find the one that leads to the first of them",
        )
    for _, name in interfaces:
        if _address_of_interface(name) == own or (name == "lo" and own.startswith("127.")):
            os.environ.setdefault("GLOO_SOCKET_IFNAME", name)
            os.environ.setdefault("NCCL_SOCKET_IFNAME", name)
            return


def _own_address_towards(address: str) -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:  # sends nothing
        try:
            probe.connect((address, 9))
        except OSError:
            return address
        return str(probe.getsockname()[0])


def _address_of_interface(name: str) -> str:
    """Its IPv4 address; empty without one."""
    import fcntl

    request = struct.pack("256s", name.encode()[:15])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            answer = fcntl.ioctl(probe.fileno(), 0x8915, request)  # SIOCGIFADDR
        except OSError:
            return ""
    return socket.inet_ntoa(answer[20:24])

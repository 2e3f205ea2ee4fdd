"""Where the workers of a trial are, as they tell each other before they compute together: how they connect follows from it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from trainables.runtime.machine import machine_id

if TYPE_CHECKING:
    from torch.distributed import Store  # type: ignore[attr-defined]


POLL_S = 0.05


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a worker is.

    Attributes:
        processor: the name of its processor, or of its GPU.
        machine: differs between machines, not between their containers.
        gpu: its address on the bus of that machine; empty on a CPU.
    """

    processor: str
    machine: str = ""
    gpu: str = ""


def place_of_process(processor: str, *, on_gpu: bool = False) -> Place:
    """The place of this process, whose processor has that name."""
    return Place(processor=processor, machine=machine_id(), gpu=_bus_address() if on_gpu else "")


def exchange_places(
    store: Store, rank: int, workers: int, place: Place, *, has_failed: Callable[[], bool], seconds: float
) -> list[Place]:
    """The places of all workers, by rank.

    Raises:
        RuntimeError: a worker does not come for so long, or has failed.
    """
    store.set(f"place {rank}", json.dumps(asdict(place)))
    keys = [f"place {other}" for other in range(workers)]
    until = time.monotonic() + seconds
    while not store.check(keys):  # `get` would wait for a worker that has failed too
        if has_failed() or time.monotonic() > until:
            raise RuntimeError("not all workers of the trial have come")
        time.sleep(POLL_S)
    return [Place(**json.loads(store.get(key))) for key in keys]


def backend_of(places: Sequence[Place]) -> str:
    """The backend of torch.distributed: NCCL for tensors of GPUs, unless workers share one, which it refuses; else gloo."""
    gpus = {(place.machine, place.gpu) for place in places if place.gpu}
    return "cpu:gloo,cuda:nccl" if len(gpus) == len(places) else "gloo"


def layout_of(places: Sequence[Place]) -> str:
    """Workers on each machine by rank, such as "4" or "2+2"; on fewer GPUs than workers also that they share them."""
    counts = [len(list(same)) for _, same in groupby(place.machine for place in places)]
    shares = any(place.gpu for place in places) and backend_of(places) == "gloo"
    return "+".join(map(str, counts)) + (" sharing GPUs" if shares else "")


def _bus_address() -> str:
    import torch

    properties: Any = torch.cuda.get_device_properties()
    return f"{properties.pci_domain_id:x}:{properties.pci_bus_id:x}:{properties.pci_device_id:x}"

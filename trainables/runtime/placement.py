"""Where the workers of a trial are, as they tell each other before they compute together: how they connect follows from it."""

from __future__ import annotations

import json
import platform
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainables.runtime.machine import processor

if TYPE_CHECKING:
    from torch.distributed import Store  # type: ignore[attr-defined]

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")  # the same in all containers of a machine


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


def place_of_process(device: str) -> Place:
    """The place of this process."""
    machine = platform.node()
    with suppress(OSError):
        machine = BOOT_ID.read_text().strip()
    return Place(processor=processor(device), machine=machine, gpu=_bus_address() if device == "cuda" else "")


def exchange_places(store: Store, rank: int, workers: int, place: Place) -> list[Place]:
    """The places of all workers, by rank. Raises RuntimeError if a worker does not come."""
    store.set(f"place {rank}", json.dumps(asdict(place)))
    return [Place(**json.loads(store.get(f"place {other}"))) for other in range(workers)]


def backend_of(places: Sequence[Place]) -> str:
    """The backend of torch.distributed: NCCL for tensors of GPUs, unless workers share one, which it refuses; else gloo."""
    gpus = {(place.machine, place.gpu) for place in places if place.gpu}
    return "cpu:gloo,cuda:nccl" if len(gpus) == len(places) else "gloo"


def layout_of(places: Sequence[Place]) -> str:
    """Workers on each machine, the most first, such as "4" or "2+2"; on fewer GPUs than workers also that they share them."""
    counts = sorted(Counter(place.machine for place in places).values(), reverse=True)
    shares = any(place.gpu for place in places) and backend_of(places) == "gloo"
    return "+".join(map(str, counts)) + (" sharing GPUs" if shares else "")


def _bus_address() -> str:
    import torch

    properties: Any = torch.cuda.get_device_properties()
    return f"{properties.pci_domain_id:x}:{properties.pci_bus_id:x}:{properties.pci_device_id:x}"

"""Whether the driver of a sweep is alive, on whichever host."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from typing import Any

from orchestrator.state.driver_lease import LEASE_TTL_S


def this_driver() -> dict[str, Any]:
    """Identifies this process, so that others can see whether it is alive; the host's name is for people."""
    return {
        "host": socket.gethostname(),
        "process_table": _process_table(),
        "pid": os.getpid(),
        "pid_started": _pid_started(os.getpid()),
        "started": time.time(),
        "heartbeat": time.time(),
    }


def driver_alive(driver: dict[str, Any]) -> bool:
    """Whether a driver is alive: by its process if that can be seen from here, else by its heartbeat."""
    if not driver:
        return False
    local_table = _process_table()
    if local_table is not None and driver.get("process_table") == local_table:
        started = _pid_started(driver["pid"])
        return started is not None and started == driver["pid_started"]
    return time.time() - float(driver["heartbeat"]) < LEASE_TTL_S


def _process_table() -> str | None:
    """Identifies the boot of this machine and the namespace of its process ids; None if the system does not say.

    Host names do not suffice: two machines, or a container and its host, may share one.
    """
    try:
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return None


def _pid_started(pid: int) -> str | None:
    """Start time of a process in clock ticks since boot, since process ids are reused; None if it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]

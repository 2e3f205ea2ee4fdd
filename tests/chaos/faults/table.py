"""All faults, by family. A new one is an entry in a file here."""

from __future__ import annotations

from tests.chaos.faults.clock import CLOCKS
from tests.chaos.faults.damage import DAMAGED_FILES
from tests.chaos.faults.fault import Fault
from tests.chaos.faults.full_disk import FULL_DISKS
from tests.chaos.faults.modules import MODULES
from tests.chaos.faults.nodes import NODES
from tests.chaos.faults.outages import MLFLOW_OUTAGES, STORE_OUTAGES
from tests.chaos.faults.processes import PROCESSES

FAMILIES: dict[str, list[Fault]] = {
    "processes": PROCESSES,
    "MLflow server": MLFLOW_OUTAGES,
    "object store": STORE_OUTAGES,
    "files": DAMAGED_FILES,
    "disk": FULL_DISKS,
    "clock": CLOCKS,
    "nodes": NODES,
    "module": MODULES,
}
FAULTS = {fault.name: fault for family in FAMILIES.values() for fault in family}

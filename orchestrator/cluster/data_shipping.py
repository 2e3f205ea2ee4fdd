"""The decoded data set for nodes that have none, from the driver's node through Ray."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from orchestrator.planning.plan import Plan
from trainables.config.trial import TrialConfig
from trainables.custom.files import CustomFiles
from trainables.data import datasets
from trainables.data.staging import StagedDataset
from trainables.errors import DataError

MAX_FETCHED_BYTES = 256 << 20  # CIFAR decoded takes 176 MiB; larger sets would push other objects out of a node's object store


class DatasetServer:
    """An actor on the driver's node: the decoded data set as one object of Ray's store, made when it is first asked for."""

    def __init__(self, source: datasets.DatasetSource, config: TrialConfig, custom_files: CustomFiles) -> None:
        self.source, self.config, self.custom_files = source, config, custom_files
        self.references: list[Any] = []

    def decoded(self) -> list[Any]:
        """The reference, in a list, so that it is not resolved on the way. Raises DataError if the data set is not shipped."""
        if not self.references:
            self.custom_files.import_modules(self.config)
            side, too_large = self.config.dataset.side, "it is too large to be shipped through Ray"
            if side and len(datasets.files(self.source)) * 3 * side * side > MAX_FETCHED_BYTES:
                raise DataError(too_large)
            file = datasets.decoded_file(self.source)
            if file.stat().st_size > MAX_FETCHED_BYTES:
                raise DataError(too_large)
            self.references = [ray.put(file.read_bytes())]
        return self.references


@dataclass(frozen=True, kw_only=True)
class DatasetFetcher:
    """Brings the decoded data set to whoever calls it (`StagedDataset.fetch`)."""

    server: Any

    def __call__(self) -> bytes:
        try:
            return bytes(ray.get(ray.get(self.server.decoded.remote())[0]))
        except ray.exceptions.RayTaskError as error:
            raise DataError(str(error.cause)) from error
        except ray.exceptions.RayError as error:
            raise DataError(f"the driver's node could not ship it: {error}") from error


def planned_data(plan: Plan, local_ray: bool) -> StagedDataset:
    """The plan's data set for any node; on a cluster with a way to nodes that lack it."""
    source = plan.source
    streamed = source.name in datasets.STREAMED
    fetch = None
    if not (local_ray or streamed or source.name == "digits"):
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        actor = ray.remote(num_cpus=0, scheduling_strategy=here)(DatasetServer)
        fetch = DatasetFetcher(server=actor.remote(source, plan.trials[0].config, plan.custom_files))
    signature = None if streamed else datasets.signature(source)
    return StagedDataset(source=source, digest=plan.data_digest, signature=signature, fetch=fetch)
